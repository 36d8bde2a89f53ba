"""Snapshots: what they show, keep and refuse."""

from __future__ import annotations

from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, OCI, Group, refused, require, rule, succeeds
from wharfie.kit.storage.world import ABOVE, BASE, PLAIN, StorageWorld, Store, layer_name, shown_by, tree_of
from wharfie.spi.errors import Conflict, NotFound, Unsupported
from wharfie.spi.storage import SnapshotOptions, StorageCapability


class SnapshotRules(StorageWorld):
    """Snapshots: what they show, keep and refuse."""

    @rule("A snapshot shows its layers on top of each other.", methods="apply create mounts", source=OCI)
    def test_sto_02(self, rig: Rig[Store], driver: Store) -> None:
        _, above = self.two(driver)
        driver.create("key", above, PLAIN)
        with self.mounted(driver, "key") as root:
            seen = tree_of(root)
            for name, content in shown_by(BASE, ABOVE).items():
                require(name in seen and seen[name] == content, f"{name} is {seen.get(name)!r}, not {content!r}")

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
                    tree_of(root) == shown_by(BASE),
                    f"what was written to one snapshot is seen in another: {sorted(tree_of(root))}",
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
            require(not list(root.iterdir()), f"a snapshot on nothing has {sorted(tree_of(root))}")

    @rule("A layer's name gives a view of it that cannot be written to.", methods="mounts")
    def test_sto_08(self, rig: Rig[Store], driver: Store) -> None:
        _, above = self.two(driver)
        with self.mounted(driver, above) as root:
            require(tree_of(root) == shown_by(BASE, ABOVE), f"the layer shows {sorted(tree_of(root))}")
            try:
                (root / "file").write_bytes(b"")
            except OSError:
                return
        require(False, "a layer can be written to")

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
