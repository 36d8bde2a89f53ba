"""A small OCI registry on loopback for the rules of registry drivers (distribution-spec), in a process of its own.

Repositories beginning with `private/` want the user `kit` with the password `secret` (Basic). `GET /kit/seen` tells what
was asked: a list of [method, path, authorization]. Repositories that misbehave: `huge/`: its manifest is over the limit;
`long/`: blobs go on after their size; `cut/`: the connection breaks in the middle of a blob; `elsewhere/`: blobs are at
another server; `old/`: there is no referrers API.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from wharfie.kit.room import fork
from wharfie.spi.registry import MANIFEST_LIMIT

USER, PASSWORD = "kit", "secret"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
BLOB = bytes(range(256)) * 4096  # 1 MiB
_WANTED = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<last>.*)")


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def manifest(blob: bytes, subject: dict[str, Any] | None = None) -> bytes:
    """An image manifest with one blob, its configuration and layer."""
    descriptor = {"mediaType": "application/octet-stream", "digest": digest(blob), "size": len(blob)}
    told = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor, "layers": [descriptor]}
    # Spaces that no encoder of ours would write: whoever decodes and encodes again loses the digest.
    return json.dumps({**told, **({"subject": subject} if subject else {})}, indent=3).encode()


def _about(data: bytes) -> dict[str, Any]:
    """What a referrer's descriptor says beside its content."""
    told = json.loads(data)
    kind, annotations = told.get("artifactType", "application/kit"), told.get("annotations", {"by": "kit"})
    return {"artifactType": kind, "annotations": annotations}


