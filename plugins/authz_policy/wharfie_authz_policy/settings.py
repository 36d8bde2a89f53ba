"""This driver's part of daemon.json."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, field_validator


class PolicySettings(BaseModel):
    """`file`: the rules, TOML or (by its suffix .json) JSON."""

    model_config = ConfigDict(extra="forbid")

    file: Path = Path("/etc/wharfie/policy.toml")

    @field_validator("file")
    @classmethod
    def _absolute(cls, file: Path) -> Path:
        if not file.is_absolute():
            raise ValueError(f"{file} is not an absolute path")
        return file
