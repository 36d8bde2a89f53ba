"""Where a file system puts what is made in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from wharfie.spi.inroot import FOLDER

_GET_FLAGS: Final = 0x80086601  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS (linux/fs.h); their word is an int all the same
_SET_FLAGS: Final = 0x40086602
_TOP_OF_HIERARCHIES: Final = 0x00020000  # FS_TOPDIR_FL, chattr +T
_FLAGS: Final = struct.Struct("=i")


def spread_out(folder: Path) -> None:
    """Tell the file system that the folders made in `folder` have nothing to do with each other. May be repeated.

    ext2 to ext4 then put each of them, by its name, somewhere else on the disk (chattr(1), attribute T) instead of all
    close together. Writers of several trees meet less; and ext4, which does not give an inode again in the minutes after
    its file was removed, searches through fewer of those: making the files of a layer next to where another one was just
    removed takes ten times as long. So each folder needs a new name. Elsewhere this does nothing. Errors: OSError when
    `folder` cannot be opened.
    """
    descriptor = os.open(folder, FOLDER)
    try:
        with contextlib.suppress(OSError):  # the file system knows no such thing
            (flags,) = _FLAGS.unpack(fcntl.ioctl(descriptor, _GET_FLAGS, bytes(_FLAGS.size)))
            fcntl.ioctl(descriptor, _SET_FLAGS, _FLAGS.pack(flags | _TOP_OF_HIERARCHIES))
    finally:
        os.close(descriptor)
