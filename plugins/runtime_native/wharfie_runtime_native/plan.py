"""A container as config.json wants it, checked and ready to be made: parsed in the shim, before anything is made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from wharfie.spi.errors import InvalidArgument, Unsupported
from wharfie_runtime_native import devices, mounts, namespaces, process, sysctls
from wharfie_runtime_native.devices import Device
from wharfie_runtime_native.mounts import PROPAGATION, MountEntry
from wharfie_runtime_native.namespaces import Namespaces
from wharfie_runtime_native.process import ProcessSpec

if TYPE_CHECKING:
    from wharfie_runtime_native.hooks import Hooks

INIT_ANNOTATION: Final = "org.wharfie.init"
"""With "true" the container's first process is one that reaps and passes signals on (`docker run --init`)."""


class Plan(NamedTuple):
    """What `init` does, in its order."""

    process: ProcessSpec
    namespaces: Namespaces
    mounts: tuple[MountEntry, ...]
    sysctls: Mapping[str, str]
    resources: Mapping[str, Any]
    devices: tuple[Device, ...] = ()
    own_dev: bool = True
    masked: tuple[str, ...] = ()
    read_only: tuple[str, ...] = ()
    root_read_only: bool = False
    root_propagation: int = 0
    hostname: str = ""
    domainname: str = ""
    uid_map: str = ""
    gid_map: str = ""
    time_offsets: str = ""
    hooks: Hooks | None = None
    seccomp: Mapping[str, Any] | None = None
    init: bool = False


def parse(spec: Mapping[str, Any]) -> Plan:
    """Errors: InvalidArgument and Unsupported, naming the field."""
    linux = spec.get("linux") or {}
    _refuse(linux)
    spaces = namespaces.parse(linux.get("namespaces") or ())
    hostname, domainname = str(spec.get("hostname") or ""), str(spec.get("domainname") or "")
    if (hostname or domainname) and not spaces.own("uts"):
        raise InvalidArgument("unable to set hostname without a private UTS namespace")
    propagation = str(linux.get("rootfsPropagation") or "")
    if propagation and propagation not in PROPAGATION:
        raise InvalidArgument(f'linux.rootfsPropagation "{propagation}" is unknown')
    uid_map = namespaces.id_map(linux.get("uidMappings") or (), "linux.uidMappings")
    gid_map = namespaces.id_map(linux.get("gidMappings") or (), "linux.gidMappings")
    if "user" not in spaces.joined and ("user" in spaces.new) != bool(uid_map and gid_map):
        raise InvalidArgument("a user namespace and linux.uidMappings, linux.gidMappings belong together")
    time_offsets = namespaces.time_offsets(linux.get("timeOffsets") or {})
    if time_offsets and "time" not in spaces.new:
        raise InvalidArgument("linux.timeOffsets needs a new time namespace: the clocks of one in use cannot be moved")
    entries = mounts.parse_all(spec.get("mounts") or ())
    own_dev = devices.wanted(entries)
    return Plan(
        process=process.parse(spec.get("process") or {}, linux.get("personality")),
        namespaces=spaces,
        mounts=entries,
        devices=devices.parse(linux.get("devices") or ()) if own_dev else (),
        own_dev=own_dev,
        masked=tuple(linux.get("maskedPaths") or ()),
        read_only=tuple(linux.get("readonlyPaths") or ()),
        root_read_only=bool((spec.get("root") or {}).get("readonly")),
        root_propagation=PROPAGATION.get(propagation, 0),
        hostname=hostname,
        domainname=domainname,
        sysctls=sysctls.parse(linux.get("sysctl") or {}, spaces),
        uid_map=uid_map,
        gid_map=gid_map,
        time_offsets=time_offsets,
        hooks=parse_hooks(spec),
        seccomp=linux.get("seccomp") or None,
        # Without a word on devices the default ones are allowed, and no others.
        resources={"devices": (), **(linux.get("resources") or {})},
        init=(spec.get("annotations") or {}).get(INIT_ANNOTATION) == "true",
    )


def parse_hooks(spec: Mapping[str, Any]) -> Hooks | None:
    """None when there are none, which is nearly always. Errors: InvalidArgument naming the hook."""
    hooks = spec.get("hooks") or {}
    if not any(hooks.values()):
        return None
    from wharfie_runtime_native.hooks import parse as parse_them

    return parse_them(hooks)


def _refuse(linux: Mapping[str, Any]) -> None:
    """What this machine, or this runtime, has not got. Errors: Unsupported."""
    if linux.get("mountLabel"):
        raise process.unsupported_label("selinux", f'linux.mountLabel "{linux["mountLabel"]}"')
    if linux.get("intelRdt"):
        if not os.path.exists("/sys/fs/resctrl/schemata"):
            raise Unsupported("cannot do linux.intelRdt: this host has no resctrl file system at /sys/fs/resctrl")
        raise Unsupported("the native runtime cannot do linux.intelRdt; use another runtime, or leave it out")
    for key in ("netDevices", "memoryPolicy"):
        if linux.get(key):
            raise Unsupported(f"the native runtime follows runtime-spec 1.2, which knows no linux.{key}")
