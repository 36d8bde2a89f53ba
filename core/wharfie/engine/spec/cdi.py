"""Devices by name: the Container Device Interface (cncf-tags/container-device-interface, SPEC.md, versions 0.3 to 1.0).

`--device vendor.com/class=name` and `--gpus` name devices that files in the folders of `cdi-spec-dirs` describe; what these
say is edited into the container's OCI configuration. A later folder wins over an earlier one; two files of one folder that
describe the same device make it unusable.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from wharfie.engine.model.host import DeviceRequest
from wharfie.engine.spec.environment import merge_environment
from wharfie.spi.errors import InvalidArgument, Unsupported, WharfieError

DRIVER = "cdi"
_ALL = "all"
_FILE_LIMIT = 4 << 20
_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_-]*")
_NODE = ("path", "type", "major", "minor", "fileMode", "uid", "gid")
_GPU_DRIVERS = frozenset({"", "nvidia", "amd"})


@dataclass(slots=True)
class Registry:
    """What the files describe. `devices`: full name → edits; those of a kind that all its devices need are in `common`."""

    devices: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    common: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    unusable: dict[str, str] = field(default_factory=dict)

    def edits(self, names: Sequence[str]) -> list[Mapping[str, Any]]:
        """The edits for devices, the common ones once. Errors: WharfieError with the runtime's words of Docker."""
        missing = [name for name in names if name not in self.devices]
        if missing:
            reasons = "".join(f" ({self.unusable[name]})" for name in missing if name in self.unusable)
            raise WharfieError(f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}{reasons}")
        found: list[Mapping[str, Any]] = []
        for kind in dict.fromkeys(name.partition("=")[0] for name in names):
            found += self.common.get(kind, ())
        return found + [self.devices[name] for name in dict.fromkeys(names)]


def read(folders: Iterable[str]) -> Registry:
    """Read the files; one that is damaged makes no other unusable, its devices are not found."""
    registry = Registry()
    for folder in folders:
        seen: dict[str, Path] = {}
        for path in sorted(Path(folder).glob("*")):
            if path.suffix in (".json", ".yaml", ".yml"):
                _read_file(registry, path, seen)
    return registry


def _read_file(registry: Registry, path: Path, seen: dict[str, Path]) -> None:
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_LIMIT)
        document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        kind = document["kind"]
        if not _KIND.fullmatch(kind):
            raise ValueError(f"the kind {kind!r}")
        devices = {f"{kind}={device['name']}": device.get("containerEdits") or {} for device in document["devices"]}
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        registry.unusable[str(path)] = f"{path} cannot be used: {error}"
        return
    registry.common[kind] = [*registry.common.get(kind, ()), document.get("containerEdits") or {}]
    for name, edits in devices.items():
        if name in seen:
            registry.unusable[name] = f"both {seen[name]} and {path} describe it"
            registry.devices.pop(name, None)
        else:
            seen[name] = path
            registry.devices[name] = edits


def names(requests: Sequence[DeviceRequest], registry: Registry) -> list[str]:
    """Full names of what is asked for. Errors: WharfieError with Docker's text for a request that nobody can serve."""
    found: list[str] = []
    for request in requests:
        if request.driver == DRIVER:
            found += request.device_i_ds or ()
        else:
            found += _gpus(request, registry)
    return found


def check(requests: Sequence[DeviceRequest]) -> None:
    """What can be said without the files. Errors: InvalidArgument."""
    for request in requests:
        if request.count and request.device_i_ds:
            raise InvalidArgument("cannot set both Count and DeviceIDs on device request")
        if request.driver == DRIVER and (request.count or not request.device_i_ds):
            raise InvalidArgument("a device request of the driver cdi names its devices (DeviceIDs), and nothing else")
        if request.driver == DRIVER and request.options:
            raise InvalidArgument("unexpected options in CDI device request")


def _gpus(request: DeviceRequest, registry: Registry) -> list[str]:
    wanted = [set(alternative) for alternative in request.capabilities or ()]
    kinds = sorted({name.partition("=")[0] for name in registry.devices})
    fitting = [kind for kind in kinds if kind.endswith("/gpu") and kind.startswith(request.driver)]
    if request.driver not in _GPU_DRIVERS or not any("gpu" in alternative for alternative in wanted) or not fitting:
        text = " ".join(f"[{' '.join(alternative)}]" for alternative in request.capabilities or ())
        raise WharfieError(f'could not select device driver "{request.driver}" with capabilities: [{text}]')
    kind = fitting[0]
    if request.device_i_ds:
        return [f"{kind}={device}" for device in request.device_i_ds]
    single = sorted(name for name in registry.devices if name.startswith(f"{kind}=") and name != f"{kind}={_ALL}")
    if request.count < 0:
        return [f"{kind}={_ALL}"] if f"{kind}={_ALL}" in registry.devices else single
    if request.count > len(single):
        raise WharfieError(f"{request.count} devices of {kind} are asked for, and {len(single)} are described")
    return single[: request.count]


def apply(document: dict[str, Any], edits: Iterable[Mapping[str, Any]]) -> list[int]:
    """Edit an OCI configuration; supplementary groups that the devices want. Errors: WharfieError (a device is missing),
    Unsupported."""
    groups: list[int] = []
    for edit in edits:
        try:
            groups += _apply(document, edit)
        except (KeyError, TypeError, AttributeError) as error:
            raise WharfieError(f"CDI device injection failed: a description is malformed: {error!r}") from error
    return groups


def _apply(document: dict[str, Any], edit: Mapping[str, Any]) -> list[int]:
    if edit.get("intelRdt"):
        raise Unsupported("CDI device injection failed: Intel RDT is not supported")
    document["process"]["env"] = merge_environment(document["process"]["env"], edit.get("env") or ())
    for node in edit.get("deviceNodes") or ():
        _add_node(document["linux"], node)
    document["mounts"] += [_mount(mount) for mount in edit.get("mounts") or ()]
    for hook in edit.get("hooks") or ():
        entry = {key: hook[key] for key in ("path", "args", "env", "timeout") if key in hook}
        document.setdefault("hooks", {}).setdefault(hook["hookName"], []).append(entry)
    return [int(group) for group in edit.get("additionalGids") or ()]


def _add_node(linux: dict[str, Any], node: Mapping[str, Any]) -> None:
    host = node.get("hostPath") or node["path"]
    entry: dict[str, Any] = {key: node[key] for key in _NODE if key in node}
    if "type" not in entry or "major" not in entry:
        try:
            facts = os.stat(host)
        except OSError as error:
            raise WharfieError(f"CDI device injection failed: {host}: {error.strerror}") from error
        if not (stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode)):
            raise WharfieError(f"CDI device injection failed: {host} is not a device node")
        own = {
            "type": "c" if stat.S_ISCHR(facts.st_mode) else "b",
            "major": os.major(facts.st_rdev),
            "minor": os.minor(facts.st_rdev),
            "fileMode": stat.S_IMODE(facts.st_mode),
            "uid": facts.st_uid,
            "gid": facts.st_gid,
        }
        entry = {**own, **entry}
    linux.setdefault("devices", []).append(entry)
    rule = {key: entry[key] for key in ("type", "major", "minor")}
    linux["resources"]["devices"].append({"allow": True, **rule, "access": node.get("permissions") or "rwm"})


def _mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    kind = mount.get("type") or "bind"
    options = list(mount.get("options") or ("nosuid", "nodev"))
    if kind == "bind" and not {"bind", "rbind"} & set(options):
        options.append("rbind")
    return {"destination": mount["containerPath"], "type": kind, "source": mount["hostPath"], "options": options}
