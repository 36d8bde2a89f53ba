"""Where a container waits for its start when nobody stays with it: a socket in its state folder.

The first process of a container that `wharfie-runtime create` made listens there. Whoever connects and says a byte gives
the word to go; the connection then is the channel on which an error comes back, and which closes at execve. The listening
end closes at execve too, so connecting without a word tells whether the container still is to be started.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from wharfie_runtime_native import channel
from wharfie_runtime_native.paths import proc_fd

NAME: Final = "start"
_BACKLOG: Final = 16


def listen(folder: int) -> int:
    """Make the socket in the state folder that `folder` is opened on; a descriptor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(_address(folder))
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


def knock(folder: int) -> int:
    """A descriptor on which the word can be given, and the answer read. Errors: OSError (nobody waits)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
        channel.limit(visitor)
        visitor.connect(_address(folder))
        return visitor.detach()


def is_waiting(folder: int) -> bool:
    """Whether a first process listens in this state folder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
        visitor.setblocking(False)
        try:
            visitor.connect(_address(folder))
        except BlockingIOError:  # it listens, but is not quick to look
            return True
        except OSError:
            return False
        return True


def _address(folder: int) -> str:
    """By way of a descriptor: the path of a state folder may be longer than an address can be (107 bytes, unix(7))."""
    return os.path.join(proc_fd(folder), NAME)
