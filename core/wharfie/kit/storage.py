"""The rules of storage drivers. Layers are tars made here; what a driver describes is mounted in the room's own mount
namespace, as the shim does it."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from wharfie.kit.contract import Contract
from wharfie.kit.crash import Operation
from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, OCI, Group, NotOffered, refused, require, rule, succeeds
from wharfie.shim.root import mount_root
from wharfie.shim.system import MNT_DETACH, umount2
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, Unsupported, WharfieError
from wharfie.spi.storage import ChangeKind, Layer, SnapshotOptions, StorageCapability, StorageDriver

Store = StorageDriver
PLAIN = SnapshotOptions()
T = TypeVar("T")
Entries = Mapping[str, bytes | str | None]
BASE: Entries = {
    "etc/": None,
    "etc/passwd": b"root",
    "etc/motd": b"hello",
    "bin/": None,
    "bin/sh": b"#!",
}
ABOVE: Mapping[str, bytes | str | None] = {"etc/": None, "etc/motd": b"bye", "etc/.wh.passwd": b"", "new": b"new"}


def layer_name(number: object) -> str:
    return "sha256:" + hashlib.sha256(repr(number).encode()).hexdigest()


def tar(entries: Mapping[str, bytes | str | None]) -> bytes:
    """A layer's tar: a name with a slash at its end is a folder, a text is the target of a symbolic link."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.mtime = 1_700_000_000
            member.mode = 0o755 if name.endswith("/") else 0o644
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content or b"")
                archive.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()


@contextmanager
def stream(data: bytes) -> Iterator[int]:
    """A pipe's end that yields `data`: a driver may not seek."""
    reading, writing = os.pipe()

    def feed() -> None:
        try:
            with open(writing, "wb") as pipe:
                pipe.write(data)
        except BrokenPipeError:
            pass  # a layer that is there is not read

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        yield reading
    finally:
        os.close(reading)
        feeder.join()


