"""What every process that becomes a container's does first, and last: a container's own and further ones."""

from __future__ import annotations

import gc
import os
import signal
import socket
from typing import TYPE_CHECKING

from wharfie.shim.signals import default_signals
from wharfie_runtime_native import channel, process
from wharfie_runtime_native.constants import KEYCTL_JOIN_SESSION_KEYRING, PR_SET_PDEATHSIG
from wharfie_runtime_native.process import ProcessSpec
from wharfie_runtime_native.syscalls import close_range, keyctl_join_session_keyring, prctl

if TYPE_CHECKING:
    from wharfie.shim.engine import Streams


def start_over(end: socket.socket, streams: Streams, *keep: int, preserve: int = 0) -> None:
    """Shed what a forked child has of its maker: signals, session, and all descriptors but `keep` and those that are to be
    inherited. Nothing was made yet, so it ends here when the maker has."""
    gc.disable()  # an object of the shim that is collected here would close a number that is somebody else's by now
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    default_signals()
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    process.redirect(*(null if fd < 0 else fd for fd in (streams.stdin, streams.stdout, streams.stderr)))
    # A client's connection that stayed open here would not end for the client when the shim closes it.
    first = 3 + preserve
    for kept in sorted(fd for fd in (end.fileno(), streams.console, *keep) if fd >= first):
        if kept > first:
            close_range(first, kept - 1, 0)
        first = kept + 1
    close_range(first, 0xFFFFFFFF, 0)
    if channel.is_closed(end):  # before the death signal was asked for
        os._exit(1)


def keyring(id: str) -> None:
    """A session keyring of its own: keys of the engine's session are not the container's."""
    try:
        keyctl_join_session_keyring(KEYCTL_JOIN_SESSION_KEYRING, f"_ses.{id[:12]}")
    except OSError:  # no keyrings in this kernel, or the user's quota of them is used up: then there is one to share
        pass


def settle(spec: ProcessSpec) -> str:
    """Become the user, go to the working directory, find the program."""
    process.own_streams(spec.uid, spec.gid)
    settled = process.try_directory(spec.cwd)
    process.become(spec)
    process.enter_directory("" if settled else spec.cwd)
    return process.find_program(spec.args[0], spec.env.get("PATH"))
