"""The names that a container's name server knows: files kept by the core, read again when they change.

The container's own file (`Preparation.resolver`):
    {"networks": [paths of network tables], "servers": ["192.0.2.53"], "search": [], "forward": true,
     "aliases": {"database": "db"}}
A network's table, shared by all containers on it:
    {"names": {"web": ["172.18.0.2", "fd00::2"], "db": ["172.18.0.3"]}}
Names are lower case. Of several names of an address, PTR answers the first.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wharfie.shim import dns_wire

Stamp = tuple[int, int, int]


class _File:
    """A JSON object that is read again when the file was replaced; a broken one keeps what was last read."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: Stamp | None = None
        self.content: Mapping[str, Any] = {}

    def refresh(self) -> bool:
        """Whether it has changed."""
        try:
            facts = os.stat(self._path)
        except OSError:
            changed = bool(self.content)
            self._stamp, self.content = None, {}
            return changed
        stamp = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
        if stamp == self._stamp:
            return False
        try:
            content = json.loads(Path(self._path).read_bytes())
        except (OSError, ValueError):
            return False
        self._stamp = stamp
        self.content = content if isinstance(content, dict) else {}
        return True


@dataclass
class _Table:
    """`names`: packed addresses (4 or 16 bytes) of each name. `reverse`: the first name of each PTR name."""

    file: _File
    names: dict[str, list[bytes]] = field(default_factory=dict)
    reverse: dict[str, str] = field(default_factory=dict)

    def refresh(self) -> None:
        if not self.file.refresh():
            return
        self.names, self.reverse = {}, {}
        for name, addresses in dict(self.file.content.get("names") or {}).items():
            packed = [data for data in map(pack, addresses) if data is not None]
            self.names[str(name)] = packed
            for data in packed:
                self.reverse.setdefault(dns_wire.reverse_name(data), str(name))


class Names:
    """What one container may know."""

    def __init__(self, path: Path) -> None:
        self._file = _File(str(path))
        self._tables: dict[str, _Table] = {}

    def refresh(self) -> None:
        """Look at the files; a few stat(2) calls when nothing has changed."""
        if self._file.refresh():
            paths = [str(path) for path in self._file.content.get("networks") or ()]
            self._tables = {path: self._tables.get(path) or _Table(_File(path)) for path in paths}
        for table in self._tables.values():
            table.refresh()

    def addresses(self, name: str) -> list[bytes] | None:
        """Packed addresses of both families on all networks, or None for an unknown name."""
        name = self._file.content.get("aliases", {}).get(name, name)
        found = [table.names[name] for table in self._tables.values() if name in table.names]
        return list(dict.fromkeys(data for addresses in found for data in addresses)) if found else None

    def reverse(self, name: str) -> str | None:
        return next((table.reverse[name] for table in self._tables.values() if name in table.reverse), None)

    @property
    def servers(self) -> list[str]:
        """Where unknown names are asked; empty when that is not wanted."""
        content = self._file.content
        return [str(server) for server in content.get("servers") or ()] if content.get("forward", True) else []


def pack(address: str) -> bytes | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, address)
        except (OSError, TypeError):
            pass
    return None
