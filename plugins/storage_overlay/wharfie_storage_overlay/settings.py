"""What daemon.json may say to this driver (`storage-opts`: `overlay2.sync=false`)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, field_validator


class OverlaySettings(BaseModel):
    """`sync`: a layer's files are on the disk before the layer can be used, so that a power cut leaves no layer with empty
    files. Without it unpacking does not wait for the disk; after a power cut, remove and pull the images again.

    `size`: Docker's limit for each container; refused, for it needs project quotas, which this driver does not set up.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sync: bool = True
    size: str = ""

    @field_validator("size")
    @classmethod
    def _no_size(cls, value: str) -> str:
        if value:
            raise ValueError(
                "overlay2.size is not supported by this driver: it sets up no project quotas; remove the option"
            )
        return value
