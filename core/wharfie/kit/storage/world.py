"""What the rules of storage drivers have at hand: tars, mounts, and trees to compare."""

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
from wharfie.kit.rules import NotOffered, refused, require, succeeds
from wharfie.shim.root import mount_root
from wharfie.shim.system import MNT_DETACH, umount2
from wharfie.spi.errors import NotFound, Unsupported
from wharfie.spi.storage import Layer, SnapshotOptions, StorageCapability, StorageDriver

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


class StorageWorld(Contract[StorageDriver]):
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
                require(tree_of(root) == shown_by(BASE), "after two applies at a time the layer is not whole")
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
                require(tree_of(root) == shown_by(BASE, ABOVE), f"the layers show {sorted(tree_of(root))}")
            driver.remove("look")

        def usable(driver: Store, memo: None) -> None:
            with self.mounted(driver, "key") as root:
                require(tree_of(root) == shown_by(BASE, ABOVE), f"the snapshot shows {sorted(tree_of(root))}")
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


def if_supported(work: Callable[[], T]) -> T:
    """`diff` and `changes` are optional without a capability of their own."""
    try:
        return work()
    except Unsupported as error:
        raise NotOffered(error.message) from None


def tree_of(root: Path) -> dict[str, bytes | str | None]:
    """Names below `root`: contents of files, targets of links, None for folders."""
    found: dict[str, bytes | str | None] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink())
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def shown_by(*layers: Mapping[str, bytes | str | None]) -> dict[str, bytes | str | None]:
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
