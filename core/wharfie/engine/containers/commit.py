"""`docker commit`: a container's changes and configuration as an image (Docker Engine API, `POST /commit`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from wharfie.engine.actions import Actions
from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.merging import complete
from wharfie.engine.containers.start import container_attributes
from wharfie.engine.events import Events
from wharfie.engine.files.copying import without_own
from wharfie.engine.images import changes as instructions
from wharfie.engine.images.commit import Commit
from wharfie.engine.images.images import Images
from wharfie.engine.model.config import Config
from wharfie.engine.model.container import Container
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.inventory import core_version
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.errors import Conflict, NotFound
from wharfie.spi.runtime import RuntimeCapability, RuntimeDriver
from wharfie.spi.storage import StorageDriver


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRequest:
    """`config`: what is to be otherwise than in the container; None for nothing. `changes`: Dockerfile instructions."""

    container: str
    repository: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    pause: bool = True
    changes: Sequence[str] = ()
    config: Config | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Commits:
    catalog: Catalog
    images: Images
    drivers: Drivers
    events: Events
    actions: Actions

    async def commit(self, request: CommitRequest) -> str:
        """The new image's id. Errors: NotFound, Conflict (being removed), InvalidArgument (a change, a name)."""
        with self.actions.timed("container", "commit"):
            return await self._commit(request)

    async def _commit(self, request: CommitRequest) -> str:
        container = self.catalog.get(request.container)
        if container.state.status in ("removing", "dead"):
            raise Conflict(f"You cannot commit container {container.id} which is being removed")
        own = container.config.model_copy(deep=True)
        config = complete(instructions.apply(request.config or own, request.changes), own)
        storage = await self.drivers.get(StorageDriver, container.storage_driver)
        async with self._held(container, request.pause):
            found = await storage.call(StorageDriver.changes, container.id)
            kept = {change.path for change in without_own(found)}

            async def diff(out: int) -> None:
                await storage.call(StorageDriver.diff, container.id, out)

            commit = Commit(
                parent=self.images.get(container.image_id) if container.image_id else None,
                config=config,
                author=request.author,
                comment=request.comment,
                created_by=" ".join(container.config.cmd or ()),
                container=container.id,
                made_by=core_version(),
                diff=diff,
                left_out=frozenset(change.path.strip("/").encode() for change in found if change.path not in kept),
            )
            layer = await self.images.layer_of(commit)
        try:
            image = await self.images.commit(commit, layer, request.repository, request.tag)
        finally:
            layer.discard()
        attributes = {"comment": request.comment, "imageID": image.id, "imageRef": ", ".join(image.repo_tags)}
        self.events.emit("container", "commit", container.id, container_attributes(container, **attributes))
        return image.id

    @asynccontextmanager
    async def _held(self, container: Container, pause: bool) -> AsyncIterator[None]:
        """The container as it is now: nobody starts, stops or removes it, and its processes stand still."""
        async with self.catalog.live(container).lock:
            if container.id not in self.catalog:
                raise NotFound(f"No such container: {container.id}")
            runtime = await self._running(container) if pause else None
            if runtime is None:
                yield
                return
            await runtime.call(RuntimeDriver.pause, container.id)
            self.events.emit("container", "pause", container.id, container_attributes(container))
            try:
                yield
            finally:
                await runtime.call(RuntimeDriver.resume, container.id)
                self.events.emit("container", "unpause", container.id, container_attributes(container))

    async def _running(self, container: Container) -> Supervised[RuntimeDriver] | None:
        if container.state.status != "running":
            return None
        runtime = await self.drivers.get(RuntimeDriver, container.runtime)
        return runtime if RuntimeCapability.PAUSE in runtime.capabilities else None
