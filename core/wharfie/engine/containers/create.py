"""Making a container: the request is checked and completed, the writable layer and volumes are made, the record written."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wharfie.engine import mounts
from wharfie.engine.containers import health, links
from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.merging import complete
from wharfie.engine.containers.modes import check_modes, check_users, complete_modes, remaps
from wharfie.engine.containers.networking import choose_networks
from wharfie.engine.containers.refusals import check_refusals
from wharfie.engine.containers.restarts import check_restart
from wharfie.engine.containers.signals import parse as parse_signal
from wharfie.engine.identity import check_name, generate_name, new_id, rfc3339
from wharfie.engine.images.images import Images
from wharfie.engine.model.config import Config
from wharfie.engine.model.container import Container, ContainerCreate, MountPoint
from wharfie.engine.model.host import HostConfig
from wharfie.engine.model.image import Image
from wharfie.engine.networks.files import check_name_service
from wharfie.engine.networks.networks import Networks
from wharfie.engine.networks.ports import check_bindings, exposed_ports
from wharfie.engine.settings import EngineSettings
from wharfie.engine.spec import capabilities, cdi, devices, limits, security, support
from wharfie.engine.undo import Undo
from wharfie.engine.volumes import Volumes
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.states import State
from wharfie.spi.driver import HostFacts
from wharfie.spi.errors import InvalidArgument, NotFound, WharfieError
from wharfie.spi.log import LogDriver
from wharfie.spi.runtime import RuntimeDriver
from wharfie.spi.storage import SnapshotOptions, StorageDriver

_DOCKERS_RUNTIME = "runc"
_RUNTIME_ALIASES = frozenset({_DOCKERS_RUNTIME, "io.containerd.runc.v2"})
"""Names of Docker's own runtime. Clients that recreate a container repeat them, for Docker shows them of every container:
they mean the driver runc where that can serve, and otherwise, with a warning, this daemon's default."""
_NOT_HERE = frozenset({State.ABSENT, State.DISABLED, State.UNFIT})


@dataclass(frozen=True, slots=True)
class Created:
    id: str
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Creator:
    """Everything that making a container needs."""

    settings: EngineSettings
    host: HostFacts
    catalog: Catalog
    images: Images
    networks: Networks
    volumes: Volumes
    drivers: Drivers
    storage_driver: str

    async def create(self, request: ContainerCreate, name: str, platform: str) -> tuple[Container, Created]:
        """Errors: InvalidArgument, NotFound (image, driver), Conflict (name), Unavailable, OutOfSpace."""
        chosen = check_name(name) if name else ""
        image = self._image(request.image, platform)
        warnings: list[str] = []
        config = _config(request, image)
        host = request.host_config
        check_refusals(request)
        check_modes(request, host)
        warnings += support.discard(host, self.host)
        self._check(config, host)
        limits.tidy(host)
        complete_modes(host, self.settings, self.host)
        container_id = new_id()
        config.hostname = config.hostname or _hostname(host, container_id)
        planned = mounts.plan_mounts(
            image_volumes=config.volumes or {},
            volumes_from=host.volumes_from or (),
            binds=host.binds or (),
            specs=host.mounts or (),
            tmpfs=host.tmpfs or {},
            default_driver=host.volume_driver or self.settings.default_volume_driver,
            find=self.catalog.get,
        )
        self._pin_images(planned)
        container = Container(
            id=container_id,
            name=chosen or generate_name(self.catalog.name_taken, container_id[:12]),
            created=rfc3339(),
            image_id=image.id if image else "",
            top_layer=image.chain_ids[-1] if image and image.chain_ids else "",
            config=config,
            host_config=host,
            storage_driver=self.storage_driver,
            runtime=await self._runtime(host, warnings),
            log_driver=host.log_config.type,
            mounts=planned,
            networks=choose_networks(request, self.networks, self.catalog),
            exposed=exposed_ports([*(config.exposed_ports or {}), *(host.port_bindings or {})]),
        )
        links.settle(host, container.networks, self.catalog.get)
        await self._plan_log(container)
        await self._make(container)
        return container, Created(container_id, warnings)

    def _image(self, ref: str, platform: str) -> Image | None:
        if not ref:
            return None  # Docker makes a container without an image (contract: 201)
        return self.images.get(ref, platform)

    def _pin_images(self, planned: Sequence[MountPoint]) -> None:
        """An image that is mounted is the one that its name means now."""
        for mount in planned:
            if mount.type != "image":
                continue
            try:
                image = self.images.get(mount.name)
            except NotFound as error:
                # As 404 it would be taken for the container's own image, and clients would pull that.
                raise InvalidArgument(f'invalid mount config for type "image": {error.message}: pull it first') from error
            if not image.top_layer:
                raise InvalidArgument(f'invalid mount config for type "image": {mount.name} has no layers')
            mount.source, mount.layer = image.id, image.top_layer

    def _check(self, config: Config, host: HostConfig) -> None:
        if not [*(config.entrypoint or []), *(config.cmd or [])]:
            raise InvalidArgument("no command specified")
        _check_config(config)
        health.check(config.healthcheck)
        limits.check(host)
        capabilities.effective(host.cap_add or (), host.cap_drop or (), privileged=host.privileged)
        options = security.parse(host.security_opt or ())
        if options.apparmor and not Path("/sys/kernel/security/apparmor").exists():
            raise InvalidArgument(f"AppArmor is not enabled on this host: profile {options.apparmor!r} cannot be set")
        cdi.check(host.device_requests or ())
        devices.check_rules(host.device_cgroup_rules or ())
        check_name_service(config, host)
        check_bindings(host.port_bindings or {})
        check_users(host, self.settings)
        check_restart(host)

    async def _runtime(self, host: HostConfig, warnings: list[str]) -> str:
        default = self.settings.default_runtime
        name = _DOCKERS_RUNTIME if host.runtime in _RUNTIME_ALIASES else host.runtime or default
        try:
            try:
                await self.drivers.get(RuntimeDriver, name)
            except WharfieError as error:
                if host.runtime not in _RUNTIME_ALIASES or name == default or error.details.get("state") not in _NOT_HERE:
                    raise
                await self.drivers.get(RuntimeDriver, default)
                warnings.append(f"The runtime {default} is used in place of {host.runtime}: {error.message}")
                name = default
        except NotFound as error:
            raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime or name}") from error
        host.runtime = host.runtime or name
        if remaps(host, self.settings):
            await self._check_mapping(name)
        return name

    async def _check_mapping(self, name: str) -> None:
        """Files of containers with users of their own are theirs by mapped mounts. Errors: InvalidArgument."""
        runtime = await self.drivers.get(RuntimeDriver, name)
        linux = (await runtime.call(RuntimeDriver.features)).get("linux") or {}
        if not ((linux.get("mountExtensions") or {}).get("idmap") or {}).get("enabled"):
            raise InvalidArgument(
                f"runtime {name} maps no ids of mounts, which userns-remap needs: use another runtime, or --userns=host"
            )

    async def _plan_log(self, container: Container) -> None:
        log = container.host_config.log_config
        if not log.type:
            log.type = self.settings.log_driver
            log.config = {**self.settings.log_options, **log.config}
        elif log.type == self.settings.log_driver:
            log.config = {**self.settings.log_options, **log.config}
        container.log_driver = log.type
        try:
            driver = await self.drivers.get(LogDriver, log.type)
        except NotFound as error:
            raise InvalidArgument(f"logger: no log driver named '{log.type}' is registered") from error
        facts = self.catalog.facts(container)
        container.log_options = dict(await driver.call(LogDriver.plan, facts, log.config))
        container.log_path = await driver.call(LogDriver.path, facts, container.log_options)

    async def _make(self, container: Container) -> None:
        self.catalog.claim_name(container.name, container.id)
        async with Undo(f"creating container {container.name}") as undo:

            async def release_name() -> None:
                self.catalog.release_name(container.name, container.id)

            undo.add("name", release_name)
            storage = await self.drivers.get(StorageDriver, self.storage_driver)
            options = _snapshot_options(container.host_config.storage_opt or {})
            undo.add("writable layer", lambda: storage.call(StorageDriver.remove, container.id))
            await storage.call(StorageDriver.create, container.id, container.top_layer or None, options)
            for mount in container.mounts:
                if mount.type == "volume":
                    await self._make_volume(mount, container, undo)
            folder = self.catalog.folder(container)
            undo.add("folder", lambda: asyncio.to_thread(shutil.rmtree, folder, True))
            folder.mkdir(mode=0o710, parents=True)
            await self.catalog.save(container)
            undo.commit()
        for mount in container.mounts:
            self.volumes.release(mount.name, container)

    async def _make_volume(self, mount: MountPoint, container: Container, undo: Undo) -> None:
        options, labels = _volume_request(mount, container.host_config)
        try:
            record, made = await self.volumes.claim(mount, container, options, labels)
        except NotFound as error:
            # As 404 it would be taken for a missing image, and clients would pull.
            raise InvalidArgument(error.message) from error
        mount.name, mount.driver, mount.source = record.name, record.driver, record.mountpoint

        async def take_back() -> None:
            self.volumes.release(record.name, container)
            if made:
                await self.volumes.remove(record.name, True)

        undo.add("volume", take_back)


