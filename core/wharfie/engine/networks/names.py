"""Names of containers: the tables from which DNS is answered beside each container.

The core keeps one JSON table for each network and one resolver file for each container in the run folder, replaced
atomically; the process beside the container reads them at each question, so names go on being answered while the daemon
is down (`wharfie.spi.runtime.Preparation.resolver`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Names:
    """The tables below one folder. Used in the event loop's thread; the files are small and on a tmpfs."""

    folder: Path
    _tables: dict[str, dict[str, tuple[Sequence[str], Sequence[str]]]] = field(default_factory=dict)

    def table(self, network_id: str) -> Path:
        return self.folder / f"network-{network_id}.json"

    def resolver(self, container_id: str) -> Path:
        return self.folder / f"container-{container_id}.json"

    def add(self, network_id: str, container_id: str, names: Sequence[str], addresses: Sequence[str]) -> None:
        """The container answers to `names` on the network, and its addresses to the first of them. May be repeated: the
        last call counts."""
        self._tables.setdefault(network_id, {})[container_id] = (names, addresses)
        self._write_table(network_id)

    def remove(self, network_id: str, container_id: str) -> None:
        """May be repeated."""
        table = self._tables.get(network_id, {})
        if table.pop(container_id, None) is None:
            return
        if table:
            self._write_table(network_id)
        else:
            del self._tables[network_id]
            self.table(network_id).unlink(missing_ok=True)

    def configure(
        self,
        container_id: str,
        networks: Sequence[str],
        servers: Sequence[str],
        search: Sequence[str],
        forward: bool,
        aliases: Mapping[str, str],
    ) -> Path:
        """Write the container's resolver file; its path. `aliases`: names of its own for others' names."""
        path = self.resolver(container_id)
        _replace(
            path,
            {
                "networks": [str(self.table(network)) for network in networks],
                "servers": list(servers),
                "search": list(search),
                "forward": forward,
                "aliases": dict(aliases),
            },
        )
        return path

    def forget(self, container_id: str) -> None:
        """The container has ended."""
        self.resolver(container_id).unlink(missing_ok=True)

    def clear_strangers(self, networks: set[str], containers: set[str]) -> None:
        """Remove files that no running container needs, after a start."""
        wanted = {self.table(network) for network in networks} | {self.resolver(container) for container in containers}
        for path in self.folder.glob("*.json"):
            if path not in wanted:
                path.unlink(missing_ok=True)

    def _write_table(self, network_id: str) -> None:
        names: dict[str, list[str]] = {}
        for own_names, addresses in self._tables[network_id].values():
            for name in own_names:
                names.setdefault(name.lower(), []).extend(addresses)
        _replace(self.table(network_id), {"names": names})


def _replace(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(document))
    draft.replace(path)
