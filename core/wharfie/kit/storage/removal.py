"""Removing, and what is set right at a start."""

from __future__ import annotations

from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, Group, refused, require, rule, succeeds
from wharfie.kit.storage.world import ABOVE, BASE, PLAIN, StorageWorld, Store, layer_name, shown_by, tree_of
from wharfie.spi.errors import Conflict, NotFound


class RemovalRules(StorageWorld):
    """Removing, and what is set right at a start."""

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
            require(tree_of(root) == shown_by(BASE, ABOVE), "a refused remove took something away")

    @rule("A removed name can be used again, and is new.", methods="remove create mounts")
    def test_sto_19(self, rig: Rig[Store], driver: Store) -> None:
        base, _ = self.two(driver)
        for _ in range(2):
            driver.create("key", base, PLAIN)
            with self.mounted(driver, "key") as root:
                require(not (root / "old").exists(), "a new snapshot has what was written to a removed one")
                (root / "old").write_bytes(b"")
            driver.remove("key")

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
            require(tree_of(root) == shown_by(BASE, ABOVE), "reconcile damaged a wanted snapshot")

    @rule("reconcile reports what is wanted and not there as a Fault, and keeps the rest.", methods="reconcile")
    def test_sto_26(self, rig: Rig[Store], driver: Store) -> None:
        base, above = self.two(driver)
        with succeeds("reconcile with a missing snapshot"):
            faults = driver.reconcile(frozenset({base, above, "missing"}))
        require({fault.object for fault in faults} == {"missing"}, f"reconcile reports {list(faults)}")
        require({layer.name for layer in driver.layers()} == {base, above}, "one missing snapshot spoiled the layers")
