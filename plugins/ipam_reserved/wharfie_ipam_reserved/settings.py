"""This driver's part of daemon.json."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ReservedSettings(BaseModel):
    """`file`: of networks that name none by `--ipam-opt file=…`; empty: they have to."""

    model_config = ConfigDict(extra="forbid")

    file: str = ""
