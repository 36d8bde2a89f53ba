"""start."""

from __future__ import annotations

from wharfie.spi.errors import Conflict
from wharfie_runtime_native.command.containers import record_of, status_of
from wharfie_runtime_native.command.engine import Kept
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.words import Command, Given


def _start(session: Session, given: Given) -> None:
    """Execute a created container's program."""
    [name] = given.words
    with session.store.locked(name) as folder:
        record = record_of(folder)
        status = status_of(folder, record, locked=True)
        if status == "stopped":
            raise Conflict(f"cannot start a container that has stopped: {name}")
        if status != "created":
            raise Conflict(f"cannot start an already running container: {name} is {status}")
        Kept.find(session, folder, record).begin()
    session.log.debug(f"{name} is started")


start_command = Command(_start)
