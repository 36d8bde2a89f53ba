"""Recorded answers of Docker's daemon: replays their requests against ours, and compares shapes.

Compared are the status, the content type, error messages with ids and folders taken out, and the body's shape: the same
keys, the same types, null where null was, [] where [] was. What differs on purpose is in `test_golden.py`, with its reason.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "data" / "golden"
IMAGE = "busybox:latest"
PREFIX = "/v1.45"

_ID = re.compile(r"[0-9a-f]{64}")
_SHORT_ID = re.compile(r"\b[0-9a-f]{12}\b")

FREE_KEYS = frozenset(
    {"Labels", "Attributes", "Containers", "Networks", "Options", "Runtimes", "stats", "Data", "networks", "IndexConfigs"}
)
"""Objects whose keys are data: only the shapes of their values are compared."""


@dataclass(frozen=True, slots=True)
class Case:
    number: int
    name: str
    request: Mapping[str, Any]
    response: Mapping[str, Any]

    @property
    def stream(self) -> bool:
        return "raw-stream" in self.content_type or "multiplexed" in self.content_type

    @property
    def content_type(self) -> str:
        return str({key.lower(): value for key, value in self.response["headers"].items()}.get("content-type", ""))


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


def cases() -> list[Case]:
    """In the order in which they were recorded."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        number, _, name = path.stem.partition("-")
        document = json.loads(path.read_text())
        found.append(Case(int(number), name, document["request"], document["response"]))
    return found


