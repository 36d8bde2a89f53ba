"""Checkpoints: a container's processes with their memory, as folders in the container's own or in one that the user names
(Docker Engine API, `/containers/{id}/checkpoints`; experimental there and here)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.health import HealthChecks
from wharfie.engine.containers.start import container_attributes
from wharfie.engine.events import Events
from wharfie.engine.model.container import CheckpointCreate, Container
from wharfie.plugins.drivers import Drivers
from wharfie.spi.errors import Conflict, InvalidArgument, WharfieError
from wharfie.spi.runtime import RuntimeDriver

log = logging.getLogger(__name__)

FOLDER = "checkpoints"
"""In a container's own folder."""
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_NAME_CHARACTERS = "[a-zA-Z0-9][a-zA-Z0-9_.-]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    catalog: Catalog
    health: HealthChecks
    drivers: Drivers
    events: Events

    async def create(self, ref: str, request: CheckpointCreate) -> None:
        """Returns when it is whole and, with `exit`, the container's end is recorded. Errors: NotFound, Conflict (not
        running), InvalidArgument (the name), WharfieError (the name is taken, and what the runtime says)."""
        container = self.catalog.get(ref)
        live = self.catalog.live(container)
        async with live.lock:
            if not container.state.running:
                raise Conflict(f"container {container.id} is not running")
            _check_name(request.checkpoint_id)
            folder = await asyncio.to_thread(self._reserve, container, ref, request)
            ended = live.waiting.future("next-exit")
            try:
                await self._write(container, folder, request)
            except WharfieError as error:
                ended.cancel()
                text = f"Cannot checkpoint container {ref}: {error.message}"
                raise WharfieError(text, details=error.details) from error
            self.events.emit("container", "checkpoint", container.id, container_attributes(container))
        if not request.exit:
            ended.cancel()
            return
        await ended
        async with live.lock:  # everything of it is given back
            return

    async def _write(self, container: Container, folder: Path, request: CheckpointCreate) -> None:
        runtime = await self.drivers.get(RuntimeDriver, container.runtime)
        stopped, container.manually_stopped = container.manually_stopped, request.exit or container.manually_stopped
        try:
            async with self._without_probes(container):
                await runtime.call(RuntimeDriver.checkpoint, container.id, folder, leave_running=not request.exit)
        except BaseException:
            container.manually_stopped = stopped
            raise

    @asynccontextmanager
    async def _without_probes(self, container: Container) -> AsyncIterator[None]:
        """A health check's probe is a process that no checkpoint holds."""
        await self.health.rest(container)
        try:
            yield
        finally:
            self.health.adopt(container)

    def _reserve(self, container: Container, ref: str, request: CheckpointCreate) -> Path:
        """The place of a new checkpoint, whose parent is there. Errors: WharfieError."""
        folder = self._folder(container, request.checkpoint_dir)
        path = folder / request.checkpoint_id
        if path.is_dir():
            problem = f"checkpoint with name {request.checkpoint_id} already exists for container {ref}"
        elif path.exists():
            problem = f"{path} exists and is not a directory"
        else:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                problem = f"mkdir {folder}: {str(error.strerror).lower()}"
            else:
                return path
        raise WharfieError(f"cannot checkpoint container {ref}: {problem}")

    async def names(self, ref: str, folder: str) -> list[str]:
        """In the order of the alphabet. Errors: NotFound, InvalidArgument, OSError."""
        container = self.catalog.get(ref)
        return await asyncio.to_thread(_names, self._folder(container, folder))

    async def remove(self, ref: str, name: str, folder: str) -> None:
        """Errors: NotFound (the container), InvalidArgument, WharfieError (there is none of that name), OSError."""
        container = self.catalog.get(ref)
        async with self.catalog.live(container).lock:
            await asyncio.to_thread(_remove, self.find(container, ref, name, folder))

    def find(self, container: Container, ref: str, name: str, folder: str) -> Path:
        """Errors: InvalidArgument, WharfieError, in Docker's words and with its status."""
        _check_name(name)
        path = self._folder(container, folder) / name
        if not path.exists():
            raise WharfieError(f"checkpoint {name} does not exist for container {ref}")
        if not path.is_dir():
            raise WharfieError(f"{path} exists and is not a directory")
        return path

    def _folder(self, container: Container, chosen: str) -> Path:
        if not chosen:
            return self.catalog.folder(container) / FOLDER
        path = Path(chosen)
        if not path.is_absolute():
            raise InvalidArgument(f'checkpoint directory "{chosen}" is not an absolute path')
        return path


def _remove(folder: Path) -> None:
    """`--checkpoint-dir` may name anything, and a checkpoint is a folder of files. Errors: InvalidArgument, OSError."""
    if any(path.is_dir() and not path.is_symlink() for path in folder.iterdir()):
        raise InvalidArgument(f"{folder} is no checkpoint: there are folders in it")
    shutil.rmtree(folder)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"Invalid checkpoint ID ({name}), only {_NAME_CHARACTERS} are allowed")


def _names(folder: Path) -> list[str]:
    """What is not whole has a name that no checkpoint has."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(path.name for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())
    return []
