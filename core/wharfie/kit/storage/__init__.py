"""The rules of storage drivers. Layers are tars made here; what a driver describes is mounted in the room's own mount
namespace, as the shim does it.

The rules by what they are about; `world` is what all of them need.
"""

from __future__ import annotations

from wharfie.kit.storage.changes import ChangeRules
from wharfie.kit.storage.layers import LayerRules
from wharfie.kit.storage.removal import RemovalRules
from wharfie.kit.storage.snapshots import SnapshotRules

__all__ = ["StorageContract"]


class StorageContract(LayerRules, SnapshotRules, ChangeRules, RemovalRules):
    """`sized`: bytes of a limit to try SIZE_LIMIT with."""
