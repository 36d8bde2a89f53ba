"""pause, resume, delete."""

from __future__ import annotations

from typing import Final

from wharfie.spi.errors import Conflict, DriverError, NotFound
from wharfie_runtime_native import pids
from wharfie_runtime_native.command.containers import ALIVE, record_of, status_of
from wharfie_runtime_native.command.engine import Kept
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.words import Command, Given, Option

_END_SECONDS: Final = 15.0


def _pause(session: Session, given: Given) -> None:
    """Freeze all processes of a container."""
    [name] = given.words
    with session.store.locked(name) as folder:
        record = record_of(folder)
        status = status_of(folder, record, locked=True)
        if status not in ("created", "running"):
            raise Conflict(f"container not running or created: {name} is {status}")
        Kept.find(session, folder, record).pause()


pause_command = Command(_pause)


def _resume(session: Session, given: Given) -> None:
    """Let a paused container go on."""
    [name] = given.words
    with session.store.locked(name) as folder:
        record = record_of(folder)
        status = status_of(folder, record, locked=True)
        if status != "paused":
            raise Conflict(f"container not paused: {name} is {status}")
        Kept.find(session, folder, record).resume()


resume_command = Command(_resume)


def _delete(session: Session, given: Given) -> None:
    """Remove what is left of a container."""
    [name] = given.words
    force = given.has("force")
    try:
        with session.store.locked(name) as folder:
            record = folder.record()
            if record is not None:
                status = status_of(folder, record, locked=True)
                if status in ALIVE and status != "created" and not force:
                    raise Conflict(f"cannot delete container {name} that is not stopped: {status}")
                Kept.find(session, folder, record).end()
                if not pids.await_end(record.pid, record.pid_start, _END_SECONDS):
                    raise DriverError(f"container {name} does not end: its first process {record.pid} is still there")
            elif not force:
                raise NotFound(f'container "{name}" does not exist')
            folder.remove()
    except NotFound:
        if not force:
            raise
    session.log.debug(f"{name} is deleted")


delete_command = Command(_delete, options=(Option(("f", "force"), "End it first; succeed where there is none."),))
