"""Random layers given to the storage drivers, and what a container then sees, against a plain model of OCI's rules
(image-spec, layer.md). What the rules leave open, such as two entries of one path, is not generated.

WHARFIE_EXAMPLES: how many for each driver; 25, to be quick, unless it says more.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import stat
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wharfie_storage_overlay.driver import OverlayDriver
from wharfie_storage_overlay.settings import OverlaySettings
from wharfie_storage_vfs.driver import VfsDriver

from wharfie.shim.root import mount_root
from wharfie.shim.system import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare
from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.storage import SnapshotOptions, StorageDriver

pytestmark = pytest.mark.root
EXAMPLES = int(os.environ.get("WHARFIE_EXAMPLES", "25"))


@dataclass(frozen=True)
class Node:
    """What is at a path. `made`: the layer and the entry whose inode it is."""

    kind: str
    mode: int = 0o755
    owner: int = 0
    time: int = 0
    content: bytes = b""
    attribute: bytes = b""
    made: tuple[int, str] = (-1, "")


@dataclass(frozen=True)
class Entry:
    path: str
    kind: str  # file, folder, link, fifo, hard, whiteout, opaque
    mode: int = 0o644
    owner: int = 0
    time: int = 0
    content: bytes = b""
    attribute: bytes = b""
    choice: int = 0


FOLDERS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
NAMES = st.tuples(st.lists(st.sampled_from("abc"), max_size=2), st.sampled_from("abcde")).map(
    lambda parts: "/".join([*parts[0], parts[1]])
)
TIMES = st.sampled_from([0, 1_000_000_000, 1_700_000_000])
OWNERS = st.sampled_from([0, 1000])
FILES = st.builds(
    Entry,
    path=NAMES,
    kind=st.just("file"),
    mode=st.sampled_from([0o644, 0o600, 0o4755]),
    owner=OWNERS,
    time=TIMES,
    content=st.sampled_from([b"", b"1", b"22" * 600]),
    attribute=st.sampled_from([b"", b"v"]),
)
ENTRY = st.one_of(
    FILES,
    FILES,
    st.builds(Entry, path=FOLDERS, kind=st.just("folder"), mode=st.sampled_from([0o755, 0o700, 0o1777]), owner=OWNERS),
    # Links have names of their own: what an entry below a link of another layer means, the rules do not say.
    st.builds(Entry, path=FOLDERS.map(lambda path: path + "/s"), kind=st.just("link"), owner=OWNERS, time=TIMES),
    st.builds(Entry, path=FOLDERS.map(lambda path: path + "/p"), kind=st.just("fifo"), mode=st.just(0o600), time=TIMES),
    st.builds(Entry, path=FOLDERS.map(lambda path: path + "/h"), kind=st.just("hard"), choice=st.integers(0, 99)),
    st.builds(Entry, path=st.one_of(NAMES, FOLDERS.map(lambda path: path + "/s")), kind=st.just("whiteout")),
    st.builds(Entry, path=FOLDERS, kind=st.just("opaque")),
)
LAYER = st.lists(ENTRY, max_size=9)
MARKS = ("whiteout", "opaque")


def above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:length]) for length in range(1, len(parts))]


def consistent(entries: Sequence[Entry]) -> list[Entry]:
    """One entry a path, and none below what is no folder."""
    kept: list[Entry] = []
    leaves: set[str] = set()
    folders: set[str] = set()
    for entry in entries:
        is_leaf = entry.kind not in ("folder", *MARKS)
        needed = {*above(entry.path), *([entry.path] if entry.kind in ("folder", "opaque") else [])}
        taken = entry.kind not in MARKS and entry.path in {other.path for other in kept if other.kind not in MARKS}
        if leaves & needed or (is_leaf and entry.path in folders) or taken:
            continue
        folders |= needed
        if is_leaf:
            leaves.add(entry.path)
        kept.append(entry)
    return kept


@dataclass
class Model:
    """The tree that a container should see."""

    nodes: dict[str, Node] = field(default_factory=dict)

    def apply(self, number: int, entries: Sequence[Entry]) -> list[tuple[Entry, str]]:
        """The layer as it is archived: its entries, hard links with their targets."""
        below = dict(self.nodes)
        for entry in entries:  # marks concern the layers below only
            if entry.kind in MARKS:
                self._drop(entry.path, itself=entry.kind == "whiteout")
        leaves = {entry.path for entry in entries if entry.kind not in ("folder", *MARKS)}
        taken = {path for entry in entries for path in (entry.path, *above(entry.path))}
        untouched = {
            path
            for path, node in self.nodes.items()
            if node.kind == "file" and below.get(path) is node and path not in taken and not leaves & {*above(path)}
        }
        own: list[str] = []
        archived: list[tuple[Entry, str]] = []
        for entry in entries:
            choices = [*own, *sorted(untouched)]
            if entry.kind == "hard" and not choices:
                continue
            target = choices[entry.choice % len(choices)] if entry.kind == "hard" else ""
            archived.append((entry, target))
            for folder in above(entry.path) + ([entry.path] if entry.kind == "opaque" else []):
                if folder not in self.nodes or self.nodes[folder].kind != "folder":
                    self.nodes[folder] = Node("folder")
            if entry.kind not in MARKS:
                self._put(number, entry, target)
            if entry.kind == "file":
                own.append(entry.path)
        return archived

    def _put(self, number: int, entry: Entry, target: str) -> None:
        if entry.kind == "folder":
            if self.nodes.get(entry.path, Node("file")).kind != "folder":
                self.nodes.pop(entry.path, None)
            self.nodes[entry.path] = Node("folder", entry.mode, entry.owner)
            return
        self._drop(entry.path, itself=True)
        if entry.kind == "hard":
            self.nodes[entry.path] = self.nodes[target]
            return
        mode = 0o777 if entry.kind == "link" else entry.mode
        content = b"somewhere" if entry.kind == "link" else entry.content
        made = (number, entry.path)
        self.nodes[entry.path] = Node(entry.kind, mode, entry.owner, entry.time, content, entry.attribute, made)

    def _drop(self, path: str, *, itself: bool) -> None:
        for other in list(self.nodes):
            if other.startswith(path + "/") or (itself and other == path):
                del self.nodes[other]


def pack(archived: Sequence[tuple[Entry, str]]) -> bytes:
    out = io.BytesIO()
    types = {"folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "fifo": tarfile.FIFOTYPE, "hard": tarfile.LNKTYPE}
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry, target in archived:
            parent, _, name = entry.path.rpartition("/")
            path = {"whiteout": f"{parent}/.wh.{name}".lstrip("/"), "opaque": f"{entry.path}/.wh..wh..opq"}
            info = tarfile.TarInfo(path.get(entry.kind, entry.path))
            info.type = types.get(entry.kind, tarfile.REGTYPE)
            info.mode, info.uid, info.mtime = entry.mode, entry.owner, entry.time
            info.linkname = "somewhere" if entry.kind == "link" else target
            info.size = len(entry.content)
            if entry.attribute:
                info.pax_headers = {"SCHILY.xattr.user.x": entry.attribute.decode()}
            tar.addfile(info, io.BytesIO(entry.content))
    return out.getvalue()


def seen(root: Path) -> tuple[dict[str, Node], dict[str, tuple[int, int]]]:
    """What a container sees, and the inode of each file. Times of folders are left out: each entry inside changes them."""
    nodes, inodes = {}, {}
    for path in root.rglob("*"):
        facts, name = path.lstat(), str(path.relative_to(root))
        mode, owner, time = stat.S_IMODE(facts.st_mode), facts.st_uid, int(facts.st_mtime)
        if stat.S_ISDIR(facts.st_mode):
            nodes[name] = Node("folder", mode, owner)
        elif stat.S_ISLNK(facts.st_mode):
            nodes[name] = Node("link", mode, owner, time, os.fsencode(path.readlink()))
        elif stat.S_ISFIFO(facts.st_mode):
            nodes[name] = Node("fifo", mode, owner, time)
        else:
            attribute = os.getxattr(path, "user.x") if "user.x" in os.listxattr(path) else b""
            nodes[name] = Node("file", mode, owner, time, path.read_bytes(), attribute)
            inodes[name] = (facts.st_dev, facts.st_ino)
    return nodes, inodes


def inside(driver: StorageDriver, key: str, target: Path) -> tuple[dict[str, Node], dict[str, tuple[int, int]]]:
    """`seen` in a child that has the snapshot mounted in a mount namespace of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            unshare(CLONE_NEWNS)
            mount("none", "/", "none", MS_REC | MS_PRIVATE)
            mount_root([(item.type, item.source, item.options) for item in driver.mounts(key)], str(target))
            answer: object = seen(target)
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        with open(writing, "wb") as out:
            pickle.dump(answer, out)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        answer = pickle.loads(stream.read())
    os.waitpid(child, 0)
    assert not isinstance(answer, str), answer
    return answer  # type: ignore[return-value]