class Client:
    """One connection for each request, as the recorder did it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        stdin: bytes | None = None,
        objects: int = 0,
    ) -> Answer:
        """`stdin`: sent after the head, then half-closed. `objects`: leave a stream after so many lines."""
        sent = {"Host": "docker", **(headers or {})}
        if body is not None or (method in ("POST", "PUT") and stdin is None):
            sent["Content-Length"] = str(len(body or b""))
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(self._path))
            client.sendall(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + (body or b""))
            stream = client.makefile("rb")
            status = int(stream.readline().split()[1])
            found = dict(_headers(stream))
            if stdin is not None and status in (101, 200):
                with contextlib.suppress(BrokenPipeError):  # the comparison will say what is missing
                    client.sendall(stdin)
                    client.shutdown(socket.SHUT_WR)
                return Answer(status, found, stream.read())
            return Answer(status, found, _read(stream, method, status, found, objects))

    def json(self, method: str, path: str, body: Any = None) -> Any:
        encoded = None if body is None else json.dumps(body).encode()
        answer = self.ask(method, PREFIX + path, encoded, {"Content-Type": "application/json"} if encoded else None)
        return json.loads(answer.body) if answer.body else None


def _headers(stream: Any) -> Iterator[tuple[str, str]]:
    while line := stream.readline().strip():
        name, _, value = line.decode().partition(":")
        yield name.lower(), value.strip()


def _read(stream: Any, method: str, status: int, headers: Mapping[str, str], objects: int) -> bytes:
    if method == "HEAD" or status in (204, 304):
        return b""
    if headers.get("transfer-encoding") != "chunked":
        length = headers.get("content-length")
        return stream.read() if length is None else stream.read(int(length))
    data = b""
    while size := int(stream.readline(), 16):
        data += stream.read(size)
        stream.readline()
        if objects and data.count(b"\n") >= objects:
            break
    return data


class Replay:
    """All answers of our daemon, by case name."""

    def __init__(self, client: Client, wanted: list[Case]) -> None:
        self.client = client
        self.answers: dict[str, Answer] = {}
        self._began = int(time.time())
        self._exec_id = ""
        self._volume = ""
        self._saved = b""
        for case in wanted:
            step = _BEFORE.get(case.name)
            if step is not None:
                step(self)
            self.answers[case.name] = self._send(case)
            self._note(case)

    def _send(self, case: Case) -> Answer:
        path = case.request["path"]
        if path.startswith(f"{PREFIX}/exec/") and len(path) > 64:
            path = _ID.sub(self._exec_id, path)
        if case.name == "volume-delete-anonymous":
            path = _ID.sub(self._volume, path)
        if path.startswith(f"{PREFIX}/events?since"):
            path = re.sub(r"since=\d+&until=\d+", f"since={self._began}&until={int(time.time()) + 1}", path)
        body = self._body(case)
        stdin = {"attach-upgrade": b"hello golden\n"}.get(case.name, b"" if case.stream and "/logs" not in path else None)
        if case.name == "exec-start-again":
            stdin = None
        return self.client.ask(
            case.request["method"],
            path,
            body,
            case.request["headers"],
            stdin=stdin,
            objects=2 if case.name == "stats-stream-two" else 0,
        )

    def _body(self, case: Case) -> bytes | None:
        body = case.request["body"]
        if body is None:
            return None
        if isinstance(body, dict) and "tar" in body:
            return bytes.fromhex(body["hex"]) if "hex" in body else self._saved
        if isinstance(body, dict) and body.keys() == {"text"}:
            return str(body["text"]).encode()
        return json.dumps(body).encode()

    def _note(self, case: Case) -> None:
        answer = self.answers[case.name]
        if case.name == "exec-create":
            self._exec_id = json.loads(answer.body)["Id"]
        if case.name == "volume-create-anonymous":
            self._volume = json.loads(answer.body)["Name"]
        if case.name == "image-save":
            self._saved = answer.body

    # What the recorder did between the cases without recording it

    def container(self, name: str, *, start: bool = True, **fields: Any) -> None:
        made = self.client.json("POST", f"/containers/create?name={name}", {"Image": IMAGE, **fields})
        assert "Id" in made, made
        if start:
            failure = self.client.json("POST", f"/containers/{name}/start")
            assert failure is None, failure  # or who attaches would wait for its start for ever

    def exec(self, **fields: Any) -> None:
        self._exec_id = self.client.json("POST", "/containers/golden-a/exec", fields)["Id"]

    def remove(self, name: str) -> None:
        self.client.json("DELETE", f"/containers/{name}?force=1")


def _import(client: Client, repository: str, tag: str) -> None:
    client.ask(
        "POST",
        f"{PREFIX}/images/create?fromSrc=-&repo={repository}&tag={tag}",
        tar_of({"x": b"x"}),
        {"Content-Type": "application/x-tar"},
    )


def tar_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _shell(line: str) -> list[str]:
    return ["sh", "-c", line]


def _terminal(replay: Replay) -> None:
    replay.container("golden-tty", Tty=True, OpenStdin=True, Cmd=_shell("echo tty-line; echo tty-err >&2; sleep 300"))
    time.sleep(1)


def _unhealthy(replay: Replay) -> None:
    probe = {"Test": ["CMD-SHELL", "echo probing; exit 1"], "Interval": 500000000, "Timeout": 1000000000, "Retries": 2}
    replay.container("golden-health", Cmd=["sleep", "60"], Healthcheck=probe)
    time.sleep(2.5)


def _delete_after_health(replay: Replay) -> None:
    replay.remove("golden-health")
    replay.container("golden-rm", start=False, Cmd=["true"])


def _pause(_: Replay) -> None:
    time.sleep(0.5)


_BEFORE: Mapping[str, Callable[[Replay], object]] = {
    "create-ok": lambda replay: _import(replay.client, "golden-nocmd", "1"),
    "start-304": lambda _: time.sleep(1),
    "logs-tty-raw": _terminal,
    "attach-upgrade": lambda replay: replay.container(
        "golden-att", OpenStdin=True, StdinOnce=True, AttachStdin=True, AttachStdout=True, Cmd=["cat"]
    ),
    "wait-exited": _pause,
    "exec-inspect-done": _pause,
    "exec-start-tty-no-upgrade": lambda replay: replay.exec(AttachStdout=True, Tty=True, Cmd=_shell("echo in-a-tty")),
    "exec-start-detached": lambda replay: replay.exec(Cmd=["sleep", "1"]),
    "exec-start-not-found": lambda replay: replay.exec(AttachStdout=True, Cmd=["/no/such/program"]),
    "start-bad-command": lambda replay: replay.container("golden-bad", start=False, Cmd=["/no/such/program"]),
    "inspect-unhealthy": _unhealthy,
    "delete": _delete_after_health,
    "image-push-unreachable": lambda replay: _import(replay.client, "registry.invalid/golden/pushme", "1"),
    "distribution-unreachable": lambda replay: replay.client.json(
        "DELETE", "/images/registry.invalid/golden/pushme:1?force=1"
    ),
    "network-connect": lambda replay: replay.container("golden-net", Cmd=["sleep", "120"]),
    "inspect-volume-mount": lambda replay: replay.container(
        "golden-vol", start=False, Cmd=["true"], HostConfig={"Binds": ["golden-vol1:/data:ro"]}
    ),
    "volume-delete": lambda replay: replay.remove("golden-vol"),
}


# Comparing


def differences(recorded: Any, ours: Any, where: str = "", *, free: bool = False) -> Iterator[str]:
    """In words, what is not of the same shape. `free`: the keys of this object are data."""
    if _kind(recorded) != _kind(ours):
        yield f"{where or 'body'}: {_kind(ours)} {_short(ours)} instead of {_kind(recorded)} {_short(recorded)}"
    elif isinstance(recorded, dict):
        if free:
            if recorded and ours:
                yield from differences(_first(recorded), _first(ours), f"{where}.*")
            return
        for name in recorded.keys() - ours.keys():
            yield f"{where}.{name}: missing"
        for name in ours.keys() - recorded.keys():
            yield f"{where}.{name}: not in the recording"
        for name in recorded.keys() & ours.keys():
            yield from differences(recorded[name], ours[name], f"{where}.{name}", free=name in FREE_KEYS)
    elif isinstance(recorded, list) and bool(recorded) != bool(ours):
        yield f"{where or 'body'}: {_short(ours)} instead of {_short(recorded)}"
    elif isinstance(recorded, list) and recorded:
        yield from differences(recorded[0], ours[0], f"{where}[]")


def _first(document: Mapping[str, Any]) -> Any:
    return next(iter(document.values()))


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "time" if re.match(r"\d{4}-\d\d-\d\dT", value) else "string"
    return {type(None): "null", list: "list", dict: "object"}[type(value)]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else text[:77] + "..."


def plain_message(text: str) -> str:
    """A message without what differs from run to run."""
    return _SHORT_ID.sub("ID", _ID.sub("ID", text))


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Docker's frames, sorted: stdout and stderr race."""
    found = []
    while data:
        size = int.from_bytes(data[4:8], "big")
        found.append((data[0], data[8 : 8 + size]))
        data = data[8 + size :]
    return sorted(found)


def decoded(answer: Answer) -> Any:
    """The body as the recorder kept it."""
    if not answer.body:
        return None
    text = answer.body.decode()
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return {"ndjson": [json.loads(line) for line in text.splitlines() if line.strip()]}
    except ValueError:
        return {"text": text}
