"""What containers may have beyond Docker's defaults: everything that leads to the host is refused until it is named.

Judged are the bodies that give a container something: create, update and exec of containers, and volumes. A field of
HostConfig that this module does not know is refused when it is set: a new one may be a new way to the host.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from wharfie.spi.authz import ApiRequest
from wharfie_authz_policy.patterns import matches

HARMLESS = frozenset(
    (
        "AutoRemove",
        "BlkioDeviceReadBps",
        "BlkioDeviceReadIOps",
        "BlkioDeviceWriteBps",
        "BlkioDeviceWriteIOps",
        "BlkioWeight",
        "BlkioWeightDevice",
        "CapDrop",
        "ConsoleSize",
        "ContainerIDFile",
        "CpuCount",
        "CpuPercent",
        "CpuPeriod",
        "CpuQuota",
        "CpuRealtimePeriod",
        "CpuRealtimeRuntime",
        "CpuShares",
        "CpusetCpus",
        "CpusetMems",
        "Dns",
        "DnsOptions",
        "DnsSearch",
        "ExtraHosts",
        "GroupAdd",
        "IOMaximumBandwidth",
        "IOMaximumIOps",
        "Init",
        "Isolation",
        "KernelMemory",
        "KernelMemoryTCP",
        "Links",
        "LogConfig",
        "Memory",
        "MemoryReservation",
        "MemorySwap",
        "MemorySwappiness",
        "NanoCpus",
        "OomKillDisable",
        "OomScoreAdj",
        "PidsLimit",
        "PortBindings",
        "PublishAllPorts",
        "ReadonlyRootfs",
        "RestartPolicy",
        "ShmSize",
        "Tmpfs",
        "Ulimits",
        "VolumeDriver",
    )
)
"""Fields of HostConfig (Docker Engine API) that give a container nothing of the host."""

OWN_NAMESPACE: Mapping[str, frozenset[str]] = {
    "CgroupnsMode": frozenset({"", "private"}),
    "IpcMode": frozenset({"", "none", "private", "shareable"}),
    "PidMode": frozenset({"", "private"}),
    "UTSMode": frozenset({"", "private"}),
    "UsernsMode": frozenset({"", "private"}),
}
"""Modes that keep a container in namespaces of its own."""

EMPTY_COUNTS = frozenset({"MaskedPaths", "ReadonlyPaths"})
"""Fields whose empty list is not their absence: it takes the protection of /proc and /sys away."""

_NO_NEW_PRIVILEGES = frozenset({"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"})
_DEFAULT_NETWORKS = frozenset({"", "default", "bridge", "none"})
_ID = re.compile(r"[0-9a-f]{4,64}")
_REMOTE_TYPES = frozenset({"tmpfs", "nfs", "nfs4", "cifs"})
"""File systems of a volume whose source is no file of this host."""

_CONTAINER_CREATE = "/containers/create"
_VOLUME_CREATE = "/volumes/create"
_BUILD = "/build"
_OPAQUE = frozenset({"/grpc", "/session"})
"""BuildKit's streams: what they will carry is not known when they are opened."""
_CHANGE = re.compile(r"/containers/[^/]+/(update|exec)")
_CONNECT = re.compile(r"/networks/([^/]+)/connect")


