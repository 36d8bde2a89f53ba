"""Records of volumes that are folders of this host: for volume drivers.

ROOT/NAME/opts.json   what the user asked for, and when; a volume is there when its folder is

A driver makes the folder elsewhere on the same file system and publishes it by one rename(2).
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from wharfie.spi.driver import Strings
from wharfie.spi.errors import Conflict, DataLoss, InvalidArgument, NotFound
from wharfie.spi.volume import Volume

_FILE: Final = "opts.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`created`: RFC 3339."""

    name: str
    folder: Path
    created: str
    options: Strings


class VolumeRecords:
    """The volumes below `root`. Names with a dot in front are the driver's own folders."""

    def __init__(self, root: Path, log: logging.Logger) -> None:
        self._root = root
        self._log = log

    def folder(self, name: str) -> Path:
        """Errors: InvalidArgument: a name that would lead elsewhere. The core checks names by Docker's rule before."""
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise InvalidArgument(f"{name!r} cannot be the name of a volume")
        return self._root / name

    def read(self, name: str) -> Record:
        """Errors: NotFound, DataLoss (the folder is there, its record is not, or not whole)."""
        folder = self.folder(name)
        path = folder / _FILE
        try:
            record = json.loads(path.read_text())
            return Record(name=name, folder=folder, created=record["created"], options=dict(record["options"]))
        except (FileNotFoundError, NotADirectoryError):
            if folder.is_dir():
                raise DataLoss(f"volume {name}: {path} is missing; the volume's data is beside it") from None
            raise NotFound(f"get {name}: no such volume") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataLoss(f"volume {name}: {path} is damaged ({error}); the volume's data is beside it") from None

    def read_same(self, name: str, options: Strings) -> Record:
        """What `create` has to find in the end. Errors: Conflict (it was made with other options), and those of `read`."""
        record = self.read(name)
        if record.options != dict(options):
            raise Conflict(
                f"create {name}: a volume with this name exists with other options ({_shown(record.options)}, "
                f"asked for {_shown(options)}); remove it first or choose another name"
            )
        return record

    def volumes(self, make: Callable[[Record], Volume]) -> list[Volume]:
        """`make` of each record, by name; those that cannot be read or made (DataLoss) are named in the log."""
        found: list[Volume] = []
        for folder in sorted(self._root.iterdir()):
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            try:
                found.append(make(self.read(folder.name)))
            except NotFound:  # removed meanwhile
                continue
            except DataLoss as error:
                self._log.warning("%s", error)
        return found

    def publish(self, draft: Path, name: str, options: Strings) -> bool:
        """Write the record into the folder `draft` and give it its name. False: there is one already, made meanwhile by a
        call that was given up; the draft is still where it was."""
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with open(draft / _FILE, "w") as file:
            json.dump({"created": created, "options": dict(options)}, file)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(draft)
        try:
            draft.rename(self.folder(name))
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                return False
            raise
        sync_folder(self._root)
        return True


def sync_folder(folder: Path) -> None:
    """Names that came and went in it outlive a power cut (fsync(2))."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _shown(options: Strings) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(options.items())) or "none"
