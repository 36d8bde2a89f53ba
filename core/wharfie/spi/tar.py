"""Layers and archives onto the disk: `unpack` a tar into a folder, whatever the tar says.

    unpack(diff, root, Whiteouts.OVERLAY)   a layer as overlayfs wants it: whiteouts become its device nodes and marks
    unpack(diff, root, Whiteouts.REMOVE)    a layer on a full copy of what is below (btrfs, zfs, plain copies)
    unpack(diff, root, Whiteouts.LITERAL)   any archive (`docker cp`): `.wh.` names mean nothing

No entry reaches outside of the folder: names that climb above it are refused, absolute ones start at it, links on the way
are followed as if it were `/`, and every file is made and changed by descriptor. A layer's whiteouts are OCI's (image-spec,
layer.md): `.wh.NAME` hides NAME of the layers below and `.wh..wh..opq` all that they have in its folder, never what the
same layer has, in whatever order the entries come.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
import struct
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from wharfie.spi import nodes, tarformat
from wharfie.spi.call import progress
from wharfie.spi.errors import InvalidArgument, OutOfSpace, WharfieError, from_os_error
from wharfie.spi.inroot import FOLDER, open_in_root
from wharfie.spi.tarformat import Entry, Reader

PATH_LIMIT: Final = 4095
WHITEOUT: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"
OPAQUE_XATTR: Final = "trusted.overlay.opaque"

_AUFS: Final = b".wh..wh."
_REMEMBERED_LIMIT: Final = 32 << 20
"""Bytes of names that one archive may make us remember."""
_LINKS_LIMIT: Final = 40  # as many as the kernel follows
_OPEN_FOLDERS: Final = 32
_SHOWN: Final = 200
_LARGE: Final = 64 << 20
"""Bytes from which on it is worth asking whether a file has room."""
_TIMES_IN_MEMORY: Final = 4 << 20
_TIME: Final = struct.Struct("=Hq")
_TIME_LIMIT_NS: Final = (1 << 63) - 1
_ARCHIVES_FAULT: Final = frozenset(
    {errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.EFBIG, errno.ENOENT, errno.EEXIST}
)


class Whiteouts(enum.Enum):
    """What `.wh.` names do."""

    OVERLAY = "overlay"
    REMOVE = "remove"
    LITERAL = "literal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What `unpack` did. `size`: bytes of all regular files, each counted once. Paths are relative, without `./`.

    With Whiteouts.OVERLAY the folder holds one layer alone, so some things are left to whoever has the layers below:
    `implied`, folders that no entry described (b"" is the root), parents first, made as root's with mode 0755, which should
    look as they do below; `borrowed`, hard links (path, target) to files that are not in this layer; and `hidden`, the
    whiteouts: overlayfs lists them in a folder that no layer below has, so there they should go.
    """

    size: int
    entries: int
    implied: tuple[bytes, ...]
    borrowed: tuple[tuple[bytes, bytes], ...]
    hidden: tuple[bytes, ...]


def unpack(source: int, root: int, whiteouts: Whiteouts, prepare: Callable[[Entry], bool] | None = None) -> Unpacked:
    """Unpack the uncompressed tar that the descriptor `source` yields into the folder `root` (a descriptor).

    Existing files are replaced, folders merged. Owners are numbers, times have nanoseconds; of extended attributes those
    are set that `nodes.keeps_xattr` names. `prepare` sees each entry first: it may change it, and with False leaves it out.
    Calls `wharfie.spi.call.progress` as it goes. Needs root.

    Errors, each naming the entry: InvalidArgument (not a tar, cut off, outside of the root, a link to nothing), OutOfSpace;
    Cancelled. What was unpacked before stays.
    """
    reader = Reader(source)
    unpacker = _Unpacker(root, whiteouts, reader)
    try:
        for entry in reader:
            progress()
            if prepare is not None and not prepare(entry):
                continue
            try:
                unpacker.add(entry)
            except OSError as error:
                raise _entry_error(entry, error) from error
        return unpacker.finish()
    finally:
        unpacker.close()


def is_whiteout(facts: os.stat_result) -> bool:
    """Whether this is overlayfs's mark of a name that the layers below lose: a character device 0/0."""
    return stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0


def show(path: bytes) -> str:
    """A path for a message, cut when it is very long."""
    text = path[:_SHOWN].decode("utf-8", "backslashreplace")
    return f'"{text}"' if len(path) <= _SHOWN else f'"{text}…" ({len(path)} bytes)'


