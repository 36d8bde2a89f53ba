"""What a worker does in a container's root. Its client is a socket: a request in, an answer and then an archive out.

Every answer is four bytes of length and a JSON object, `{"error": kind, "message": text}` for a failure. The archive of a
write comes in on the same socket, and ends with the daemon's half of it.
"""

from __future__ import annotations

import errno
import json
import os
import posixpath
import socket
import stat
import struct
from collections.abc import Callable, Mapping
from typing import Any

from wharfie.engine.files import view
from wharfie.shim import users
from wharfie.spi import tarformat
from wharfie.spi.errors import DriverError, Forbidden, InvalidArgument, NotFound, WharfieError, from_os_error
from wharfie.spi.inroot import FOLDER, open_in_root
from wharfie.spi.storage import ChangeKind
from wharfie.spi.tar import Whiteouts, unpack
from wharfie.spi.tarformat import Entry
from wharfie.spi.tarwriter import Writer
from wharfie.spi.tree import Difference, Node, Tree, archive

LENGTH = struct.Struct(">L")
_LOOK = os.O_PATH | os.O_NOFOLLOW
_NOT_THERE = (errno.ENOENT, errno.ELOOP)


class Client:
    """The daemon's end. After a good answer there is no way to tell of a failure but to stop short of the archive's end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answered = False

    def fileno(self) -> int:
        return self._connection.fileno()

    def answer(self, document: Mapping[str, Any]) -> None:
        if not self._answered:
            self._answered = True
            data = json.dumps(document).encode()
            self._connection.sendall(LENGTH.pack(len(data)) + data)


def serve(client: Client, request: Mapping[str, Any], namespace: int | None) -> None:
    """Do what is asked, answer, and leave."""
    try:
        root = _root(request, namespace)
        _OPERATIONS[request["operation"]](client, root, request)
    except WharfieError as error:
        client.answer({"error": type(error).__name__, "message": error.message})
    except BrokenPipeError:
        return
    except OSError as error:
        known = _explained(error, request)
        client.answer({"error": type(known).__name__, "message": known.message})


def _root(request: Mapping[str, Any], namespace: int | None) -> int:
    mounts = view.user_mounts(request["mounts"])
    if namespace is not None:
        if request["operation"] == "export":
            mounts = []
        return view.of_running(namespace, mounts, request["at"])
    rootfs = [(kind, source, options) for kind, source, options in request["rootfs"]]
    return view.of_stopped(rootfs, mounts, request["at"], read_only=request["read_only"])


def _explained(error: OSError, request: Mapping[str, Any]) -> WharfieError:
    if error.errno in _NOT_THERE:
        return NotFound(f"Could not find the file {request['path']} in container {request['name']}")
    if error.errno == errno.ENOTDIR:
        return InvalidArgument(f"{request['path']}: a part of the path is no folder")
    return from_os_error(error)


# ---- looking


class _Place:
    """What a path means: Docker cleans it as text, follows links in its folders, and not at its end unless the path ends
    with a slash or a dot."""

    def __init__(self, root: int, path: str) -> None:
        clean = posixpath.normpath("/" + path.lstrip("/"))
        self.path = clean
        self.name = posixpath.basename(clean) or "/"
        through = path.endswith(("/", "/.")) or path == "." or clean == "/"
        if path.endswith("/.") or path == ".":
            self.name = "."
        if through:
            self.parent = open_in_root(root, os.fsencode(clean), os.O_PATH | os.O_DIRECTORY)
            self.facts = os.fstat(self.parent)
            self.base = b"."
        else:
            self.parent = open_in_root(root, os.fsencode(posixpath.dirname(clean)), os.O_PATH | os.O_DIRECTORY)
            self.base = os.fsencode(self.name)
            self.facts = os.stat(self.base, dir_fd=self.parent, follow_symlinks=False)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.facts.st_mode)

    def stat(self, root: int) -> dict[str, Any]:
        target = ""
        if stat.S_ISLNK(self.facts.st_mode):
            target = _target(root, self.path, os.fsdecode(os.readlink(self.base, dir_fd=self.parent)))
        return {
            "name": self.name,
            "size": self.facts.st_size,
            "mode": self.facts.st_mode,
            "mtime_ns": self.facts.st_mtime_ns,
            "link_target": target,
        }


def _target(root: int, path: str, link: str) -> str:
    """Where a link leads in the end, as a path in the container; what it says when that is not there."""
    try:
        found = open_in_root(root, os.fsencode(path), os.O_PATH)
    except OSError as error:
        if error.errno not in (*_NOT_THERE, errno.ENOTDIR):
            raise
        return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    try:
        top, place = (os.readlink(f"/proc/self/fd/{fd}") for fd in (root, found))  # noqa: PTH115  # descriptors
    finally:
        os.close(found)
    return place.removeprefix(top.rstrip("/")) or "/"


def _stat(client: Client, root: int, request: Mapping[str, Any]) -> None:
    client.answer(_Place(root, request["path"]).stat(root))


# ---- reading


def _read(client: Client, root: int, request: Mapping[str, Any]) -> None:
    place = _Place(root, request["path"])
    client.answer(place.stat(root))
    name = os.fsencode(place.name)
    if place.is_folder:
        folder = open_in_root(place.parent, place.base, FOLDER)
        archive(Tree(folder), client.fileno(), name)
        return
    writer = Writer(client.fileno(), literal=True)
    node = Node(root=place.parent, path=place.base, facts=place.facts)
    writer.add(Difference(ChangeKind.ADDED, place.base, node), name)
    writer.finish()


def _export(client: Client, root: int, _: Mapping[str, Any]) -> None:
    folder = open_in_root(root, b".", FOLDER)
    client.answer({})
    archive(Tree(folder), client.fileno())


# ---- writing


def _write(client: Client, root: int, request: Mapping[str, Any]) -> None:
    path = posixpath.normpath("/" + request["path"].lstrip("/"))
    place = open_in_root(root, os.fsencode(path), os.O_PATH)
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        raise WharfieError("extraction point is not a directory")
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise _read_only(path, request)
    owner = None
    if request["user"]:
        user = users.resolve(root, request["user"])
        owner = (user.uid, user.gid)
    prepare = _preparer(root, path, owner, keep_kinds=request["keep_kinds"])
    try:
        unpack(client.fileno(), root, Whiteouts.LITERAL, prepare)
    except DriverError as error:
        if error.details.get("errno") == "EROFS":
            raise _read_only(path, request) from error
        raise
    client.answer({})


def _restore(client: Client, root: int, _: Mapping[str, Any]) -> None:
    """All of an archive, with what it says about the root itself."""
    unpack(client.fileno(), root, Whiteouts.LITERAL)
    client.answer({})


def _read_only(path: str, request: Mapping[str, Any]) -> Forbidden:
    inside = any((path + "/").startswith(entry["destination"].rstrip("/") + "/") for entry in request["mounts"])
    return Forbidden(
        "mounted volume is marked read-only" if inside else "container rootfs is marked read-only",
    )


def _preparer(root: int, path: str, owner: tuple[int, int] | None, *, keep_kinds: bool) -> Callable[[Entry], bool]:
    """Moves entries from the archive's root to `path`: links on the way are then followed as the container would."""
    prefix = os.fsencode(path.strip("/"))

    def prepare(entry: Entry) -> bool:
        relative = _below(entry.path, entry)
        if not relative:
            return False  # the folder itself stays as it is
        entry.path = prefix + b"/" + relative
        if entry.kind == tarformat.HARD_LINK:
            entry.link = prefix + b"/" + _below(entry.link, entry)
        if owner is not None:
            entry.uid, entry.gid = owner
        if keep_kinds:
            _check_kind(root, path, entry)
        return True

    return prepare


