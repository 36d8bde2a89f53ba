"""Drivers with settings."""

from hostile_drivers.good import Good
from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")

    server: str
    retries: int = Field(default=3, ge=0)
    api_token: str = Field(default="0000", alias="api-token", max_length=8)


class Configured(Good):
    name = "settings"
    settings = "hostile_drivers.settings:Model"

    def __init__(self, context, settings):
        super().__init__(context, settings)
        self.given = settings

    def status(self):
        return [("server", self.given.server), ("retries", str(self.given.retries))]


class NoModel(Good):
    name = "nomodel"
    settings = "hostile_drivers.settings:Configured"
