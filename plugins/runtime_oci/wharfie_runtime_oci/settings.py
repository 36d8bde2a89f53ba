"""These drivers' part of daemon.json."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator


class OciSettings(BaseModel):
    """What Docker's key `runtimes` says of one name, or `"drivers": {"runtime.NAME": …}`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    path: Annotated[str, Field(min_length=1)] | None = None
    """The program: a name that is looked up in PATH, or an absolute path. None: the driver's own name."""
    runtime_args: Annotated[list[str], Field(alias="runtime-args")] = []
    """Words that go before every subcommand, for example "--debug"."""

    @field_validator("path")
    @classmethod
    def _name_or_absolute(cls, path: str | None) -> str | None:
        if path and "/" in path and not path.startswith("/"):
            raise ValueError("expected an absolute path, or a program's name")
        return path
