"""Pseudo terminals: opened in the container's devpts, the master sent to the shim (runc, docs/terminals.md)."""

from __future__ import annotations

import os
import socket
import struct
from fcntl import ioctl

from wharfie.spi.errors import DriverError
from wharfie_runtime_native.constants import DEVPTS_SUPER_MAGIC, TIOCGPTPEER, TIOCSCTTY, TIOCSPTLCK, TIOCSWINSZ
from wharfie_runtime_native.paths import open_in_root
from wharfie_runtime_native.syscalls import fstatfs_type


def open_pair(root: int, size: tuple[int, int] | None) -> tuple[int, int]:
    """Master and slave of a new terminal in the devpts below `root`. The slave is had from the master, never by its
    name, behind which the container could have put anything (CVE-2025-52565).

    Errors: DriverError (no devpts there), OSError.
    """
    folder = open_in_root(root, "/dev/pts")
    try:
        # Within a devpts nobody can make files, so what is opened below is a terminal and not, say, a tape that rewinds.
        if fstatfs_type(folder) != DEVPTS_SUPER_MAGIC:
            raise DriverError("a terminal needs a devpts at /dev/pts in the container; what is there is something else")
        master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)
    if os.fstat(master).st_rdev != os.makedev(5, 2) or fstatfs_type(master) != DEVPTS_SUPER_MAGIC:
        raise DriverError("/dev/pts/ptmx in the container is covered by something else")
    ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    slave = int(ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    if size is not None:
        ioctl(slave, TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))
    return master, slave


def send(console: int, master: int) -> None:
    """Pass the master to the shim, which has the other end of `console`."""
    with socket.socket(fileno=os.dup(console)) as connection:
        socket.send_fds(connection, [b"/dev/ptmx"], [master])


def make_controlling(slave: int) -> None:
    """For a session leader: this terminal's signals (interrupt, hang-up) go to it."""
    ioctl(slave, TIOCSCTTY, 0)
