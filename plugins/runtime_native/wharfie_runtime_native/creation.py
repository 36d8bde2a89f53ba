"""The parent's side of `create`: forking a container's first process (`init`), and doing for it what it cannot do."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native import channel, namespaces
from wharfie_runtime_native.constants import CLONE_NEWPID, PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE
from wharfie_runtime_native.container import Container
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.forks import end_child, fork, fork_elsewhere
from wharfie_runtime_native.init import Init
from wharfie_runtime_native.namespaces import Namespaces
from wharfie_runtime_native.process import set_limits
from wharfie_runtime_native.state import describe
from wharfie_runtime_native.syscalls import prctl, setns, unshare

if TYPE_CHECKING:
    from pathlib import Path

    from wharfie.shim.engine import Streams


class Creation(Container):
    """A container that is made here."""

    def create(self, rootfs: str | Path, streams: Streams) -> int:
        spaces = namespaces.parse((self.spec.get("linux") or {}).get("namespaces") or ())
        namespaces.spare_the_host(spaces)
        init = Init(self.id, self.bundle, self.spec, str(rootfs), streams, self._cgroup, self._cache, self.manner)
        self._cgroup.create()
        ours, theirs = channel.pair()
        pid, hooked = 0, False
        try:
            self._note_group()
            try:
                pid = self._fork(spaces, lambda: init.run(theirs))
            finally:
                theirs.close()
            while (step := channel.step(ours))[0] != "ready":
                hooked = hooked or step[0] == "hooks"
                pid = self._do(ours, pid, *step)
            self._channel = self._hand_over(ours, pid)
        except BaseException:
            ours.close()
            if pid:
                end_child(pid)
            self._cgroup.delete()
            if hooked:
                self._run_stop_hooks()
            raise
        self._pid = pid
        return pid

    def _note_group(self) -> None:
        """The control group is this container's own from now on."""

    def _hand_over(self, ours: socket.socket, pid: int) -> int:
        """What is left to do with a container that is ready; the descriptor on which the word to go will be given."""
        return ours.detach()

    def keep(self) -> Sequence[int]:
        return (self._channel,)

    def _fork(self, spaces: Namespaces, child: Callable[[], NoReturn]) -> int:
        """Fork into the container's pid namespace."""
        prctl(PR_SET_DUMPABLE, 0)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        path = spaces.joined.get("pid")
        if not spaces.own("pid") or (path is None and spaces.own("user")):  # then the child makes it, in its user namespace
            return fork(child, self._cgroup)
        if path is None:
            return fork_elsewhere(child, self._cgroup, lambda: unshare(CLONE_NEWPID))
        joined = namespaces.open_namespace("pid", path)
        try:
            return fork_elsewhere(child, self._cgroup, lambda: setns(joined, CLONE_NEWPID))
        finally:
            os.close(joined)

    def _do(self, ours: socket.socket, pid: int, step: str, value: Any) -> int:
        """What the first process cannot do itself, or asks for, on its way; its pid, which may be another from here on."""
        match step:
            case "map":
                for name, text in value.items():
                    _write_for(pid, name, text, "the id mappings")
            case "pid":
                os.waitpid(pid, 0)
                pid = int(value)
            case "offsets":
                _write_for(pid, "timens_offsets", value, "linux.timeOffsets")
            case "limits":
                set_limits(value, pid)
            case "hooks":
                self._run_create_hooks(ours, pid)
        ours.send(b"d")
        return pid

    def _run_create_hooks(self, ours: socket.socket, pid: int) -> None:
        from wharfie_runtime_native import hooks

        given = hooks.parse(self.spec["hooks"])
        channel.limit(ours, hooks.allowance(given, "createContainer"))
        state = describe(self.spec, self.id, self.bundle, "creating", pid)
        for kind in ("prestart", "createRuntime"):
            hooks.run(given, kind, state, folder=self.bundle)


def _write_for(pid: int, name: str, text: str, what: str) -> None:
    """Write a file of /proc/<pid> that its own process may not."""
    try:
        with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise InvalidArgument(f"the kernel refuses {what} {text.split()}: {reason(error)}") from error
