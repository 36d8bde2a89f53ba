"""Trees of files compared: what changed between two, as a list or as a layer's tar, and how much space one takes.

A *tree* is a folder, or several that overlayfs would show as one, uppermost first; nothing is mounted for it. Storage
drivers that keep whole trees get `changes`, `diff` and `usage` from here by handing over two folders:

    diff(Tree(old), Tree(new), out)

and those that stack folders by handing over the stacks, of which only the part that differs is walked:

    diff(Tree(*lower, overlay=True), Tree(upper, *lower, overlay=True), out)
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from wharfie.spi import nodes
from wharfie.spi.call import progress
from wharfie.spi.driver import FileDescriptor, Usage
from wharfie.spi.errors import Cancelled
from wharfie.spi.inroot import FOLDER, open_in_root
from wharfie.spi.storage import Change, ChangeKind
from wharfie.spi.tar import OPAQUE_XATTR, PATH_LIMIT, is_whiteout
from wharfie.spi.tarformat import Entry
from wharfie.spi.tarwriter import Writer

_CAPABILITY: Final = b"security.capability"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A file of a tree: which of its folders (a descriptor) has it, where in there, and what it is."""

    root: int
    path: bytes
    facts: os.stat_result

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.facts.st_mode)

    def entry(self) -> Entry | None:
        """As a tar entry with the whole path; None for a socket. Errors: OSError (it vanished)."""
        parent, _, name = self.path.rpartition(b"/")
        folder = open_in_root(self.root, parent, FOLDER)
        try:
            entry = nodes.read_entry(folder, name or b".", self.facts)
        finally:
            os.close(folder)
        if entry is not None:
            entry.path = self.path
        return entry

    def open(self) -> int:
        """A regular file, for reading; the caller closes it. Errors: OSError (it vanished or became something else)."""
        found = open_in_root(self.root, self.path, os.O_PATH | os.O_NOFOLLOW)
        try:
            now = os.fstat(found)
            if (now.st_dev, now.st_ino) != (self.facts.st_dev, self.facts.st_ino):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)
            # Opened only now: a device that took the name would have felt it.
            return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(found)


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of a tree: its path, and those of the tree's folders in which its content lies, uppermost first."""

    path: bytes
    roots: tuple[int, ...]


class Tree:
    """One folder, or with `overlay` a stack of them; `roots` are descriptors, which stay the caller's."""

    def __init__(self, *roots: int, overlay: bool = False) -> None:
        self.overlay = overlay
        self.top = Place(b"", roots)

    def listing(self, place: Place, root: int) -> dict[bytes, Node]:
        """What one of the stacked folders has at a place, whiteouts included."""
        if len(place.path) > PATH_LIMIT:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), place.path[:80])
        found: dict[bytes, Node] = {}
        try:
            folder = open_in_root(root, place.path, FOLDER)
        except (FileNotFoundError, NotADirectoryError):
            return found  # gone meanwhile: a container may be running on it
        try:
            for name in nodes.names(folder):
                path = place.path + b"/" + name if place.path else name
                try:
                    found[name] = Node(root=root, path=path, facts=os.stat(name, dir_fd=folder, follow_symlinks=False))
                except FileNotFoundError:
                    continue
        finally:
            os.close(folder)
        return found

    def children(self, place: Place) -> dict[bytes, Node]:
        """What is visible at a place."""
        found: dict[bytes, Node] = {}
        for root in place.roots:
            for name, node in self.listing(place, root).items():
                found.setdefault(name, node)
        return {name: node for name, node in found.items() if not self.hides(node)}

    def child(self, place: Place, name: bytes) -> Node | None:
        """What `name` is at a place; None when nothing is visible."""
        path = place.path + b"/" + name if place.path else name
        for root in place.roots:
            facts = _look(root, path)
            if facts is not None:
                node = Node(root=root, path=path, facts=facts)
                return None if self.hides(node) else node
        return None

    def enter(self, place: Place, name: bytes) -> Place:
        """The folder `name` at a place, of which `child` said that it is one."""
        path = place.path + b"/" + name if place.path else name
        roots = []
        for root in place.roots:
            facts = _look(root, path)
            if facts is None:
                continue
            if not stat.S_ISDIR(facts.st_mode):
                break
            roots.append(root)
            if self.overlay and _is_opaque(root, path):
                break
        return Place(path, tuple(roots))

    def find(self, path: bytes) -> Node | None:
        """What is visible at `path`, without following links; None when nothing is. b"" is the root."""
        if not path:
            root = self.top.roots[0]
            return Node(root=root, path=b"", facts=os.fstat(root))
        place = self.top
        *parents, last = path.split(b"/")
        for name in parents:
            node = self.child(place, name)
            if node is None or not node.is_folder:
                return None
            place = self.enter(place, name)
        return self.child(place, last)

    def hides(self, node: Node) -> bool:
        return self.overlay and is_whiteout(node.facts)


