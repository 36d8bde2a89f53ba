"""This driver's part of daemon.json."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class JournaldSettings(BaseModel):
    """`namespace`: of the journal (systemd-journald.service(8), "Journal namespaces"); empty: the host's own."""

    model_config = ConfigDict(extra="forbid")

    namespace: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$", max_length=100)] = ""
