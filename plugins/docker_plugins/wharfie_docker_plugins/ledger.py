"""What an adapter must remember of what it told a plugin, in a file: so a killed daemon's half-made objects are found."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any


class Ledger(MutableMapping[str, Any]):
    """A dictionary that is on disk before an assignment returns. Values are JSON. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._draft = path.with_suffix(".new")
        self._draft.unlink(missing_ok=True)  # of a killed daemon
        try:
            found = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):  # a file that is not whole was never renamed into place by us
            found = {}
        self._rows: dict[str, Any] = found if isinstance(found, dict) else {}

    def __getitem__(self, key: str) -> Any:
        return self._rows[key]

    def __setitem__(self, key: str, value: Any) -> None:
        with self._lock:
            self._rows[key] = value
            self._write()

    def __delitem__(self, key: str) -> None:
        with self._lock:
            del self._rows[key]
            self._write()

    def edit(self, key: str, change: Callable[[Any], Any]) -> None:
        """Replace the value of `key` (None: there is none) by what `change` makes of it; None removes it."""
        with self._lock:
            value = change(self._rows.get(key))
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
            self._write()

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    def _write(self) -> None:
        with self._draft.open("w") as file:
            json.dump(self._rows, file)
            file.flush()
            os.fsync(file.fileno())
        self._draft.replace(self._path)