@dataclass(frozen=True, slots=True)
class Difference:
    """One path in which two trees differ; `node` is None for what is gone."""

    kind: ChangeKind
    path: bytes
    node: Node | None


@dataclass(slots=True)
class _Level:
    """A folder whose content is being compared. `told`: the folder itself was yielded."""

    pairs: Iterator[tuple[bytes, Node | None, Node | None]]
    old: Place | None
    new: Place
    node: Node
    told: bool


def compare(old: Tree | None, new: Tree) -> Iterator[Difference]:
    """All paths in which `new` differs from `old` (None: from nothing), folders before their content, names in order.

    As Docker counts: a folder in which something changed is modified itself (but not the root), a folder that is gone is
    one deletion, and times and sizes of folders do not matter.
    """
    top = Node(root=new.top.roots[0], path=b"", facts=os.fstat(new.top.roots[0]))
    levels = [_level(old, new, old.top if old else None, new.top, top, told=True)]
    while levels:
        level = levels[-1]
        pair = next(level.pairs, None)
        if pair is None:
            levels.pop()
            continue
        name, before, now = pair
        kind = _judge(before, now)
        if kind is not None:
            for above in levels:
                if not above.told:
                    above.told = True
                    yield Difference(ChangeKind.MODIFIED, above.node.path, above.node)
            yield Difference(kind, level.new.path + b"/" + name if level.new.path else name, now)
        if now is None or not now.is_folder:
            continue
        place = new.enter(level.new, name)
        place_before = None
        if before is not None and before.is_folder and old is not None and level.old is not None:
            place_before = old.enter(level.old, name)
            if place_before == place:
                continue  # the very same folders
        levels.append(_level(old, new, place_before, place, now, told=kind is not None))


def _level(old: Tree | None, new: Tree, before: Place | None, now: Place, node: Node, *, told: bool) -> _Level:
    pairs: Iterator[tuple[bytes, Node | None, Node | None]]
    if old is not None and before is not None and new.overlay and now.roots[1:] == before.roots:
        # Only the uppermost folder can differ, so the ones below are not listed.
        own = new.listing(now, now.roots[0])
        pairs = ((name, old.child(before, name), None if new.hides(item) else item) for name, item in own.items())
    else:
        content = new.children(now)
        gone = old.children(before) if old is not None and before is not None else {}
        pairs = ((name, gone.get(name), content.get(name)) for name in sorted({*content, *gone}))
    return _Level(pairs=pairs, old=before, new=now, node=node, told=told)


def _judge(before: Node | None, now: Node | None) -> ChangeKind | None:
    if now is None:
        return None if before is None else ChangeKind.DELETED
    if before is None:
        return ChangeKind.ADDED
    return ChangeKind.MODIFIED if _differ(before, now) else None


def _differ(before: Node, now: Node) -> bool:
    a, b = before.facts, now.facts
    if (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino):
        return False
    if (a.st_mode, a.st_uid, a.st_gid, a.st_rdev) != (b.st_mode, b.st_uid, b.st_gid, b.st_rdev):
        return True
    if stat.S_ISDIR(a.st_mode):
        return False
    if (a.st_size, a.st_mtime_ns) != (b.st_size, b.st_mtime_ns):
        return True
    return stat.S_ISREG(a.st_mode) and _capability(before) != _capability(now)


def _capability(node: Node) -> bytes | None:
    try:
        entry = node.entry()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return entry.xattrs.get(_CAPABILITY) if entry else None


