"""A volume driver that behaves: volumes in memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from wharfie.spi.driver import DriverEvent, Fault, Strings
from wharfie.spi.errors import NotFound
from wharfie.spi.volume import Volume, VolumeDriver


class Good(VolumeDriver):
    name = "good"
    spi = "1.0"
    opened: ClassVar[int] = 0

    def __init__(self, context, settings):
        self.context = context
        self.kept = {}

    def open(self) -> None:
        type(self).opened += 1

    def create(self, name: str, options: Strings, labels: Strings) -> Volume:
        self.context.log.info("creating %s", name)
        self.context.emit(DriverEvent())
        return self.kept.setdefault(
            name, Volume(name=name, mountpoint=None, created="2024-01-01T00:00:00Z", options=options)
        )

    def remove(self, name: str) -> None:
        self.kept.pop(name, None)

    def get(self, name: str) -> Volume:
        if name not in self.kept:
            raise NotFound(f"no such volume: {name}")
        return self.kept[name]

    def volumes(self) -> Sequence[Volume]:
        return list(self.kept.values())

    def mount(self, name: str, mount_id: str) -> Path:
        return self.context.state / name

    def unmount(self, name: str, mount_id: str) -> None:
        return None

    def reconcile(self, mounts: Mapping[str, frozenset[str]]) -> Sequence[Fault]:
        return ()
