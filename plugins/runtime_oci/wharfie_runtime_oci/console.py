"""A binary's way of handing over terminals: it connects to a socket by name and sends the master's descriptor (runc,
docs/terminals.md)."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import termios
from pathlib import Path
from typing import Final, Self

from wharfie.shim.engine import Streams
from wharfie.spi.errors import DriverError

NAME: Final = "console.sock"
"""In the folder that the binary runs in: a socket's name has room for 107 bytes, and the folder's may be longer."""
_SECONDS: Final = 5.0


class Console:
    """The listening socket in a folder, for one process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._path.unlink(missing_ok=True)
        place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            self._listener.bind(f"/proc/self/fd/{place}/{NAME}")
            self._listener.listen(1)
            self._listener.settimeout(_SECONDS)
        except BaseException:
            self._listener.close()
            raise
        finally:
            os.close(place)

    def hand_over(self, streams: Streams) -> None:
        """Pass the terminal on to the shim's end, with its first size. Errors: DriverError (none came)."""
        try:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(_SECONDS)
                _, fds, _, _ = socket.recv_fds(connection, 4096, 1, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            fds = []
        if not fds:
            raise DriverError("the runtime sent no terminal through its console socket")
        master = fds[0]
        try:
            if streams.size is not None:
                fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", *streams.size, 0, 0))
            with socket.socket(fileno=os.dup(streams.console)) as end:
                end.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))])
        finally:
            os.close(master)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()
        self._path.unlink(missing_ok=True)
