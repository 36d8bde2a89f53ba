"""The front of this folder: what the API does with the files of a container, running or not."""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from wharfie.engine.actions import Actions
from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.start import container_attributes
from wharfie.engine.events import Events
from wharfie.engine.files.launcher import Launcher, Session
from wharfie.engine.files.plain import plain
from wharfie.engine.model.container import Container, MountPoint
from wharfie.engine.settings import EngineSettings
from wharfie.engine.spec.assemble import MOUNT_POINTS
from wharfie.engine.volumes import Volumes
from wharfie.plugins.drivers import Drivers
from wharfie.spi.errors import InvalidArgument, NotFound, WharfieError
from wharfie.spi.runtime import RuntimeDriver
from wharfie.spi.storage import Change, ChangeKind, StorageDriver

_OWN_FILES = ("resolv.conf", "hostname", "hosts")
"""Of the container's folder, mounted into /etc."""
_HIDDEN = frozenset({path.rstrip("/") for path in MOUNT_POINTS} | {"/dev", "/.dockerenv", "/etc/mtab"})
"""What the engine itself puts into a root, for which Docker has a layer of its own: no change of the container's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStat:
    """What a path in a container is. `mode`: st_mode of stat(2). `link_target`: where a link leads, in the container."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Copying:
    settings: EngineSettings
    catalog: Catalog
    volumes: Volumes
    drivers: Drivers
    events: Events
    actions: Actions
    launcher: Launcher = field(default_factory=Launcher)

    async def stat(self, ref: str, path: str) -> PathStat:
        """Errors: NotFound (container or path), InvalidArgument (a part of the path is no folder)."""
        container = self.catalog.get(ref)
        async with AsyncExitStack() as stack:
            session = await self._session(stack, container, {"operation": "stat", "path": path, "name": ref})
            return PathStat(**await session.answer())

    async def read(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        """What a path is, and an archive of it, to be iterated or closed. Errors: as `stat`."""
        container = self.catalog.get(ref)
        request = {"operation": "read", "path": path, "name": ref}
        answer, pieces = await self._stream(container, request)
        self.events.emit("container", "archive-path", container.id, container_attributes(container))
        return PathStat(**answer), pieces

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """An archive of the root file system, without what is mounted in it. Errors: NotFound."""
        container = self.catalog.get(ref)
        _, pieces = await self._stream(container, {"operation": "export", "path": "/", "name": ref})
        self.events.emit("container", "export", container.id, container_attributes(container))
        return pieces

    async def write(
        self, ref: str, path: str, body: AsyncIterator[bytes], *, keep_kinds: bool, container_owner: bool
    ) -> None:
        """Unpack an archive, compressed or not, in the folder `path`.

        `keep_kinds`: no folder is replaced by a file or the other way round. `container_owner`: all belongs to the
        container's user. Errors: NotFound, Forbidden (read-only), WharfieError (no folder, not an archive).
        """
        container = self.catalog.get(ref)
        user = container.config.user if container_owner else ""
        request = {"operation": "write", "path": path, "name": ref, "user": user, "keep_kinds": keep_kinds}
        async with AsyncExitStack() as stack:
            session = await self._session(stack, container, request)
            try:
                await both(session.send(plain(body)), session.answer())
            except InvalidArgument as error:
                raise WharfieError(error.message) from error  # Docker answers 500 to an archive that is none
        self.events.emit("container", "extract-to-dir", container.id, container_attributes(container))

    async def changes(self, ref: str) -> list[Change]:
        """What differs from the image, sorted. Errors: NotFound, Unsupported (the storage driver cannot tell)."""
        container = self.catalog.get(ref)
        storage = await self.drivers.get(StorageDriver, container.storage_driver)
        with self.actions.timed("container", "changes"):
            return without_own(await storage.call(StorageDriver.changes, container.id))

    async def worker(self, request: dict[str, Any]) -> Session:
        """A worker on any root that the request describes. Errors: Unavailable."""
        at = self.settings.exec_root / "files"
        at.mkdir(mode=0o700, parents=True, exist_ok=True)
        return await self.launcher.session({**request, "at": str(at)})

    def close(self) -> None:
        self.launcher.close()

    # ---- a worker in the container's root

    async def _stream(self, container: Container, request: dict[str, Any]) -> tuple[dict[str, Any], AsyncIterator[bytes]]:
        async with AsyncExitStack() as stack:
            session = await self._session(stack, container, request)
            answer = await session.answer()
            return answer, pieces_of(session, stack.pop_all())

    async def _session(self, stack: AsyncExitStack, container: Container, request: dict[str, Any]) -> Session:
        """A worker for `request`. Of a container that does not run the lock is held until `stack` ends."""
        at = self.settings.exec_root / "files"
        at.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with AsyncExitStack() as held:
            await held.enter_async_context(self.catalog.live(container).lock)
            if container.id not in self.catalog:
                raise NotFound(f"No such container: {container.id}")
            request = {**request, "at": str(at)}
            if container.state.running:
                return await self._of_running(stack, container, request)
            session = await self._of_stopped(held, container, request)
            stack.push_async_exit(held.pop_all())
            return session

    async def _of_running(self, stack: AsyncExitStack, container: Container, request: dict[str, Any]) -> Session:
        namespace = await asyncio.to_thread(os.open, f"/proc/{container.state.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            # Asked only now: if it runs still, its number was its own when the namespace was opened.
            runtime = await self.drivers.get(RuntimeDriver, container.runtime)
            state = await runtime.call(RuntimeDriver.state, container.id)
            if state.pid != container.state.pid or state.status not in ("running", "paused"):
                raise NotFound(f"container {container.id} ended in this moment: try again")
            paths = [*(mount.destination for mount in container.mounts), *(container.host_config.tmpfs or ())]
            mounts = [{"destination": path, "recursive": path in _recursive(container.mounts)} for path in paths]
            mounts += [{"destination": f"/etc/{name}"} for name in _OWN_FILES]
            return await stack.enter_async_context(await self.launcher.session({**request, "mounts": mounts}, [namespace]))
        finally:
            os.close(namespace)

    async def _of_stopped(self, stack: AsyncExitStack, container: Container, request: dict[str, Any]) -> Session:
        storage = await self.drivers.get(StorageDriver, container.storage_driver)
        rootfs = await storage.call(StorageDriver.mounts, container.id)
        mounts: list[dict[str, Any]] = []
        if request["operation"] != "export":
            for mount in container.mounts:
                mounts += await self._mount(stack, container, mount)
            folder = self.catalog.folder(container)
            mounts += [
                {"destination": f"/etc/{name}", "source": str(folder / name)}
                for name in _OWN_FILES
                if (folder / name).exists()
            ]
        document = {
            **request,
            "rootfs": [(mount.type, mount.source, list(mount.options)) for mount in rootfs],
            "mounts": mounts,
            "read_only": container.host_config.readonly_rootfs,
        }
        return await stack.enter_async_context(await self.launcher.session(document))

    async def _mount(self, stack: AsyncExitStack, container: Container, mount: MountPoint) -> list[dict[str, Any]]:
        if mount.type == "volume":
            stack.push_async_callback(self.volumes.unmount, mount, container)
            folder = await self.volumes.mount(mount, container)
            source, part = str(folder), mount.subpath
        elif mount.type == "bind":
            source, part = mount.source, ""
        else:
            return []  # a tmpfs of a container that does not run is empty, and an image is had from `docker save`
        recursive = mount.destination in _recursive([mount])
        document = {"destination": mount.destination, "source": source, "part": part}
        return [{**document, "read_only": not mount.rw, "recursive": recursive}]


async def both(sending: Coroutine[Any, Any, None], answering: Coroutine[Any, Any, Any]) -> None:
    """Until the answer is there, or the sending has failed: then there will be none."""
    loop = asyncio.get_running_loop()
    sender, answer = loop.create_task(sending), loop.create_task(answering)
    try:
        await asyncio.wait([sender, answer], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            sender.result()
        await answer
    finally:
        for task in (sender, answer):
            task.cancel()
        await asyncio.wait([sender, answer])


def _recursive(mounts: Sequence[MountPoint]) -> set[str]:
    return {mount.destination for mount in mounts if mount.type == "bind" and mount.recursive}


async def pieces_of(session: Session, stack: AsyncExitStack) -> AsyncIterator[bytes]:
    """The archive; `stack` ends with it."""
    async with stack:
        yield b""  # from here on closing the iterator closes the session
        async for piece in session.pieces():
            yield piece


def without_own(changes: Sequence[Change]) -> list[Change]:
    """Changes without the mount points that the engine made, and the folders that changed only for them."""
    kept = [change for change in changes if change.path not in _HIDDEN or change.kind is not ChangeKind.ADDED]
    emptied = {posixpath.dirname(change.path) for change in changes} - {posixpath.dirname(change.path) for change in kept}
    return [change for change in kept if change.path not in emptied or change.kind is ChangeKind.DELETED]
