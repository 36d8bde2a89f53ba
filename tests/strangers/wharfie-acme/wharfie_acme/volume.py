"""Volumes as folders.

    <state>/volumes/NAME/volume.json   what `create` was told
    <state>/volumes/NAME/data          the volume itself
    <state>/work                       half-made and half-removed volumes; emptied by `open`

A volume comes and goes by one rename, so that it is whole or absent whenever the daemon is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from wharfie.spi.driver import Context, Fault, Strings, Usage
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound
from wharfie.spi.volume import Volume, VolumeCapability, VolumeDriver
from wharfie_acme.settings import AcmeSettings


class AcmeVolumes(VolumeDriver):
    name = "acme"
    spi = "1.0"
    settings = "wharfie_acme.settings:AcmeSettings"

    def __init__(self, context: Context, settings: AcmeSettings) -> None:
        self._log = context.log
        self._volumes = context.state / "volumes"
        self._work = context.state / "work"
        self._mode = int(settings.folder_mode, 8)

    def capabilities(self) -> frozenset[VolumeCapability]:
        return frozenset({VolumeCapability.USAGE})

    def open(self) -> None:
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        self._volumes.mkdir(exist_ok=True)

    def create(self, name: str, options: Strings, labels: Strings) -> Volume:
        owner = _owner(options)
        try:
            existing = self.get(name)
        except NotFound:
            existing = None
        if existing is not None:
            if dict(existing.options) != dict(options):
                raise Conflict(f"volume {name} exists with other options: {dict(existing.options)}")
            return existing
        new = Path(tempfile.mkdtemp(dir=self._work))
        data = new / "data"
        data.mkdir()
        data.chmod(self._mode)
        if owner:
            os.chown(data, *owner)
        created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        (new / "volume.json").write_text(json.dumps({"created": created, "options": dict(options)}))
        try:
            new.rename(self._volumes / name)
        except OSError:  # made meanwhile by a call that was given up
            shutil.rmtree(new)
        self._log.info("volume %s made", name)
        return self.get(name)

    def remove(self, name: str) -> None:
        doomed = Path(tempfile.mkdtemp(dir=self._work))
        try:
            (self._volumes / name).rename(doomed / name)
        except FileNotFoundError:
            pass
        shutil.rmtree(doomed)

    def get(self, name: str) -> Volume:
        folder = self._volumes / name
        try:
            told = json.loads((folder / "volume.json").read_text())
        except FileNotFoundError:
            raise NotFound(f"no such volume: {name}") from None
        return Volume(name=name, mountpoint=folder / "data", created=told["created"], options=told["options"])

    def volumes(self) -> Sequence[Volume]:
        found = []
        for folder in sorted(self._volumes.iterdir()):
            with contextlib.suppress(NotFound):  # removed since the folder was listed
                found.append(self.get(folder.name))
        return found

    def mount(self, name: str, mount_id: str) -> Path:
        self.get(name)
        return self._volumes / name / "data"

    def unmount(self, name: str, mount_id: str) -> None:
        """A folder is always there; nothing was mounted."""

    def usage(self, name: str) -> Usage:
        self.get(name)
        found = [entry.lstat() for entry in (self._volumes / name / "data").rglob("*")]
        return Usage(size=sum(entry.st_blocks * 512 for entry in found), inodes=len(found))

    def reconcile(self, mounts: Mapping[str, frozenset[str]]) -> Sequence[Fault]:
        return [Fault(object=name, reason="its folder is gone") for name in mounts if not (self._volumes / name).is_dir()]


def _owner(options: Strings) -> tuple[int, int] | None:
    for option in options:
        if option != "owner":
            raise InvalidArgument(f'volume driver "acme" has no option {option!r}; it has: owner')
    owner = options.get("owner", "")
    if not owner:
        return None
    if not re.fullmatch(r"\d{1,9}:\d{1,9}", owner):
        raise InvalidArgument(f"option owner is {owner!r}; it must be UID:GID, for example 1000:1000")
    uid, _, gid = owner.partition(":")
    return int(uid), int(gid)
