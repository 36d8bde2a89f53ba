"""kill."""

from __future__ import annotations

import signal as signals

from wharfie.spi.errors import Conflict, InvalidArgument
from wharfie_runtime_native import pids
from wharfie_runtime_native.command.containers import record_of, status_of
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.words import Command, Given, Option


def _kill(session: Session, given: Given) -> None:
    """Send a signal, by name or number, to a container's first process."""
    name, word = (*given.words, "SIGTERM")[:2]
    number = _number(word)
    # Without the lock: a signal has to arrive also while, say, a hook keeps another command waiting.
    with session.store.find(name) as folder:
        record = record_of(folder)
        if given.has("all"):
            from wharfie_runtime_native.command.engine import Kept  # engines kill the first process only

            if record.grouped:
                Kept.find(session, folder, record).signal_all(number)
        elif not pids.send(record.pid, record.pid_start, number):
            raise Conflict(f"container not running: {name} is {status_of(folder, record)}")


kill_command = Command(_kill, ("ID", "[SIGNAL]"), (Option(("a", "all"), "Signal every process of the container."),))


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
