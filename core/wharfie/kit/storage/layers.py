"""Layers as they are applied from tars."""

from __future__ import annotations

import io
import tarfile

from wharfie.kit.rig import Rig
from wharfie.kit.rules import OCI, Group, refused, require, rule, succeeds
from wharfie.kit.storage.world import ABOVE, BASE, PLAIN, Entries, StorageWorld, Store, layer_name, shown_by, tar, tree_of
from wharfie.spi.errors import InvalidArgument, NotFound, WharfieError
from wharfie.spi.storage import StorageCapability


class LayerRules(StorageWorld):
    """Layers as they are applied from tars."""

    @rule("apply returns the layer as layers shows it: its name, parent and size.", methods="apply layers")
    def test_sto_01(self, rig: Rig[Store], driver: Store) -> None:
        made = self.apply(driver, "a", None, {"file": b"x" * 5000})
        require(made.name == layer_name("a") and made.parent is None, f"apply returned {made}")
        require(list(driver.layers()) == [made], f"layers returned {list(driver.layers())}, apply {made}")
        require(made.size >= 5000, f"a layer with a file of 5000 bytes has the size {made.size}")

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
            require(not [name for name in tree_of(root) if ".wh." in name], "a whiteout is seen as a file")

    @rule("An opaque marker hides all that the layers below have in its folder.", methods="apply mounts", source=OCI)
    def test_sto_04(self, rig: Rig[Store], driver: Store) -> None:
        self.apply(driver, "a", None)
        self.apply(driver, "b", "a", {"etc/": None, "etc/.wh..wh..opq": b"", "etc/own": b"own"})
        driver.create("key", layer_name("b"), PLAIN)
        with self.mounted(driver, "key") as root:
            names = {name.name for name in (root / "etc").iterdir()}
            require(names == {"own"}, f"an opaque folder shows {sorted(names)}")

    @rule("apply of a layer that is there returns it without reading the stream.", group=Group.REPETITION, methods="apply")
    def test_sto_09(self, rig: Rig[Store], driver: Store) -> None:
        first = self.apply(driver, "a", None)
        for _ in range(3):
            with succeeds("apply of a layer that is there"):
                again = self.apply(driver, "a", None, b"this is no tar" * 100)
            require(again == first, f"apply again returned {again}")

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

    @rule("A stream that is no tar, or ends too early, is InvalidArgument, and leaves no layer.", methods="apply layers")
    def test_sto_15(self, rig: Rig[Store], driver: Store) -> None:
        whole = tar({"file": b"x" * 9000})
        streams = {
            "garbage": b"no tar at all" * 200,
            "a tar cut off": whole[:4096],
            "a tar given up before its first entry": b"\xff" * 513,
            "a tar given up after an entry": whole[:9728] + b"\xff" * 513,
        }
        for what, data in streams.items():
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
            require(
                tree_of(root) == shown_by(BASE, ABOVE), f"layers applied in the other order show {sorted(tree_of(root))}"
            )
