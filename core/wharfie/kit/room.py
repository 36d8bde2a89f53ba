"""A room for one rule: a process of its own, with root also network, mount, process and IPC namespaces of its own.

What a driver leaves there (mounts, interfaces, processes, a changed environment, a hung thread) ends with the room, a
driver that calls `os._exit` or is killed fails its rule and nothing else, and the machine's own interfaces and
firewall are never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pickle
import select
import signal
import socket
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from wharfie.kit.rules import NotOffered, NotTried, Violation
from wharfie.shim.system import MS_PRIVATE, MS_REC, mount, prctl, unshare

# include/uapi/linux: sched.h, prctl.h, sockios.h, if.h
CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1

Status = Literal["passed", "failed", "not offered", "not tried"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a rule."""

    status: Status
    message: str = ""
    detail: str = ""  # a traceback, when something unexpected was raised
    value: Any = None


def fork() -> int:
    """os.fork, without the warning that newer Pythons give a process with threads: what is forked here never touches a lock
    that such a thread may hold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def run_apart(work: Callable[[], Any], *, seconds: float, namespaces: bool) -> Outcome:
    """`work()` in a room, killed with everything it started after `seconds`. What it returns must be picklable."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    keeper = fork()
    if keeper == 0:
        os.close(reading)
        _leave(lambda: _keep(work, writing, namespaces=namespaces))
    os.close(writing)
    try:
        data = _read(reading, seconds)
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(keeper, signal.SIGKILL)
        os.waitpid(keeper, 0)
    if data is None:
        return Outcome(status="failed", message=f"did not come to an end within {seconds:g} seconds")
    if not data:
        return Outcome(status="failed", message="the driver ended its process")
    outcome: Outcome = pickle.loads(data)  # written by our own child
    return outcome


def _read(fd: int, seconds: float) -> bytes | None:
    end = time.monotonic() + seconds
    data = b""
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            return None
        piece = os.read(fd, 65536)
        if not piece:
            return data
        data += piece
        if len(data) >= 8 and len(data) == 8 + int.from_bytes(data[:8], "big"):
            return data[8:]


def _leave(work: Callable[[], object]) -> None:
    """Run `work` and end the process at once: this is a copy of somebody else's process, with its exit handlers."""
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - there is nobody above
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _keep(work: Callable[[], Any], writing: int, *, namespaces: bool) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if namespaces:
        unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWPID)
        mount("none", "/", "", MS_REC | MS_PRIVATE)
    first = fork()
    if first == 0:
        # The first process of a process namespace: with it all others end, however deep the driver has hidden them.
        _leave(lambda: _first(work, writing, namespaces=namespaces))
    os.close(writing)
    os.waitpid(first, 0)


def _first(work: Callable[[], Any], writing: int, *, namespaces: bool) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if namespaces:
        mount("proc", "/proc", "proc", 0)
        _loopback_up()
    else:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.setsid()
    worker = fork()
    if worker == 0:
        _leave(lambda: _work(work, writing))
    os.close(writing)
    while os.wait()[0] != worker:
        pass
    if not namespaces:
        os.killpg(0, signal.SIGKILL)


def _work(work: Callable[[], Any], writing: int) -> None:
    outcome: Outcome
    try:
        outcome = Outcome(status="passed", value=work())
    except Violation as violation:
        outcome = Outcome(status="failed", message=str(violation), detail=_cause(violation))
    except NotOffered as reason:
        outcome = Outcome(status="not offered", message=str(reason))
    except NotTried as reason:
        outcome = Outcome(status="not tried", message=str(reason))
    except BaseException as error:  # noqa: BLE001 - a driver may raise anything
        outcome = Outcome(status="failed", message=f"{type(error).__name__}: {error}", detail=traceback.format_exc())
    data = pickle.dumps(outcome)
    with open(writing, "wb") as pipe:
        pipe.write(len(data).to_bytes(8, "big") + data)


def _cause(violation: Violation) -> str:
    return "".join(traceback.format_exception(violation.__cause__)) if violation.__cause__ else ""


def _loopback_up() -> None:
    """netdevice(7): 16 bytes of name, 2 of flags, padding."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))
