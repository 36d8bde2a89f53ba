"""Execs: further processes in running containers (Docker Engine API, `/exec`).

An exec lives in the daemon's memory: after a daemon restart the process goes on beside its container, its instance is
forgotten, as with Docker. What has ended is kept for a while, for the exit status, and not without bound.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.start import NOT_IN_IMAGE, container_attributes
from wharfie.engine.events import Events
from wharfie.engine.identity import new_id
from wharfie.engine.model.container import Container, ExecCreate, ExecRecord
from wharfie.engine.settings import EngineSettings
from wharfie.engine.spec import assemble, capabilities
from wharfie.engine.spec.environment import merge_environment
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.supervisor import Supervised
from wharfie.shim import detach_keys
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, WharfieError
from wharfie.spi.runtime import AttachRequest, Exit, Io, RuntimeDriver

log = logging.getLogger(__name__)

KEPT_SECONDS = 300.0
"""For which an ended exec can still be inspected, as with Docker."""
KEPT_MOST = 1000
"""So many ended ones are kept at most, and as many that were made and not started: the oldest go, 4 KB each. Clients ask at
once, and health checks are execs, too."""
_SWEEP_SECONDS = 60.0


class Execs:
    def __init__(self, settings: EngineSettings, catalog: Catalog, drivers: Drivers, events: Events) -> None:
        self._settings = settings
        self._catalog = catalog
        self._drivers = drivers
        self._events = events
        self._records: dict[str, ExecRecord] = {}
        self._ended: dict[str, float] = {}  # when, in that order
        self._unstarted: dict[str, None] = {}  # in the order in which they were made
        self._swept = 0.0
        self._exits: dict[str, asyncio.Future[int]] = {}

    async def create(self, ref: str, request: ExecCreate) -> str:
        """Errors: NotFound, Conflict (not running, paused), InvalidArgument (no command)."""
        container = self._running(ref, ref)
        if not request.cmd:
            raise InvalidArgument("No exec command specified")
        detach_keys.check(request.detach_keys, "escape keys")
        self._forget_old()
        record = ExecRecord(id=new_id(), container_id=container.id, request=request)
        self._records[record.id] = record
        self._unstarted[record.id] = None
        self._emit(container, record, "exec_create")
        return record.id

    def _running(self, ref: str, shown: str) -> Container:
        container = self._catalog.get(ref)
        if container.state.status == "paused":
            raise Conflict(f"Container {shown} is paused, unpause the container before exec")
        if not container.state.running:
            raise Conflict(f"container {container.id} is not running")
        return container

    def get(self, exec_id: str) -> ExecRecord:
        """Errors: NotFound."""
        record = self._records.get(exec_id)
        if record is None or record.container_id not in self._catalog:
            raise NotFound(f"No such exec instance: {exec_id}")
        return record

    def of(self, container_id: str) -> list[str]:
        """Ids of the running execs of a container."""
        return [record.id for record in self._records.values() if record.container_id == container_id and record.running]

    def check_start(self, exec_id: str) -> ExecRecord:
        """What must be an error before the connection is taken over. Errors: NotFound, Conflict."""
        record = self.get(exec_id)
        if record.exit_code is not None:
            raise Conflict(f"exec command {exec_id} has already run")
        if record.started:
            raise Conflict(f"exec command {exec_id} is already running")
        self._running(record.container_id, record.container_id)
        return record

    async def start(
        self,
        exec_id: str,
        *,
        client: socket.socket | None,
        request: AttachRequest,
        size: tuple[int, int] | None,
        tell: bool = True,
    ) -> None:
        """Execute. `client`: the attached connection, owned by this call; None: detached.

        With a client that is to be told, the stream says that a program cannot be executed; otherwise it is an error.
        """
        record = self.get(exec_id)
        record.started = True
        self._unstarted.pop(exec_id, None)
        container = self._catalog.get(record.container_id)
        try:
            await self._start(container, record, client, request, size)
        except WharfieError as error:
            text = f"OCI runtime exec failed: exec failed: unable to start container process: {error.message}: unknown"
            if error.message.startswith(NOT_IN_IMAGE):
                text = error.message
            record.exit_code = 127 if "executable file not found" in error.message else 126
            self._ended[record.id] = time.monotonic()
            if client is None or not tell:
                raise type(error)(text) from error
            _tell(client, text, request.framed)
        finally:
            if client is not None:
                client.close()

    async def _start(
        self,
        container: Container,
        record: ExecRecord,
        client: socket.socket | None,
        request: AttachRequest,
        size: tuple[int, int] | None,
    ) -> None:
        wanted = record.request
        runtime = await self._runtime(container)
        io = Io(
            terminal=wanted.tty,
            stdin=wanted.attach_stdin and client is not None,
            stdin_once=True,
            size=size or wanted.console_size,
        )
        user = wanted.user or container.config.user
        process = self._process(container, wanted)
        await runtime.call(RuntimeDriver.exec, container.id, record.id, process, io, user=user)
        if client is not None:
            await runtime.call(RuntimeDriver.attach, container.id, record.id, client, request)
        record.running = True
        self._emit(container, record, "exec_start")  # before its end can be told
        try:
            made = await runtime.call(RuntimeDriver.exec_start, container.id, record.id)
        except WharfieError:
            record.running = False
            raise
        if record.running:  # it may have ended already
            record.pid = made.pid

    def _process(self, container: Container, wanted: ExecCreate) -> Mapping[str, Any]:
        process = assemble.process(container, self._settings)
        process["terminal"] = wanted.tty
        process["args"] = list(wanted.cmd or ())
        process["env"] = merge_environment(process["env"], wanted.env or ())
        if wanted.tty and not any(entry.startswith("TERM=") for entry in process["env"]):
            process["env"].append("TERM=xterm")
        process["cwd"] = wanted.working_dir or process["cwd"]
        if wanted.privileged:
            held = list(capabilities.held_by_daemon())
            process["capabilities"] = {
                "bounding": held, "effective": held, "permitted": held, "inheritable": [], "ambient": []
            }  # fmt: skip
        return process

    async def resize(self, exec_id: str, rows: int, columns: int) -> None:
        record = self.get(exec_id)
        if not record.running:
            raise Conflict(f"exec process {exec_id} is not running")
        container = self._catalog.get(record.container_id)
        runtime = await self._runtime(container)
        await runtime.call(RuntimeDriver.resize, container.id, exec_id, rows, columns)

    async def kill(self, exec_id: str) -> None:
        """End a running exec's process. Errors: NotFound, Conflict (it has ended)."""
        container = self._catalog.get(self.get(exec_id).container_id)
        runtime = await self._runtime(container)
        await runtime.call(RuntimeDriver.signal, container.id, signal.SIGKILL, exec_id=exec_id)

    async def _runtime(self, container: Container) -> Supervised[RuntimeDriver]:
        return await self._drivers.get(RuntimeDriver, container.runtime)

    # ---- ends

    def exit_of(self, exec_id: str) -> asyncio.Future[int]:
        """The exit code, once there is one. To be asked for before the start."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._exits[exec_id] = future
        future.add_done_callback(lambda _: self._exits.pop(exec_id, None))
        return future

    def _end(self, record: ExecRecord, code: int) -> None:
        record.running, record.exit_code, record.pid = False, code, 0
        self._ended[record.id] = time.monotonic()
        waiting = self._exits.get(record.id)
        if waiting is not None and not waiting.done():
            waiting.set_result(code)

    def ended(self, container_id: str, exec_id: str, exit: Exit) -> None:
        """An exec's process has ended."""
        record = self._records.get(exec_id)
        if record is None or record.exit_code is not None:
            return
        self._end(record, exit.code)
        if container_id in self._catalog:
            container = self._catalog.get(container_id)
            attributes = container_attributes(container, execID=exec_id, exitCode=str(exit.code))
            self._events.emit("container", "exec_die", container_id, attributes)

    async def let_go(self, container_id: str, exec_id: str) -> None:
        """The end is recorded: the clients' connections may end."""
        if container_id in self._catalog:
            container = self._catalog.get(container_id)
            if container.state.running:
                runtime = await self._runtime(container)
                await runtime.call(RuntimeDriver.exec_delete, container_id, exec_id)

    def container_ended(self, container_id: str) -> None:
        """All processes of the container are gone."""
        for record in self._records.values():
            if record.container_id == container_id and record.running:
                self._end(record, 137)

    def _forget_old(self) -> None:
        now = time.monotonic()
        while self._ended:
            exec_id, at = next(iter(self._ended.items()))
            if at >= now - KEPT_SECONDS and len(self._ended) <= KEPT_MOST:
                break
            self._forget(exec_id)
        while len(self._unstarted) > KEPT_MOST:
            self._forget(next(iter(self._unstarted)))
        if now - self._swept > _SWEEP_SECONDS:
            self._swept = now
            for exec_id in [key for key, record in self._records.items() if record.container_id not in self._catalog]:
                self._forget(exec_id)

    def _forget(self, exec_id: str) -> None:
        self._records.pop(exec_id, None)
        self._ended.pop(exec_id, None)
        self._unstarted.pop(exec_id, None)

    def _emit(self, container: Container, record: ExecRecord, action: str) -> None:
        program, *arguments = record.request.cmd or [""]
        command = f"{program} {' '.join(arguments)}"  # a blank also behind a program without arguments, as with Docker
        attributes = container_attributes(container, execID=record.id)
        self._events.emit("container", f"{action}: {command}", container.id, attributes)


def _tell(client: socket.socket, text: str, framed: bool) -> None:
    data = (text + "\r\n").encode()
    if framed:
        data = b"\x01\x00\x00\x00" + len(data).to_bytes(4) + data
    try:
        client.setblocking(False)
        client.send(data)
        client.shutdown(socket.SHUT_RDWR)
    except OSError:
        log.debug("a client left before it was told: %s", text)
