"""A child of the shim that works on a checkpoint, and what it says when it fails."""

from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from wharfie.shim.signals import default_signals
from wharfie.spi.errors import WharfieError
from wharfie_runtime_native import errors, process
from wharfie_runtime_native.constants import PR_SET_PDEATHSIG
from wharfie_runtime_native.syscalls import close_range, prctl

_REPORT: Final = "checkpoint.json"


def prepare(parent: int, keep: int) -> None:
    """Shed what a forked child has of its shim, whose pid is `parent`: signals, session, all descriptors but `keep`."""
    gc.disable()  # an object of the shim that is collected here would close a number that is somebody else's by now
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    default_signals()
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    process.redirect(null, null, null)
    # A client's connection that stayed open here would not end for the client when the shim closes it.
    if keep > 3:
        close_range(3, keep - 1, 0)
    close_range(keep + 1, 0xFFFFFFFF, 0)
    if os.getppid() != parent:  # it died before the death signal was asked for
        os._exit(1)


def begin(folder: Path) -> int:
    """In the shim, before the fork: a descriptor for the report in `folder`, which is emptied."""
    return os.open(folder / _REPORT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)


def work(parent: int, report: int, task: Callable[[], None]) -> NoReturn:
    """In the child: `prepare`, then `task`, whose failure is written to the descriptor `report`."""
    try:
        prepare(parent, report)
        task()
    except BaseException as error:  # noqa: BLE001  # whatever it is, the shim has to hear of it
        os.write(report, errors.encode(error))
        os._exit(1)
    finally:
        os._exit(0)


def failure(folder: Path) -> WharfieError | None:
    """What the last worker wrote; None when it said nothing."""
    try:
        message = json.loads((folder / _REPORT).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return errors.decode(message["error"], message["message"])
