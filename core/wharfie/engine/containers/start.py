"""Starting a container: from a record to a running process, each step with its way back.

The order: files and addresses, the runtime makes the container up to the moment before execve, networks join, ports are
published, the record says "running" (durable), clients that attached early are handed over, the process is executed. A
crash of the daemon before the last step leaves a container that never ran; the next start of the daemon finds and removes
it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wharfie.engine.actions import Actions
from wharfie.engine.containers import links, propagation
from wharfie.engine.containers.catalog import Catalog, Live
from wharfie.engine.containers.files import Files
from wharfie.engine.containers.modes import CONTAINER, remaps, shared_namespaces
from wharfie.engine.containers.staging import Staging
from wharfie.engine.events import Events
from wharfie.engine.identity import new_id, rfc3339
from wharfie.engine.model.base import NO_TIME
from wharfie.engine.model.container import Container, MountPoint
from wharfie.engine.mounts import check_source, oci_mounts
from wharfie.engine.networks.endpoints import Endpoints, forget_joined
from wharfie.engine.settings import EngineSettings
from wharfie.engine.spec import assemble, cdi
from wharfie.engine.undo import Undo
from wharfie.engine.volumes import Volumes
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.driver import HostFacts
from wharfie.spi.errors import InvalidArgument, NotFound, WharfieError
from wharfie.spi.log import LogDriver
from wharfie.spi.network import Endpoint, Sandbox
from wharfie.spi.runtime import (
    CopyUp,
    Io,
    LogTarget,
    Preparation,
    Process,
    RuntimeCapability,
    RuntimeDriver,
)
from wharfie.spi.storage import StorageDriver

_NO_FOLDER = "not a directory"
_WRONG_KIND = (
    "Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the "
    "expected type"
)
_MISSING = ("executable file not found", "no such file or directory", _NO_FOLDER)
NOT_IN_IMAGE = ("unable to find user", "unable to find group")
"""What Docker looks up before it asks the runtime, and says without the runtime's name."""
_NOT_EXECUTABLE = ("permission denied", "is a directory", "exec format error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """Everything that starting a container needs. The caller holds the container's lock."""

    settings: EngineSettings
    host: HostFacts
    catalog: Catalog
    endpoints: Endpoints
    files: Files
    volumes: Volumes
    drivers: Drivers
    events: Events
    actions: Actions

    async def start(self, container: Container, checkpoint: Path | None = None) -> None:
        """`checkpoint`: of the processes that go on, instead of the program's beginning.

        Errors: InvalidArgument (the program cannot be executed), WharfieError with what stood in the way; the record then
        says so and the container stays as it was.
        """
        live = self.catalog.live(container)
        try:
            async with Undo(f"starting container {container.name}") as undo:
                with self.actions.timed("container", "start"):
                    await self._start(container, live, undo, checkpoint)
                undo.commit()
        except WharfieError as error:
            await self._record_failure(container, live, error)
            raise

    async def _start(self, container: Container, live: Live, undo: Undo, checkpoint: Path | None) -> None:
        runtime = await self.drivers.get(RuntimeDriver, container.runtime)
        container.link_environment = links.environment(container, self.catalog.get)
        endpoints = await self.endpoints.allocate(container, self.catalog.facts(container), undo)
        answered = RuntimeCapability.RESOLVER in runtime.capabilities
        undo.add("names", lambda: asyncio.to_thread(self.files.forget, container))
        resolver = self.files.write(container, endpoints, resolver=answered)
        staging = Staging(self.settings.staging, container.id)
        undo.add("mounts", staging.clear)
        sources = await self._mount_volumes(container, staging, undo)
        bundle = self.settings.exec_root / "bundles" / container.id
        undo.add("bundle", lambda: asyncio.to_thread(shutil.rmtree, bundle, True))
        shm = await self._shm(container, staging)
        groups = await self._write_bundle(container, bundle, sources, shm)
        storage = await self.drivers.get(StorageDriver, container.storage_driver)
        rootfs = await storage.call(StorageDriver.mounts, container.id)
        io = await self._io(container)
        undo.add("container", lambda: runtime.call(RuntimeDriver.delete, container.id, force=True))
        preparation = _preparation(container, sources, resolver, groups)
        try:
            process = await runtime.call(RuntimeDriver.create, container.id, bundle, rootfs, io, preparation)
        except InvalidArgument as error:
            raise _not_executed(container, error) from error
        await staging.clear()
        await self._join(container, endpoints, process, undo)
        self._set_running(container, process)
        await self.catalog.save(container)
        await self._hand_over(container, live, runtime)
        if checkpoint is not None:
            await self._restore(container, runtime, checkpoint)
        else:
            try:
                await runtime.call(RuntimeDriver.start, container.id)
            except InvalidArgument as error:
                raise _not_executed(container, error) from error
        live.started_monotonic = time.monotonic()
        self.files.tell_linked(container)
        self.events.emit("container", "start", container.id, container_attributes(container))

    async def _restore(self, container: Container, runtime: Supervised[RuntimeDriver], checkpoint: Path) -> None:
        try:
            process = await runtime.call(RuntimeDriver.restore, container.id, checkpoint)
        except WharfieError as error:
            raise WharfieError(
                "failed to create task for container: failed to create shim task: OCI runtime restore failed: "
                f"{error.message}: unknown",
                details=error.details,
            ) from error
        container.state.pid = process.pid
        if process.netns is not None:
            await self.endpoints.follow(container, process.netns)
        await self.catalog.save(container)

    async def _record_failure(self, container: Container, live: Live, error: WharfieError) -> None:
        forget_joined(container)
        state = container.state
        state.status = "created" if state.finished_at == NO_TIME else "exited"
        state.pid = 0
        state.error = error.message
        state.exit_code = _exit_code(error)
        if state.status == "created":
            state.started_at = NO_TIME
        for client, _ in live.attaching:
            client.close()
        live.attaching.clear()
        live.waiting.exited(state.exit_code)
        try:
            await self.catalog.save(container)
        except WharfieError as failure:
            error.details["record"] = failure.message

    def _set_running(self, container: Container, process: Process) -> None:
        state = container.state
        state.status = "running"
        state.pid = process.pid
        state.exit_code = 0
        state.error = ""
        state.oom_killed = False
        state.started_at = rfc3339()
        container.manually_stopped = False

    async def _hand_over(self, container: Container, live: Live, runtime: Supervised[RuntimeDriver]) -> None:
        """Clients that attached or waited before the start go to the runtime now, so that nothing is missed."""
        while live.attaching:
            client, request = live.attaching.pop(0)
            with client:
                await runtime.call(RuntimeDriver.attach, container.id, "", client, request)
        if RuntimeCapability.SURVIVES_DAEMON in runtime.capabilities:
            for waiter in live.waiting.take_exit_clients():
                with waiter.connection:
                    await runtime.call(RuntimeDriver.notify_exit, container.id, waiter.connection, waiter.reply)

    # ---- mounts

    async def _mount_volumes(self, container: Container, staging: Staging, undo: Undo) -> list[tuple[MountPoint, str]]:
        """Every user mount with the host folder that it resolves to."""
        sources: list[tuple[MountPoint, str]] = []
        for mount in container.mounts:
            if mount.type == "volume":
                undo.add("volume", functools.partial(self.volumes.unmount, mount, container))
                folder = await self.volumes.mount(mount, container)
                mount.source = str(folder)
                sources.append((mount, str(await staging.part(folder, mount.subpath) if mount.subpath else folder)))
            elif mount.type == "image":
                sources.append((mount, str(await self._stage_image(mount, container, staging))))
            elif mount.type == "bind":
                _check_source(mount)
                await asyncio.to_thread(propagation.check, mount.source, mount.propagation)
                sources.append((mount, mount.source))
            else:
                sources.append((mount, ""))
        return sources

    async def _stage_image(self, mount: MountPoint, container: Container, staging: Staging) -> Path:
        storage = await self.drivers.get(StorageDriver, container.storage_driver)
        folder = await staging.image(await storage.call(StorageDriver.mounts, mount.layer))
        return await staging.part(folder, mount.subpath) if mount.subpath else folder

    async def _write_bundle(
        self, container: Container, bundle: Path, sources: list[tuple[MountPoint, str]], shm: str
    ) -> list[int]:
        """The supplementary groups that its devices want."""
        hc = container.host_config
        users = self.settings.users if remaps(hc, self.settings) else None
        found = assemble.Found(
            mounts=oci_mounts(sources, hc.tmpfs or {}, kernel=self.host.kernel, map_ids=users is not None),
            users=users,
            namespaces=shared_namespaces(container, self.catalog.get),
            folder=self.catalog.folder(container),
            shm=shm,
        )
        document = assemble.config(container, self.settings, self.host, found)
        groups = await self._inject_devices(document, container)
        assemble.adjust(document, await self.drivers.hooks.adjust_container(self.catalog.facts(container), document))
        _write_config(bundle, document)
        return groups

    async def _inject_devices(self, document: dict[str, Any], container: Container) -> list[int]:
        requests = container.host_config.device_requests
        if not requests:
            return []
        registry = await asyncio.to_thread(cdi.read, self.settings.cdi_spec_dirs)
        return cdi.apply(document, registry.edits(cdi.names(requests, registry)))

    async def _shm(self, container: Container, staging: Staging) -> str:
        mode = container.host_config.ipc_mode
        if mode == "host":
            return "/dev/shm"  # the host's own, which --ipc=host asks for
        if mode.startswith(CONTAINER):
            other = self.catalog.get(mode.removeprefix(CONTAINER))
            return str(await staging.foreign(other.state.pid, "/dev/shm")) if other.state.running else ""
        return ""

    async def _io(self, container: Container) -> Io:
        driver = await self.drivers.get(LogDriver, container.log_driver)
        config = container.config
        rows, columns = container.host_config.console_size
        return Io(
            terminal=config.tty,
            stdin=config.open_stdin,
            stdin_once=config.stdin_once,
            size=(rows, columns) if rows and columns else None,
            log=LogTarget(sink=driver.driver_class.sink, options=container.log_options),
        )

    # ---- networks

    async def _join(self, container: Container, endpoints: list[Endpoint], process: Process, undo: Undo) -> None:
        if not endpoints or process.netns is None:
            return
        sandbox = Sandbox(id=new_id(), path=process.netns)
        try:
            await self.endpoints.join_all(container, endpoints, sandbox, process.pid, undo)
        except NotFound as error:  # to a client that would be the container itself
            raise WharfieError(f"container {container.name} ended while it was made: {error.message}") from error


def container_attributes(container: Container, **more: str) -> dict[str, str]:
    """Attributes of a container's events: its labels, image and name."""
    return {**container.config.labels, "image": container.config.image, "name": container.name, **more}


def _preparation(
    container: Container, sources: list[tuple[MountPoint, str]], resolver: Path | None, groups: list[int]
) -> Preparation:
    copies = tuple(
        CopyUp(destination=mount.destination, folder=Path(source))
        for mount, source in sources
        if mount.type == "volume" and mount.copy_up and not mount.subpath
    )
    return Preparation(
        user=container.config.user,
        groups=(*(container.host_config.group_add or ()), *map(str, groups)),
        copy_up=copies,
        files=assemble.MOUNT_POINTS,
        resolver=resolver,
    )


def _write_config(bundle: Path, document: Mapping[str, Any]) -> None:
    """A small file on a tmpfs: not worth a thread."""
    bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
    (bundle / "config.json").write_text(json.dumps(document))


def _check_source(mount: MountPoint) -> None:
    """A bind's source, made if `-v` named a missing folder (Docker makes it, owned by root)."""
    source = Path(mount.source)
    if "create" not in mount.options:
        check_source(mount.source)
        return
    try:
        if not source.exists():
            source.mkdir(mode=0o755, parents=True)
    except OSError as error:
        raise WharfieError(
            f"error while creating mount source path '{mount.source}': mkdir {mount.source}: {str(error.strerror).lower()}"
        ) from error


def _not_executed(container: Container, error: InvalidArgument) -> WharfieError:
    """Docker's text around what the runtime said; 400 when the program is at fault, otherwise 500."""
    text = (
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        f"{container.runtime} create failed: unable to start container process: {error.message}: unknown"
    )
    if _NO_FOLDER in error.message:
        text += f": {_WRONG_KIND}"
    if error.message.startswith(NOT_IN_IMAGE):
        return WharfieError(error.message, details=error.details)
    kind = InvalidArgument if _exit_code(error) != 128 else WharfieError
    return kind(text, details=error.details)


def _exit_code(error: WharfieError) -> int:
    if any(text in error.message for text in _MISSING):
        return 127
    if any(text in error.message for text in _NOT_EXECUTABLE):
        return 126
    return 128
