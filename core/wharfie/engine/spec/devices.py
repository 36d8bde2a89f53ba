"""Devices: --device, --device-cgroup-rule and --privileged as OCI `linux.devices` and device cgroup rules."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wharfie.engine.model.host import DeviceMapping
from wharfie.spi.errors import InvalidArgument, WharfieError

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")

# Docker's rules for every container, in order: null, zero, full, random, urandom, tty, console, ptmx, pts.
DEFAULT_RULES: tuple[dict[str, Any], ...] = (
    {"allow": False, "access": "rwm"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in ((1, 5), (1, 3), (1, 9), (1, 8), (1, 7), (5, 0), (5, 1), (5, 2))
    ),
    {"allow": True, "type": "c", "major": 136, "access": "rwm"},
    {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
)
ALL_DEVICES: tuple[dict[str, Any], ...] = ({"allow": True, "access": "rwm"},)
# The container's own instances of these are made by the runtime.
_OWN = frozenset({"pts", "shm", "fd", "mqueue", "console", "ptmx", "stdin", "stdout", "stderr", "core", ".lxc"})


def check_rules(rules: Iterable[str]) -> None:
    """Errors: InvalidArgument."""
    for rule in rules:
        if _RULE.fullmatch(rule) is None:
            raise InvalidArgument(f"invalid device cgroup rule format: '{rule}'")


def plan(
    mappings: Sequence[DeviceMapping], rules: Sequence[str], *, privileged: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Device nodes and cgroup rules. Errors: WharfieError (a device is missing, Docker's 500)."""
    if privileged:
        return list(_host_devices()), list(ALL_DEVICES)
    nodes: list[dict[str, Any]] = []
    allowed = list(DEFAULT_RULES)
    for mapping in mappings:
        for node in _nodes(mapping):
            nodes.append(node)
            access = mapping.cgroup_permissions or "rwm"
            allowed.append(
                {"allow": True, "type": node["type"], "major": node["major"], "minor": node["minor"], "access": access}
            )
    for rule in rules:
        kind, major, minor, access = _RULE.fullmatch(rule).groups()  # type: ignore[union-attr]  # checked at create
        entry: dict[str, Any] = {"allow": True, "type": kind, "access": access}
        if major != "*":
            entry["major"] = int(major)
        if minor != "*":
            entry["minor"] = int(minor)
        allowed.append(entry)
    return nodes, allowed


def _nodes(mapping: DeviceMapping) -> list[dict[str, Any]]:
    """The node of a device, or of all devices below a folder."""
    source = Path(mapping.path_on_host)
    target = mapping.path_in_container or mapping.path_on_host
    node = _node(source, target)
    if node is not None:
        return [node]
    if source.is_dir():
        found = (_node(path, str(Path(target) / path.relative_to(source))) for path in sorted(source.rglob("*")))
        nodes = [node for node in found if node is not None]
        if nodes:
            return nodes
    raise WharfieError(
        f'error gathering device information while adding custom device "{mapping.path_on_host}": '
        + ("not a device node" if source.exists() else "no such file or directory")
    )


def _node(path: Path, target: str) -> dict[str, Any] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    if stat.S_ISCHR(found.st_mode):
        kind = "c"
    elif stat.S_ISBLK(found.st_mode):
        kind = "b"
    else:
        return None
    return {
        "path": target,
        "type": kind,
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
    }


def _host_devices() -> Iterable[dict[str, Any]]:
    for folder, folders, files in os.walk("/dev"):
        folders[:] = [name for name in folders if folder != "/dev" or name not in _OWN]
        for name in files:
            path = Path(folder, name)
            if (folder == "/dev" and name in _OWN) or path.is_symlink():
                continue
            node = _node(path, str(path))
            if node is not None:
                yield node