class StorageContract(Contract[StorageDriver]):
    """`sized`: bytes of a limit to try SIZE_LIMIT with."""

    kind: ClassVar[str] = "storage"
    needs_root: ClassVar[bool] = True
    abilities: ClassVar[Any] = {StorageCapability.PROMOTE: ("promote",)}

    sized: ClassVar[int] = 8 * 2**20

    def apply(self, driver: Store, name: object, parent: object, entries: Entries | bytes = BASE) -> Layer:
        with stream(entries if isinstance(entries, bytes) else tar(entries)) as fd:
            return driver.apply(layer_name(name), layer_name(parent) if parent is not None else None, fd)

    @contextmanager
    def mounted(self, driver: Store, key: str) -> Iterator[Path]:
        target = Path(tempfile.mkdtemp(prefix="wharfie-kit-root-", dir=self._targets))
        mounts = driver.mounts(key)
        require(mounts, f"mounts({key!r}) returned nothing")
        with succeeds(f"mounting what mounts({key!r}) describes: {mounts}"):
            mount_root([(one.type, one.source, one.options) for one in mounts], str(target))
        try:
            yield target
        finally:
            umount2(str(target), MNT_DETACH)
            target.rmdir()

    def world(self, rig: Rig[Store]) -> None:
        self._targets = rig.scratch

    def two(self, driver: Store, number: object = 1) -> tuple[str, str]:
        """A layer, and one on it."""
        self.apply(driver, (number, "base"), None)
        self.apply(driver, (number, "above"), (number, "base"), ABOVE)
        return layer_name((number, "base")), layer_name((number, "above"))

    def life(self, rig: Rig[Store], driver: Store, number: int) -> None:
        base, above = self.two(driver, number)
        key = f"snapshot-{number}"
        driver.create(key, above, PLAIN)
        with self.mounted(driver, key) as root:
            require((root / "etc/motd").read_bytes() == b"bye", "the snapshot does not show its layers")
            (root / "written").write_bytes(b"written")
        driver.usage(key)
        driver.describe(key)
        require(
            {base, above} <= {layer.name for layer in driver.layers()}, "a layer that was applied is not among the layers"
        )
        for name in (key, above, base):
            driver.remove(name)

    def shared(self, rig: Rig[Store], driver: Store) -> Callable[[], None]:
        def finish() -> None:
            layers = [layer for layer in driver.layers() if layer.name == layer_name("both")]
            require(len(layers) == 1, f"after two applies at a time there are {len(layers)} layers")
            with self.mounted(driver, "both") as root:
                require(_tree(root) == _shown(BASE), "after two applies at a time the layer is not whole")
            driver.remove("both")
            driver.remove(layer_name("both"))

        return finish

    def share(self, rig: Rig[Store], driver: Store, number: int) -> None:
        self.apply(driver, "both", None)
        driver.create("both", layer_name("both"), PLAIN)

    def operations(self, rig: Rig[Store]) -> Sequence[Operation[Store]]:
        base, above = layer_name((1, "base")), layer_name((1, "above"))

        def one(driver: Store) -> None:
            self.apply(driver, (1, "base"), None)

        def both(driver: Store) -> None:
            self.two(driver)

        def snapshot(driver: Store) -> None:
            self.two(driver)
            driver.create("key", above, PLAIN)

        def whole(driver: Store, memo: None) -> None:
            driver.create("look", above, PLAIN)
            with self.mounted(driver, "look") as root:
                require(_tree(root) == _shown(BASE, ABOVE), f"the layers show {sorted(_tree(root))}")
            driver.remove("look")

        def usable(driver: Store, memo: None) -> None:
            with self.mounted(driver, "key") as root:
                require(_tree(root) == _shown(BASE, ABOVE), f"the snapshot shows {sorted(_tree(root))}")
                (root / "file").write_bytes(b"")

        def gone(driver: Store, memo: None) -> None:
            with refused(NotFound, "mounts of a removed snapshot"):
                driver.mounts("key")

        def take_back(driver: Store, memo: None) -> None:
            for name in ("key", above, base):
                driver.remove(name)
            driver.reconcile(frozenset())
            require(not driver.layers(), "a removed layer is still among the layers")

        def keep(*names: str) -> Callable[[Store, None], object]:
            def repair(driver: Store, memo: None) -> None:
                faults = driver.reconcile(frozenset(names))
                require(not faults, f"reconcile finds faults: {list(faults)}")
                listed = {layer.name for layer in driver.layers()}
                require(listed <= {base, above}, f"there are layers that nobody made: {listed}")

            return repair

        return (
            Operation(
                name="apply",
                before=one,
                run=lambda driver, memo: self.apply(driver, (1, "above"), (1, "base"), ABOVE),
                repair=keep(base),
                verify=whole,
                undo=take_back,
            ),
            Operation(
                name="create",
                before=both,
                run=lambda driver, memo: driver.create("key", above, PLAIN),
                repair=keep(base, above),
                verify=usable,
                undo=take_back,
            ),
            Operation(
                name="remove",
                before=snapshot,
                run=lambda driver, memo: driver.remove("key"),
                repair=lambda driver, memo: driver.reconcile(frozenset({base, above, "key"})),
                verify=gone,
                undo=take_back,
            ),
        )

    @rule("apply returns the layer as layers shows it: its name, parent and size.", methods="apply layers")
    def test_sto_01(self, rig: Rig[Store], driver: Store) -> None:
        made = self.apply(driver, "a", None, {"file": b"x" * 5000})
        require(made.name == layer_name("a") and made.parent is None, f"apply returned {made}")
        require(list(driver.layers()) == [made], f"layers returned {list(driver.layers())}, apply {made}")
        require(made.size >= 5000, f"a layer with a file of 5000 bytes has the size {made.size}")

    @rule("A snapshot shows its layers on top of each other.", methods="apply create mounts", source=OCI)
    def test_sto_02(self, rig: Rig[Store], driver: Store) -> None:
        _, above = self.two(driver)
        driver.create("key", above, PLAIN)
        with self.mounted(driver, "key") as root:
            seen = _tree(root)
            for name, content in _shown(BASE, ABOVE).items():
                require(name in seen and seen[name] == content, f"{name} is {seen.get(name)!r}, not {content!r}")

    @rule(
        "A whiteout hides the file of that name in the layers below, and is not seen itself.",
        methods="apply mounts",
        source=OCI,
    )
    def test_sto_03(self, rig: Rig[Store], driver: Store) -> None:
        _, above = self.two(driver)
        driver.create("key", above, PLAIN)
        with self.mounted(driver, "key") as root:
            require(not (root / "etc/passwd").exists(), "a file is seen that a whiteout hides")
            require(not [name for name in _tree(root) if ".wh." in name], "a whiteout is seen as a file")

    @rule("An opaque marker hides all that the layers below have in its folder.", methods="apply mounts", source=OCI)
    def test_sto_04(self, rig: Rig[Store], driver: Store) -> None:
        self.apply(driver, "a", None)
        self.apply(driver, "b", "a", {"etc/": None, "etc/.wh..wh..opq": b"", "etc/own": b"own"})
        driver.create("key", layer_name("b"), PLAIN)
        with self.mounted(driver, "key") as root:
            names = {name.name for name in (root / "etc").iterdir()}
            require(names == {"own"}, f"an opaque folder shows {sorted(names)}")

    @rule("A snapshot can be written to, and its layers and other snapshots do not change.", methods="create mounts")
    def test_sto_05(self, rig: Rig[Store], driver: Store) -> None:
        base, _ = self.two(driver)
        for key in ("one", "two"):
            driver.create(key, base, PLAIN)
        with self.mounted(driver, "one") as root:
            (root / "etc/motd").write_bytes(b"changed")
            (root / "bin/sh").unlink()
            (root / "added").write_bytes(b"")
        driver.create("three", base, PLAIN)
        for key in ("two", "three"):
            with self.mounted(driver, key) as root:
                require(
                    _tree(root) == _shown(BASE),
                    f"what was written to one snapshot is seen in another: {sorted(_tree(root))}",
                )

    @rule("What was written to a snapshot stays, also over a restart.", group=Group.ORDER, methods="mounts open")
    def test_sto_06(self, rig: Rig[Store], driver: Store) -> None:
        base, above = self.two(driver)
        driver.create("key", above, PLAIN)
        with self.mounted(driver, "key") as root:
            (root / "kept").write_bytes(b"kept")
        driver.close()
        with rig.opened() as second:
            require({layer.name for layer in second.layers()} == {base, above}, "after a restart there are other layers")
            with self.mounted(second, "key") as root:
                require((root / "kept").exists(), "what was written to the snapshot is gone after a restart")

    @rule("A snapshot on nothing is empty.", methods="create mounts")
    def test_sto_07(self, rig: Rig[Store], driver: Store) -> None:
        driver.create("key", None, PLAIN)
        with self.mounted(driver, "key") as root:
            require(not list(root.iterdir()), f"a snapshot on nothing has {sorted(_tree(root))}")

    @rule("A layer's name gives a view of it that cannot be written to.", methods="mounts")
    def test_sto_08(self, rig: Rig[Store], driver: Store) -> None:
        _, above = self.two(driver)
        with self.mounted(driver, above) as root:
            require(_tree(root) == _shown(BASE, ABOVE), f"the layer shows {sorted(_tree(root))}")
            try:
                (root / "file").write_bytes(b"")
            except OSError:
                return
        require(False, "a layer can be written to")

    @rule("apply of a layer that is there returns it without reading the stream.", group=Group.REPETITION, methods="apply")
    def test_sto_09(self, rig: Rig[Store], driver: Store) -> None:
        first = self.apply(driver, "a", None)
        for _ in range(3):
            with succeeds("apply of a layer that is there"):
                again = self.apply(driver, "a", None, b"this is no tar" * 100)
            require(again == first, f"apply again returned {again}")

    @rule(
        "create with the same arguments may be repeated; what was written stays.",
        group=Group.REPETITION,
        methods="create mounts",
    )
    def test_sto_10(self, rig: Rig[Store], driver: Store) -> None:
        base, _ = self.two(driver)
        driver.create("key", base, PLAIN)
        with self.mounted(driver, "key") as root:
            (root / "kept").write_bytes(b"")
        for _ in range(10):
            with succeeds("create, repeated"):
                driver.create("key", base, PLAIN)
        with self.mounted(driver, "key") as root:
            require((root / "kept").exists(), "create again lost what was written")

    @rule("apply and create on a parent that is not there are NotFound, and make nothing.", methods="apply create layers")
    def test_sto_11(self, rig: Rig[Store], driver: Store) -> None:
        if StorageCapability.PARALLEL_APPLY not in driver.capabilities():
            with refused(NotFound, "apply on a missing parent"):
                self.apply(driver, "a", "missing")
        with refused(NotFound, "create on a missing parent"):
            driver.create("key", layer_name("missing"), PLAIN)
        require(not driver.layers(), "a refused apply made a layer")
        with refused(NotFound, "mounts of a snapshot whose create was refused"):
            driver.mounts("key")

    @rule("create under a layer's name is Conflict.", methods="create")
    def test_sto_12(self, rig: Rig[Store], driver: Store) -> None:
        base, above = self.two(driver)
        with refused(Conflict, "create under a layer's name"):
            driver.create(above, base, PLAIN)

    @rule("mounts of what is not there is NotFound.", methods="mounts")
    def test_sto_13(self, rig: Rig[Store], driver: Store) -> None:
        with refused(NotFound, "mounts of a missing snapshot"):
            driver.mounts("missing")

    @rule("usage of what is not there is NotFound.", methods="usage")
    def test_sto_14(self, rig: Rig[Store], driver: Store) -> None:
        with refused(NotFound, "usage of a missing snapshot"):
            driver.usage("missing")

    @rule("A stream that is no tar, or ends too early, is InvalidArgument, and leaves no layer.", methods="apply layers")
    def test_sto_15(self, rig: Rig[Store], driver: Store) -> None:
        for what, data in (("garbage", b"no tar at all" * 200), ("a tar cut off", tar({"file": b"x" * 9000})[:4096])):
            with refused(InvalidArgument, f"apply of {what}"):
                self.apply(driver, what, None, data)
        require(not driver.layers(), "a refused apply left a layer")
        with succeeds("apply of the right tar after a wrong one"):
            self.apply(driver, "garbage", None)

    @rule("No entry reaches outside its layer, whatever its name or a link says.", methods="apply")
    def test_sto_16(self, rig: Rig[Store], driver: Store) -> None:
        outside = rig.scratch / "outside"
        outside.mkdir()
        evil: tuple[Entries, ...] = (
            {"../" * 12 + str(outside / "by-dots")[1:]: b"x"},
            {"link": str(outside), "link/by-link": b"x"},
            {str(outside / "by-root"): b"x"},
        )
        for number, entries in enumerate(evil):
            try:
                self.apply(driver, ("evil", number), None, entries)
            except WharfieError:
                continue  # refused, or kept inside: both are safe
        require(not list(outside.iterdir()), f"a tar wrote outside of its layer: {[p.name for p in outside.iterdir()]}")

    @rule("remove succeeds when there is nothing of that name.", group=Group.REPETITION, methods="remove")
    def test_sto_17(self, rig: Rig[Store], driver: Store) -> None:
        driver.create("key", None, PLAIN)
        for name in ("key", "key", "missing", layer_name("missing")):
            with succeeds("remove, repeated"):
                driver.remove(name)

    @rule(
        "remove of a layer on which something stands is Conflict, and changes nothing.", group=Group.ORDER, methods="remove"
    )
    def test_sto_18(self, rig: Rig[Store], driver: Store) -> None:
        base, above = self.two(driver)
        driver.create("key", above, PLAIN)
        for name in (base, above):
            with refused(Conflict, "remove of a layer in use"):
                driver.remove(name)
        with self.mounted(driver, "key") as root:
            require(_tree(root) == _shown(BASE, ABOVE), "a refused remove took something away")

    @rule("A removed name can be used again, and is new.", methods="remove create mounts")
    def test_sto_19(self, rig: Rig[Store], driver: Store) -> None:
        base, _ = self.two(driver)
        for _ in range(2):
            driver.create("key", base, PLAIN)
            with self.mounted(driver, "key") as root:
                require(not (root / "old").exists(), "a new snapshot has what was written to a removed one")
                (root / "old").write_bytes(b"")
            driver.remove("key")

    @rule("usage of a snapshot is what it has of its own, without its parents'.", methods="usage", source=DOCKER)
    def test_sto_20(self, rig: Rig[Store], driver: Store) -> None:
        self.apply(driver, "a", None, {"big": b"x" * 500_000})
        driver.create("key", layer_name("a"), PLAIN)
        empty = driver.usage("key").size
        with self.mounted(driver, "key") as root:
            (root / "own").write_bytes(b"x" * 100_000)
        full = driver.usage("key").size
        require(empty < 100_000, f"an untouched snapshot on a layer of 500000 bytes takes {empty}")
        require(100_000 <= full < 500_000, f"a snapshot with 100000 bytes of its own takes {full}")

    @rule("changes lists added, modified and deleted paths, sorted.", methods="changes", source=DOCKER)
    def test_sto_21(self, rig: Rig[Store], driver: Store) -> None:
        self._changed(driver)
        found = [(change.kind, change.path) for change in _supported(lambda: driver.changes("key"))]
        wanted = {
            (ChangeKind.MODIFIED, "/etc"),
            (ChangeKind.MODIFIED, "/etc/motd"),
            (ChangeKind.DELETED, "/etc/passwd"),
            (ChangeKind.ADDED, "/added"),
        }
        require(set(found) == wanted, f"changes are {sorted(found, key=lambda one: one[1])}")
        paths = [path for _, path in found]
        require(paths == sorted(paths), f"changes are not sorted: {paths}")

    @rule("diff writes the changes as a layer that gives the same tree.", methods="diff apply", source=OCI)
    def test_sto_22(self, rig: Rig[Store], driver: Store) -> None:
        wanted = self._changed(driver)
        with tempfile.TemporaryFile(dir=rig.scratch) as out:
            _supported(lambda: driver.diff("key", out.fileno()))
            out.seek(0)
            data = out.read()
        with succeeds("apply of what diff wrote"):
            self.apply(driver, "again", "a", data)
        driver.create("look", layer_name("again"), PLAIN)
        with self.mounted(driver, "look") as root:
            require(_tree(root) == wanted, f"the tree of the exported layer is {sorted(_tree(root))}")

    @rule("diff and changes of what is not there are NotFound.", methods="diff changes")
    def test_sto_23(self, rig: Rig[Store], driver: Store) -> None:
        with tempfile.TemporaryFile(dir=rig.scratch) as out, refused(NotFound, "diff of a missing snapshot"):
            _supported(lambda: driver.diff("missing", out.fileno()))
        with refused(NotFound, "changes of a missing snapshot"):
            _supported(lambda: driver.changes("missing"))

    @rule("describe gives texts.", methods="describe", source=DOCKER)
    def test_sto_24(self, rig: Rig[Store], driver: Store) -> None:
        _, above = self.two(driver)
        driver.create("key", above, PLAIN)
        for name, value in driver.describe("key").items():
            require(isinstance(name, str) and isinstance(value, str), f"describe has {name!r}: {value!r}")

    @rule("reconcile removes what is not wanted, and keeps the layers below what is.", methods="reconcile layers")
    def test_sto_25(self, rig: Rig[Store], driver: Store) -> None:
        base, above = self.two(driver)
        self.two(driver, "other")
        for key, parent in (("kept", above), ("gone", base)):
            driver.create(key, parent, PLAIN)
        for _ in range(3):
            faults = driver.reconcile(frozenset({base, above, "kept"}))
            require(not faults, f"reconcile finds faults in what is well: {list(faults)}")
        require(
            {layer.name for layer in driver.layers()} == {base, above},
            "reconcile left layers that nobody wants, or took wanted",
        )
        with refused(NotFound, "mounts of a snapshot that reconcile had to remove"):
            driver.mounts("gone")
        with self.mounted(driver, "kept") as root:
            require(_tree(root) == _shown(BASE, ABOVE), "reconcile damaged a wanted snapshot")

    @rule("reconcile reports what is wanted and not there as a Fault, and keeps the rest.", methods="reconcile")
    def test_sto_26(self, rig: Rig[Store], driver: Store) -> None:
        base, above = self.two(driver)
        with succeeds("reconcile with a missing snapshot"):
            faults = driver.reconcile(frozenset({base, above, "missing"}))
        require({fault.object for fault in faults} == {"missing"}, f"reconcile reports {list(faults)}")
        require({layer.name for layer in driver.layers()} == {base, above}, "one missing snapshot spoiled the layers")

    @rule("promote makes a layer of a snapshot, and may be repeated.", methods="promote", capability="promote")
    def test_sto_27(self, rig: Rig[Store], driver: Store) -> None:
        wanted = self._changed(driver)
        layer = layer_name("promoted")
        for _ in range(2):
            made = driver.promote("key", layer)
            require(made.name == layer and made.parent == layer_name("a"), f"promote returned {made}")
        driver.create("look", layer, PLAIN)
        with self.mounted(driver, "look") as root:
            require(_tree(root) == wanted, f"the promoted layer shows {sorted(_tree(root))}")

    @rule("A snapshot with a limit refuses what goes beyond it.", methods="create", capability="size-limit", needs="sized")
    def test_sto_28(self, rig: Rig[Store], driver: Store) -> None:
        base, _ = self.two(driver)
        driver.create("key", base, SnapshotOptions(size=self.sized))
        with self.mounted(driver, "key") as root:
            try:
                (root / "big").write_bytes(b"x" * self.sized * 2)
            except OSError:
                return
        require(False, f"{2 * self.sized} bytes fitted into a snapshot with a limit of {self.sized}")

    @rule("A limit is refused as Unsupported by a driver that has none.", methods="create", group=Group.CAPABILITIES)
    def test_sto_29(self, rig: Rig[Store], driver: Store) -> None:
        if StorageCapability.SIZE_LIMIT in driver.capabilities():
            return
        with refused(Unsupported, "create with a limit"):
            driver.create("key", None, SnapshotOptions(size=self.sized))

    @rule("Owner, mode, time and links of an entry are those of the tar.", methods="apply mounts", source=OCI)
    def test_sto_30(self, rig: Rig[Store], driver: Store) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
            file = tarfile.TarInfo("file")
            file.uid, file.gid, file.mode, file.mtime, file.size = 1234, 5678, 0o4751, 1_600_000_000, 3
            archive.addfile(file, io.BytesIO(b"abc"))
            for kind, name in ((tarfile.LNKTYPE, "hard"), (tarfile.SYMTYPE, "soft")):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = kind, "file"
                archive.addfile(link)
        self.apply(driver, "a", None, buffer.getvalue())
        driver.create("key", layer_name("a"), PLAIN)
        with self.mounted(driver, "key") as root:
            found = (root / "file").stat()
            told = (found.st_uid, found.st_gid, found.st_mode & 0o7777, int(found.st_mtime))
            require(told == (1234, 5678, 0o4751, 1_600_000_000), f"owner, group, mode and time are {told}")
            require((root / "hard").stat().st_ino == found.st_ino, "a hard link is a file of its own")
            require(str((root / "soft").readlink()) == "file", "a symbolic link leads elsewhere")

    @rule(
        "Layers may be applied before their parents.",
        group=Group.ORDER,
        methods="apply mounts",
        capability="parallel-apply",
    )
    def test_sto_31(self, rig: Rig[Store], driver: Store) -> None:
        self.apply(driver, "above", "base", ABOVE)
        self.apply(driver, "base", None)
        driver.create("key", layer_name("above"), PLAIN)
        with self.mounted(driver, "key") as root:
            require(_tree(root) == _shown(BASE, ABOVE), f"layers applied in the other order show {sorted(_tree(root))}")

    def _changed(self, driver: Store) -> dict[str, bytes | str | None]:
        """The snapshot `key` on layer `a`, with changes; its tree."""
        self.apply(driver, "a", None)
        driver.create("key", layer_name("a"), PLAIN)
        with self.mounted(driver, "key") as root:
            (root / "etc/motd").write_bytes(b"changed")
            (root / "etc/passwd").unlink()
            (root / "added").write_bytes(b"added")
            return _tree(root)


def _supported(work: Callable[[], T]) -> T:
    """`diff` and `changes` are optional without a capability of their own."""
    try:
        return work()
    except Unsupported as error:
        raise NotOffered(error.message) from None


def _tree(root: Path) -> dict[str, bytes | str | None]:
    """Names below `root`: contents of files, targets of links, None for folders."""
    found: dict[str, bytes | str | None] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def _shown(*layers: Mapping[str, bytes | str | None]) -> dict[str, bytes | str | None]:
    """What a snapshot on these layers shows, by the whiteouts of OCI's image-spec."""
    seen: dict[str, bytes | str | None] = {}
    for layer in layers:
        for name, content in layer.items():
            folder, _, last = name.rpartition("/")
            if last.startswith(".wh."):
                seen.pop(f"{folder}/{last.removeprefix('.wh.')}", None)
            else:
                seen[name.rstrip("/")] = content
    return seen
