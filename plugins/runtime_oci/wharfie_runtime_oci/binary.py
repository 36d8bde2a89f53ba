"""One run of an OCI binary: its command line, its streams, its deadline, and what it says when it fails.

The binary is started by fork and execve in the shim, which is the subreaper of all that it leaves behind. Standard
`subprocess` would cost every shim more memory than all of this plugin.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from wharfie.shim.signals import default_signals
from wharfie.shim.system import CLONE_NEWNS, MNT_DETACH, MS_PRIVATE, PR_SET_PDEATHSIG, mount, prctl, umount2, unshare
from wharfie.spi.errors import Unavailable

_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_CGROUPS: Final = "/sys/fs/cgroup"
_V2_TREE: Final = "/sys/fs/cgroup/unified"
_ERROR_LEVELS: Final = ("error", "fatal", "panic")
_SILENT: Final = "it ended with status {} and said nothing"
_LAST_FD: Final = 1 << 20
_BURY_SECONDS: Final = 0.02


class Failed(Exception):
    """The binary ended with another status than 0. `text`: its last error."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """An OCI runtime's program. `root`: its own state folder. `folder`: one container's, where it runs and logs."""

    program: str
    arguments: tuple[str, ...]
    root: Path
    folder: Path
    refuses_hybrid: bool

    def run(
        self,
        *words: str,
        seconds: float,
        stdio: tuple[int, int, int] | None = None,
        keep: Set[int] | None = None,
    ) -> None:
        """Run a subcommand to its end. `stdio`: descriptors that the container's process inherits from it. `keep`: bury
        every other child of the shim meanwhile, for a binary that waits until they are gone.

        Errors: Failed; Unavailable (no end within `seconds`: it is killed).
        """
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        own = ("--root", str(self.root), "--log", str(log), "--log-format", "json")
        command = (self.program, *self.arguments, *own, *words)
        parent, pid = os.getpid(), os.fork()
        if pid == 0:
            self._become(command, log, stdio, parent)
        status = _wait(pid, seconds, keep)
        if status is None:
            raise Unavailable(f"{self.program} {words[0]} did not end within {seconds:.0f} s and was killed")
        if status != 0:
            raise Failed(_last_error(log) or f"{self.program} {words[0]}: {_SILENT.format(status)}")

    def _become(self, command: tuple[str, ...], log: Path, stdio: tuple[int, int, int] | None, parent: int) -> NoReturn:
        """In the forked child."""
        try:
            # A binary that outlived its killed parent would go on making what has been cleaned up after meanwhile.
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(127)
            default_signals()
            if self.refuses_hybrid and Path(_V2_TREE, "cgroup.controllers").exists():
                _hide_v2_tree()
            if stdio is None:
                said = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
                stdio = (os.open("/dev/null", os.O_RDWR), said, said)
            for own, fd in enumerate(stdio):
                os.dup2(fd, own)
            os.closerange(3, _LAST_FD)
            os.chdir(self.folder)
            os.execve(self.program, command, _ENVIRONMENT)
        except BaseException as error:  # noqa: BLE001  # nothing may return into the shim's loop
            _note(log, f"{self.program} cannot be executed: {error}")
        finally:
            os._exit(127)


def _hide_v2_tree() -> None:
    """Take the cgroup2 out of sight, for this process and the container that it makes alone.

    The version 1 controllers are what counts on such a host. The mount above is made private first: the unmounting would
    otherwise reach the host.
    """
    unshare(CLONE_NEWNS)
    mount("none", _CGROUPS, "", MS_PRIVATE)
    umount2(_V2_TREE, MNT_DETACH)


def _wait(pid: int, seconds: float, keep: Set[int] | None) -> int | None:
    """The status of a child, or None when it had to be killed."""
    end = time.monotonic() + seconds
    fd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while not (ended := bool(poll.poll((seconds if keep is None else _BURY_SECONDS) * 1000))):
            if keep is not None:
                _bury(keep | {pid})
            if time.monotonic() >= end:
                break
    finally:
        os.close(fd)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if ended else None


def _bury(keep: Set[int]) -> None:
    """Collect the children that have ended, but for these, whose ends the shim wants to see itself."""
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as children:
        for child in map(int, children.read().split()):
            if child not in keep:
                os.waitpid(child, os.WNOHANG)


def _last_error(log: Path) -> str:
    """The last error of a log: JSON lines as runc writes them, or, of a binary that got no further, plain text."""
    found = plain = ""
    try:
        text = log.read_text("utf-8", "replace")
    except FileNotFoundError:
        return ""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            if entry.get("level") in _ERROR_LEVELS:
                found = str(entry.get("msg", ""))
        elif line.strip():
            plain = line.strip()
    return found or plain


def _note(log: Path, text: str) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, json.dumps({"level": "error", "msg": text}).encode() + b"\n")
