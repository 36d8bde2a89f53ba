"""Debian's registry as a peer, and a proxy before it that counts, slows down and breaks."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import struct
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.harness import free_port, until

_HOP = frozenset({"connection", "transfer-encoding", "keep-alive"})


class Registry:
    """`docker-registry`, Debian's. `guarded`: for `me` with the password `secret` alone. `more`: for its configuration."""

    def __init__(self, folder: Path, more: str = "", *, guarded: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.address = f"127.0.0.1:{free_port()}"
        self.store = folder / "store"
        self._config = folder / "config.yml"
        if guarded:
            users = folder / "users"
            subprocess.run(["htpasswd", "-Bbc", users, "me", "secret"], check=True, capture_output=True)
            more += f"auth: {{htpasswd: {{realm: r, path: {users}}}}}\n"
        self._config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {self.store}}}}}\n"
            f"http: {{addr: {self.address}}}\n{more}"
        )
        self.start()

    def start(self) -> None:
        """Also again, after `kill`: with the same address and store."""
        words = ["docker-registry", "serve", str(self._config)]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._listens, 30, "the registry")

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", int(self.address.rpartition(":")[2])), 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def push(self, layout: Path, tag: str, repository: str, *options: str) -> None:
        """By skopeo, from an OCI layout."""
        words = ["skopeo", "copy", "--all", "--quiet", "--dest-tls-verify=false", *options]
        subprocess.run([*words, f"oci:{layout}:{tag}", f"docker://{self.address}/{repository}"], check=True)

    def put(self, blobs: Mapping[str, bytes], descriptor: Mapping[str, Any], repository: str, reference: str) -> None:
        """Push a manifest and the blobs that it names as they are, whatever they mean."""
        data = blobs[descriptor["digest"]]
        document = json.loads(data)
        base = f"http://{self.address}/v2/{repository}"
        for part in [document[key] for key in ("config",) if key in document] + document.get("layers", []):
            with self._ask("POST", f"{base}/blobs/uploads/") as answer:
                place = answer.headers["Location"]
            mark = "&" if "?" in place else "?"
            self._ask("PUT", f"{place}{mark}digest={part['digest']}", blobs[part["digest"]]).close()
        self._ask("PUT", f"{base}/manifests/{reference}", data, descriptor["mediaType"]).close()

    @staticmethod
    def _ask(method: str, url: str, data: bytes = b"", kind: str = "application/octet-stream") -> Any:
        request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
        return urllib.request.urlopen(request, timeout=30)


@dataclass(slots=True, eq=False)
class Exchange:
    """One request that came by. `sent` and `received`: bytes of the bodies, as far as they went through."""

    method: str
    path: str
    headers: Mapping[str, str]
    sent: int = 0
    received: int = 0
    status: int = 0

    @property
    def begin(self) -> int:
        """Where in a blob the request wants to begin."""
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))

    @property
    def is_blob(self) -> bool:
        return self.method == "GET" and "/blobs/sha256:" in self.path


class Broken(Exception):
    """Raised by what a proxy asks: the connection is reset."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that break off are what this is for."""


class Proxy:
    """Between a client and a registry. `seen`: what came by. `refuse(exchange)` may answer in the registry's place with a
    status, or raise Broken; `passing(exchange, count)` sees each piece of a body before it goes on, and may wait or raise
    Broken."""

    def __init__(self, registry: Registry, *, piece: int = 1 << 16) -> None:
        self.seen: list[Exchange] = []
        self._busy: set[Exchange] = set()
        self.refuse: Callable[[Exchange], int] = lambda exchange: 0
        self.passing: Callable[[Exchange, int], None] = lambda exchange, count: None
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                exchange = Exchange(self.command, self.path, dict(self.headers))
                proxy.seen.append(exchange)
                proxy._busy.add(exchange)
                try:
                    proxy._forward(self, exchange, registry.address, piece)
                except Broken:
                    _reset(self)
                except (OSError, http.client.HTTPException):
                    self.close_connection = True
                finally:
                    proxy._busy.discard(exchange)

            do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815  # as the base class calls them

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _forward(self, handler: BaseHTTPRequestHandler, exchange: Exchange, address: str, piece: int) -> None:
        left = int(handler.headers.get("Content-Length") or 0)
        if status := self.refuse(exchange):
            exchange.status = status
            handler.close_connection = True
            while left and (data := handler.rfile.read(min(left, piece))):
                left -= len(data)
            handler.send_response(status)
            handler.send_header("Content-Length", "0")
            handler.send_header("Connection", "close")  # or the client's next request may meet the end of this one
            handler.end_headers()
            return
        with contextlib.closing(http.client.HTTPConnection(address, timeout=60)) as there:
            there.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                if name.lower() not in _HOP:
                    there.putheader(name, value)
            there.endheaders()
            while left:
                data = handler.rfile.read(min(left, piece))
                if not data:
                    raise BrokenPipeError
                self.passing(exchange, len(data))
                there.send(data)
                exchange.sent += len(data)
                left -= len(data)
            answer = there.getresponse()
            exchange.status = answer.status
            handler.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP:
                    handler.send_header(name, value)
            if answer.length is None and handler.command != "HEAD":
                handler.send_header("Connection", "close")
            handler.end_headers()
            while data := answer.read(piece):
                self.passing(exchange, len(data))
                handler.wfile.write(data)
                exchange.received += len(data)

    def heal(self) -> None:
        """Wait for what is under way, forget what was seen, and break nothing any more."""
        until(lambda: not self._busy, 30, "the end of all requests")
        self.seen = []
        self.refuse = lambda exchange: 0
        self.passing = lambda exchange, count: None

    def fetched(self) -> dict[str, list[int]]:
        """Where in it each fetch of a blob began, by digest."""
        begins: dict[str, list[int]] = {}
        for exchange in self.seen:
            if exchange.is_blob:
                begins.setdefault(exchange.path.rpartition("/")[2], []).append(exchange.begin)
        return begins

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def slowly(seconds: float) -> Callable[[Exchange, int], None]:
    """For `Proxy.passing`: blobs wait this long at each piece."""

    def passing(exchange: Exchange, count: int) -> None:
        if exchange.is_blob or exchange.method in ("PATCH", "PUT"):
            time.sleep(seconds)

    return passing


def _reset(handler: BaseHTTPRequestHandler) -> None:
    """RST rather than FIN: as when a host dies, or a firewall forgets the connection."""
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        os.close(handler.connection.detach())
