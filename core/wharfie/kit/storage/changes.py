"""What a snapshot has changed, and layers that are made of it."""

from __future__ import annotations

import tempfile

from wharfie.kit.rig import Rig
from wharfie.kit.rules import DOCKER, OCI, refused, require, rule, succeeds
from wharfie.kit.storage.world import PLAIN, StorageWorld, Store, if_supported, layer_name, tree_of
from wharfie.spi.errors import NotFound
from wharfie.spi.storage import ChangeKind


class ChangeRules(StorageWorld):
    """What a snapshot has changed, and layers that are made of it."""

    @rule("changes lists added, modified and deleted paths, sorted.", methods="changes", source=DOCKER)
    def test_sto_21(self, rig: Rig[Store], driver: Store) -> None:
        self._changed(driver)
        found = [(change.kind, change.path) for change in if_supported(lambda: driver.changes("key"))]
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
            if_supported(lambda: driver.diff("key", out.fileno()))
            out.seek(0)
            data = out.read()
        with succeeds("apply of what diff wrote"):
            self.apply(driver, "again", "a", data)
        driver.create("look", layer_name("again"), PLAIN)
        with self.mounted(driver, "look") as root:
            require(tree_of(root) == wanted, f"the tree of the exported layer is {sorted(tree_of(root))}")

    @rule("diff and changes of what is not there are NotFound.", methods="diff changes")
    def test_sto_23(self, rig: Rig[Store], driver: Store) -> None:
        with tempfile.TemporaryFile(dir=rig.scratch) as out, refused(NotFound, "diff of a missing snapshot"):
            if_supported(lambda: driver.diff("missing", out.fileno()))
        with refused(NotFound, "changes of a missing snapshot"):
            if_supported(lambda: driver.changes("missing"))

    @rule("promote makes a layer of a snapshot, and may be repeated.", methods="promote", capability="promote")
    def test_sto_27(self, rig: Rig[Store], driver: Store) -> None:
        wanted = self._changed(driver)
        layer = layer_name("promoted")
        for _ in range(2):
            made = driver.promote("key", layer)
            require(made.name == layer and made.parent == layer_name("a"), f"promote returned {made}")
        driver.create("look", layer, PLAIN)
        with self.mounted(driver, "look") as root:
            require(tree_of(root) == wanted, f"the promoted layer shows {sorted(tree_of(root))}")

    def _changed(self, driver: Store) -> dict[str, bytes | str | None]:
        """The snapshot `key` on layer `a`, with changes; its tree."""
        self.apply(driver, "a", None)
        driver.create("key", layer_name("a"), PLAIN)
        with self.mounted(driver, "key") as root:
            (root / "etc/motd").write_bytes(b"changed")
            (root / "etc/passwd").unlink()
            (root / "added").write_bytes(b"added")
            return tree_of(root)
