"""SCMP_ACT_NOTIFY: calls that an agent outside of the container decides on (seccomp_unotify(2); OCI runtime-spec,
config-linux.md "Seccomp", listenerPath). Imported only when a filter asks.

From the moment the filter is there, every call of the process may be one that waits for the agent. So the process makes
none to hand the listener over: it says beforehand which number the descriptor is going to have, and the parent fetches it
from outside (pidfd_getfd(2)) and passes it to the agent.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any, Final

from wharfie.spi.errors import DriverError, InvalidArgument
from wharfie_runtime_native import channel
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.syscalls import libc, oserror
from wharfie_runtime_native.syscalls import seccomp as seccomp_call

_NR_PIDFD_GETFD: Final = 438
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_FILTER_FLAG_NEW_LISTENER: Final = 8
_SECCOMP_FILTER_FLAG_TSYNC: Final = 1
_SECONDS: Final = 20.0
_PAUSE: Final = 0.001
MESSAGE: Final = "notify"
"""The child's word on the channel: the number that the listener is going to have."""


def install(end: socket.socket, program: bytes, flags: int) -> None:
    """In the child: install the filter, and wait until the agent has the listener. Errors: OSError of seccomp(2)."""
    free = os.dup(0)
    os.close(free)
    channel.send(end, **{MESSAGE: free})
    # With TSYNC the call would answer with a thread's number. There is one thread.
    flags = flags & ~_SECCOMP_FILTER_FLAG_TSYNC | _SECCOMP_FILTER_FLAG_NEW_LISTENER
    seccomp_call(_SECCOMP_SET_MODE_FILTER, flags, program)
    end.recv(1)


def hand_over(
    end: socket.socket | int, pid: int, number: int, seccomp: Mapping[str, Any], state: Mapping[str, Any]
) -> None:
    """In the parent: bring the listener from process `pid` to the agent at `listenerPath`, and let the process go on.

    Errors: InvalidArgument (no agent there), DriverError (the process failed or does not come to it).
    """
    path = str(seccomp.get("listenerPath") or "")
    listener = _fetch(end, pid, number)
    message = {
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": str(seccomp.get("listenerMetadata") or ""),
        "state": state,
    }
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as agent:
            agent.settimeout(_SECONDS)
            agent.connect(path)
            text = json.dumps(message).encode()
            sent = socket.send_fds(agent, [text], [listener])
            if sent < len(text):
                agent.sendall(text[sent:])
    except OSError as error:
        raise InvalidArgument(f'linux.seccomp.listenerPath "{path}": {reason(error)}') from error
    finally:
        os.close(listener)
    os.write(end if isinstance(end, int) else end.fileno(), b"n")


def _fetch(end: socket.socket | int, pid: int, number: int) -> int:
    process = os.pidfd_open(pid)
    deadline = time.monotonic() + _SECONDS
    try:
        while True:
            fetched = libc.syscall(
                ctypes.c_long(_NR_PIDFD_GETFD), ctypes.c_int(process), ctypes.c_int(number), ctypes.c_uint(0)
            )
            if fetched >= 0:
                if "seccomp" in os.readlink(f"/proc/self/fd/{fetched}"):
                    return int(fetched)
                os.close(fetched)
            elif ctypes.get_errno() != 9:  # EBADF: not yet
                oserror("pidfd_getfd", str(pid))
            if channel.has_news(end):
                channel.receive(end)  # raises what the child says
                raise DriverError("the container's process ended before its seccomp listener was there")
            if time.monotonic() > deadline:
                raise DriverError(f"the container's process did not install its seccomp filter for {_SECONDS:.0f} seconds")
            time.sleep(_PAUSE)
    finally:
        os.close(process)
