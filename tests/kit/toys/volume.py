"""A volume driver as small as it can be while it keeps every rule: what the wrong ones are mutations of."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from wharfie.spi.driver import Context, Fault, Problem, Strings, Usage
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, WharfieError
from wharfie.spi.volume import Volume, VolumeCapability, VolumeDriver

OPTIONS = {"color", "size"}


class Toy(VolumeDriver):
    name = "toy"
    spi = "1.0"

    def __init__(self, context: Context, settings: object) -> None:
        self.volumes_folder = context.state / "volumes"
        self.work = context.state / "work"

    def capabilities(self) -> frozenset[VolumeCapability]:
        return frozenset({VolumeCapability.USAGE})

    def check(self) -> Sequence[Problem]:
        return [Problem(what="nothing", fix="nothing", fatal=False)]

    def open(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        self.volumes_folder.mkdir(exist_ok=True)

    def close(self) -> None:
        pass

    def probe(self) -> None:
        pass

    def status(self) -> Sequence[tuple[str, str]]:
        return [("Toy", "yes")]

    def create(self, name: str, options: Strings, labels: Strings) -> Volume:
        for option in options:
            if option not in OPTIONS:
                raise InvalidArgument(f"no option {option}")
        folder = self.folder(name)
        if not folder.exists():
            draft = Path(tempfile.mkdtemp(dir=self.work))
            (draft / "data").mkdir()
            told = {"name": name, "created": datetime.now(UTC).isoformat(), "options": dict(options)}
            (draft / "volume.json").write_text(json.dumps(told))
            try:
                draft.rename(folder)
            except OSError:
                shutil.rmtree(draft)
        found = self.get(name)
        if found.options != dict(options):
            raise Conflict(f"{name} exists with other options")
        return found

    def remove(self, name: str) -> None:
        trash = Path(tempfile.mkdtemp(dir=self.work))
        try:
            self.folder(name).rename(trash / name)
        except FileNotFoundError:
            pass
        shutil.rmtree(trash)

    def get(self, name: str) -> Volume:
        try:
            told = json.loads((self.folder(name) / "volume.json").read_text())
        except FileNotFoundError:
            raise NotFound(f"no volume {name}") from None
        return Volume(name=name, mountpoint=self.data(name), created=told["created"], options=told["options"])

    def volumes(self) -> Sequence[Volume]:
        found = []
        for folder in self.volumes_folder.iterdir():
            try:
                found.append(self.get(folder.name))
            except WharfieError:  # removed meanwhile
                continue
        return found

    def mount(self, name: str, mount_id: str) -> Path:
        if not self.folder(name).exists():
            raise NotFound(f"no volume {name}")
        return self.data(name)

    def unmount(self, name: str, mount_id: str) -> None:
        pass

    def usage(self, name: str) -> Usage:
        if not self.folder(name).exists():
            raise NotFound(f"no volume {name}")
        return Usage(size=sum(entry.stat().st_size for entry in self.data(name).rglob("*")))

    def reconcile(self, mounts: Mapping[str, frozenset[str]]) -> Sequence[Fault]:
        return [Fault(object=name, reason="it is gone") for name in mounts if not self.folder(name).exists()]

    def folder(self, name: str) -> Path:
        return self.volumes_folder / name

    def data(self, name: str) -> Path:
        return self.folder(name) / "data"


PARAMETERS = {"options": {"color": "blue"}, "other_options": {"color": "red"}}
