"""The engine about itself: `docker info`, `docker version`, `docker system df`."""

from __future__ import annotations

import os
import platform
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from wharfie.engine.containers.containers import Containers
from wharfie.engine.events import Events
from wharfie.engine.identity import rfc3339
from wharfie.engine.images.images import Images
from wharfie.engine.model.container import Container, VolumeRecord
from wharfie.engine.model.image import Image
from wharfie.engine.settings import EngineSettings
from wharfie.engine.volumes import Volumes
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.inventory import core_version
from wharfie.plugins.states import State
from wharfie.spi.driver import Driver, HostFacts
from wharfie.spi.errors import WharfieError
from wharfie.spi.log import LogDriver
from wharfie.spi.network import NetworkDriver
from wharfie.spi.runtime import RuntimeDriver
from wharfie.spi.storage import StorageDriver
from wharfie.spi.volume import VolumeDriver

API_VERSION = "1.50"
MINIMUM_API_VERSION = "1.24"
INDEX_SERVER = "https://index.docker.io/v1/"
_KERNEL_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """Bytes; containers with (writable, whole root), volumes with their size, -1 unknown."""

    layers_size: int = 0
    images: list[Image] = field(default_factory=list)
    containers: list[tuple[Container, tuple[int, int]]] = field(default_factory=list)
    volumes: list[tuple[VolumeRecord, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    settings: EngineSettings
    host: HostFacts
    containers: Containers
    images: Images
    volumes: Volumes
    drivers: Drivers
    events: Events
    storage_driver: str

    def version(self) -> dict[str, Any]:
        """`GET /version`."""
        release = platform.release()
        details = {
            "ApiVersion": API_VERSION,
            "Arch": self.host.architecture,
            "BuildTime": "",
            "Experimental": str(self.settings.experimental).lower(),
            "GitCommit": "",
            "GoVersion": f"python{platform.python_version()}",
            "KernelVersion": release,
            "MinAPIVersion": MINIMUM_API_VERSION,
            "Os": "linux",
        }
        components = [{"Name": "Engine", "Version": core_version(), "Details": details}]
        components += [
            {"Name": state.distribution, "Version": state.version, "Details": {"Driver": f"{state.kind}.{state.name}"}}
            for state in self.drivers.states()
            if state.state == "open" and state.distribution
        ]
        return {
            "Platform": {"Name": "Wharfie"},
            "Components": components,
            "Version": core_version(),
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MINIMUM_API_VERSION,
            "GitCommit": "",
            "GoVersion": details["GoVersion"],
            "Os": "linux",
            "Arch": self.host.architecture,
            "KernelVersion": release,
            **({"Experimental": True} if self.settings.experimental else {}),
            "BuildTime": "",
        }

    async def info(self) -> dict[str, Any]:
        """`GET /info`. A driver that does not answer is left out; a missing one is named in the warnings."""
        states = self.container_states()
        warnings = [f'{state.kind} driver "{state.name}": {state.cause}' for state in self.drivers.states() if state.cause]
        settings = self.settings
        return {
            "ID": _daemon_id(settings.data_root),
            "Containers": sum(states.values()),
            "ContainersRunning": states["running"],
            "ContainersPaused": states["paused"],
            "ContainersStopped": states["stopped"],
            "Images": len(self.images.list(all=True, filters={})),
            "Driver": self.storage_driver,
            "DriverStatus": [*await self._storage_status(), *self._driver_states()],
            "Plugins": {
                "Volume": sorted(self.drivers.known(VolumeDriver)),
                "Network": sorted(self.drivers.known(NetworkDriver)),
                "Authorization": list(settings.authorization_plugins) or None,
                "Log": sorted(self.drivers.known(LogDriver)),
            },
            **_kernel_abilities(unified=self.host.cgroup == "v2"),
            "Debug": settings.debug,
            "NFd": _count("/proc/self/fd"),
            "OomKillDisable": self.host.cgroup != "v2",
            "NGoroutines": _count("/proc/self/task"),
            "SystemTime": rfc3339(),
            "LoggingDriver": settings.log_driver,
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if self.host.cgroup == "v2" else "1",
            "NEventsListener": self.events.listeners,
            "KernelVersion": platform.release(),
            "OperatingSystem": _os_release().get("PRETTY_NAME", "Linux"),
            "OSVersion": _os_release().get("VERSION_ID", ""),
            "OSType": "linux",
            "Architecture": _KERNEL_NAMES.get(self.host.architecture, self.host.architecture),
            "IndexServerAddress": INDEX_SERVER,
            "RegistryConfig": self._registries(),
            "NCPU": self.host.cpus,
            "MemTotal": self.host.memory,
            "GenericResources": None,
            "DockerRootDir": str(settings.data_root),
            "HttpProxy": os.environ.get("HTTP_PROXY", ""),
            "HttpsProxy": os.environ.get("HTTPS_PROXY", ""),
            "NoProxy": os.environ.get("NO_PROXY", ""),
            "Name": platform.node(),
            "Labels": list(settings.labels),
            "ExperimentalBuild": settings.experimental,
            "ServerVersion": core_version(),
            "Runtimes": {name: {"path": name} for name in sorted(self.drivers.known(RuntimeDriver))},
            "DefaultRuntime": settings.default_runtime,
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            "LiveRestoreEnabled": settings.live_restore,
            "Isolation": "",
            "InitBinary": "docker-init",
            "ContainerdCommit": {"ID": "", "Expected": ""},
            "RuncCommit": {"ID": "", "Expected": ""},
            "InitCommit": {"ID": "", "Expected": ""},
            "SecurityOptions": self._security(),
            "CDISpecDirs": list(self.settings.cdi_spec_dirs),
            "Warnings": [*warnings, *self._missing()] or None,
        }

    def container_states(self) -> dict[str, int]:
        """How many containers run, are paused, and do neither."""
        statuses = [container.state.status for container in self.containers.catalog]
        running, paused = statuses.count("running"), statuses.count("paused")
        return {"paused": paused, "running": running, "stopped": len(statuses) - running - paused}

    def about(self) -> dict[str, str]:
        """The engine and its host, as the labels of Docker's metric have it."""
        release = _os_release()
        return {
            "architecture": _KERNEL_NAMES.get(self.host.architecture, self.host.architecture),
            "commit": "",
            "daemon_id": _daemon_id(self.settings.data_root),
            "graphdriver": self.storage_driver,
            "kernel": platform.release(),
            "os": release.get("PRETTY_NAME", "Linux"),
            "os_type": "linux",
            "os_version": release.get("VERSION_ID", ""),
            "version": core_version(),
        }

    async def _storage_status(self) -> list[list[str]]:
        if self.storage_driver not in self.drivers.known(StorageDriver):
            return []
        try:
            driver = await self.drivers.get(StorageDriver, self.storage_driver)
            return [list(row) for row in await driver.call(Driver.status)]
        except WharfieError as error:
            return [["Error", error.message]]

    def _driver_states(self) -> list[list[str]]:
        """A row for each state that drivers are in, but for those that are installed and not needed."""
        rows: dict[str, list[str]] = {}
        for row in self.drivers.states():
            if row.state is not State.INSTALLED:
                rows.setdefault(row.state.value, []).append(f"{row.kind}.{row.name}")
        return [[f"Drivers {state}", ", ".join(names)] for state, names in sorted(rows.items(), key=_open_first)]

    def _missing(self) -> list[str]:
        wanted: list[tuple[type[Driver[Any]], str]] = [
            (StorageDriver, self.storage_driver),
            (RuntimeDriver, self.settings.default_runtime),
            (NetworkDriver, self.settings.default_network_driver),
            (VolumeDriver, self.settings.default_volume_driver),
            (LogDriver, self.settings.log_driver),
        ]
        return [
            f'WARNING: no {contract.kind} driver "{name}" is installed'
            for contract, name in wanted
            if name not in self.drivers.known(contract)
        ]

    def _security(self) -> list[str]:
        profile = self.settings.seccomp_profile
        options = [] if profile == "unconfined" else [f"name=seccomp,profile={profile}"]
        if self.host.cgroup == "v2":
            options.append("name=cgroupns")
        if self.settings.users is not None:
            options.append("name=userns")
        if self.settings.no_new_privileges:
            options.append("name=no-new-privileges")
        return options

    def _registries(self) -> dict[str, Any]:
        insecure = [entry for entry in self.settings.insecure_registries if "/" in entry]
        hosts = [entry for entry in self.settings.insecure_registries if "/" not in entry]
        mirrors = list(self.settings.registry_mirrors)
        configs = {"docker.io": {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}}
        configs.update({host: {"Name": host, "Mirrors": [], "Secure": False, "Official": False} for host in hosts})
        return {
            "AllowNondistributableArtifactsCIDRs": None,
            "AllowNondistributableArtifactsHostnames": None,
            "InsecureRegistryCIDRs": [*insecure, "::1/128", "127.0.0.0/8"],
            "IndexConfigs": configs,
            "Mirrors": mirrors or None,
        }

    async def disk_usage(self, types: frozenset[str]) -> DiskUsage:
        """`GET /system/df` for these types ("container", "image", "volume", "build-cache")."""
        images = self.images.list(all=False, filters={}) if "image" in types else []
        layers_size = self.images.layers_size() if "image" in types else 0
        containers = []
        if "container" in types:
            containers = [(container, await self.containers.size(container)) for container in self.containers.catalog]
        volumes = []
        if "volume" in types:
            records, _ = await self.volumes.matching({})
            sizes = [(record, await self.volumes.usage(record)) for record in records]
            volumes = [(record, size) for record, size in sizes if size >= 0]  # as Docker: those that can be counted
        return DiskUsage(layers_size=layers_size, images=images, containers=containers, volumes=volumes)


def _open_first(row: tuple[str, object]) -> tuple[bool, str]:
    return row[0] != State.OPEN, row[0]


def _daemon_id(data_root: Path) -> str:
    """A UUID that stays with the data root."""
    path = data_root / "engine-id"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        text = str(uuid.uuid4())
        path.write_text(text + "\n")
        return text


def _count(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


@cache
def _os_release() -> Mapping[str, str]:
    try:
        text = Path("/etc/os-release").read_text()
    except OSError:
        return {}
    return {key: value.strip('"') for key, value in re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE)}


def _kernel_abilities(*, unified: bool) -> dict[str, bool]:
    """What cgroups and sysctls offer. Newer kernels list version 1's controllers alone in /proc/cgroups."""
    table = Path("/sys/fs/cgroup/cgroup.controllers" if unified else "/proc/cgroups")
    controllers = set(table.read_text().split()) if table.exists() else set()
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    has = {name: name in controllers for name in ("memory", "cpu", "cpuset", "pids")}
    return {
        "MemoryLimit": has["memory"],
        "SwapLimit": has["memory"],
        "CpuCfsPeriod": has["cpu"],
        "CpuCfsQuota": has["cpu"],
        "CPUShares": has["cpu"],
        "CPUSet": has["cpuset"],
        "PidsLimit": has["pids"],
        "IPv4Forwarding": forwarding.exists() and forwarding.read_text().strip() == "1",
    }
