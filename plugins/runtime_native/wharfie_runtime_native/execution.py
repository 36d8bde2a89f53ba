"""The parent's side of `exec`: forking a further process (`exec`) into a container that is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from wharfie.spi.errors import Conflict
from wharfie_runtime_native import channel, namespaces
from wharfie_runtime_native.constants import CLONE_NEWPID, PR_SET_DUMPABLE
from wharfie_runtime_native.container import Container
from wharfie_runtime_native.exec import Exec
from wharfie_runtime_native.forks import end_child, fork, fork_elsewhere
from wharfie_runtime_native.syscalls import prctl, setns

if TYPE_CHECKING:
    from wharfie.shim.engine import Streams


class Execution(Container):
    """A container that gets further processes."""

    def exec(self, process: Mapping[str, Any], streams: Streams) -> int:
        if not self._pid:
            raise Conflict(f"container {self.id} is not running")
        linux = self.spec.get("linux") or {}
        spaces = namespaces.parse(linux.get("namespaces") or ()).all_flags()
        try:
            pidfd = os.pidfd_open(self._pid)
        except ProcessLookupError:
            raise Conflict(f"container {self.id} is not running") from None
        try:
            spaces_of_child = spaces & ~CLONE_NEWPID
            child = Exec(self.id, process, linux, streams, self._cgroup, self._cache, pidfd, spaces_of_child, self.manner)
            ours, theirs = channel.pair()
            with ours:
                try:
                    pid = self._fork_beside(lambda: child.run(theirs), pidfd, spaces)
                finally:
                    theirs.close()
                try:
                    self._await_execve(ours.fileno(), pid)
                except BaseException:
                    end_child(pid)
                    raise
        finally:
            os.close(pidfd)
        return pid

    def _fork_beside(self, child: Callable[[], NoReturn], pidfd: int, spaces: int) -> int:
        """Fork into the pid namespace of the container's first process."""
        prctl(PR_SET_DUMPABLE, 0)
        if not spaces & CLONE_NEWPID:
            return fork(child, self._cgroup)
        try:
            return fork_elsewhere(child, self._cgroup, lambda: setns(pidfd, CLONE_NEWPID))
        except ProcessLookupError:
            raise Conflict(f"container {self.id} is not running") from None
