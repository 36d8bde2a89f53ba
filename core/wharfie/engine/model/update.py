"""`POST /containers/{id}/update`: resources and restart policy of HostConfig, of which only what is sent changes."""

from __future__ import annotations

from wharfie.engine.model.host import HostConfig


class UpdateRequest(HostConfig):
    """`model_fields_set` says what was sent."""
