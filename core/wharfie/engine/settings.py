"""The part of daemon.json that the engine's rules need, typed and complete: the daemon fills it in, nobody changes it.

Settings of single drivers are not here: they go from daemon.json straight to the drivers (`wharfie.plugins`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultUlimit:
    """A limit for containers that ask for none of this name (setrlimit(2) without RLIMIT_)."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPool:
    """Networks take their subnets from `base`, each of prefix length `size`."""

    base: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """Whom the ids of containers are on the host (`userns-remap`), as OCI's uidMappings and gidMappings."""

    uids: tuple[Mapping[str, int], ...]
    gids: tuple[Mapping[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What the daemon was told. Names follow daemon.json's keys."""

    data_root: Path
    exec_root: Path
    instance: str  # eight hex digits, stable for this data root
    config_file: Path = Path("/etc/wharfie/daemon.json")

    storage_driver: str = "overlay2"  # empty: overlay2, then vfs
    default_runtime: str = "native"
    log_driver: str = "json-file"
    log_options: Mapping[str, str] = field(default_factory=dict)
    default_network_driver: str = "bridge"
    default_volume_driver: str = "local"
    registry_driver: str = "oci"
    registries: Mapping[str, str] = field(default_factory=dict)  # host[:port] → registry driver
    authorization_plugins: tuple[str, ...] = ()
    disabled_plugins: tuple[str, ...] = ()
    required_plugins: tuple[str, ...] = ()

    bridge: str = "docker0"  # name of the default network's bridge; "none": no default network
    bip: str = ""  # address and prefix of the default bridge
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    default_gateway: str = ""  # of the default network's containers; empty: its bridge
    default_gateway_v6: str = ""
    ipv6: bool = False
    icc: bool = True
    ip_masq: bool = True
    ip_forward: bool = True
    mtu: int = 1500
    default_bind_address: str = "0.0.0.0"  # Docker's key `ip`: where published ports listen
    userland_proxy: bool = True  # relay published ports where the kernel's translation does not reach
    default_address_pools: tuple[AddressPool, ...] = ()  # empty: Docker's own
    default_network_opts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # driver → options
    host_gateway_ips: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()

    cgroup_parent: str = "/wharfie"
    default_shm_size: int = 64 * 1024 * 1024  # bytes
    default_ulimits: Mapping[str, DefaultUlimit] = field(default_factory=dict)
    default_cgroupns_mode: str = ""  # empty: private on cgroup v2, host on v1
    default_ipc_mode: str = "private"
    init: bool = False
    init_path: str = ""  # the program for it; empty: the runtime driver's own choice
    no_new_privileges: bool = False
    users: Users | None = None  # None: the host's
    seccomp_profile: str = "builtin"  # a path, "builtin" or "unconfined"

    live_restore: bool = False
    shutdown_timeout: int = 15  # seconds; -1: as long as it takes
    default_stop_timeout: int = 10  # seconds
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()

    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    labels: tuple[str, ...] = ()
    experimental: bool = False
    debug: bool = False
    hosts: tuple[str, ...] = ()

    @property
    def staging(self) -> Path:
        """Where parts of volumes and images are mounted while a container is being made."""
        return self.exec_root / "staging"