def _entry_error(entry: Entry, error: OSError) -> WharfieError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpace(f"unpacking {show(entry.path)}: {os.strerror(error.errno).lower()}")
    if error.errno in _ARCHIVES_FAULT:
        return InvalidArgument(f"the entry {show(entry.path)} cannot be unpacked: {os.strerror(error.errno or 0)}")
    known = from_os_error(error)
    return type(known)(f"unpacking {show(entry.path)}: {error}", details=known.details)


def _clean(path: bytes, entry: Entry) -> bytes:
    """`path` relative to the root, without `.` and `..`; b"" is the root itself."""
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidArgument(f"the entry {show(entry.path)} is outside of the layer: it leads to {show(path)}")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    clean = b"/".join(parts)
    if len(clean) > PATH_LIMIT:
        raise InvalidArgument(f"the entry {show(entry.path)} has a path longer than {PATH_LIMIT} bytes")
    return clean


def _place_of(folder: int) -> bytes:
    return os.readlink(b"/proc/self/fd/%d" % folder)  # noqa: PTH115  # bytes


def _split(path: bytes) -> tuple[bytes, bytes]:
    parent, _, name = path.rpartition(b"/")
    return parent, name


def _make_plain(folder: int) -> None:
    """Let a folder look as if it was made without an entry."""
    for key in os.listxattr(folder):
        if nodes.keeps_xattr(os.fsencode(key)):
            os.removexattr(folder, key)
    os.chown(folder, 0, 0)
    os.chmod(folder, 0o755)  # a descriptor


