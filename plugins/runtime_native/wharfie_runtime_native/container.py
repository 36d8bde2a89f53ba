"""A container that is there, from its parent's side: started, signalled, paused, measured, removed.

What makes processes is beside it, `creation` the first one and `execution` further ones; `engine` is all of them.
"""

from __future__ import annotations

import os
import signal as signals
import socket
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from wharfie.shim.cgroups import path_of
from wharfie.spi.errors import Conflict
from wharfie_runtime_native import cgroups, channel
from wharfie_runtime_native.cgroups.base import Cgroup
from wharfie_runtime_native.manner import Manner
from wharfie_runtime_native.state import describe

CACHE_OPTION: Final = "cache"
"""In `options`: a folder for compiled seccomp filters."""


class Container:
    """One container by system calls: what of `wharfie.shim.engine.Engine` needs it to be made already."""

    manner = Manner()

    def __init__(self, id: str, bundle: str, spec: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.id = id
        self.bundle = bundle
        self.spec = spec
        self.options = options
        self._channel = -1
        self._pid = 0
        self._stopped = False

    @property
    def _cache(self) -> str:
        return str(self.options.get(CACHE_OPTION) or "")

    @cached_property
    def _cgroup(self) -> Cgroup:
        return cgroups.open_cgroup(path_of(self.spec, self.id))

    def adopt(self, pid: int, kept: Sequence[int]) -> None:
        self._pid, self._channel = pid, kept[0]

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

    def delete(self) -> None:
        if self._channel >= 0:
            os.close(self._channel)
            self._channel = -1
        self._cgroup.delete()
        self._run_stop_hooks()
