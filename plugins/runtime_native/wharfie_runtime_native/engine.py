"""The `native` engine: the parent's side, in the shim (contract: `wharfie.shim.engine`)."""

from __future__ import annotations

import os
import signal as signals
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from wharfie.shim.engine import Engine, Streams
from wharfie.spi.errors import Conflict
from wharfie_runtime_native import capabilities, channel, namespaces, plan, process, seccomp
from wharfie_runtime_native.cgroups import open_cgroup
from wharfie_runtime_native.constants import CLONE_NEWPID, PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE
from wharfie_runtime_native.exec import Exec
from wharfie_runtime_native.init import Init
from wharfie_runtime_native.plan import DEFAULT_PARENT, Plan
from wharfie_runtime_native.syscalls import prctl, setns, unshare

__all__ = ["CACHE_OPTION", "DEFAULT_PARENT", "NativeEngine"]

CACHE_OPTION: Final = "cache"
"""In `options`: a folder for compiled seccomp filters."""


class NativeEngine(Engine):
    """One container by system calls."""

    def __init__(self, id: str, bundle: Path, spec: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        super().__init__(id, bundle, spec, options)
        self._cgroup = open_cgroup(plan.cgroup_path(spec, id))
        cache = options.get(CACHE_OPTION)
        self._cache = Path(cache) if cache else None
        self._plan: Plan | None = None
        self._channel: socket.socket | None = None
        self._pidfd = -1

    def create(self, rootfs: Path, streams: Streams) -> int:
        wanted = plan.parse(self.spec)
        capabilities.check(wanted.process.capabilities, capabilities.held())
        self._cgroup.create()
        try:
            self._cgroup.apply({"devices": (), **(self._resources() or {})})
            init = Init(self.id, wanted, rootfs, streams, self._cgroup, self._cache)
            pid = self._make(wanted, init)
        except BaseException:
            self._cgroup.delete()
            raise
        self._plan = wanted
        return pid

    def _resources(self) -> Mapping[str, Any]:
        return (self.spec.get("linux") or {}).get("resources") or {}

    def _make(self, wanted: Plan, init: Init) -> int:
        """Fork the first process and go along with it until it is ready; its pid."""
        ours, theirs = channel.pair()
        pid = 0
        try:
            try:
                pid = self._fork(wanted, lambda: init.run(theirs))
            finally:
                theirs.close()
            if "user" in wanted.namespaces.new:
                pid = self._map_users(wanted, ours, pid)
            self._pidfd = os.pidfd_open(pid)
            channel.expect(ours, "ready")
        except BaseException:
            ours.close()
            if pid:
                _end(pid)
            self._forget()
            raise
        self._channel = ours
        return pid

    def _fork(self, wanted: Plan, child: Callable[[], NoReturn]) -> int:
        """Fork into the container's pid namespace: it is chosen for children by the parent, which is put back after."""
        prctl(PR_SET_DUMPABLE, 0)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        spaces = wanted.namespaces
        if "user" in spaces.new or not spaces.own("pid"):
            return _fork(child)
        if "pid" in spaces.joined:
            joined = namespaces.open_joined(namespaces.Namespaces(joined={"pid": spaces.joined["pid"]}))["pid"]
        else:
            joined = -1
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if joined >= 0:
                setns(joined, CLONE_NEWPID)
            else:
                unshare(CLONE_NEWPID)
            try:
                return _fork(child)
            finally:
                setns(own, CLONE_NEWPID)
        finally:
            os.close(own)
            if joined >= 0:
                os.close(joined)

    def _map_users(self, wanted: Plan, ours: socket.socket, helper: int) -> int:
        """Write the id maps of the helper's user namespace; the pid of the process that it leaves behind."""
        channel.expect(ours, "map")
        Path(f"/proc/{helper}/uid_map").write_bytes(wanted.uid_map)
        Path(f"/proc/{helper}/gid_map").write_bytes(wanted.gid_map)
        ours.send(b"m")
        pid = int(channel.expect(ours, "pid"))
        os.waitpid(helper, 0)
        ours.send(b"p")
        return pid

    def start(self) -> None:
        if self._channel is None:
            raise Conflict(f"container {self.id} is not in state created")
        ours, self._channel = self._channel, None
        with ours:
            ours.send(b"g")
            channel.receive(ours)

    def exec(self, process_spec: Mapping[str, Any], streams: Streams) -> int:
        if self._plan is None or self._pidfd < 0:
            raise Conflict(f"container {self.id} is not running")
        spec = process.parse(process_spec)
        capabilities.check(spec.capabilities, capabilities.held())
        spec = seccomp.with_filter(spec, self._plan.seccomp, self._cache)
        spaces = self._plan.namespaces
        flags = 0
        for name in (*spaces.new, *spaces.joined):
            flags |= namespaces.FLAGS[name]
        child = Exec(self.id, spec, streams, self._cgroup, self._pidfd, flags & ~CLONE_NEWPID)
        ours, theirs = channel.pair()
        with ours:
            try:
                pid = self._fork_beside(flags, lambda: child.run(theirs))
            finally:
                theirs.close()
            try:
                channel.receive(ours)
            except BaseException:
                _end(pid)
                raise
        return pid

    def _fork_beside(self, flags: int, child: Callable[[], NoReturn]) -> int:
        """Fork into the pid namespace of the container's first process."""
        prctl(PR_SET_DUMPABLE, 0)
        if not flags & CLONE_NEWPID:
            return _fork(child)
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                setns(self._pidfd, CLONE_NEWPID)
            except ProcessLookupError:
                raise Conflict(f"container {self.id} is not running") from None
            try:
                return _fork(child)
            finally:
                setns(own, CLONE_NEWPID)
        finally:
            os.close(own)

    def signal_all(self, signal: int) -> None:
        if signal == signals.SIGKILL:
            self._cgroup.kill()
            return
        for pid in self._cgroup.pids():
            try:
                os.kill(pid, signal)
            except ProcessLookupError:
                pass

    def pause(self) -> None:
        self._cgroup.freeze()

    def resume(self) -> None:
        self._cgroup.thaw()

    def update(self, resources: Mapping[str, Any]) -> None:
        self._cgroup.apply(resources)

    def stats(self) -> Mapping[str, Any]:
        return self._cgroup.stats()

    def pids(self) -> Sequence[int]:
        return self._cgroup.pids()

    def oom_fd(self) -> int:
        return self._cgroup.oom_fd()

    def oom_killed(self) -> bool:
        return self._cgroup.oom_kills() > 0

    def delete(self) -> None:
        self._forget()
        self._cgroup.delete()

    def _forget(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _fork(child: Callable[[], NoReturn]) -> int:
    pid = os.fork()
    if pid == 0:
        child()
    return pid


def _end(pid: int) -> None:
    """Kill and collect a process that failed on the way."""
    try:
        os.kill(pid, signals.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
