"""What daemon.json may say about the volume driver."""

from pydantic import BaseModel, ConfigDict, Field


class AcmeSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    folder_mode: str = Field(default="0755", alias="folder-mode", pattern="^0?[0-7]{3}$")
