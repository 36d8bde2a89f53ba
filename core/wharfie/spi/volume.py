"""Volumes: named folders that outlive containers.

The model
    A *volume* has a name, options that the user gave (`docker volume create -o k=v`), and a folder on this host while it
    is mounted. The core counts who uses a volume and tells the driver of each use by a *mount id*; a driver keeps no
    counts of its own.

An example
    create("data", {}, {});  mount("data", "c1") → /var/lib/…;  mount("data", "c2") → the same folder
    unmount("data", "c1");  unmount("data", "c2");  remove("data")

Copying an image's content into a new volume, sub-paths, propagation and read-only are the core's business.
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from wharfie.spi.driver import Driver, Fault, Strings, Usage, deadline
from wharfie.spi.errors import Unsupported


class VolumeCapability(enum.StrEnum):
    """What a volume driver may offer beyond the contract."""

    GLOBAL = "global"  # one volume of a name for the whole cluster
    USAGE = "usage"
    SIZE_LIMIT = "size-limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume as its driver sees it. `mountpoint` is None while unknown (some drivers know it only when mounted)."""

    name: str
    mountpoint: Path | None
    created: str  # RFC 3339
    options: Strings = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)  # shown by `docker volume inspect`


class VolumeDriver(Driver[VolumeCapability]):
    """A maker and keeper of volumes."""

    kind: ClassVar[str] = "volume"

    @abstractmethod
    @deadline(120)
    def create(self, name: str, options: Strings, labels: Strings) -> Volume:
        """Make a volume. May be repeated with the same options.

        Errors: InvalidArgument (unknown or bad option, named in the message), Conflict (exists with other options),
        OutOfSpace.
        """

    @abstractmethod
    @deadline(120)
    def remove(self, name: str) -> None:
        """Remove a volume and its data. Succeeds when it is not there. The core asks only when nobody uses it."""

    @abstractmethod
    @deadline(5)
    def get(self, name: str) -> Volume:
        """Errors: NotFound."""

    @abstractmethod
    @deadline(10)
    def volumes(self) -> Sequence[Volume]:
        """All volumes of this driver."""

    @abstractmethod
    @deadline(60)
    def mount(self, name: str, mount_id: str) -> Path:
        """Make the volume's folder usable and say where it is. Once for each (name, mount_id); repeatable with the same.

        Errors: NotFound, Unavailable (the server behind it is down), DriverError.
        """

    @abstractmethod
    @deadline(60)
    def unmount(self, name: str, mount_id: str) -> None:
        """This use has ended. Succeeds when it was not mounted, and when the volume is gone."""

    @deadline(60)
    def usage(self, name: str) -> Usage:
        """Space that the volume takes (USAGE). Errors: NotFound, Unsupported (not of this volume)."""
        raise Unsupported(f'volume driver "{self.name}" cannot tell the size of a volume')

    @abstractmethod
    @deadline(60)
    def reconcile(self, mounts: Mapping[str, frozenset[str]]) -> Sequence[Fault]:
        """`mounts`: volume name → ids of its uses, the whole truth after a start. Make it so; report what cannot be."""