def _below(path: bytes, entry: Entry) -> bytes:
    """`path` cleaned. Errors: InvalidArgument when it climbs out of the folder that is written to."""
    clean = posixpath.normpath(b"./" + path.lstrip(b"/"))
    if clean == b".." or clean.startswith(b"../"):
        raise InvalidArgument(
            f'the entry "{os.fsdecode(entry.path)}" is outside of the folder: it leads to "{os.fsdecode(path)}"'
        )
    return b"" if clean == b"." else clean


def _check_kind(root: int, path: str, entry: Entry) -> None:
    """`noOverwriteDirNonDir`. Errors: WharfieError with Docker's text."""
    parent, _, name = entry.path.rpartition(b"/")
    try:
        folder = open_in_root(root, parent, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        return  # nothing is there yet
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    finally:
        os.close(folder)
    here, comes = stat.S_ISDIR(found.st_mode), entry.kind == tarformat.FOLDER
    if here != comes:
        old, new = ("directory", "non-directory") if here else ("non-directory", "directory")
        raise WharfieError(f'cannot overwrite {old} "/{os.fsdecode(entry.path)}" with {new} "{path}"')


_OPERATIONS: Mapping[str, Callable[[Client, int, Mapping[str, Any]], None]] = {
    "stat": _stat,
    "read": _read,
    "export": _export,
    "write": _write,
    "restore": _restore,
}
