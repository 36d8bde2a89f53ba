"""The OCI configuration of a container (runtime-spec 1.2, config.md), from its record and what a start found out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wharfie.engine.model.container import Container
from wharfie.engine.settings import EngineSettings, Users
from wharfie.engine.spec import capabilities, devices, limits, security
from wharfie.engine.spec.environment import merge_environment
from wharfie.shim.maker import MAP_ROOT
from wharfie.spi.driver import HostFacts
from wharfie.spi.hooks import Adjustment

OCI_VERSION = "1.2.0"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_ANNOTATION = "org.wharfie.init"
"""Annotation that asks the runtime for an init process as PID 1, which forwards signals and reaps (`--init`)."""
INIT_PATH_ANNOTATION = "org.wharfie.init-path"
"""Which program of the host that is to be, for a runtime that has none of its own."""

# Docker's own mounts, in its order.
_BASE_MOUNTS: tuple[dict[str, Any], ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": ["ro", "nosuid", "noexec", "nodev"],
    },
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
)
MOUNT_POINTS = (
    "/dev/pts/",
    "/dev/shm/",
    "/dev/console",
    "/proc/",
    "/sys/",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/hostname",
)
"""Files and folders that exist in every container's root, as mount points (Docker's init layer)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a start found out and the record does not know."""

    mounts: Sequence[Mapping[str, Any]] = ()  # user mounts, OCI form
    namespaces: Mapping[str, str] = field(default_factory=dict)  # type → path of another container's
    folder: Path  # with hosts, hostname, resolv.conf
    shm: str = ""  # a folder to bind on /dev/shm in place of a new tmpfs
    users: Users | None = None  # None: the host's


def config(container: Container, settings: EngineSettings, host: HostFacts, found: Found) -> dict[str, Any]:
    """The bundle's config.json. The process's user is resolved by the runtime (`Preparation`)."""
    hc = container.host_config
    nodes, rules = devices.plan(hc.devices or (), hc.device_cgroup_rules or (), privileged=hc.privileged)
    resources = limits.resources(hc)
    resources["devices"] = rules
    linux: dict[str, Any] = {
        "cgroupsPath": f"{(hc.cgroup_parent or settings.cgroup_parent).rstrip('/')}/{container.id}",
        "resources": resources,
        "namespaces": _namespaces(container, found),
        "sysctl": _sysctls(container, found.users),
    }
    if found.users is not None:
        linux["uidMappings"], linux["gidMappings"] = list(found.users.uids), list(found.users.gids)
    if nodes:
        linux["devices"] = nodes
    if not hc.privileged:
        linux["maskedPaths"] = hc.masked_paths or []
        linux["readonlyPaths"] = hc.readonly_paths or []
    options = security.parse(hc.security_opt or ())
    caps = capabilities.effective(hc.cap_add or (), hc.cap_drop or (), privileged=hc.privileged)
    if not hc.privileged:
        profile = security.seccomp(options.seccomp, settings.seccomp_profile, caps, host)
        if profile is not None:
            linux["seccomp"] = profile
    document: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": process(container, settings),
        "root": {"path": "rootfs", "readonly": hc.readonly_rootfs},
        "mounts": _mounts(container, found),
        "linux": linux,
        "annotations": dict(hc.annotations or {}),
    }
    if found.users is not None:
        document["annotations"][MAP_ROOT] = "true"
    if _own_uts(container):
        document["hostname"] = container.config.hostname
        if container.config.domainname:
            document["domainname"] = container.config.domainname
    if hc.init or (hc.init is None and settings.init):
        document["annotations"][INIT_ANNOTATION] = "true"
        if settings.init_path:
            document["annotations"][INIT_PATH_ANNOTATION] = settings.init_path
    return document


def adjust(document: dict[str, Any], adjustment: Adjustment) -> None:
    """Add what hook plugins asked for (`adjust_container`)."""
    added = [f"{name}={value}" for name, value in adjustment.env.items()]
    document["process"]["env"] = merge_environment(document["process"]["env"], added)
    document["annotations"].update(adjustment.annotations)
    document["mounts"] += [dict(mount) for mount in adjustment.mounts]


def process(container: Container, settings: EngineSettings) -> dict[str, Any]:
    """OCI `process` of the container's first program."""
    hc = container.host_config
    caps = list(capabilities.effective(hc.cap_add or (), hc.cap_drop or (), privileged=hc.privileged))
    options = security.parse(hc.security_opt or ())
    document: dict[str, Any] = {
        "terminal": container.config.tty,
        "args": container.command,
        "env": environment(container),
        "cwd": container.config.working_dir or "/",
        "user": {"uid": 0, "gid": 0},
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps, "inheritable": [], "ambient": []},
        "noNewPrivileges": options.no_new_privileges or settings.no_new_privileges,
        "oomScoreAdj": hc.oom_score_adj,
        "rlimits": limits.rlimits(hc.ulimits or (), settings.default_ulimits),
    }
    if options.apparmor:
        document["apparmorProfile"] = options.apparmor
    return document


