"""Volumes by a legacy VolumeDriver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from wharfie.spi.driver import Context, Fault, Strings
from wharfie.spi.errors import DriverError, InvalidArgument, NotFound, WharfieError
from wharfie.spi.volume import Volume, VolumeCapability, VolumeDriver
from wharfie_docker_plugins.client import MethodAbsent, Plugin, Refused
from wharfie_docker_plugins.ledger import Ledger

_LONG, _SHORT = 120, 60
"""Seconds that Docker gives: Create and Mount, and everything else."""
_LIST = 8
_BEGUN, _MOUNTED = "begun", "mounted"
"""Stages of a use: the plugin is being told of its beginning or end; the plugin has said that it is mounted."""
_BAD_OPTION = ("invalid option", "unknown option", "unrecognized option")
"""The protocol has no codes; these words of a plugin mean that the user is at fault."""


class LegacyVolume(VolumeDriver):
    """The uses that the plugin was told of are written down before it is told: those of a killed daemon are undone by
    `reconcile`, and a use that the plugin never heard of is not undone."""

    spi: ClassVar[str] = "1.0"
    plugin: ClassVar[Plugin]

    def __init__(self, context: Context, settings: Any) -> None:
        self._run = context.run
        self._global = False

    def open(self) -> None:
        self._uses = Ledger(self._run / "mounts.json")
        try:
            answer = self.plugin.call("VolumeDriver.Capabilities", {}, seconds=_LIST)
            self._global = (answer.get("Capabilities") or {}).get("Scope") == "global"
        except (MethodAbsent, Refused):
            self._global = False

    def capabilities(self) -> frozenset[VolumeCapability]:
        return frozenset({VolumeCapability.GLOBAL} if self._global else ())

    def probe(self) -> None:
        self.plugin.call("VolumeDriver.List", {}, seconds=1)

    def create(self, name: str, options: Strings, labels: Strings) -> Volume:
        try:
            self.plugin.call("VolumeDriver.Create", {"Name": name, "Opts": dict(options)}, seconds=_LONG)
        except Refused as error:
            if any(words in error.reason.lower() for words in _BAD_OPTION):
                raise InvalidArgument(error.message) from error
            raise
        try:
            return self.get(name)
        except NotFound:  # some know a volume only when it is mounted
            return Volume(name=name, mountpoint=None, created="")

    def remove(self, name: str) -> None:
        try:
            self.plugin.call("VolumeDriver.Remove", {"Name": name}, seconds=_SHORT)
        except Refused:
            if any(volume.name == name for volume in self.volumes()):
                raise

    def get(self, name: str) -> Volume:
        try:
            found = self.plugin.call("VolumeDriver.Get", {"Name": name}, seconds=_LIST).get("Volume")
        except Refused as error:  # the protocol has no other word for "not there"
            raise NotFound(f"get {name}: {error.reason}") from error
        if not isinstance(found, Mapping) or not found.get("Name"):
            raise NotFound(f"get {name}: no such volume")
        return _volume(found)

    def volumes(self) -> Sequence[Volume]:
        found = self.plugin.call("VolumeDriver.List", {}, seconds=_LIST).get("Volumes") or []
        return [_volume(one) for one in found if isinstance(one, Mapping) and one.get("Name")]

    def mount(self, name: str, mount_id: str) -> Path:
        self._note(name, mount_id, _BEGUN)
        try:
            answer = self.plugin.call("VolumeDriver.Mount", {"Name": name, "ID": mount_id}, seconds=_LONG)
        except Refused as error:
            self._forget(name, mount_id)
            if not self._is_there(name):
                raise NotFound(error.message) from error
            raise
        self._note(name, mount_id, _MOUNTED)
        path = answer.get("Mountpoint") or self._path(name)
        if not path or not Path(path).is_absolute():
            raise DriverError(f"VolumeDriver.Mount: the plugin says no folder for volume {name}, but {path!r}")
        return Path(path)

    def unmount(self, name: str, mount_id: str) -> None:
        stage = self._uses.get(name, {}).get(mount_id)
        if stage is None:
            return
        self._note(name, mount_id, _BEGUN)
        try:
            self.plugin.call("VolumeDriver.Unmount", {"Name": name, "ID": mount_id}, seconds=_SHORT)
        except Refused:
            # Of a call that a killed daemon began, nobody knows how far it came: maybe the plugin never had this use.
            if stage == _MOUNTED and self._is_there(name):
                self._note(name, mount_id, _MOUNTED)
                raise
        self._forget(name, mount_id)

    def reconcile(self, mounts: Mapping[str, frozenset[str]]) -> Sequence[Fault]:
        """Uses that are over are told to the plugin, uses that hold are told once more: it may have been restarted too."""
        faults = []
        for name in self._uses:
            for mount_id in set(self._uses.get(name, ())) - mounts.get(name, frozenset()):
                faults += _tried(name, self.unmount, name, mount_id)
        for name, ids in mounts.items():
            for mount_id in sorted(ids):
                faults += _tried(name, self.mount, name, mount_id)
        return faults

    def _path(self, name: str) -> str:
        return str(self.plugin.call("VolumeDriver.Path", {"Name": name}, seconds=_SHORT).get("Mountpoint") or "")

    def _is_there(self, name: str) -> bool:
        try:
            self.get(name)
        except NotFound:
            return False
        return True

    def _forget(self, name: str, mount_id: str) -> None:
        self._uses.edit(name, lambda uses: {key: stage for key, stage in (uses or {}).items() if key != mount_id} or None)

    def _note(self, name: str, mount_id: str, stage: str) -> None:
        self._uses.edit(name, lambda uses: {**(uses or {}), mount_id: stage})


def _tried(name: str, step: Any, *arguments: str) -> list[Fault]:
    try:
        step(*arguments)
    except WharfieError as error:
        return [Fault(object=name, reason=error.message)]
    return []


def _volume(found: Mapping[str, Any]) -> Volume:
    mountpoint = found.get("Mountpoint")
    status = found.get("Status")
    return Volume(
        name=str(found["Name"]),
        mountpoint=Path(mountpoint) if mountpoint else None,
        created=str(found.get("CreatedAt") or ""),
        status=dict(status) if isinstance(status, Mapping) else {},
    )
