"""One file, link, device or folder as a tar entry says it: read from the disk, put onto the disk, removed from it."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from typing import Final

from wharfie.spi import tarformat
from wharfie.spi.call import progress
from wharfie.spi.inroot import FOLDER
from wharfie.spi.tarformat import Entry

_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ACCESS_LISTS: Final = (b"system.posix_acl_access", b"system.posix_acl_default")
_CHUNK: Final = 64 << 20
_TIME_LIMIT_NS: Final = (1 << 63) - 1
_KINDS: Final = {
    stat.S_IFREG: tarformat.REGULAR,
    stat.S_IFLNK: tarformat.SYMLINK,
    stat.S_IFCHR: tarformat.CHARACTER,
    stat.S_IFBLK: tarformat.BLOCK_DEVICE,
    stat.S_IFDIR: tarformat.FOLDER,
    stat.S_IFIFO: tarformat.FIFO,
}
_FORMATS: Final = {kind: format_bits for format_bits, kind in _KINDS.items()}


def keeps_xattr(name: bytes) -> bool:
    """Whether an extended attribute belongs to a layer's content: the users' own, file capabilities and access lists.

    Never overlayfs's (`trusted.overlay.*`, `user.overlay.*`): with those a layer could point into other folders. Labels of
    security modules belong to the host.
    """
    if name.startswith(b"user."):
        return not name.startswith(b"user.overlay.")
    return name == b"security.capability" or name in _ACCESS_LISTS


def names(folder: int) -> list[bytes]:
    """The names in an open folder, sorted."""
    return sorted(map(os.fsencode, os.listdir(folder)))


def read_entry(folder: int, name: bytes, facts: os.stat_result) -> Entry | None:
    """The object `name` of the folder as an entry with `name` as its path; None for a socket, which no tar can hold.

    Errors: OSError (it vanished).
    """
    kind = _KINDS.get(stat.S_IFMT(facts.st_mode))
    if kind is None:
        return None
    entry = Entry(
        path=name,
        kind=kind,
        mode=stat.S_IMODE(facts.st_mode),
        uid=facts.st_uid,
        gid=facts.st_gid,
        size=facts.st_size if kind == tarformat.REGULAR else 0,
        mtime_ns=facts.st_mtime_ns,
    )
    if kind == tarformat.SYMLINK:
        entry.link = os.readlink(name, dir_fd=folder)
    elif kind in (tarformat.CHARACTER, tarformat.BLOCK_DEVICE):
        entry.device = (os.major(facts.st_rdev), os.minor(facts.st_rdev))
    entry.xattrs = _xattrs(folder, name)
    return entry


def _xattrs(folder: int, name: bytes) -> dict[bytes, bytes]:
    path = b"/proc/self/fd/%d/%s" % (folder, name)
    found = {}
    try:
        for key in map(os.fsencode, os.listxattr(path, follow_symlinks=False)):
            if keeps_xattr(key):
                found[key] = os.getxattr(path, key, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENODATA):
            raise
    return found


def place(folder: int, name: bytes, entry: Entry, data: Callable[[int], None]) -> None:
    """Make `name` in the folder as `entry` says; `data` writes a regular file's bytes to the descriptor that it gets.

    For all kinds but folders and hard links. Never follows or replaces what is there. Errors: FileExistsError, OSError.
    """
    if entry.kind == tarformat.REGULAR:
        file = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
        try:
            data(file)
            dress(file, entry)
        finally:
            os.close(file)
        return
    if entry.kind == tarformat.SYMLINK:
        os.symlink(entry.link, name, dir_fd=folder)
        os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
        _set_xattrs(b"/proc/self/fd/%d/%s" % (folder, name), entry, follow=False)
        os.utime(name, ns=_times(entry), dir_fd=folder, follow_symlinks=False)
        return
    os.mknod(name, _FORMATS[entry.kind] | 0o600, os.makedev(*entry.device), dir_fd=folder)
    node = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        dress(f"/proc/self/fd/{node}", entry)  # a device is never opened, and what took its name meanwhile is not touched
    finally:
        os.close(node)


def dress(target: int | str, entry: Entry) -> None:
    """Give a file, device or folder (a descriptor, or its path below /proc/self/fd) the entry's owner, mode, attributes and
    times. In this order: chown clears the set-uid bits and capabilities, and everything touches the times."""
    os.chown(target, entry.uid, entry.gid)
    os.chmod(target, entry.mode)  # noqa: PTH101  # a descriptor too
    if entry.xattrs:
        _set_xattrs(target, entry, follow=True)
    os.utime(target, ns=_times(entry))


def _times(entry: Entry) -> tuple[int, int]:
    moment = max(-_TIME_LIMIT_NS, min(entry.mtime_ns, _TIME_LIMIT_NS))
    return moment, moment


def _set_xattrs(target: int | str | bytes, entry: Entry, *, follow: bool) -> None:
    for key, value in entry.xattrs.items():
        if keeps_xattr(key):
            try:
                if isinstance(target, int):
                    os.setxattr(target, key, value)
                else:
                    os.setxattr(target, key, value, follow_symlinks=follow)
            except OSError as error:
                # The file system keeps none, or (EPERM) not for this kind of file: the content is usable without.
                if error.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise


def copy_data(source: int, target: int) -> None:
    """Copy a regular file into an empty one, sharing the blocks where the file system can; holes stay holes."""
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
        while start < position:
            try:
                copied = os.copy_file_range(source, target, min(position - start, _CHUNK), start, start)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                    raise
                os.lseek(target, start, os.SEEK_SET)
                copied = os.sendfile(target, source, start, min(position - start, _CHUNK))
            if not copied:
                break
            start += copied
            progress()
    os.ftruncate(target, size)


def remove(folder: int, name: bytes) -> None:
    """Remove `name` and all below it, of any depth, from the folder. Succeeds when it is not there.

    Calls `wharfie.spi.call.progress` for each folder. Errors: OSError, Cancelled.

    A folder that is not empty is first moved up into `folder` under a name of its own: two descriptors and no recursion
    do for trees deeper than any path may be long.
    """
    token = b".wh..wh." + secrets.token_hex(8).encode()
    moved = 0
    todo = [name]
    while todo:
        progress()
        current = todo.pop()
        try:
            below = os.open(current, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            continue
        except NotADirectoryError:
            os.unlink(current, dir_fd=folder)
            continue
        try:
            with os.scandir(below) as listing:
                children = [(os.fsencode(child.name), child.is_dir(follow_symlinks=False)) for child in listing]
            for child, is_folder in children:
                if not is_folder:
                    os.unlink(child, dir_fd=below)
                    continue
                try:
                    os.rmdir(child, dir_fd=below)
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:
                        raise
                    moved += 1
                    todo.append(b"%s.%d" % (token, moved))
                    os.rename(child, todo[-1], src_dir_fd=below, dst_dir_fd=folder)
        finally:
            os.close(below)
        os.rmdir(current, dir_fd=folder)
