"""Connections that are taken over, on a real socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path

import pytest

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


def frames(data: bytes) -> bytes:
    text = b""
    while data:
        size = int.from_bytes(data[4:8], "big")
        assert data[:4] == b"\1\0\0\0"
        text, data = text + data[8 : 8 + size], data[8 + size :]
    return text


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def talk(served, api_tools, request: bytes, *later: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send a request and stdin, half-close, and read all."""
    with served.connect() as client:
        client.sendall(request)
        for data in later:
            time.sleep(0.02)
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        status, headers, rest = api_tools.read_head(client)
        return status, headers, rest + api_tools.read_all(client)


def attach(version: str = "", extra: str = UPGRADE) -> bytes:
    return f"POST {version}/containers/box/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode()


def test_upgraded_stream_ends_stdin_by_half_close(served, api_tools):
    status, headers, data = talk(served, api_tools, attach(), b"hello ", b"world")
    assert status == 101
    assert headers["content-type"] == "application/vnd.docker.multiplexed-stream"
    assert headers["upgrade"] == "tcp"
    assert headers["api-version"] == "1.50"
    assert frames(data) == b"hello worldend after 11"


def test_the_status_line_is_literally_dockers(served, api_tools):
    with served.connect() as client:
        client.sendall(attach())
        assert client.recv(65536).startswith(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: ")


def test_early_stdin_in_the_same_packet(served, api_tools):
    status, _, data = talk(served, api_tools, attach() + b"early", b" late")
    assert (status, frames(data)) == (101, b"early lateend after 10")
    assert served.engine.containers.attached[0].initial == b"early"


def test_no_upgrade_header_still_takes_the_connection(served, api_tools):
    status, headers, data = talk(served, api_tools, attach(extra="") + b"early", b" late")
    assert status == 200
    assert headers["content-type"] == "application/vnd.docker.raw-stream"
    assert "transfer-encoding" not in headers
    assert "content-length" not in headers
    assert frames(data) == b"early lateend after 10"


def test_a_head_in_pieces(served, api_tools):
    request = attach(extra="") + b"stdin that is no HTTP"
    status, _, data = talk(served, api_tools, request[:3], request[3:70], request[70:75], request[75:])
    assert (status, frames(data)) == (200, b"stdin that is no HTTPend after 21")


def test_more_early_stdin_than_is_kept(served, api_tools):
    early = b"x" * 1_000_000
    with served.connect() as client:
        sender = threading.Thread(target=lambda: (client.sendall(attach() + early), client.shutdown(socket.SHUT_WR)))
        sender.start()
        status, _, rest = api_tools.read_head(client)
        data = rest + api_tools.read_all(client)
        sender.join()
    assert status == 101
    assert frames(data) == early + b"end after 1000000"


def test_before_1_42_frames_are_called_raw(served, api_tools):
    assert talk(served, api_tools, attach("/v1.41"))[1]["content-type"] == "application/vnd.docker.raw-stream"


def test_a_terminal_has_no_frames(served, api_tools):
    served.engine.containers.box.config.tty = True
    _, headers, data = talk(served, api_tools, attach(), b"x")
    assert headers["content-type"] == "application/vnd.docker.raw-stream"
    assert data == b"xend after 1"


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("extra", [UPGRADE, ""])
def test_exec_has_a_body_before_its_stream(served, api_tools, extra, split):
    body = b'{"Detach":false,"Tty":false}'
    head = (
        f"POST /v1.45/exec/ee/start HTTP/1.1\r\nHost: x\r\n{extra}Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    pieces = (head, body[:5], body[5:] + b"early", b" late") if split else (head + body + b"early", b" late")
    status, _, data = talk(served, api_tools, *pieces)
    assert status == (101 if extra else 200)
    assert frames(data) == b"early lateend after 10"
    assert served.engine.execs.started[0][1].stdin is True


def test_detached_exec_keeps_the_connection(served, api_tools):
    body = b'{"Detach":true}'
    request = (
        b"POST /exec/ee/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with served.connect() as client:
        for _ in range(3):
            client.sendall(request + body)
            status, headers, _ = api_tools.read_head(client)
            assert (status, headers.get("content-length")) == (200, "0")
    assert [start[0] for start in served.engine.execs.started] == [None] * 3


def test_errors_before_the_stream_are_statuses(served, api_tools):
    request = attach().replace(b"/box/", b"/nobody/")
    status, _, data = talk(served, api_tools, request + b"input that nobody will read")
    assert status == 404
    assert json.loads(data)["message"] == "No such container: nobody"


def test_after_an_error_without_upgrade_the_connection_goes_on(served, api_tools):
    request = attach(extra="").replace(b"/box/", b"/nobody/")
    with served.connect() as client:
        for _ in range(2):
            client.sendall(request)
            status, headers, rest = api_tools.read_head(client)
            while len(rest) < int(headers["content-length"]):
                rest += client.recv(100)
            assert status == 404


def test_wait_answers_at_once_and_is_finished_by_the_owner(served, api_tools):
    with served.connect() as client:
        client.sendall(b"POST /v1.45/containers/box/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, rest = api_tools.read_head(client)
        assert (status, headers["content-type"], headers["connection"]) == (200, "application/json", "close")
        assert rest == b""
        owned, reply = served.engine.containers.waiting.get(timeout=5)
        with owned:
            owned.sendall(reply.before + b"3" + reply.after)
        assert json.loads(api_tools.read_all(client)) == {"StatusCode": 3}


def test_wait_with_a_bad_condition(served):
    assert served.message("POST", "/containers/box/wait?condition=whenever") == (400, 'invalid condition: "whenever"')
    assert served.message("POST", "/containers/nobody/wait") == (404, "No such container: nobody")


def test_no_descriptor_is_left(served, api_tools):
    talk(served, api_tools, attach(), b"x")
    before = open_descriptors()
    for _ in range(20):
        talk(served, api_tools, attach(), b"x")
    deadline = time.monotonic() + 5
    while open_descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert open_descriptors() <= before


def test_a_half_closed_plain_request_is_answered(served, api_tools):
    status, _, data = talk(served, api_tools, b"GET /version HTTP/1.0\r\n\r\n")
    assert status == 200
    assert json.loads(data)["ApiVersion"] == "1.50"


def test_pipelined_requests_are_answered_in_order(served, api_tools):
    request = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with served.connect() as client:
        client.sendall(request + request + last)
        data = api_tools.read_all(client)
    assert data.count(b"HTTP/1.1 200") == 3
    assert data.index(b"OK") < data.index(b"ApiVersion")