class Peer:
    """The registry: `server` is its host:port. `other` is the second server, for redirected blobs."""

    def __init__(self) -> None:
        first = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        second = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server, self.other = (f"127.0.0.1:{one.server_address[1]}" for one in (first, second))
        self._pids = [_fork(second, self.server), _fork(first, self.other)]
        for one in (first, second):
            one.socket.close()

    def seen(self, server: str = "") -> list[list[str]]:
        with urllib.request.urlopen(f"http://{server or self.server}/kit/seen") as answer:
            found: list[list[str]] = json.load(answer)
        return found

    def stop(self) -> None:
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _fork(server: ThreadingHTTPServer, other: str) -> int:
    pid = fork()
    if pid == 0:
        _Handler.other = other
        _Handler.blobs = {digest(BLOB): BLOB}
        data = manifest(BLOB)
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
        subject = {"mediaType": OCI_MANIFEST, "digest": digest(data), "size": len(data)}
        signature = manifest(b"{}", subject)
        for name, value, kind in (
            ("v1", data, OCI_MANIFEST),
            ("index", index, OCI_INDEX),
            ("sig", signature, OCI_MANIFEST),
        ):
            _Handler.manifests[digest(value)] = _Handler.manifests[name] = (kind, value)
        server.serve_forever()
    return pid


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    manifests: ClassVar[dict[str, tuple[str, bytes]]] = {}  # by tag and digest, the same in every repository
    blobs: ClassVar[dict[str, bytes]] = {}
    pushed: ClassVar[set[tuple[str, str]]] = set()  # (repository, digest)
    uploads: ClassVar[dict[str, bytes]] = {}
    seen: ClassVar[list[list[str]]] = []
    other: ClassVar[str] = ""

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/kit/seen":
            self._answer(200, json.dumps(self.seen).encode())
            return
        self.seen.append([self.command, self.path, self.headers.get("Authorization", "")])
        url = urlsplit(self.path)
        if url.path == "/v1/search":
            self._search(parse_qs(url.query))
            return
        if url.path == "/v2/":
            given = self.headers.get("Authorization")
            self._answer(200, b"{}") if given == _WANTED else self._unauthorized()
            return
        if (found := _PATH.fullmatch(url.path)) is None:
            self._error(404, "NAME_UNKNOWN")
            return
        if found["name"].startswith("private/") and self.headers.get("Authorization") != _WANTED:
            self._unauthorized()
            return
        getattr(self, f"_{found['kind']}")(found["name"], found["last"], parse_qs(url.query))

    def _manifests(self, name: str, last: str, query: dict[str, list[str]]) -> None:
        if self.command == "PUT":
            data, kind = self._body(), self.headers.get("Content-Type", "")
            self.manifests[last] = self.manifests[digest(data)] = (kind, data)
            self._answer(
                201, b"", {"Location": f"/v2/{name}/manifests/{digest(data)}", "Docker-Content-Digest": digest(data)}
            )
        elif name.startswith("huge/"):
            self._answer(200, b" " * (MANIFEST_LIMIT + 1), {"Content-Type": OCI_MANIFEST})
        elif last in self.manifests:
            kind, data = self.manifests[last]
            self._answer(200, data, {"Content-Type": kind, "Docker-Content-Digest": digest(data)})
        else:
            self._error(404, "MANIFEST_UNKNOWN", "manifest unknown")

    def _blobs(self, name: str, last: str, query: dict[str, list[str]]) -> None:
        if last.startswith("uploads"):
            self._uploads(name, last, query)
        elif last not in self.blobs or (name.startswith("new/") and (name, last) not in self.pushed):
            self._error(404, "BLOB_UNKNOWN", "blob unknown")
        elif name.startswith("elsewhere/"):
            self._answer(307, b"", {"Location": f"http://{self.other}/v2/plain/blobs/{last}"})
        else:
            self._blob(name, self.blobs[last])

    def _blob(self, name: str, data: bytes) -> None:
        headers, status, begin = {"Content-Type": "application/octet-stream"}, 200, 0
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            begin = int(wanted[1])
            status, headers["Content-Range"] = 206, f"bytes {begin}-{len(data) - 1}/{len(data)}"
        if name.startswith("cut/"):
            self.send_response(status)
            self.send_header("Content-Length", str(len(data) - begin))
            self.end_headers()
            self.wfile.write(data[begin : len(data) // 2])
            self.close_connection = True
            return
        self._answer(status, data[begin:] + (b"more" * 1000 if name.startswith("long/") else b""), headers)

    def _uploads(self, name: str, last: str, query: dict[str, list[str]]) -> None:
        wanted = query.get("digest", query.get("mount", [""]))[0]
        if self.command == "POST":
            if "mount" in query and wanted in self.blobs:
                self.pushed.add((name, wanted))
                self._answer(201, b"", {"Location": f"/v2/{name}/blobs/{wanted}", "Docker-Content-Digest": wanted})
                return
            session = f"u{len(self.uploads)}"
            self.uploads[session] = self._body()
            if "digest" not in query:
                self._answer(202, b"", {"Location": f"/v2/{name}/blobs/uploads/{session}", "Range": "0-0"})
                return
        else:
            session = last.removeprefix("uploads/")
            self.uploads[session] = self.uploads.get(session, b"") + self._body()
        data = self.uploads[session]
        if self.command == "PATCH":
            self._answer(
                202, b"", {"Location": f"/v2/{name}/blobs/uploads/{session}", "Range": f"0-{max(0, len(data) - 1)}"}
            )
        elif digest(data) != wanted:
            self._error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        else:
            self.blobs[wanted] = data
            self.pushed.add((name, wanted))
            self._answer(201, b"", {"Location": f"/v2/{name}/blobs/{wanted}", "Docker-Content-Digest": wanted})

    def _tags(self, name: str, last: str, query: dict[str, list[str]]) -> None:
        names = sorted(one for one in self.manifests if ":" not in one)
        if "last" in query:
            names = [one for one in names if one > query["last"][0]]
        # By twos, so that whoever does not follow the links misses some.
        headers = {"Link": f'</v2/{name}/tags/list?n=2&last={names[1]}>; rel="next"'} if len(names) > 2 else {}
        self._answer(200, json.dumps({"name": name, "tags": names[:2]}).encode(), headers)

    def _referrers(self, name: str, last: str, query: dict[str, list[str]]) -> None:
        if name.startswith("old/"):
            self._answer(404, b"404 page not found\n", {"Content-Type": "text/plain"})
            return
        found = [
            {"mediaType": kind, "digest": key, "size": len(data), **_about(data)}
            for key, (kind, data) in self.manifests.items()
            if ":" in key and json.loads(data).get("subject", {}).get("digest") == last
        ]
        self._answer(200, json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}).encode())

    def _search(self, query: dict[str, list[str]]) -> None:
        """Docker's registry protocol, version 1, of which this is left."""
        found = [
            {"name": f"kit/image{number}", "description": "an image", "star_count": number, "is_official": number == 1}
            for number in range(1, 6)
        ]
        wanted = found[: int(query.get("n", ["25"])[0])] if query.get("q") == ["image"] else []
        self._answer(200, json.dumps({"num_results": len(wanted), "results": wanted}).encode())

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    def _error(self, status: int, code: str, message: str = "", headers: dict[str, str] | None = None) -> None:
        data = json.dumps({"errors": [{"code": code, "message": message or code.lower()}]}).encode()
        self._answer(status, data, {"Content-Type": "application/json", **(headers or {})})

    def _unauthorized(self) -> None:
        self._body()
        self._error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": 'Basic realm="kit"'})


for _method in ("HEAD", "POST", "PUT", "PATCH"):
    setattr(_Handler, f"do_{_method}", _Handler.do_GET)
