"""kill, pause, resume, delete."""

from __future__ import annotations

import signal as signals
from typing import Final

import click

from wharfie.spi.errors import Conflict, DriverError, InvalidArgument, NotFound
from wharfie_runtime_native import pids
from wharfie_runtime_native.command.containers import ALIVE, record_of, status_of
from wharfie_runtime_native.command.engine import found
from wharfie_runtime_native.command.session import Session

_END_SECONDS: Final = 15.0


@click.command("kill")
@click.option("-a", "--all", "everyone", is_flag=True, help="Signal every process of the container.")
@click.argument("id")
@click.argument("signal", default="SIGTERM")
@click.pass_obj
def kill_command(session: Session, id: str, signal: str, everyone: bool) -> None:
    """Send a signal, by name or number, to a container's first process."""
    number = _number(signal)
    # Without the lock: a signal has to arrive also while, say, a hook keeps another command waiting.
    folder = session.store.find(id)
    try:
        record = record_of(folder)
        if everyone:
            engine = found(session, folder, record)
            if record.grouped:
                engine.signal_all(number)
        elif not pids.send(record.pid, record.pid_start, number):
            raise Conflict(f"container not running: {id} is {status_of(folder, record)}")
    finally:
        folder.close()


def _number(text: str) -> int:
    """Errors: InvalidArgument."""
    if text.isascii() and text.isdigit() and len(text) < 10:  # Python converts no text of thousands of digits
        number = int(text)
        if 0 < number < signals.NSIG:
            return number
    else:
        name = text.upper()
        if name.startswith(("SIGRTM", "RTM")):
            number = _real_time(name.removeprefix("SIG"))
            if number:
                return number
        found = signals.Signals.__members__.get(name if name.startswith("SIG") else f"SIG{name}")
        if found is not None:
            return int(found)
    raise InvalidArgument(f'unknown signal "{text}"')


def _real_time(name: str) -> int:
    """RTMIN, RTMIN+3, RTMAX-2; 0 for anything else."""
    base = {"RTMIN": signals.SIGRTMIN, "RTMAX": signals.SIGRTMAX}.get(name[:5])
    rest = name[5:]
    if base is None or (rest and not (rest[0] in "+-" and rest[1:].isdigit())):
        return 0
    number = int(base) + int(rest or 0)
    return number if signals.SIGRTMIN <= number <= signals.SIGRTMAX else 0


@click.command("pause")
@click.argument("id")
@click.pass_obj
def pause_command(session: Session, id: str) -> None:
    """Freeze all processes of a container."""
    with session.store.locked(id) as folder:
        record = record_of(folder)
        status = status_of(folder, record, locked=True)
        if status not in ("created", "running"):
            raise Conflict(f"container not running or created: {id} is {status}")
        found(session, folder, record).pause()


@click.command("resume")
@click.argument("id")
@click.pass_obj
def resume_command(session: Session, id: str) -> None:
    """Let a paused container go on."""
    with session.store.locked(id) as folder:
        record = record_of(folder)
        status = status_of(folder, record, locked=True)
        if status != "paused":
            raise Conflict(f"container not paused: {id} is {status}")
        found(session, folder, record).resume()


@click.command("delete")
@click.option("-f", "--force", is_flag=True, help="End it first; succeed where there is none.")
@click.argument("id")
@click.pass_obj
def delete_command(session: Session, id: str, force: bool) -> None:
    """Remove what is left of a container."""
    try:
        with session.store.locked(id) as folder:
            record = folder.record()
            if record is not None:
                status = status_of(folder, record, locked=True)
                if status in ALIVE and status != "created" and not force:
                    raise Conflict(f"cannot delete container {id} that is not stopped: {status}")
                found(session, folder, record).end()
                if not pids.await_end(record.pid, record.pid_start, _END_SECONDS):
                    raise DriverError(f"container {id} does not end: its first process {record.pid} is still there")
            elif not force:
                raise NotFound(f'container "{id}" does not exist')
            folder.remove()
    except NotFound:
        if not force:
            raise
    session.log.debug(f"{id} is deleted")