def environment(container: Container) -> list[str]:
    """Docker's own variables, then the container's, which replace them by name."""
    base = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={container.config.hostname}"]
    if container.config.tty:
        base.append("TERM=xterm")
    return merge_environment([*base, *container.link_environment], container.config.env or ())


def _namespaces(container: Container, found: Found) -> list[dict[str, str]]:
    hc = container.host_config
    wanted = {
        "mount": "private",
        "network": hc.network_mode,
        "uts": hc.uts_mode,
        "pid": hc.pid_mode,
        "ipc": hc.ipc_mode,
        "cgroup": hc.cgroupns_mode,
    }
    result = []
    if found.users is not None:
        wanted["user"] = "private"
    for kind, mode in wanted.items():
        if mode == "host":
            continue
        entry = {"type": kind}
        if kind in found.namespaces:
            entry["path"] = found.namespaces[kind]
        result.append(entry)
    return result


def _own_uts(container: Container) -> bool:
    return container.host_config.uts_mode != "host"


def _sysctls(container: Container, users: Users | None) -> dict[str, str]:
    own_network = container.host_config.network_mode != "host" and not container.host_config.network_mode.startswith(
        "container:"
    )
    # All groups that there are in the container.
    last = 2147483647 if users is None else sum(entry["size"] for entry in users.gids) - 1
    base = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": f"0 {last}"}
    return {**(base if own_network else {}), **(container.host_config.sysctls or {})}


def _mounts(container: Container, found: Found) -> list[dict[str, Any]]:
    hc = container.host_config
    user = {entry["destination"]: entry for entry in found.mounts}
    mounts: list[dict[str, Any]] = []
    for entry in _BASE_MOUNTS:
        mount = dict(entry)
        if hc.privileged and mount["type"] in ("sysfs", "cgroup"):
            mount["options"] = [option for option in mount["options"] if option != "ro"]
        mounts.append(mount)
    if found.shm:
        mounts.append({"destination": "/dev/shm", "type": "bind", "source": found.shm, "options": ["rbind", "rprivate"]})
    elif hc.ipc_mode != "none":
        options = ["nosuid", "noexec", "nodev", "mode=1777", f"size={hc.shm_size}"]
        mounts.append({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": options})
    for name in ("resolv.conf", "hostname", "hosts"):
        options = ["rbind", "rprivate", *(["ro"] if hc.readonly_rootfs else []), *(["idmap"] if found.users else [])]
        mounts.append(
            {"destination": f"/etc/{name}", "type": "bind", "source": str(found.folder / name), "options": options}
        )
    # A user's mount on one of these places replaces ours; what lies above is mounted first.
    mounts = [mount for mount in mounts if mount["destination"] not in user]
    mounts += [dict(entry) for entry in user.values()]
    return sorted(mounts, key=lambda mount: mount["destination"].rstrip("/").count("/"))