class Confinement(BaseModel):
    """What requests of a rule may give to containers. An empty one means Docker's defaults and nothing of the host."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    privileged: bool = False
    host_mounts: Annotated[tuple[Path, ...], Field(alias="host-mounts")] = ()
    devices: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    images: tuple[str, ...] = ("**",)
    networks: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    def objection(self, request: ApiRequest) -> str:
        """Why the request goes beyond this; empty: it does not."""
        return next(self._objections(request), "")

    def _objections(self, request: ApiRequest) -> Iterator[str]:
        network = _CONNECT.fullmatch(request.path)
        change = _CHANGE.fullmatch(request.path)
        if network is not None:
            yield from self._network(network[1])
        elif request.path == _BUILD:
            yield from self._network(request.parameters.get("networkmode", ""))
        elif request.path in _OPAQUE:
            yield f"what comes over {request.path} cannot be judged"
        if not (change or request.path in (_CONTAINER_CREATE, _VOLUME_CREATE)) or request.method != "POST":
            return
        if not isinstance(request.body, Mapping):
            yield "a request without a JSON object cannot be judged"
            return
        if request.path == _CONTAINER_CREATE:
            yield from self._create(request.body)
        elif request.path == _VOLUME_CREATE:
            yield from self._volume_options(request.body.get("DriverOpts"))
        elif change is not None and change[1] == "exec":
            yield from self._privileged(request.body)
        else:
            yield from self._host(request.body)

    def _create(self, body: Mapping[str, Any]) -> Iterator[str]:
        image = body.get("Image")
        if not isinstance(image, str) or not (matches(image, self.images) or matches(_canonical(image), self.images)):
            yield f"the image {image} is not among those allowed"
        yield from self._host(_object(body.get("HostConfig")))
        for name in _object(_object(body.get("NetworkingConfig")).get("EndpointsConfig")):
            yield from self._network(name)

    def _host(self, host: Mapping[str, Any]) -> Iterator[str]:
        """HostConfig, or the part of it that an update has."""
        yield from self._privileged(host)
        for field, value in host.items():
            if value is None or (not value and field not in EMPTY_COUNTS):
                continue
            if field in HARMLESS or field in self.fields or field == "Privileged":
                continue
            judge = _JUDGES.get(field)
            if judge is not None:
                yield from judge(self, value)
            elif str(value) not in OWN_NAMESPACE.get(field, ()):
                yield f"{field} is not allowed"

    def _privileged(self, body: Mapping[str, Any]) -> Iterator[str]:
        if body.get("Privileged") and not self.privileged:
            yield "privileged is not allowed"

    def _binds(self, value: Any) -> Iterator[str]:
        for bind in _items(value):
            source = str(bind).partition(":")[0]
            if ":" in str(bind) and source.startswith("/"):
                yield from self._host_path(source)

    def _mounts(self, value: Any) -> Iterator[str]:
        for mount in map(_object, _items(value)):
            kind = mount.get("Type")
            if kind == "bind":
                yield from self._host_path(str(mount.get("Source", "")))
            elif kind == "volume":
                driver = _object(_object(mount.get("VolumeOptions")).get("DriverConfig"))
                yield from self._volume_options(driver.get("Options"))
            elif kind not in ("tmpfs", "image"):
                yield f"a mount of type {kind} is not allowed"

    def _volume_options(self, value: Any) -> Iterator[str]:
        """A volume with `type=none`, `o=bind`, `device=/etc` is a host mount by another name; so is any path in options."""
        options = _object(value)
        if str(options.get("type")) in _REMOTE_TYPES:
            return
        for option in options.values():
            for part in re.split(r"[,=:]", str(option)):
                if part.startswith("/"):
                    yield from self._host_path(part)

    def _host_path(self, path: str) -> Iterator[str]:
        """Links are followed: what is mounted is what they lead to. Whether `..` is resolved before them or after depends
        on who mounts, so both must be inside."""
        for text in (path, os.path.normpath(path)):
            real = Path(os.path.realpath(text))
            if not any(real.is_relative_to(os.path.realpath(folder)) for folder in self.host_mounts):
                allowed = ", ".join(map(str, self.host_mounts)) or "none"
                shown = path if str(real) == path else f"{path} (which is {real})"
                yield f"the host's {shown} must not be mounted; allowed: {allowed}"

    def _devices(self, value: Any) -> Iterator[str]:
        for device in map(_object, _items(value)):
            path = os.path.realpath(str(device.get("PathOnHost", "")))
            if not matches(path, self.devices):
                yield f"the device {path} is not allowed"

    def _capabilities(self, value: Any) -> Iterator[str]:
        for name in _items(value):
            short = str(name).upper().removeprefix("CAP_")
            if short not in self.capabilities:
                yield f"the capability {short} is not allowed"

    def _security(self, value: Any) -> Iterator[str]:
        for option in _items(value):
            if str(option) not in _NO_NEW_PRIVILEGES:
                yield f"the security option {option} is not allowed"

    def _network(self, value: Any) -> Iterator[str]:
        """`host` and ids must be named letter by letter: an id could be that of any network."""
        name = str(value)
        special = name == "host" or name.startswith("container:") or _ID.fullmatch(name) is not None
        if name in self.networks or name in _DEFAULT_NETWORKS or (not special and matches(name, self.networks)):
            return
        yield f"the network {name} is not allowed"


_JUDGES: Mapping[str, Any] = {
    "Binds": Confinement._binds,
    "CapAdd": Confinement._capabilities,
    "Devices": Confinement._devices,
    "Mounts": Confinement._mounts,
    "NetworkMode": Confinement._network,
    "SecurityOpt": Confinement._security,
}
"""Field of HostConfig → who judges its value."""


def _object(value: Any) -> Mapping[str, Any]:
    """What is no object is refused by the engine itself, which checks types strictly."""
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _canonical(image: str) -> str:
    """`busybox` is docker.io/library/busybox:latest."""
    first, slash, _ = image.partition("/")
    if not slash:
        image = f"docker.io/library/{image}"
    elif not ("." in first or ":" in first or first == "localhost"):
        image = f"docker.io/{image}"
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