def opened(name: str, state: Path) -> StorageDriver:
    facts = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v2", cpus=2, memory=1 << 30)
    log = logging.getLogger("test")
    context = Context(state=state, run=state, instance="00000000", log=log, host=facts, emit=lambda event: None)
    driver = OverlayDriver(context, OverlaySettings(sync=False)) if name == "overlay2" else VfsDriver(context, None)
    driver.open()
    return driver


@pytest.mark.parametrize("name", ["overlay2", "vfs"])
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers=st.lists(LAYER, min_size=1, max_size=4), chance=st.randoms(use_true_random=False))
def test_a_container_sees_what_the_rules_say(name: str, layers: list[list[Entry]], chance) -> None:
    model = Model()
    made = []
    for number, entries in enumerate(map(consistent, layers)):
        archived = model.apply(number, entries)
        made.append((f"sha256:{number}", f"sha256:{number - 1}" if number else None, pack(archived)))
    top = made[-1][0]
    if name == "overlay2":
        chance.shuffle(made)  # it takes layers before their parents
    with tempfile.TemporaryDirectory(prefix="wh-merged-") as place:
        state = Path(place) / "state"
        state.mkdir(mode=0o700)
        driver = opened(name, state)
        try:
            for layer, parent, data in made:
                with tempfile.TemporaryFile() as file:
                    file.write(data)
                    file.seek(0)
                    driver.apply(layer, parent, file.fileno())
            driver.create("k", top, SnapshotOptions())
            found, inodes = inside(driver, "k", Path(place) / "mnt")
        finally:
            driver.close()
    assert found == {path: replace(node, made=(-1, "")) for path, node in model.nodes.items()}
    together: dict[tuple[int, str], list[str]] = {}
    for path, node in model.nodes.items():
        if node.kind == "file":
            together.setdefault(node.made, []).append(path)
    for (number, _), paths in together.items():
        if number == len(layers) - 1:  # hard links of the uppermost layer: no other layer has copied any of them
            assert len({inodes[path] for path in paths}) == 1
