"""Answers that go on: logs, events, progress, uploads."""

from __future__ import annotations

import base64
import json
import threading
import time

import pytest

from wharfie.api.streams import PROGRESS_BACKLOG, Progress, log_head, timestamp
from wharfie.spi.errors import InvalidArgument, NotFound
from wharfie.spi.log import LogRun
from wharfie.spi.registry import Credentials

TIME = 1_767_323_045_000_000_007  # 2026-01-02T03:04:05.000000007Z


def run(stream: str, data: bytes, **attributes: str) -> LogRun:
    return LogRun(stream=stream, data=data, time_ns=TIME, attributes=attributes)  # type: ignore[arg-type]


@pytest.fixture
def logging_box(served):
    served.engine.containers.log = [run("stdout", b"out\n", b="2 3", a="1"), run("stderr", b"err")]
    return served


# Logs


def test_frames(logging_box):
    status, headers, data = logging_box.ask("GET", "/containers/box/logs?stdout=1&stderr=1")
    assert (status, headers["content-type"]) == (200, "application/vnd.docker.multiplexed-stream")
    assert data == b"\1\0\0\0\0\0\0\4out\n\2\0\0\0\0\0\0\3err"
    assert logging_box.ask("GET", "/containers/box/logs?stderr=1")[2] == b"\2\0\0\0\0\0\0\3err"
    old = logging_box.ask("GET", "/v1.41/containers/box/logs?stderr=1")
    assert old[1]["content-type"] == "application/vnd.docker.raw-stream"


def test_a_terminals_log_has_no_frames(logging_box):
    logging_box.engine.containers.box.config.tty = True
    _, headers, data = logging_box.ask("GET", "/containers/box/logs?stdout=1&stderr=1")
    assert (headers["content-type"], data) == ("application/vnd.docker.raw-stream", b"out\nerr")


def test_times_and_details():
    line = run("stdout", b"out\n", b="2 3", a="1")
    assert timestamp(TIME) == "2026-01-02T03:04:05.000000007Z"
    assert log_head(line, timestamps=True, details=False) == b"2026-01-02T03:04:05.000000007Z "
    assert log_head(line, timestamps=False, details=True) == b"a=1,b=2+3 "
    assert log_head(line, timestamps=True, details=True) == b"2026-01-02T03:04:05.000000007Z a=1,b=2+3 "
    assert log_head(run("stdout", b"x"), timestamps=False, details=True) == b" "
    assert log_head(line, timestamps=False, details=False) == b""


