"""The `native` engine: the parent's side, in the shim (contract: `wharfie.shim.engine`)."""

from __future__ import annotations

import os
import signal as signals
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn

from wharfie.shim.cgroups import path_of, warm
from wharfie.shim.engine import Engine, Streams
from wharfie.spi.errors import Conflict, DriverError, InvalidArgument
from wharfie_runtime_native import cgroups, channel, namespaces
from wharfie_runtime_native.cgroups.base import Cgroup
from wharfie_runtime_native.constants import CLONE_NEWPID, PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.exec import Exec
from wharfie_runtime_native.init import Init
from wharfie_runtime_native.manner import Manner
from wharfie_runtime_native.namespaces import Namespaces
from wharfie_runtime_native.process import set_limits
from wharfie_runtime_native.state import describe
from wharfie_runtime_native.syscalls import clone3_into_cgroup, prctl, setns, unshare

__all__ = ["CACHE_OPTION", "NativeEngine"]

CACHE_OPTION: Final = "cache"
"""In `options`: a folder for compiled seccomp filters."""


class NativeEngine(Engine):
    """One container by system calls."""

    manner = Manner()

    def __init__(self, id: str, bundle: str, spec: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        super().__init__(id, bundle, spec, options)
        self._channel = -1
        self._pid = 0
        self._stopped = False

    @property
    def _cache(self) -> Path | None:
        cache = self.options.get(CACHE_OPTION)
        return Path(cache) if cache else None

    @cached_property
    def _cgroup(self) -> Cgroup:
        return cgroups.open_cgroup(path_of(self.spec, self.id))

    @cached_property
    def _namespaces(self) -> Namespaces:
        return namespaces.parse((self.spec.get("linux") or {}).get("namespaces") or ())

    def create(self, rootfs: Path, streams: Streams) -> int:
        spaces = self._namespaces
        namespaces.spare_the_host(spaces)
        init = Init(self.id, self.bundle, self.spec, rootfs, streams, self._cgroup, self._cache, self.manner)
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
                _end(pid)
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

    def adopt(self, pid: int, kept: Sequence[int]) -> None:
        self._pid, self._channel = pid, kept[0]

    def _fork(self, spaces: Namespaces, child: Callable[[], NoReturn]) -> int:
        """Fork into the container's pid namespace."""
        prctl(PR_SET_DUMPABLE, 0)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        path = spaces.joined.get("pid")
        if not spaces.own("pid") or (path is None and spaces.own("user")):  # then the child makes it, in its user namespace
            return _fork(child, self._cgroup)
        if path is None:
            return _fork_elsewhere(child, self._cgroup, lambda: unshare(CLONE_NEWPID))
        joined = namespaces.open_namespace("pid", path)
        try:
            return _fork_elsewhere(child, self._cgroup, lambda: setns(joined, CLONE_NEWPID))
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

    def _run_stop_hooks(self) -> None:
        """Once for each object; a failure is told, and changes nothing."""
        if self._stopped or not (self.spec.get("hooks") or {}).get("poststop"):
            return
        self._stopped = True
        from wharfie_runtime_native import hooks

        state = describe(self.spec, self.id, self.bundle, "stopped")
        hooks.run(hooks.parse(self.spec["hooks"]), "poststop", state, folder=self.bundle, report=self.warn)

    def warn(self, message: str) -> None:
        """What went wrong and nothing ended for. A shim has nobody to tell; the command line has."""

    def start(self) -> None:
        if self._channel < 0:
            raise Conflict(f"container {self.id} is not in state created")
        try:
            os.write(self._channel, b"g")
            hooked = self._await_execve(self._channel, self._pid)
        except BrokenPipeError:
            raise Conflict(f"container {self.id} ended before it was started") from None
        finally:
            os.close(self._channel)
            self._channel = -1
        if hooked:
            self._run_poststart_hooks()

    def _await_execve(self, end: int, pid: int) -> bool:
        """Until the program runs; whether the container has hooks. Errors: what the process says instead."""
        hooked = False
        while (message := channel.receive(end)) is not None:
            # Most containers say nothing, and their shims need neither these modules nor the configuration.
            if "hooks" in message:
                hooked = True
                with socket.socket(fileno=os.dup(end)) as connection:
                    channel.limit(connection, message["hooks"])
            else:
                from wharfie_runtime_native.seccomp import listener

                state = describe(self.spec, self.id, self.bundle, "running", self._pid)
                listener.hand_over(end, pid, message[listener.MESSAGE], self.spec["linux"]["seccomp"], state)
        return hooked

    def _run_poststart_hooks(self) -> None:
        from wharfie_runtime_native import hooks

        state = describe(self.spec, self.id, self.bundle, "running", self._pid)
        try:
            hooks.run(hooks.parse(self.spec["hooks"]), "poststart", state, folder=self.bundle)
        except BaseException:
            self.signal_all(signals.SIGKILL)
            raise

    def exec(self, process: Mapping[str, Any], streams: Streams) -> int:
        if not self._pid:
            raise Conflict(f"container {self.id} is not running")
        linux = self.spec.get("linux") or {}
        spaces = self._namespaces.all_flags()
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
                    _end(pid)
                    raise
        finally:
            os.close(pidfd)
        return pid

    def _fork_beside(self, child: Callable[[], NoReturn], pidfd: int, spaces: int) -> int:
        """Fork into the pid namespace of the container's first process."""
        prctl(PR_SET_DUMPABLE, 0)
        if not spaces & CLONE_NEWPID:
            return _fork(child, self._cgroup)
        try:
            return _fork_elsewhere(child, self._cgroup, lambda: setns(pidfd, CLONE_NEWPID))
        except ProcessLookupError:
            raise Conflict(f"container {self.id} is not running") from None

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
        return self.oom_kills() > 0

    def oom_kills(self) -> int:
        return self._cgroup.oom_kills()

    # What checkpoints take is loaded in the child that works on one: no shim needs it but in that moment.

    def _work(self) -> Path:
        """A folder for what is left of work in a child: a log, a pid, why it failed."""
        return Path(self.bundle)

    def checkpoint(self, folder: str) -> int:
        def write() -> None:
            from wharfie_runtime_native.checkpoints import dump

            dump.write(self.spec, self._pid, self._cgroup.freezer(), Path(folder))

        return self._fork_worker(write)

    def checkpointed(self, folder: str, code: int) -> None:
        if code:
            from wharfie_runtime_native.checkpoints import worker

            raise worker.failure(self._work()) or DriverError("the process that writes the checkpoint was killed")

    def restore(self, folder: str) -> int:
        def bring_back() -> None:
            from wharfie_runtime_native.checkpoints import restore
            from wharfie_runtime_native.init import keyring

            self._cgroup.join()
            if self.manner.keyring:
                keyring(self.id)
            restore.run(self.spec, self._pid, Path(folder), self._work())

        return self._fork_worker(bring_back)

    def restored(self, folder: str, code: int) -> int:
        from wharfie_runtime_native.checkpoints import restore, worker

        if code and (error := worker.failure(self._work())):
            raise error
        pid = restore.result(self._work(), code)
        os.close(self._channel)
        self._pid, self._channel = pid, -1
        return pid

    def _fork_worker(self, task: Callable[[], None]) -> int:
        from wharfie_runtime_native.checkpoints import worker

        report = worker.begin(self._work())
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            worker.work(parent, report, task)
        os.close(report)
        return pid

    def delete(self) -> None:
        if self._channel >= 0:
            os.close(self._channel)
            self._channel = -1
        self._cgroup.delete()
        self._run_stop_hooks()


def rehearse() -> None:
    """Start a container that is none (see `wharfie.shim.rehearsal`)."""
    ours, theirs = channel.pair()
    engine = NativeEngine("", "", {}, {})
    engine.adopt(0, (ours.detach(),))
    theirs.shutdown(socket.SHUT_WR)
    engine.start()
    theirs.close()


# Found out here, where the zygote imports this, so that no shim spends time or memory on it.
warm()


def _fork_elsewhere(child: Callable[[], NoReturn], cgroup: Cgroup, enter: Callable[[], None]) -> int:
    """Fork after `enter` has chosen another pid namespace for children, which the caller then has as before."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter()
        try:
            return _fork(child, cgroup)
        finally:
            setns(own, CLONE_NEWPID)
    finally:
        os.close(own)


def _fork(child: Callable[[], NoReturn], cgroup: Cgroup) -> int:
    """Fork, into the group where that can be. The child has to `join` it in any case, and is told there why it cannot."""
    group = cgroup.open_for_fork()
    try:
        pid = clone3_into_cgroup(group) if group >= 0 else os.fork()
    except OSError:  # a seccomp filter around this daemon has no clone3, or the group takes no new process
        pid = os.fork()
    finally:
        if group >= 0:
            os.close(group)
    if pid == 0:
        child()
    return pid


def _write_for(pid: int, name: str, text: str, what: str) -> None:
    """Write a file of /proc/<pid> that its own process may not."""
    try:
        Path(f"/proc/{pid}/{name}").write_text(text)
    except OSError as error:
        raise InvalidArgument(f"the kernel refuses {what} {text.split()}: {reason(error)}") from error


def _end(pid: int) -> None:
    """Kill and collect a process that failed on the way."""
    try:
        os.kill(pid, signals.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