def _config(request: ContainerCreate, image: Image | None) -> Config:
    config = Config.model_validate(request.model_dump(include=set(Config.model_fields)))
    if image is not None:
        complete(config, image.config)
    if config.entrypoint == [""]:  # `--entrypoint ""`: neither the image's, nor its command
        config.entrypoint = None
    config.volumes = config.volumes or None
    return config


def _hostname(host: HostConfig, id: str) -> str:
    if host.uts_mode == "host" or host.network_mode == "host":
        return Path("/proc/sys/kernel/hostname").read_text().strip()
    return id[:12]


def _check_config(config: Config) -> None:
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")
    for entry in config.env or ():
        if not entry.partition("=")[0] or "\x00" in entry:
            raise InvalidArgument(f"invalid environment variable: {entry}")
    if any("\x00" in word for word in [*(config.cmd or []), *(config.entrypoint or [])]):
        raise InvalidArgument("a command's words cannot contain NUL")
    parse_signal(config.stop_signal, 0)
    if config.stop_timeout is not None and config.stop_timeout < -1:
        raise InvalidArgument(f"invalid stop timeout {config.stop_timeout}: want seconds, or -1 to wait for ever")


_SIZE = re.compile(r"(\d{1,18})([kmgt]?)b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def _snapshot_options(options: Mapping[str, str]) -> SnapshotOptions:
    size = 0
    for key, value in options.items():
        match = _SIZE.fullmatch(value)
        if key != "size" or match is None:
            raise InvalidArgument(f"unknown or invalid storage option: {key}={value}")
        size = int(match[1]) * _UNITS[match[2].lower()]
    return SnapshotOptions(size=size)


def _volume_request(mount: MountPoint, host: HostConfig) -> tuple[dict[str, str], dict[str, str] | None]:
    for spec in host.mounts or ():
        if spec.type == "volume" and spec.target == mount.destination and spec.volume_options:
            driver = spec.volume_options.driver_config
            return dict(driver.options) if driver else {}, dict(spec.volume_options.labels)
    return {}, None
