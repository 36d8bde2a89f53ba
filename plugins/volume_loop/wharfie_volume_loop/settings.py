"""This driver's part of daemon.json."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from wharfie_volume_loop import sizes


def _size(text: str) -> str:
    sizes.parse(text)
    return text


class LoopSettings(BaseModel):
    """`default-size`: of volumes that are made without the option `size`."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    default_size: Annotated[str, AfterValidator(_size), Field(alias="default-size")] = "1g"
