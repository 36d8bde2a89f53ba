"""Copy what an image has at a volume's place into the volume, when that is new and empty.

Both sides are walked by descriptor, without following a link: the image chose the names in the root, and another container
may already have the volume.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from wharfie.shim import safe_path
from wharfie.spi.errors import InvalidArgument, from_os_error

DEPTH_LIMIT = 256
"""Folders within folders; each level holds two descriptors and two frames of the interpreter's stack."""
LINK_LIMIT = 256
"""Files with several names whose first copy is remembered by a descriptor; later ones become files of their own."""
_CHUNK = 8 * 1024 * 1024
_CANNOT = (errno.ENOTSUP, errno.EPERM, errno.EINVAL)


@dataclass
class _Walk:
    """What is remembered on the way. `links`: the first copy (a descriptor) of a file that has further names."""

    links: dict[tuple[int, int], int] = field(default_factory=dict)


def copy_up(root: int, destination: str, folder: str) -> None:
    """Copy the folder `destination` of `root` into `folder`, its own owner and mode included.

    Nothing happens when there is no such folder or `folder` is not empty. A copy that fails is taken back, or the next
    start would find a part of it and take it for all. Errors: OutOfSpace and others by number, InvalidArgument.
    """
    try:
        source = safe_path.open_folder_in(root, destination)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        target = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.listdir(target):  # noqa: PTH208  # a descriptor has no Path
                return
            _copy_or_nothing(source, target, destination)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_or_nothing(source: int, target: int, destination: str) -> None:
    try:
        copy_content(source, target)
    except (OSError, InvalidArgument) as error:
        _clear(target)
        if isinstance(error, InvalidArgument):
            raise
        mapped = from_os_error(OSError(error.errno, os.strerror(error.errno or 0)))
        what = f"copying what the image has at {destination} into a volume: {mapped.message}"
        raise mapped.__class__(what, details=mapped.details) from error


def _clear(folder: int) -> None:
    import shutil  # a shim that never fails here goes without it

    for name in os.listdir(folder):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            shutil.rmtree(name, ignore_errors=True, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)


def copy_content(source: int, target: int) -> None:
    """Copy one opened folder into another, empty one, owner and mode included. Errors: OSError, InvalidArgument."""
    walk = _Walk()
    try:
        _copy_folder(walk, source, target, 0)
    finally:
        for fd in walk.links.values():
            os.close(fd)


def _copy_folder(walk: _Walk, source: int, target: int, depth: int) -> None:
    if depth > DEPTH_LIMIT:
        raise InvalidArgument(f"image content for a volume: folders more than {DEPTH_LIMIT} deep")
    for name in os.listdir(source):  # a descriptor
        facts = os.stat(name, dir_fd=source, follow_symlinks=False)
        kind = stat.S_IFMT(facts.st_mode)
        if kind == stat.S_IFDIR:
            _copy_subfolder(walk, source, target, name, depth)
        elif facts.st_nlink > 1 and (facts.st_dev, facts.st_ino) in walk.links:
            first = walk.links[facts.st_dev, facts.st_ino]
            os.link(f"/proc/self/fd/{first}", name, dst_dir_fd=target, follow_symlinks=True)
        elif kind == stat.S_IFREG:
            _copy_file(walk, source, target, name)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, facts.st_uid, facts.st_gid, dir_fd=target, follow_symlinks=False)
        elif kind != stat.S_IFSOCK:
            os.mknod(name, kind | 0o600, facts.st_rdev, dir_fd=target)
            os.chown(name, facts.st_uid, facts.st_gid, dir_fd=target, follow_symlinks=False)
            node = safe_path.open_in(target, name)
            try:
                Path(f"/proc/self/fd/{node}").chmod(stat.S_IMODE(facts.st_mode))
            finally:
                os.close(node)
    _copy_facts(source, target)


def _copy_subfolder(walk: _Walk, source: int, target: int, name: str, depth: int) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    below = os.open(name, flags, dir_fd=source)
    try:
        os.mkdir(name, 0o700, dir_fd=target)
        copy = os.open(name, flags, dir_fd=target)
        try:
            _copy_folder(walk, below, copy, depth + 1)
        finally:
            os.close(copy)
    finally:
        os.close(below)


def _copy_file(walk: _Walk, source: int, target: int, name: str) -> None:
    # The root is not in use yet, so what was a regular file a moment ago still is one; O_NONBLOCK all the same.
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        copy = os.open(name, flags, 0o600, dir_fd=target)
        try:
            _copy_data(file, copy)
            facts = _copy_facts(file, copy)
            if facts.st_nlink > 1 and len(walk.links) < LINK_LIMIT:
                walk.links[facts.st_dev, facts.st_ino] = os.dup(copy)
        finally:
            os.close(copy)
    finally:
        os.close(file)


def _copy_data(source: int, target: int) -> None:
    """Only the parts that hold data: a sparse file stays sparse."""
    size = os.fstat(source).st_size
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                break
            raise
        position = os.lseek(source, start, os.SEEK_HOLE)
        os.lseek(target, start, os.SEEK_SET)
        while start < position:
            sent = os.sendfile(target, source, start, min(_CHUNK, position - start))
            if sent == 0:
                break
            start += sent
    os.ftruncate(target, size)


def _copy_facts(source: int, target: int) -> os.stat_result:
    """Owner, mode, extended attributes and times, in the order in which none undoes another."""
    facts = os.fstat(source)
    os.fchown(target, facts.st_uid, facts.st_gid)
    os.fchmod(target, stat.S_IMODE(facts.st_mode))
    for name in os.listxattr(source):
        if name.startswith("trusted.overlay."):
            continue
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in _CANNOT:  # a volume's file system may know fewer attributes than the image's
                raise
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    return facts
