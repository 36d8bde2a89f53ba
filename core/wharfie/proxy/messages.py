"""What the daemon and the proxy say to each other: JSON datagrams (SOCK_SEQPACKET) with descriptors.

The daemon asks, the proxy answers each question, `list` with several datagrams:
    put   owner, ports   hold these sockets and relay to the targets. The first descriptor is a pidfd: the owner's ports are
                         given up when that process ends. One descriptor for each port follows
    drop  owner          give everything of the owner up
    list                 what is held, with the sockets: {owner, ports} until {end, pid, version}
    quit                 end, and with it all that is relayed
Only a `put` has no answer: nothing can be said against it.
An answer may carry `trouble`: a defect of the proxy since the last answer, for the daemon's log.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence

TYPE_CHECKING = False  # the proxy is to be small: it does without modules that only help to write it
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
"""Of this conversation: a daemon replaces a proxy that speaks another one."""
SOCKET = "proxy.sock"
PORTS_PER_MESSAGE = 128
"""The kernel passes 253 descriptors in one message at most."""
_LIMIT = 128 * 1024


Place = tuple[str, str, int]
"""A port of the host: "tcp", "0.0.0.0", 80."""
Target = tuple[str, int]
"""Where a port's connections go."""


def send(channel: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Errors: OSError (the other side is gone)."""
    socket.send_fds(channel, [json.dumps(message).encode()], list(fds), socket.MSG_NOSIGNAL)


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors, which are the caller's to close; None: the other side is gone.

    Errors: OSError.
    """
    data, fds, _, _ = socket.recv_fds(channel, _LIMIT, PORTS_PER_MESSAGE + 1, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    message: dict[str, Any] = json.loads(data)
    return message, fds
