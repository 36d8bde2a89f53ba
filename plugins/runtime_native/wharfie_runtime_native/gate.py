"""Where a container waits for its start when nobody stays with it: a socket in its state folder.

The first process of a container that `wharfie-runtime create` made listens there. Whoever connects and says a byte gives
the word to go; the connection then is the channel on which an error comes back, and which closes at execve. The listening
end closes at execve too, so connecting without a word tells whether the container still is to be started.
"""

from __future__ import annotations

import socket
from typing import Final

from wharfie_runtime_native import channel

_BACKLOG: Final = 16


def listen(address: str) -> int:
    """Make the socket; a descriptor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(address)
        door.listen(_BACKLOG)
        return door.detach()


def wait(listener: int) -> socket.socket:
    """Until somebody gives the word; the connection to the one who did. `listener` stays open."""
    door = socket.socket(fileno=listener)
    try:
        while True:
            caller, _ = door.accept()
            if caller.recv(1):
                return caller
            caller.close()
    finally:
        door.detach()


def knock(address: str) -> int:
    """A descriptor on which the word can be given, and the answer read. Errors: OSError (nobody waits)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
        channel.limit(visitor)
        visitor.connect(address)
        return visitor.detach()


def is_waiting(address: str) -> bool:
    """Whether a first process listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
        visitor.setblocking(False)
        try:
            visitor.connect(address)
        except BlockingIOError:  # it listens, but is not quick to look
            return True
        except OSError:
            return False
        return True
