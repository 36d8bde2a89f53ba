"""Volumes as archives, out and in: a tar of everything in a volume, its own folder's owner and mode included.

What an import that was cut off had brought so far is nobody's backup: it goes, after a crash at the daemon's next start.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wharfie.engine.containers.containers import Containers
from wharfie.engine.events import Events
from wharfie.engine.files.copying import Copying, both, pieces_of
from wharfie.engine.files.plain import plain
from wharfie.engine.model.container import VolumeRecord
from wharfie.engine.volumes import Volumes
from wharfie.spi.errors import Conflict, NotFound, WharfieError
from wharfie.store.metadata import Metadata

log = logging.getLogger(__name__)

_IMPORTS = "imports"
"""Table of imports that are under way: the volume's name, and whether it was made for it."""
_OF_EXT4 = "lost+found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    copying: Copying
    volumes: Volumes
    containers: Containers
    events: Events
    metadata: Metadata

    async def export(self, name: str, *, pause: bool) -> AsyncIterator[bytes]:
        """An archive of the volume, to be iterated or closed. `pause`: containers that have it stand still meanwhile, so
        that the archive is of one moment; a file system that survives a power cut survives that moment too.

        Errors: NotFound, Unsupported (a runtime that cannot pause).
        """
        async with AsyncExitStack() as stack:
            folder = await stack.enter_async_context(self.volumes.lent(name))
            if pause:
                await self._pause(name, stack)
            request = _request(name, folder, "read", "/.")
            session = await stack.enter_async_context(await self.copying.worker(request))
            await session.answer()
            self.events.emit("volume", "export", name, {})
            return pieces_of(session, stack.pop_all())

    async def import_(self, name: str, driver: str, body: AsyncIterator[bytes]) -> VolumeRecord:
        """Fill a volume from an archive, compressed or not; it is made if it is not there, and goes again on a failure.

        Errors: InvalidArgument (no archive), Conflict (it is in use or not empty), and those of `Volumes.create`.
        """
        made = await self._is_new(name)
        record = await self.volumes.create(name, driver, {}, None)
        try:
            await self._fill(record.name, body, made=made)
        except BaseException:
            if made:
                await self.volumes.remove(record.name, force=True)
                await self.metadata.delete(_IMPORTS, record.name)
            raise
        self.events.emit("volume", "import", record.name, {"driver": record.driver})
        return record

    async def recover(self) -> None:
        """After a crash: take away what imports had brought that it cut off."""
        for name, made in self.metadata.all(_IMPORTS).items():
            try:
                if json.loads(made):
                    await self.volumes.remove(name, force=True)
                else:
                    async with self.volumes.lent(name) as folder:
                        await asyncio.to_thread(_clear, folder)
            except WharfieError as error:
                log.error("volume %s has a part of an archive whose import was cut off, which does not go: %s", name, error)
                continue
            log.warning("the import of volume %s was cut off; what it had brought is removed", name)
            await self.metadata.delete(_IMPORTS, name)

    async def _is_new(self, name: str) -> bool:
        try:
            await self.volumes.get(name)
        except NotFound:
            return True
        return False

    async def _fill(self, name: str, body: AsyncIterator[bytes], *, made: bool) -> None:
        users = [container.name for container in self.volumes.users(name) if container.state.running]
        if users:
            raise Conflict(f"import {name}: the volume is in use by {', '.join(sorted(users))}: stop the container first")
        async with AsyncExitStack() as stack:
            folder = await stack.enter_async_context(self.volumes.lent(name))
            if set(await asyncio.to_thread(os.listdir, folder)) - {_OF_EXT4}:
                raise Conflict(f"import {name}: the volume is not empty: import into a new one, or remove this one first")
            await self.metadata.put(_IMPORTS, name, json.dumps(made))
            try:
                async with await self.copying.worker(_request(name, folder, "restore", "/")) as session:
                    await both(session.send(plain(body)), session.answer())
            except BaseException:
                if not made:
                    await asyncio.to_thread(_clear, folder)
                    await self.metadata.delete(_IMPORTS, name)
                raise
            await self.metadata.delete(_IMPORTS, name)

    async def _pause(self, name: str, stack: AsyncExitStack) -> None:
        for container in self.volumes.users(name):
            if container.state.status == "running":
                await self.containers.pause(container.id, in_passing=True)
                stack.push_async_callback(self._go_on, container.id)

    async def _go_on(self, id: str) -> None:
        try:
            container = self.containers.get(id)
        except NotFound:
            return
        if container.state.status == "paused":  # else it was killed or sent on meanwhile
            await self.containers.unpause(id)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name == _OF_EXT4:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _request(name: str, folder: Path, operation: str, path: str) -> dict[str, Any]:
    """For a worker whose root is the volume, and nothing that is mounted in it."""
    return {
        "operation": operation,
        "path": path,
        "name": name,
        "rootfs": [("none", str(folder), ["bind"])],
        "mounts": [],
        "read_only": False,
    }
