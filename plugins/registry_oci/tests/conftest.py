"""Debian's registry with a configuration for each test, and a server that answers as a script says."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import logging
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wharfie_registry_oci.driver import OciDriver
from wharfie_registry_oci.settings import Settings

from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.registry import Credentials, Descriptor, Reference

HOST = HostFacts(kernel=(6, 18), architecture="amd64", cgroup="v1", cpus=2, memory=1 << 30)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Callable[..., OciDriver]]:
    """Make an open driver; keywords are its settings."""
    made: list[OciDriver] = []

    def build(**settings: Any) -> OciDriver:
        context = Context(
            state=tmp_path, run=tmp_path, instance="0badcafe", log=logging.getLogger("oci"), host=HOST, emit=lambda _: None
        )
        settings = {"certificates": tmp_path / "certs.d", **settings}
        built = OciDriver(context, Settings.model_validate(settings))
        built.open()
        made.append(built)
        return built

    yield build
    for each in made:
        each.close()


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def fetch(driver: OciDriver, ref: Reference, data: bytes, *, offset: int = 0, auth: Credentials | None = None) -> bytes:
    """What `fetch` writes for the blob whose content is `data`."""
    return fetch_blob(driver, ref, digest(data), len(data), offset=offset, auth=auth)


def fetch_blob(
    driver: OciDriver, ref: Reference, name: str, size: int, *, offset: int = 0, auth: Credentials | None = None
) -> bytes:
    blob = Descriptor(media_type="application/octet-stream", digest=name, size=size)
    with open(os.memfd_create("blob"), "w+b") as file:
        try:
            driver.fetch(ref, blob, file.fileno(), offset=offset, auth=auth)
        finally:
            file.seek(0)
            written = file.read()
            fetch_blob.written = written  # type: ignore[attr-defined]  # for tests of broken connections
        return written


@pytest.fixture
def tools() -> SimpleNamespace:
    return SimpleNamespace(digest=digest, fetch=fetch, fetch_blob=fetch_blob)


# A registry


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_registry(folder: Path, *, host: str = "127.0.0.1", http: str = "", more: str = "") -> Iterator[str]:
    """Address of a registry that runs meanwhile. `http`, `more`: parts of its configuration."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    address = f"{host}:{free_port()}"
    folder.mkdir(exist_ok=True)
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder / 'store'}}}}}\n"
        f"http: {{addr: {address}, {http}}}\n{more}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(folder / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection((host, int(address.rpartition(":")[2])), 1).close()
                break
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()


def push_image(address: str, repository: str, folder: Path, *options: str) -> tuple[bytes, bytes]:
    """Push an image of one blob with skopeo; gives the manifest and the blob."""
    blob = gzip.compress(os.urandom(50_000))  # compressed, or skopeo would do it
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["%s"]}}' % digest(blob).encode()
    kind = "application/vnd.oci.image"
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {"mediaType": f"{kind}.config.v1+json", "digest": digest(config), "size": len(config)},
            "layers": [{"mediaType": f"{kind}.layer.v1.tar+gzip", "digest": digest(blob), "size": len(blob)}],
        }
    ).encode()
    (folder / "blobs/sha256").mkdir(parents=True)
    for data in (blob, config, manifest):
        (folder / "blobs/sha256" / digest(data)[7:]).write_bytes(data)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    entry = {"mediaType": f"{kind}.manifest.v1+json", "digest": digest(manifest), "size": len(manifest)}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    subprocess.run(
        ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", *options]  # noqa: RUF005
        + [f"oci:{folder}:1", f"docker://{address}/{repository}"],
        check=True,
    )
    return manifest, blob


@pytest.fixture
def registries() -> SimpleNamespace:
    return SimpleNamespace(running=running_registry, push=push_image)


# A server that answers as a script says


class Script:
    """`answer(handler)` writes the answer; every request is kept in `seen` as (path, headers)."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda handler: reply(handler, 404)
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                script.seen.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
                with contextlib.suppress(OSError):
                    script.answer(self)

            do_POST = do_PUT = do_PATCH = do_HEAD = do_DELETE = do_GET  # noqa: N815  # the base class's spelling

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer((host, 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda request, address: None  # type: ignore[method-assign]  # of cut connections
        self.address = f"{host}:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    """A whole answer; `_` in header names stands for `-`."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    made: list[Script] = []

    def build(host: str = "127.0.0.1") -> Script:
        made.append(Script(host))
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.fixture
def reply_with() -> Callable[..., None]:
    return reply
