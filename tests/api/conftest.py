"""A small engine of the tests' own, for what is the API's alone: connections, versions, errors, bodies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from wharfie.api.app import create_app
from wharfie.api.server import Server
from wharfie.engine.events import Events
from wharfie.engine.model.config import Config
from wharfie.engine.model.container import Container, ExecCreate, ExecRecord, State
from wharfie.engine.model.host import HostConfig
from wharfie.engine.settings import EngineSettings
from wharfie.spi.authz import AuthzDriver
from wharfie.spi.errors import Conflict, NotFound, Unavailable
from wharfie.spi.log import LogRun

ID = "ab" * 32


def container(**changes: Any) -> Container:
    fields: dict[str, Any] = {
        "id": ID,
        "name": "box",
        "created": "2026-01-02T03:04:05.6Z",
        "image_id": "sha256:" + "1" * 64,
        "config": Config(image="busybox", cmd=["sh", "-c", "true x"]),
        "host_config": HostConfig(network_mode="bridge"),
        "storage_driver": "overlay2",
        "runtime": "native",
        "log_driver": "json-file",
        "state": State(status="running", started_at="2026-01-02T03:04:06.7Z"),
    }
    return Container(**(fields | changes))


class EchoContainers:
    """One container, "box": attach echoes stdin in frames until it ends, then says how much came."""

    def __init__(self, engine: EchoEngine) -> None:
        self.engine = engine
        self.box = container()
        self.created: list[Any] = []
        self.attached: list[Any] = []
        self.waiting: queue.Queue[tuple[socket.socket, Any]] = queue.Queue()
        self.log: list[LogRun] = []
        self.log_ended = threading.Event()

    def get(self, ref: str) -> Container:
        if ref not in (ID, "box"):
            raise NotFound(f"No such container: {ref}")
        return self.box

    def matching(self, *, all: bool, limit: int, filters: Mapping[str, Sequence[str]]) -> list[Container]:
        self.engine.filters = filters
        return [self.box]

    def rendered(self, container: Container) -> dict[object, Any]:
        return {}

    def check_attach(self, ref, keys):
        return self.get(ref)

    async def create(self, request: Any, name: str, platform: str = "") -> Any:
        self.created.append(request)
        return SimpleNamespace(id=ID, warnings=[])

    async def start(self, ref: str, *, checkpoint: str = "", checkpoint_dir: str = "") -> bool:
        self.get(ref)
        return False

    async def stop(self, ref: str, *, timeout: int | None, signal: str = "") -> bool:
        self.engine.stopped = (timeout, signal)
        return True

    async def pause(self, ref: str) -> None:
        raise Conflict(f"Container {ref} is already paused")

    async def unpause(self, ref: str) -> None:
        raise Unavailable("not now")

    async def kill(self, ref: str, signal: str) -> None:
        raise RuntimeError("a defect")

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        self.engine.size = (rows, columns)

    async def attach(self, ref: str, client: socket.socket, request: Any, *, logs: bool, stream: bool) -> None:
        self.attached.append(request)
        threading.Thread(target=_echo, args=(client, request), daemon=True).start()

    async def hand_over_wait(self, ref: str, condition: str, client: socket.socket, reply: Any) -> None:
        self.waiting.put((client, reply))

    async def logs(self, ref: str, query: Any, *, stdout: bool, stderr: bool) -> AsyncIterator[Sequence[LogRun]]:
        self.get(ref)
        try:
            yield [run for run in self.log if (stdout if run.stream == "stdout" else stderr)]
            if query.follow:
                await asyncio.sleep(3600)
        finally:
            self.log_ended.set()


def _echo(client: socket.socket, request: Any) -> None:
    def write(data: bytes) -> None:
        client.sendall(b"\1\0\0\0" + len(data).to_bytes(4, "big") + data if request.framed else data)

    client.setblocking(True)
    total = len(request.initial)
    with client, contextlib.suppress(ConnectionError):
        if request.initial:
            write(request.initial)
        while data := client.recv(65536):
            total += len(data)
            write(data)
        write(f"end after {total}".encode())


class EchoExecs:
    def __init__(self) -> None:
        self.started: list[Any] = []

    def get(self, exec_id: str) -> ExecRecord:
        if exec_id != "ee":
            raise NotFound(f"No such exec instance: {exec_id}")
        return ExecRecord(id="ee", container_id=ID, request=ExecCreate(cmd=["cat"], attach_stdin=True))

    check_start = get

    def of(self, container_id: str) -> list[str]:
        return []

    async def start(self, exec_id: str, *, client: Any, request: Any, size: Any) -> None:
        self.started.append((client, request, size))
        if client is not None:
            threading.Thread(target=_echo, args=(client, request), daemon=True).start()


class EchoImages:
    """`pull` says what the test put into `messages`, then raises `error`, if there is one."""

    def __init__(self) -> None:
        self.messages: list[Mapping[str, Any]] = []
        self.error: Exception | None = None
        self.hang = False
        self.hanging = threading.Event()
        self.cancelled = threading.Event()
        self.auth: Any = None
        self.uploaded = 0

    async def pull(self, name: str, tag: str, *, platform: str, auth: Any, progress: Callable[..., None]) -> None:
        self.auth = auth
        for message in self.messages:
            progress(message)
        try:
            if self.hang:
                self.hanging.set()
                await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.error is not None:
            raise self.error

    async def load(self, body: AsyncIterator[bytes], *, quiet: bool, progress: Any, platform: str = "") -> None:
        async for piece in body:
            self.uploaded += len(piece)
        progress({"stream": "Loaded image: x\n"})

    def get(self, ref: str, platform: str = "") -> Any:
        raise NotFound(f"No such image: {ref}")


class EchoDrivers:
    """Authorization drivers by name."""

    def __init__(self) -> None:
        self.judges: dict[str, Any] = {}
        self.capabilities: frozenset[Any] = frozenset()
        self.answer_judge: Any = None

    async def get(self, contract: Any, name: str) -> Any:
        if name not in self.judges:
            raise NotFound(f'authz driver "{name}": nobody offers it')
        judge = self.judges[name]

        async def call(method: Any, request: Any, response: Any = None) -> Any:
            if method is AuthzDriver.response:
                return self.answer_judge(request, response)
            assert method is AuthzDriver.request
            return judge(request)

        return SimpleNamespace(call=call, capabilities=self.capabilities)

    def states(self) -> list[Any]:
        return []


class EchoSystem:
    def version(self) -> dict[str, Any]:
        return {"Version": "0", "ApiVersion": "1.50"}

    async def info(self) -> dict[str, Any]:
        return {"ID": "x"}


class EchoEngine:
    def __init__(self, root: Path, **settings: Any) -> None:
        self.settings = EngineSettings(data_root=root, exec_root=root, instance="00000000", **settings)
        self.drivers = EchoDrivers()
        self.containers = EchoContainers(self)
        self.execs = EchoExecs()
        self.images = EchoImages()
        self.events = Events()
        self.system = EchoSystem()
        self.filters: Mapping[str, Sequence[str]] = {}
        self.stopped: Any = None
        self.size: Any = None


class Served:
    """A running server and the simplest of clients. The engine behind it may be changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop = uvloop.new_event_loop()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(2048)
        self.server = Server(self._answer)
        self._thread = threading.Thread(target=self._run, args=(listener,))
        self._thread.start()

    def use(self, engine: EchoEngine) -> None:
        self.engine = engine
        self._app = create_app(engine)  # type: ignore[arg-type]

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)

    def _run(self, listener: socket.socket) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.server.serve([listener]))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def stop(self) -> None:
        self.server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(str(self.path))
        return client

    def ask(
        self, method: str, path: str, body: bytes | Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        sent: dict[str, str] = {"Host": "docker", "Connection": "close"}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        if body is not None:
            sent["Content-Length"] = str(len(body))
        sent |= headers or {}
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        with self.connect() as client:
            with contextlib.suppress(BrokenPipeError):  # it may have been answered before its end
                client.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + (body or b""))
            return read_answer(client)

    def message(self, method: str, path: str, body: Any = None, headers: Any = None) -> tuple[int, str]:
        status, _, data = self.ask(method, path, body, headers)
        return status, json.loads(data)["message"]


def read_head(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers, and what came after the head already."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        if not piece:
            break
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, rest


def read_all(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


def read_answer(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    status, headers, rest = read_head(client)
    body = rest + read_all(client)
    return status, headers, unchunked(body) if headers.get("transfer-encoding") == "chunked" else body


def unchunked(body: bytes) -> bytes:
    data = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        data, body = data + body[:length], body[length + 2 :]
    return data


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    server = Served(tmp_path_factory.mktemp("api") / "api.sock")
    yield server
    server.stop()


@pytest.fixture
def serve(api_server: Served, tmp_path: Path) -> Callable[..., Served]:
    """The server with an engine of its own, with these settings."""

    def start(**settings: Any) -> Served:
        api_server.use(EchoEngine(tmp_path, **settings))
        return api_server

    return start


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    return serve()


@pytest.fixture(scope="session")
def api_tools() -> SimpleNamespace:
    return SimpleNamespace(read_head=read_head, read_all=read_all, read_answer=read_answer)
