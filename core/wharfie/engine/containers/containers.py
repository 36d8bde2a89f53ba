"""Containers: the front of this folder, what the API calls (Docker Engine API, `/containers`)."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wharfie.engine.actions import Actions
from wharfie.engine.containers import links, listing, ps, traffic
from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.checkpoints import Checkpoints
from wharfie.engine.containers.create import Created, Creator
from wharfie.engine.containers.ending import Ending
from wharfie.engine.containers.output import Output
from wharfie.engine.containers.removal import Remover
from wharfie.engine.containers.start import Starter, container_attributes
from wharfie.engine.containers.stopping import Stopper
from wharfie.engine.containers.updating import updated
from wharfie.engine.containers.waiting import Client, WaitResult, condition_of
from wharfie.engine.events import Events
from wharfie.engine.filters import Filters
from wharfie.engine.identity import check_name
from wharfie.engine.images.images import Images
from wharfie.engine.model.container import Container, ContainerCreate
from wharfie.engine.model.update import UpdateRequest
from wharfie.engine.networks.endpoints import Endpoints
from wharfie.engine.networks.networks import Networks
from wharfie.engine.spec import limits
from wharfie.engine.volumes import Pruned
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, WharfieError
from wharfie.spi.log import LogQuery, LogRun
from wharfie.spi.runtime import AttachRequest, ExitReply, RuntimeCapability, RuntimeDriver
from wharfie.spi.storage import StorageDriver

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Containers:
    catalog: Catalog
    creator: Creator
    starter: Starter
    stopper: Stopper
    ending: Ending
    remover: Remover
    output: Output
    checkpoints: Checkpoints
    endpoints: Endpoints
    networks: Networks
    images: Images
    drivers: Drivers
    events: Events
    actions: Actions

    # ---- making and finding

    async def create(self, request: ContainerCreate, name: str, platform: str = "") -> Created:
        """`POST /containers/create`."""
        with self.actions.timed("container", "create"):
            container, created = await self.creator.create(request, name, platform)
        self.events.emit("container", "create", container.id, container_attributes(container))
        return created

    def get(self, ref: str) -> Container:
        """By id, name or prefix. Errors: NotFound, InvalidArgument (ambiguous)."""
        return self.catalog.get(ref)

    def matching(self, *, all: bool, limit: int, filters: Filters) -> list[Container]:
        """`GET /containers/json`, newest first."""
        return listing.select(self.catalog, self.networks, self.images, all=all, limit=limit, filters=filters)

    async def size(self, container: Container) -> tuple[int, int]:
        """Bytes of the writable layer, and of the whole root."""
        storage = await self.drivers.get(StorageDriver, container.storage_driver)
        own = (await storage.call(StorageDriver.usage, container.id)).size
        try:
            return own, own + self.images.get(container.image_id).size
        except (NotFound, InvalidArgument):  # removed by force, or none at all
            return own, own

    async def describe(self, container: Container) -> dict[str, str]:
        """Rows of `GraphDriver.Data`. Asked once: inspect is the call that clients poll."""
        live = self.catalog.live(container)
        if live.graph is None:
            storage = await self.drivers.get(StorageDriver, container.storage_driver)
            live.graph = dict(await storage.call(StorageDriver.describe, container.id))
        return live.graph

    def links(self, container: Container) -> list[str] | None:
        """As inspect shows them."""
        return links.shown(container, self.catalog.get)

    def rendered(self, container: Container) -> dict[object, Any]:
        """Where the API keeps what it made of the record; emptied when that changes."""
        return self.catalog.live(container).rendered

    def folder(self, container: Container) -> Path:
        return self.catalog.folder(container)

    # ---- starting and stopping

    async def start(self, ref: str, *, checkpoint: str = "", checkpoint_dir: str = "") -> bool:
        """`checkpoint`: the name of one to go on from. False: it runs already. Errors: Conflict (paused, being removed),
        and what stands in the way."""
        container = self.catalog.get(ref)
        live = self.catalog.live(container)
        async with live.lock:
            status = container.state.status
            if status == "paused":
                raise Conflict("cannot start a paused container, try unpause instead")
            if status in ("removing", "dead"):
                raise Conflict(f"container is marked for removal and cannot be started: {container.id}")
            if container.id not in self.catalog:
                raise NotFound(f"No such container: {ref}")
            if status == "running":
                return False
            found = None
            if checkpoint:
                found = self.checkpoints.find(container, f"/{container.name}", checkpoint, checkpoint_dir)
            self.ending.cancel_restart(live)
            live.stopping, live.back_off = False, 0.0
            container.restart_count = 0
            try:
                await self.starter.start(container, found)
            except WharfieError:
                failed = True
                raise
            else:
                failed = False
            finally:
                if failed and container.host_config.auto_remove:
                    self.ending.later(self.remover.remove_ended(container), f"removing {container.name}")
        return True

    async def stop(self, ref: str, *, timeout: int | None, signal: str = "", for_shutdown: bool = False) -> bool:
        """Ask, then insist after `timeout` seconds (-1: never). False: it did not run.

        `for_shutdown`: the daemon ends; the restart policy starts the container again with the daemon.
        """
        container = self.catalog.get(ref)
        return await self.stopper.stop(container, timeout=timeout, signal=signal, for_shutdown=for_shutdown)

    async def restart(self, ref: str, *, timeout: int | None, signal: str = "") -> None:
        container = self.catalog.get(ref)
        live = self.catalog.live(container)
        live.restarting = True
        try:
            await self.stop(container.id, timeout=timeout, signal=signal)
        finally:
            live.restarting = False
        await self.start(container.id)
        self.events.emit("container", "restart", container.id, container_attributes(container))

    async def kill(self, ref: str, signal: str) -> None:
        """Send a signal. Errors: Conflict (not running), InvalidArgument, with Docker's texts."""
        await self.stopper.kill(self.catalog.get(ref), ref, signal)

    async def pause(self, ref: str, *, in_passing: bool = False) -> None:
        """`in_passing`: for an operation of the daemon, not for the user (`State`)."""
        container = self.catalog.get(ref)
        async with self.catalog.live(container).lock:
            if container.state.status == "paused":
                raise Conflict(f"Container {container.id} is already paused")
            if container.state.status != "running":
                raise Conflict(f"container {container.id} is not running")
            runtime = await self._runtime(container)
            await runtime.call(RuntimeDriver.pause, container.id)
            container.state.status = "paused"
            container.state.in_passing = in_passing
            await self.catalog.save(container)
        self.events.emit("container", "pause", container.id, container_attributes(container))

    async def unpause(self, ref: str) -> None:
        container = self.catalog.get(ref)
        async with self.catalog.live(container).lock:
            if container.state.status != "paused":
                raise WharfieError(f"Container {container.id} is not paused")  # Docker answers 500
            runtime = await self._runtime(container)
            await runtime.call(RuntimeDriver.resume, container.id)
            container.state.status = "running"
            container.state.in_passing = False
            await self.catalog.save(container)
        self.events.emit("container", "unpause", container.id, container_attributes(container))

    # ---- changing

    async def rename(self, ref: str, name: str) -> None:
        container = self.catalog.get(ref)
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        new = check_name(name)
        async with self.catalog.live(container).lock:
            old = container.name
            if new == old:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            try:
                self.catalog.claim_name(new, container.id)
            except Conflict as error:
                raise Conflict(f"Error when allocating new name: {error.message}") from error
            container.name = new
            try:
                await self.catalog.save(container)
            except WharfieError:
                container.name = old
                self.catalog.release_name(new, container.id)
                raise
            self.catalog.release_name(old, container.id)
            self.endpoints.rename(container)
        self.events.emit("container", "rename", container.id, container_attributes(container, oldName=f"/{old}"))

    async def update(self, ref: str, request: UpdateRequest) -> list[str]:
        """Change limits and the restart policy; only what was sent. Errors: InvalidArgument, Conflict."""
        container = self.catalog.get(ref)
        async with self.catalog.live(container).lock:
            draft = updated(container, request)
            if container.state.running:
                runtime = await self._runtime(container)
                await runtime.call(RuntimeDriver.update, container.id, limits.resources(draft))
            container.host_config = draft
            await self.catalog.save(container)
        self.events.emit("container", "update", container.id, container_attributes(container))
        return []

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        container = self._running(ref)
        runtime = await self._runtime(container)
        await runtime.call(RuntimeDriver.resize, container.id, "", rows, columns)
        size = {"height": str(rows), "width": str(columns)}
        self.events.emit("container", "resize", container.id, container_attributes(container, **size))

    # ---- looking

    async def top(self, ref: str, ps_args: str) -> ps.Top:
        """Processes as the host's ps(1) shows them."""
        container = self._running(ref)
        runtime = await self._runtime(container)
        pids = await runtime.call(RuntimeDriver.pids, container.id)
        self.events.emit("container", "top", container.id, container_attributes(container))
        return await ps.top(ps_args, set(pids))

    async def stats(self, ref: str) -> Mapping[str, Any]:
        """Counters of use; empty when it does not run."""
        container = self.catalog.get(ref)
        if not container.state.running:
            return {}
        runtime = await self._runtime(container)
        counters = await runtime.call(RuntimeDriver.stats, container.id)
        return {**counters, "networks": traffic.counters(container)}

    def _running(self, ref: str) -> Container:
        container = self.catalog.get(ref)
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")
        return container

    async def _runtime(self, container: Container) -> Supervised[RuntimeDriver]:
        return await self.drivers.get(RuntimeDriver, container.runtime)

    # ---- output and waiting

    def check_attach(self, ref: str, keys: str) -> Container:
        return self.output.check_attach(ref, keys)

    async def attach(self, ref: str, client: socket.socket, request: AttachRequest, *, logs: bool, stream: bool) -> None:
        await self.output.attach(ref, client, request, logs=logs, stream=stream)

    def logs(self, ref: str, query: LogQuery, *, stdout: bool, stderr: bool) -> AsyncIterator[Sequence[LogRun]]:
        return self.output.logs(ref, query, stdout=stdout, stderr=stderr)

    def wait(self, ref: str, condition: str) -> Awaitable[WaitResult]:
        """Errors, at once: NotFound, InvalidArgument."""
        wanted = condition_of(condition)
        container = self.catalog.get(ref)
        future = self.catalog.live(container).waiting.future(wanted)
        if wanted == "not-running" and not container.state.running and container.state.status != "restarting":
            future.set_result(WaitResult(container.state.exit_code))
        return future

    async def hand_over_wait(self, ref: str, condition: str, client: socket.socket, reply: ExitReply) -> None:
        """Answer a client's connection at the end; owns it."""
        container = self.catalog.get(ref)
        wanted = condition_of(condition)
        waiter = Client(client, reply)
        live = self.catalog.live(container)
        if wanted == "removed":
            live.waiting.removal_clients.append(waiter)
            return
        async with live.lock:
            if not container.state.running:
                if wanted == "not-running" and container.state.status != "restarting":
                    waiter.answer(container.state.exit_code)
                else:
                    live.waiting.exit_clients.append(waiter)
                return
            runtime = await self._runtime(container)
            if RuntimeCapability.SURVIVES_DAEMON not in runtime.capabilities:
                live.waiting.exit_clients.append(waiter)
                return
            with client:
                await runtime.call(RuntimeDriver.notify_exit, container.id, client, reply)

    # ---- removing

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        """`link`: not a container, but the link OWNER/ALIAS. Errors: NotFound, Conflict (it runs, without force; a removal
        is under way)."""
        if link:
            await self._remove_link(ref)
            return
        container = self.catalog.get(ref)
        if container.state.running and not force:
            what = "paused" if container.state.status == "paused" else "running"
            hint = "unpause and then stop the container" if what == "paused" else "stop the container"
            raise Conflict(
                f'cannot remove container "/{container.name}": container is {what}: {hint} before removing or force remove'
            )
        self.remover.claim(container)
        try:
            await self.stopper.end(container)
            await self.remover.remove(container, volumes=volumes)
        finally:
            self.remover.unclaim(container)

    async def _remove_link(self, ref: str) -> None:
        owner, _, alias = ref.strip("/").partition("/")
        if not alias:
            raise InvalidArgument(f"Conflict, cannot remove the default link name of the container: {ref}")
        try:
            container = self.catalog.get(owner)
        except NotFound as error:
            raise NotFound(f"No such container: {ref}") from error
        async with self.catalog.live(container).lock:
            container.host_config.links = links.without(container, alias)
            await self.catalog.save(container)
            if container.state.running:
                self.starter.files.refresh(container)

    async def prune(self, filters: Filters) -> Pruned:
        pruned = Pruned()
        for container in listing.prunable(self.catalog, filters):
            try:
                size, _ = await self.size(container)
                await self.remover.remove_ended(container, volumes=False)
            except WharfieError as error:
                log.warning("container %s is not pruned: %s", container.name, error)
                continue
            pruned.deleted.append(container.id)
            pruned.space += size
        self.events.emit("container", "prune", "", {"reclaimed": str(pruned.space)})
        return pruned
