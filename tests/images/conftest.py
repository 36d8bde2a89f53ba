"""A real store, the real overlay2 driver, Debian's registry on a loopback port, images made by code."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import shutil
import socket
import tarfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from tests.registries import Registry
from wharfie.engine.events import Events
from wharfie.engine.images.images import Images
from wharfie.engine.model.container import Container
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.settings import DriverSettings
from wharfie.spi.driver import HostFacts
from wharfie.store.content import ContentStore
from wharfie.store.metadata import Metadata

T = TypeVar("T")
HOST = HostFacts(kernel=(6, 18), architecture="amd64", cgroup="v1", cpus=2, memory=1 << 30)


class House:
    """An engine's image side over one data root; `restart` is a kill and a new start."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.options = options
        self.containers: list[Container] = list(options.get("using", ()))

    async def __aenter__(self) -> House:
        self.metadata = Metadata(self.root / "metadata.db")
        self.events = Events()
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.events.observe(lambda event: self.seen.append((event.action, event.actor, dict(event.attributes))))
        settings = DriverSettings(
            drivers={"storage.overlay2": {"sync": False}, **self.options.get("drivers", {})},
            plugins=self.options.get("plugins", {}),
        )
        self.drivers = Drivers(settings, state=self.root / "drivers", run=self.root / "run", instance="0badcafe", host=HOST)
        self.images = Images(
            self.metadata,
            ContentStore(self.root / "content"),
            self.drivers,
            self.events,
            storage_driver="overlay2",
            registry_drivers={},
            default_registry=self.options.get("registry_driver", "oci"),
            max_concurrent_downloads=3,
            max_concurrent_uploads=5,
            max_download_attempts=self.options.get("attempts", 3),
            containers_using=self.using,
        )
        await self.images.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.images.close()
        await self.drivers.close()
        self.metadata.close()

    def using(self, image_id: str) -> list[Container]:
        return [container for container in self.containers if container.image_id == image_id]

    async def pull(self, name: str, tag: str = "latest", platform: str = "", auth: Any = None) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        await self.images.pull(name, tag, platform=platform, auth=auth, progress=lambda line: said.append(dict(line)))
        return said

    def blobs(self) -> set[str]:
        return {path.name for path in (self.root / "content/blobs/sha256").iterdir()}

    def unfinished(self) -> list[Path]:
        return list((self.root / "content/ingest").iterdir())

    async def layers(self) -> set[str]:
        from wharfie.spi.storage import StorageDriver

        storage = await self.drivers.get(StorageDriver, "overlay2")
        return {layer.name for layer in await storage.call(StorageDriver.layers)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def with_house(root: Path) -> Callable[..., Any]:
    """Run a coroutine function with an open House: `with_house(work)`; again for what is there after a restart."""

    def run(work: Callable[[House], Awaitable[T]], **options: Any) -> T:
        async def main() -> T:
            async with House(root, **options) as house:
                return await work(house)

        return asyncio.run(main())

    return run


# Images made by code


def tar_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o755
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    """An OCI image layout in a folder, for skopeo, and the same blobs for scripted servers."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.index: list[dict[str, Any]] = []

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def image(
        self,
        layers: Sequence[bytes],
        *,
        compress: Callable[[bytes], bytes] = lambda data: gzip.compress(data, 1, mtime=0),
        kind: str = "+gzip",
        architecture: str = "amd64",
        config: Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> dict[str, Any]:
        """Descriptor of a new image's manifest; `layers` are tars."""
        document = {
            "created": "2024-05-06T07:08:09.123456789Z",
            "author": "somebody",
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": {"a": "b"}, **(config or {})},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
            "history": [{"created": "2024-05-06T07:08:09Z", "created_by": f"step {at}"} for at in range(len(layers))],
            **extra,
        }
        parts = [self.blob(compress(layer), f"application/vnd.oci.image.layer.v1.tar{kind}") for layer in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.blob(json.dumps(document).encode(), "application/vnd.oci.image.config.v1+json"),
            "layers": parts,
        }
        return self.blob(json.dumps(manifest).encode(), manifest["mediaType"])

    def tag(self, descriptor: dict[str, Any], name: str) -> None:
        self.index.append({**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}})

    def index_of(self, *members: tuple[dict[str, Any], Mapping[str, str]]) -> dict[str, Any]:
        manifests = [{**descriptor, "platform": dict(platform)} for descriptor, platform in members]
        document = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests}
        return self.blob(json.dumps(document).encode(), document["mediaType"])

    def write(self, folder: Path) -> Path:
        (folder / "blobs/sha256").mkdir(parents=True)
        for name, data in self.blobs.items():
            (folder / "blobs/sha256" / name.removeprefix("sha256:")).write_bytes(data)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.index}))
        return folder


@pytest.fixture
def make() -> SimpleNamespace:
    """The makers above."""
    return SimpleNamespace(Layout=Layout, tar_of=tar_of, digest=digest)


# A registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if shutil.which("docker-registry") is None or shutil.which("skopeo") is None:
        pytest.skip("needs docker-registry and skopeo")
    registry = Registry(tmp_path_factory.mktemp("registry"))
    yield registry
    registry.close()


# A registry that does as it is told


class Liar:
    """Serves a Layout's blobs by the distribution protocol; `tamper(handler, path)` may answer in its place."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.seen: list[tuple[str, str]] = []
        self.tamper: Callable[[BaseHTTPRequestHandler, str], bool] = lambda handler, path: False
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                liar.seen.append((self.path, self.headers.get("Range", "")))
                with contextlib.suppress(OSError):
                    if not liar.tamper(self, self.path):
                        liar.serve(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """The right answer."""
        name = handler.path.rpartition("/")[2]
        if not name.startswith("sha256:"):
            name = next((entry["digest"] for entry in self.layout.index), "")
        data = self.layout.blobs.get(name)
        if data is None:
            return self.reply(handler, 404)
        media_type = json.loads(data).get("mediaType", "") if "/manifests/" in handler.path else "application/octet-stream"
        start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if not start:
            return self.reply(handler, 200, data, Content_Type=media_type)
        return self.reply(handler, 206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")

    @staticmethod
    def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    @staticmethod
    def break_off(handler: BaseHTTPRequestHandler, body: bytes, sent: int, status: int = 200, **headers: str) -> None:
        """Say the whole body, send a part, and close."""
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body[:sent])
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def liar(make: SimpleNamespace) -> Iterator[Callable[[Layout], Liar]]:
    made: list[Liar] = []

    def build(layout: Layout) -> Liar:
        made.append(Liar(layout))
        return made[-1]

    yield build
    for each in made:
        each.close()
