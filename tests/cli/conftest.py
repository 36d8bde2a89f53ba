"""A real HTTP server on a unix socket that answers from a table: the engine of tests that are about the client alone."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest


@dataclass
class Call:
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    chunks: list[bytes] | None = None
    hijack: Any = None  # called with the socket after the head
    headers: dict[str, str] = field(default_factory=dict)


class RecordedEngine(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    api_version = "1.45"
    Answer = Answer

    def __init__(self, path: str) -> None:
        super().__init__(path, _Handler)
        self.path = path
        self.host = f"unix://{path}"
        self.answers: dict[tuple[str, str], list[Answer]] = {}
        self.calls: list[Call] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def on(self, method: str, path: str, *answers: Answer | Any) -> None:
        """Answers in turn; the last one again and again. What is no Answer is the JSON body of a 200."""
        self.answers[method, path] = [one if isinstance(one, Answer) else Answer(body=one) for one in answers]

    def made(self, method: str, path: str) -> list[Call]:
        return [call for call in self.calls if (call.method, call.path) == (method, path)]

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(socketserver.StreamRequestHandler):
    server: RecordedEngine

    def handle(self) -> None:
        while line := self.rfile.readline():
            method, target, _ = line.decode().split()
            headers = {}
            while (line := self.rfile.readline().strip()) != b"":
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            body = self._body(headers)
            if target == "/_ping":
                self._send(method, Answer(headers={"Api-Version": self.server.api_version}))
                continue
            url = urlsplit(target)
            version, _, path = url.path.removeprefix("/v").partition("/")
            assert version == min(self.server.api_version, "1.50"), target
            call = Call(method, "/" + path, dict(parse_qsl(url.query)), body, headers)
            self.server.calls.append(call)
            queue = self.server.answers.get((method, call.path), [Answer(404, {"message": "page not found"})])
            answer = queue.pop(0) if len(queue) > 1 else queue[0]
            self._send(method, answer)
            if answer.hijack is not None:
                return

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(headers.get("content-length", 0)))

    def _send(self, method: str, answer: Answer) -> None:
        headers = dict(answer.headers)
        if answer.hijack is not None:
            self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
            answer.hijack(self.request)
            return
        if answer.chunks is not None:
            self.wfile.write(
                b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" % answer.status
            )
            for chunk in answer.chunks:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            self.wfile.write(b"0\r\n\r\n")
            return
        data = b"" if answer.body is None else json.dumps(answer.body).encode() + b"\n"
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(data))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.wfile.write(f"HTTP/1.1 {answer.status} X\r\n{head}\r\n".encode() + (b"" if method == "HEAD" else data))


WHARFIE = (sys.executable, "-c", "from wharfie.cli import main; raise SystemExit(main())")


@pytest.fixture
def wharfie_command():
    return WHARFIE


@pytest.fixture
def engine(tmp_path):
    server = RecordedEngine(str(tmp_path / "engine.sock"))
    yield server
    server.stop()


@pytest.fixture
def wharfie(engine, tmp_path):
    """Runs the command line against `engine`."""

    def run(*arguments, stdin=b"", host=None, env=None, command=WHARFIE):
        environment = {**os.environ, "DOCKER_HOST": host or engine.host, "DOCKER_CONFIG": str(tmp_path), **(env or {})}
        done = subprocess.run([*command, *arguments], input=stdin, capture_output=True, env=environment, timeout=30)
        assert b"Traceback" not in done.stderr
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run