class _Unpacker:
    """One archive on its way onto the disk."""

    def __init__(self, root: int, whiteouts: Whiteouts, reader: Reader) -> None:
        self._root = root
        self._top = _place_of(root)
        self._whiteouts = whiteouts
        self._reader = reader
        self._folders: OrderedDict[bytes, int] = OrderedDict()  # those used last, by their path in the archive
        # Times of folders are set at the end, for each file made inside touches them; too many go to a file.
        self._times = tempfile.SpooledTemporaryFile(max_size=_TIMES_IN_MEMORY)  # noqa: SIM115  # closed by close()
        self._implied: dict[bytes, None] = {b"": None} if whiteouts is Whiteouts.OVERLAY else {}
        self._borrowed: list[tuple[bytes, bytes]] = []
        self._hidden: list[bytes] = []
        self._own: set[bytes] = set()  # with REMOVE: what this archive brought, and the folders above
        self._described: set[bytes] = set()  # with REMOVE: folders that have an entry
        self._remembered = 0
        self._size = self._entries = 0

    def close(self) -> None:
        self._forget_folders()
        self._times.close()

    def add(self, entry: Entry) -> None:
        path = _clean(entry.path, entry)
        self._entries += 1
        parent, name = _split(path)
        if b".wh." in path and self._whiteouts is not Whiteouts.LITERAL and self._mark(entry, parent, name):
            return
        if entry.kind == tarformat.FOLDER:
            self._make_folder(entry, path, parent, name)
        elif not path:
            raise InvalidArgument(f"the entry {show(entry.path)} would replace the root of the layer")
        elif entry.kind == tarformat.HARD_LINK:
            self._make_link(entry, path, parent, name)
        elif entry.kind == tarformat.CHARACTER and entry.device == (0, 0) and self._whiteouts is Whiteouts.OVERLAY:
            self._hide(parent, name)  # overlayfs would take it for one anyway
        else:
            try:
                nodes.place(self._folder(parent), name, entry, lambda file: self._write(entry, file))
            except FileExistsError:
                self._remove(parent, name)
                nodes.place(self._folder(parent), name, entry, lambda file: self._write(entry, file))
            self._size += entry.size
        if self._whiteouts is Whiteouts.REMOVE:
            self._bring(path)

    def finish(self) -> Unpacked:
        self._forget_folders()
        self._times.seek(0)
        while head := self._times.read(_TIME.size):
            length, moment = _TIME.unpack(head)
            try:
                folder = open_in_root(self._root, self._times.read(length), FOLDER)
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later entry replaced it
            try:
                os.utime(folder, ns=(moment, moment))
            finally:
                os.close(folder)
        return Unpacked(
            size=self._size,
            entries=self._entries,
            implied=tuple(self._implied),
            borrowed=tuple(self._borrowed),
            hidden=tuple(self._hidden),
        )

    def _write(self, entry: Entry, file: int) -> None:
        if entry.sparse is None:
            if entry.size >= _LARGE:
                self._check_space(entry)
            self._reader.copy(file, entry.size)
            return
        for offset, length in entry.sparse:
            os.lseek(file, offset, os.SEEK_SET)
            self._reader.copy(file, length)
        os.ftruncate(file, entry.size)

    def _check_space(self, entry: Entry) -> None:
        """Refuse at once what would only be known to be too large when it has filled the disk."""
        facts = os.fstatvfs(self._root)
        free = facts.f_bavail * facts.f_frsize
        if entry.size > free:
            raise OutOfSpace(f"unpacking {show(entry.path)}: it has {entry.size} bytes, and {free} are free")

    def _make_folder(self, entry: Entry, path: bytes, parent: bytes, name: bytes) -> None:
        if path:
            try:
                os.mkdir(name, 0o700, dir_fd=self._folder(parent))
            except FileExistsError:
                facts = os.stat(name, dir_fd=self._folder(parent), follow_symlinks=False)
                if not stat.S_ISDIR(facts.st_mode):
                    self._remove(parent, name)
                    os.mkdir(name, 0o700, dir_fd=self._folder(parent))
                    if self._whiteouts is Whiteouts.OVERLAY:  # what took the name before hid the folder below
                        os.setxattr(self._folder(path), OPAQUE_XATTR, b"y")
        self._implied.pop(path, None)
        if self._whiteouts is Whiteouts.REMOVE:
            self._described.add(path)
        nodes.dress(self._folder(path), entry)
        moment = max(-_TIME_LIMIT_NS, min(entry.mtime_ns, _TIME_LIMIT_NS))
        self._times.write(_TIME.pack(len(path), moment) + path)

    def _make_link(self, entry: Entry, path: bytes, parent: bytes, name: bytes) -> None:
        target = _clean(entry.link, entry)
        target_parent, target_name = _split(target)
        try:
            source = open_in_root(self._root, target_parent, FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            self._borrow(entry, path, target)
            return
        try:
            facts = os.stat(target_name or b".", dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode) or is_whiteout(facts):
                raise InvalidArgument(
                    f"the entry {show(entry.path)} is a hard link to {show(entry.link)}, which is no file"
                )
            try:
                os.link(target_name, name, src_dir_fd=source, dst_dir_fd=self._folder(parent), follow_symlinks=False)
            except FileExistsError:
                here = os.stat(name, dir_fd=self._folder(parent), follow_symlinks=False)
                if (here.st_dev, here.st_ino) == (facts.st_dev, facts.st_ino):
                    return
                self._remove(parent, name)
                os.link(target_name, name, src_dir_fd=source, dst_dir_fd=self._folder(parent), follow_symlinks=False)
        except FileNotFoundError:
            self._borrow(entry, path, target)
        finally:
            os.close(source)

    def _borrow(self, entry: Entry, path: bytes, target: bytes) -> None:
        if self._whiteouts is not Whiteouts.OVERLAY or not target:
            raise InvalidArgument(f"the entry {show(entry.path)} is a hard link to {show(entry.link)}, which is not there")
        self._folder(_split(path)[0])  # so that a whiteout of it hides only what is below
        self._borrowed.append((self._remember(path), self._remember(target)))

    # Folders on the way.

    def _folder(self, path: bytes) -> int:
        """The folder `path`, made when it is missing. The descriptor is good for the next few calls."""
        folder = self._folders.get(path)
        if folder is not None:
            self._folders.move_to_end(path)
            return folder
        try:
            folder = open_in_root(self._root, path, FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            folder = self._open_or_make(path, 0)
        if len(self._folders) >= _OPEN_FOLDERS:
            os.close(self._folders.popitem(last=False)[1])
        self._folders[path] = folder
        return folder

    def _open_or_make(self, path: bytes, links: int) -> int:
        folder = os.open(b".", FOLDER, dir_fd=self._root)
        so_far = b""
        try:
            for name in path.split(b"/"):
                so_far = so_far + b"/" + name if so_far else name
                below = self._step(folder, so_far, name, links)
                os.close(folder)
                folder = below
        except BaseException:
            os.close(folder)
            raise
        return folder

    def _step(self, folder: int, path: bytes, name: bytes, links: int) -> int:
        """Open or make the folder `name`, which `path` leads to."""
        try:
            return os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            return self._imply(folder, name, hides=False)
        except NotADirectoryError:
            facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if self._whiteouts is Whiteouts.OVERLAY and is_whiteout(facts):
            os.unlink(name, dir_fd=folder)
            return self._imply(folder, name, hides=True)
        if self._whiteouts is Whiteouts.REMOVE and not stat.S_ISLNK(facts.st_mode) and path not in self._own:
            os.unlink(name, dir_fd=folder)  # a file of the layers below
            return self._imply(folder, name, hides=False)
        try:
            return open_in_root(self._root, path, FOLDER)
        except FileNotFoundError:
            if links >= _LINKS_LIMIT:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
        # A link to a folder that is not there yet.
        link = os.readlink(name, dir_fd=folder)
        parts: list[bytes] = [] if link.startswith(b"/") else _split(path)[0].split(b"/")
        for part in link.split(b"/"):
            if part == b"..":
                del parts[-1:]
            elif part not in (b"", b"."):
                parts.append(part)
        return self._open_or_make(b"/".join(filter(None, parts)), links + 1)

    def _imply(self, folder: int, name: bytes, *, hides: bool) -> int:
        os.mkdir(name, 0o755, dir_fd=folder)
        below = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        try:
            os.fchmod(below, 0o755)  # whatever the umask says
            if hides:
                os.setxattr(below, OPAQUE_XATTR, b"y")
            elif self._whiteouts is Whiteouts.OVERLAY:
                place = self._true_place(below)
                if place is not None:
                    self._implied[self._remember(place)] = None
        except BaseException:
            os.close(below)
            raise
        return below

    def _true_place(self, folder: int) -> bytes | None:
        """The path of a folder without the links that led here; None when nothing could find it that deep."""
        try:
            return _place_of(folder).removeprefix(self._top).lstrip(b"/")
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            raise

    def _remember(self, path: bytes) -> bytes:
        self._remembered += len(path) + 100  # what Python adds to each
        if self._remembered > _REMEMBERED_LIMIT:
            raise InvalidArgument("the archive has too many folders without an entry, whiteouts, or links to other layers")
        return path

    def _forget_folders(self) -> None:
        while self._folders:
            os.close(self._folders.popitem()[1])

    def _remove(self, parent: bytes, name: bytes) -> None:
        """Make room. A folder or link that goes may have been the way to any folder that is open."""
        nodes.remove(self._folder(parent), name)
        self._forget_folders()

    # Whiteouts.

    def _mark(self, entry: Entry, parent: bytes, name: bytes) -> bool:
        """Do what a `.wh.` name says; False when this is none."""
        above = parent.split(b"/")
        if any(part.startswith(_AUFS) for part in above) or (name.startswith(_AUFS) and name != OPAQUE):
            return True  # what aufs kept for itself in old layers
        if any(part.startswith(WHITEOUT) for part in above):
            raise InvalidArgument(f"the entry {show(entry.path)} lies within a whiteout")
        if not name.startswith(WHITEOUT):
            return False
        if name == OPAQUE:
            if self._whiteouts is Whiteouts.OVERLAY:
                os.setxattr(self._folder(parent), OPAQUE_XATTR, b"y")
            else:
                self._folder(parent)
                self._bring(parent)
                self._clear_below(parent)
            return True
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise InvalidArgument(f"the entry {show(entry.path)} is a whiteout of no name")
        if self._whiteouts is Whiteouts.OVERLAY:
            self._hide(parent, hidden)
            return True
        self._folder(parent)
        self._bring(parent)
        path = parent + b"/" + hidden if parent else hidden
        if path in self._own:
            self._clear_below(path, itself=True)
        else:
            self._remove(parent, hidden)
        return True

    def _hide(self, parent: bytes, name: bytes) -> None:
        folder = self._folder(parent)
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=folder)
            place = self._true_place(folder)
            if place is not None:
                self._hidden.append(self._remember(place + b"/" + name if place else name))
        except FileExistsError:
            # This layer has the name too: that stays, and of a folder only the lower part goes.
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                path = parent + b"/" + name if parent else name
                os.setxattr(self._folder(path), OPAQUE_XATTR, b"y")
                self._implied.pop(path, None)  # it is a new folder, whatever was below

    def _bring(self, path: bytes) -> None:
        """Note that `path` and the folders above it are this archive's."""
        while path and path not in self._own:
            self._own.add(path)
            path = _split(path)[0]

    def _clear_below(self, path: bytes, *, itself: bool = False) -> None:
        """Remove what the layers below have in a folder (if `path` is one) that this archive has too. Folders inside, and
        with `itself` this one, that no entry has described then look like new ones: those below are hidden."""
        todo = [path]
        while todo:
            current = todo.pop()
            try:
                folder = open_in_root(self._root, current, FOLDER | os.O_NOFOLLOW)
            except (FileNotFoundError, NotADirectoryError):
                continue
            try:
                if current not in self._described and (itself or current != path):
                    _make_plain(folder)
                for name in nodes.names(folder):
                    child = current + b"/" + name if current else name
                    if child in self._own:
                        todo.append(child)
                    else:
                        nodes.remove(folder, name)
            finally:
                os.close(folder)
        self._forget_folders()
