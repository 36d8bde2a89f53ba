"""The file that a volume is: made whole, and read for what is used in it."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

from wharfie.spi.driver import Usage
from wharfie.spi.errors import DriverError, from_os_error

MKFS = "mkfs.ext4"
FOLDER = "_data"
"""The folder in the file system that containers see."""

_SUPERBLOCK = 1024
_MAGIC = 0xEF53
_MKFS_SECONDS = 100


def make(image: Path, size: int, template: Path) -> None:
    """A file of `size` bytes, allocated whole, with an empty ext4 file system that has what is in `template`.

    Errors: OutOfSpace (the host has not so much), DriverError (mkfs fails).
    """
    fd = os.open(image, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
        os.fsync(fd)
    except OSError as error:
        raise from_os_error(OSError(error.errno, f"allocating {size} bytes: {error.strerror}", str(image))) from error
    finally:
        os.close(fd)
    # nodiscard: giving the blocks back would undo the allocation. No space is reserved for root, who is the user here.
    options = ("-q", "-F", "-m", "0", "-E", "nodiscard,root_owner=0:0", "-d", str(template))
    try:
        done = subprocess.run(
            [MKFS, *options, str(image)], capture_output=True, text=True, timeout=_MKFS_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DriverError(f"{MKFS} {image}: {error}") from error
    if done.returncode != 0:
        raise DriverError(f"{MKFS} {image} ended with {done.returncode}: {done.stderr.strip()}")


def usage_of_mount(target: Path) -> Usage:
    """What is used in a mounted file system, its own tables not counted."""
    facts = os.statvfs(target)
    return Usage(size=(facts.f_blocks - facts.f_bfree) * facts.f_frsize, inodes=facts.f_files - facts.f_ffree)


def usage_of_image(image: Path) -> Usage:
    """The same of one that is not mounted, from its superblock (kernel documentation, ext4, "The Super Block").

    Errors: DriverError (it is no ext4).
    """
    with image.open("rb") as file:
        file.seek(_SUPERBLOCK)
        block = file.read(1024)
    inodes, blocks_low, _, free_low, free_inodes = struct.unpack_from("<5I", block)
    (log_size,) = struct.unpack_from("<I", block, 0x18)
    (magic,) = struct.unpack_from("<H", block, 0x38)
    blocks_high, _, free_high = struct.unpack_from("<3I", block, 0x150)
    (overhead,) = struct.unpack_from("<I", block, 0x248)
    if magic != _MAGIC:
        raise DriverError(f"{image} has no ext4 file system in it any more")
    used = (blocks_low | blocks_high << 32) - (free_low | free_high << 32) - overhead
    return Usage(size=max(0, used) * (1024 << log_size), inodes=inodes - free_inodes)