def _look(root: int, path: bytes) -> os.stat_result | None:
    """lstat within a root. The caller has found all folders on the way to be folders of this tree."""
    parent, _, name = path.rpartition(b"/")
    try:
        folder = open_in_root(root, parent, FOLDER | os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    finally:
        os.close(folder)


def _is_opaque(root: int, path: bytes) -> bool:
    try:
        folder = open_in_root(root, path, FOLDER)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return os.getxattr(folder, OPAQUE_XATTR) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise
    finally:
        os.close(folder)


def changes(old: Tree | None, new: Tree) -> Sequence[Change]:
    """`compare` as Docker lists it (`GET /containers/{id}/changes`), sorted by path. Errors: OSError."""
    found = [
        Change(kind=difference.kind, path="/" + difference.path.decode("utf-8", "replace"))
        for difference in compare(old, new)
    ]
    return sorted(found, key=lambda change: change.path)


def diff(old: Tree | None, new: Tree, out: FileDescriptor) -> None:
    """Write what `compare` finds to `out` as a layer's tar, with `old` None an archive of the whole tree.

    What is gone becomes a whiteout `.wh.NAME`, never an opaque marker (OCI image-spec, layer.md, asks for explicit ones);
    hard links among the changes stay such.

    Left out, for no layer can hold them: sockets, and files whose own names begin with `.wh.`. Files may change or go while
    it runs. Errors: OSError; Cancelled (nobody reads `out` any more).
    """
    writer = Writer(out)
    try:
        for difference in compare(old, new):
            progress()
            writer.add(difference)
        writer.finish()
    except BrokenPipeError as error:
        raise Cancelled("nobody reads the layer that is being written") from error


def archive(tree: Tree, out: FileDescriptor, name: bytes = b"") -> None:
    """Write the whole tree to `out` as an archive in which nothing but the files' own content has a meaning.

    `name`: what the tree's root is called in it; with b"" the root has no entry. Sockets are left out. Errors: as `diff`.
    """
    writer = Writer(out, literal=True)
    try:
        root = tree.find(b"")
        if name and root is not None:
            writer.add(Difference(ChangeKind.ADDED, b"", root), name)
        prefix = name.rstrip(b"/") + b"/" if name else b""
        for difference in compare(None, tree):
            progress()
            writer.add(difference, prefix + difference.path)
        writer.finish()
    except BrokenPipeError as error:
        raise Cancelled("nobody reads the archive that is being written") from error


def usage(root: int) -> Usage:
    """Space of all files below the folder `root` (a descriptor), as Docker counts: lengths of files, a file with several
    names once, folders nothing. Works on trees of any depth and while they change. Errors: OSError."""
    size = inodes = 0
    linked: set[tuple[int, int]] = set()
    for facts in _walk(root):
        if not stat.S_ISDIR(facts.st_mode):
            if facts.st_nlink > 1:
                if (facts.st_dev, facts.st_ino) in linked:
                    continue
                linked.add((facts.st_dev, facts.st_ino))
            size += facts.st_size
        inodes += 1
    return Usage(size=size, inodes=inodes)


def _walk(root: int) -> Iterator[os.stat_result]:
    """All that is below `root`. A folder whose path grows too long for the kernel becomes a root of its own."""
    todo: list[tuple[int, bytes | None]] = [(root, b"")]
    try:
        while todo:
            base, path = todo.pop()
            if path is None:  # all below this base is done
                os.close(base)
                continue
            try:
                folder = open_in_root(base, path, FOLDER)
            except (FileNotFoundError, NotADirectoryError):
                continue
            below = path
            if len(path) > PATH_LIMIT - 2 * 256:
                base, below = os.dup(folder), b""
                todo.append((base, None))
            try:
                with os.scandir(folder) as listing:
                    for item in listing:
                        progress()
                        try:
                            facts = item.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue
                        yield facts
                        if stat.S_ISDIR(facts.st_mode):
                            name = os.fsencode(item.name)
                            todo.append((base, below + b"/" + name if below else name))
            finally:
                os.close(folder)
    finally:
        for base, path in todo:
            if path is None:
                os.close(base)
