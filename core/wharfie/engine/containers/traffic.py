"""What a container's interfaces have carried (Docker Engine API, `networks` of ContainerStats)."""

from __future__ import annotations

from pathlib import Path

from wharfie.engine.model.container import Container

_COLUMNS = {
    "rx_bytes": 0,
    "rx_packets": 1,
    "rx_errors": 2,
    "rx_dropped": 3,
    "tx_bytes": 8,
    "tx_packets": 9,
    "tx_errors": 10,
    "tx_dropped": 11,
}
"""Columns of proc(5), /proc/[pid]/net/dev."""


def counters(container: Container) -> dict[str, dict[str, int]]:
    """By interface. Empty for a container on the host's network, whose interfaces are not its own, or without a process."""
    if container.host_config.network_mode in ("host", "none") or not container.state.pid:
        return {}
    try:
        text = Path(f"/proc/{container.state.pid}/net/dev").read_text()
    except OSError:
        return {}
    return parse(text)


def parse(text: str) -> dict[str, dict[str, int]]:
    """The table of /proc/[pid]/net/dev without the loopback interface."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, columns = line.partition(":")
        if name.strip() != "lo":
            values = columns.split()
            found[name.strip()] = {key: int(values[column]) for key, column in _COLUMNS.items()}
    return found