def test_entries_share_frames_unless_they_are_followed(served):
    served.engine.containers.log = [run("stdout", b"a\nb\n"), run("stdout", b"c\n"), run("stderr", b"d\n")]
    path = "/containers/box/logs?stdout=1&stderr=1"
    assert served.ask("GET", path)[2] == b"\1\0\0\0\0\0\0\6a\nb\nc\n\2\0\0\0\0\0\0\2d\n"
    assert b"a\n2026-01-02T03:04:05.000000007Z b\n" in served.ask("GET", path + "&timestamps=1")[2]
    apart = b"".join(b"\1\0\0\0\0\0\0\2" + line for line in (b"a\n", b"b\n", b"c\n"))
    with served.connect() as client:
        client.sendall(f"GET {path}&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        data = b""
        while not data.endswith(b"d\n\r\n"):
            data += client.recv(4096)
    assert apart in data


def test_errors_of_a_log_are_statuses(served):
    assert served.message("GET", "/containers/nobody/logs?stdout=1") == (404, "No such container: nobody")
    assert served.message("GET", "/containers/nobody/logs?stdout=1&follow=1") == (404, "No such container: nobody")
    assert served.message("GET", "/containers/box/logs?stdout=1&since=yesterday")[0] == 400


def test_a_client_that_leaves_ends_the_reader(logging_box, api_tools):
    with logging_box.connect() as client:
        client.sendall(b"GET /containers/box/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        status, _, rest = api_tools.read_head(client)
        assert status == 200
        while b"out" not in rest:
            rest += client.recv(100)
        assert not logging_box.engine.containers.log_ended.is_set()
    assert logging_box.engine.containers.log_ended.wait(5)


# Events


def test_events(served, api_tools):
    loop = served.loop
    emit = served.engine.events.emit
    with served.connect() as client:
        client.sendall(b'GET /events?filters={"type":["container"]} HTTP/1.1\r\nHost: x\r\n\r\n')
        status, headers, rest = api_tools.read_head(client)
        assert (status, headers["content-type"]) == (200, "application/json")
        loop.call_soon_threadsafe(emit, "network", "create", "n", {})
        loop.call_soon_threadsafe(emit, "container", "start", "abc", {"name": "box", "image": "i"})
        while b"\n" not in rest.partition(b"\r\n")[2].partition(b"\r\n")[0]:
            rest += client.recv(1000)
    event = json.loads(rest.partition(b"\r\n")[2].partition(b"\n")[0])
    assert event["Type"] == "container"
    assert (event["status"], event["id"], event["from"]) == ("start", "abc", "i")
    assert event["Actor"] == {"ID": "abc", "Attributes": {"image": "i", "name": "box"}}
    assert event["timeNano"] // 10**9 == event["time"]
    deadline = time.monotonic() + 5
    while served.engine.events.listeners and time.monotonic() < deadline:
        time.sleep(0.01)
    assert served.engine.events.listeners == 0


def test_events_of_the_past_end_at_until(served):
    now = time.time()
    served.loop.call_soon_threadsafe(served.engine.events.emit, "volume", "create", "v", {"driver": "local"})
    time.sleep(0.05)
    status, _, data = served.ask("GET", f"/events?since={now - 1:.6f}&until={time.time():.6f}")
    assert status == 200
    (event,) = [json.loads(line) for line in data.splitlines()]
    assert (event["Type"], "status" in event) == ("volume", False)


# Progress


def pull(served, **headers):
    return served.ask("POST", "/images/create?fromImage=x&tag=1", b"", headers)


def test_progress(served):
    served.engine.images.messages = [{"status": "Pulling", "id": "1"}, {"status": "Done"}]
    status, headers, data = pull(served)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert data == b'{"status":"Pulling","id":"1"}\r\n{"status":"Done"}\r\n'


def test_an_error_before_the_first_message_is_a_status(served):
    served.engine.images.error = NotFound("manifest unknown")
    status, _, data = pull(served)
    assert (status, json.loads(data)) == (404, {"message": "manifest unknown"})


def test_a_later_error_is_in_the_stream(served):
    served.engine.images.messages = [{"status": "Pulling"}]
    served.engine.images.error = InvalidArgument("broke off")
    status, _, data = pull(served)
    assert status == 200
    assert data.splitlines()[1] == b'{"errorDetail":{"message":"broke off"},"error":"broke off"}'


@pytest.mark.parametrize("messages", [[], [{"status": "Pulling"}]])
def test_a_client_that_leaves_cancels_the_work(served, messages):
    served.engine.images.messages = messages
    served.engine.images.hang = True
    with served.connect() as client:
        client.sendall(b"POST /images/create?fromImage=x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert served.engine.images.hanging.wait(20)
    assert served.engine.images.cancelled.wait(20)


def test_a_slow_client_misses_counts_but_no_message():
    progress = Progress()
    for number in range(PROGRESS_BACKLOG + 10):
        progress({"status": "Downloading", "progressDetail": {"current": number}})
    progress({"status": "Download complete"})
    lines = progress.take().splitlines()
    assert len(lines) == PROGRESS_BACKLOG + 1
    assert json.loads(lines[-1]) == {"status": "Download complete"}


def test_an_upload_is_not_held(served):
    size = 64 * 1024 * 1024
    piece = b"x" * 1024 * 1024

    def send(client):
        for _ in range(64):
            client.sendall(piece)

    with served.connect() as client:
        client.sendall(
            f"POST /images/load?quiet=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        sender = threading.Thread(target=send, args=(client,))
        sender.start()
        data = client.recv(1000)
        sender.join()
    assert data.startswith(b"HTTP/1.1 200")
    assert served.engine.images.uploaded == size


# Credentials


def test_credentials(served):
    document = {"username": "u", "password": "p>?", "serveraddress": "r", "identitytoken": "t"}
    header = base64.urlsafe_b64encode(json.dumps(document).encode()).decode()
    for text in (header, header.rstrip("=")):
        pull(served, **{"X-Registry-Auth": text})
        assert served.engine.images.auth == Credentials(username="u", password="p>?", identity_token="t")
    old = base64.urlsafe_b64encode(json.dumps({"auth": base64.b64encode(b"a:b").decode()}).encode()).decode()
    pull(served, **{"X-Registry-Auth": old})
    assert served.engine.images.auth == Credentials(username="a", password="b")
    for text in ("", "e30="):
        pull(served, **{"X-Registry-Auth": text})
        assert served.engine.images.auth is None


@pytest.mark.parametrize(("text", "answer"), [("%%%", 400), ("bm90anNvbg==", 400), ("W10=", 400), ("x" * 70_000, 431)])
def test_bad_credentials(served, text, answer):
    status, _, data = pull(served, **{"X-Registry-Auth": text})
    assert status == answer
    assert (b"X-Registry-Auth" if answer == 400 else b"Fields Too Large") in data
