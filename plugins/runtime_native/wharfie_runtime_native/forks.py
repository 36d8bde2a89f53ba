"""Forking processes that are going to be a container's."""

from __future__ import annotations

import os
import signal as signals
from collections.abc import Callable
from typing import NoReturn

from wharfie_runtime_native.cgroups.base import Cgroup
from wharfie_runtime_native.constants import CLONE_NEWPID
from wharfie_runtime_native.syscalls import clone3_into_cgroup, setns


def fork_elsewhere(child: Callable[[], NoReturn], cgroup: Cgroup, enter: Callable[[], None]) -> int:
    """Fork after `enter` has chosen another pid namespace for children, which the caller then has as before."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter()
        try:
            return fork(child, cgroup)
        finally:
            setns(own, CLONE_NEWPID)
    finally:
        os.close(own)


def fork(child: Callable[[], NoReturn], cgroup: Cgroup) -> int:
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


def end_child(pid: int) -> None:
    """Kill and collect a process that failed on the way."""
    try:
        os.kill(pid, signals.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
