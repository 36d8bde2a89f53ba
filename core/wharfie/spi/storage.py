"""Storage: image layers, and the writable snapshots that containers get on top of them.

The model
    A *layer* is read-only, named by its chain id (`sha256:…` over its diff and all below; OCI image-spec, config.md)
    and has at most one parent. A *snapshot* is a writable tree on top of a layer, or on nothing, named by a key that the
    core chose. Layers and snapshots share one space of names.

The words
    apply     unpack one layer's tar on top of its parent
    create    make a snapshot
    mounts    say how a snapshot is mounted; nobody mounts it here, the container's shim does, in its own mount namespace
    diff      the changes of a snapshot against its parent, as a layer's tar

An example: an image of two layers, then a container.
    apply("sha256:a", None, fd);  apply("sha256:b", "sha256:a", fd)
    create("3f…", "sha256:b", SnapshotOptions());  mounts("3f…") → one overlay mount
    remove("3f…");  remove("sha256:b");  remove("sha256:a")
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from wharfie.spi.driver import Driver, Fault, FileDescriptor, Strings, Usage, deadline
from wharfie.spi.errors import Unsupported


class StorageCapability(enum.StrEnum):
    """What a storage driver may offer beyond the contract."""

    PARALLEL_APPLY = "parallel-apply"  # apply() works before the parent is there
    PROMOTE = "promote"  # a snapshot becomes a layer without a copy
    SIZE_LIMIT = "size-limit"  # SnapshotOptions.size is honoured
    ID_MAP = "id-map"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """The arguments of mount(2) but the target. `options` are flag names ("ro", "nosuid") and file system data."""

    type: str
    source: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer that is there, whole. `size`: bytes of its own files, without its parents'."""

    name: str
    parent: str | None
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotOptions:
    """`size`: bytes that the snapshot may grow to (SIZE_LIMIT), 0 for no limit."""

    size: int = 0


class ChangeKind(enum.IntEnum):
    """Docker's numbers (`GET /containers/{id}/changes`)."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One path that differs between a snapshot and its parent. `path` is absolute within the tree."""

    kind: ChangeKind
    path: str


class StorageDriver(Driver[StorageCapability]):
    """A store of layers and snapshots."""

    kind: ClassVar[str] = "storage"

    @abstractmethod
    @deadline(None, idle=60)
    def apply(self, layer: str, parent: str | None, diff: FileDescriptor) -> Layer:
        """Unpack the uncompressed tar that `diff` yields as layer `layer` on `parent`.

        Whiteouts and opaque markers are OCI's (image-spec, layer.md). No entry may reach outside the layer, whatever its
        name or link says. May be repeated: a layer that is there is returned at once without reading `diff`. A call that
        was killed half-way leaves nothing visible. Calls `wharfie.spi.call.progress` for each entry, and while it waits:
        the layer may still be arriving from a slow registry (`wharfie.spi.tar` does so). A layer that is given up while it
        arrives, because it turns out wrong or nobody wants it any more, ends within a block: it is a tar cut off. So `diff`
        is read to its end, also behind the archive's.

        Errors: NotFound (no such parent), InvalidArgument (not a tar, truncated, escaping), OutOfSpace.
        """

    @abstractmethod
    @deadline(30)
    def create(self, key: str, parent: str | None, options: SnapshotOptions) -> None:
        """Make the snapshot `key` on layer `parent`. May be repeated with the same arguments.

        Errors: NotFound (no such parent), Conflict (a layer has this name), Unsupported (an option), OutOfSpace.
        """

    @abstractmethod
    @deadline(5)
    def mounts(self, key: str) -> tuple[Mount, ...]:
        """How to mount the snapshot, in order, all on one target. A layer's name gives a read-only view of it.

        Errors: NotFound.
        """

    @abstractmethod
    @deadline(120)
    def remove(self, name: str) -> None:
        """Remove a layer or a snapshot. Succeeds when it is not there. Errors: Conflict (something stands on it)."""

    @abstractmethod
    @deadline(30)
    def layers(self) -> Sequence[Layer]:
        """All layers that are there, whole."""

    @abstractmethod
    @deadline(120)
    def usage(self, name: str) -> Usage:
        """Space that the layer's or snapshot's own files take, without its parents'. Errors: NotFound."""

    @deadline(None, idle=60)
    def diff(self, key: str, out: FileDescriptor) -> None:
        """Write the snapshot's changes against its parent to `out` as a layer's tar. Errors: NotFound."""
        raise Unsupported(f'storage driver "{self.name}" cannot export changes')

    @deadline(120)
    def changes(self, key: str) -> Sequence[Change]:
        """Paths that differ from the parent, sorted. Errors: NotFound."""
        raise Unsupported(f'storage driver "{self.name}" cannot list changes')

    @deadline(5)
    def describe(self, key: str) -> Strings:
        """Rows of `GraphDriver.Data` in `docker inspect`."""
        return {}

    @deadline(60)
    def promote(self, key: str, layer: str) -> Layer:
        """Turn a snapshot into the layer `layer` without copying (PROMOTE). May be repeated."""
        raise Unsupported(f'storage driver "{self.name}" cannot promote a snapshot')

    @abstractmethod
    @deadline(120)
    def reconcile(self, wanted: frozenset[str]) -> Sequence[Fault]:
        """Remove every layer, snapshot and leftover that is not in `wanted`; report wanted ones that are broken."""
