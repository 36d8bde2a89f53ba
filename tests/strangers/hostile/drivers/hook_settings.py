"""A hook plugin with settings, which it can be told to dislike."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from wharfie.spi.hooks import Denial, hookimpl

HEARD = []


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")

    deny: str = ""
    fail: bool = False


class Plugin:
    settings = "hostile_drivers.hook_settings:Model"

    @hookimpl
    def configure(self, settings):
        HEARD.append(settings)
        if settings is not None and settings.fail:
            raise RuntimeError("no such server")

    @hookimpl
    def admit_image(self, reference, index, repository):
        settings = HEARD[-1]
        if settings is not None and settings.deny == reference:
            return Denial(reason=f"index {index!r}, repository {repository!r}")
        return None


PLUGIN = Plugin()
