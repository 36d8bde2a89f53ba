"""This driver's part of daemon.json."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class MacvlanSettings(BaseModel):
    """`default-parent`: the parent of networks that name none; empty: they get one that leads nowhere."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    default_parent: Annotated[str, Field(alias="default-parent")] = ""
