"""Versions, headers, bodies, parameters and errors."""

from __future__ import annotations

import json
import time

import pytest

from wharfie.api import protocol

PING_HEADERS = {
    "api-version": "1.50",
    "docker-experimental": "false",
    "ostype": "linux",
    "swarm": "inactive",
    "cache-control": "no-cache, no-store, must-revalidate",
    "pragma": "no-cache",
    "content-type": "text/plain; charset=utf-8",
}


def test_ping(served):
    status, headers, body = served.ask("GET", "/_ping")
    assert (status, body) == (200, b"OK")
    assert PING_HEADERS.items() <= headers.items()
    assert headers["server"].startswith("wharfie/")
    assert "builder-version" in headers


def test_ping_by_head(served):
    status, headers, body = served.ask("HEAD", "/_ping")
    assert (status, body, headers["content-length"]) == (200, b"", "0")
    assert PING_HEADERS.items() <= headers.items()


@pytest.mark.parametrize("prefix", ["", "/v1.24", "/v1.45", "/v1.50"])
def test_versions_that_are_served(served, prefix):
    assert served.ask("GET", f"{prefix}/version")[0] == 200


def test_versions_that_are_not(served):
    assert served.message("GET", "/v1.99/info") == (
        400,
        "client version 1.99 is too new. Maximum supported API version is 1.50",
    )
    assert served.message("GET", "/v1.20/info") == (
        400,
        "client version 1.20 is too old. Minimum supported API version is 1.24, "
        "please upgrade your client to a newer version",
    )


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1.45/no/such/page"), ("DELETE", "/v1.45/info"), ("GET", "/"), ("HEAD", "/info")]
)
def test_page_not_found(served, method, path):
    status, headers, body = served.ask(method, path)
    assert status == 404
    assert "api-version" not in headers
    if method != "HEAD":
        assert body == b'{"message":"page not found"}\n'


def test_options_allows_web_pages_nothing(served):
    status, headers, body = served.ask("OPTIONS", "/v1.45/info", headers={"Origin": "http://evil.example"})
    assert (status, body) == (200, b"")
    assert not [name for name in headers if name.startswith("access-control")]


# Errors


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/containers/nobody/json", 404, "No such container: nobody"),
        ("POST", "/containers/box/pause", 409, "Container box is already paused"),
        ("POST", "/containers/box/unpause", 503, "not now"),
        ("POST", "/containers/box/kill", 500, "internal error: RuntimeError: a defect"),
        ("GET", "/exec/0123/json", 404, "No such exec instance: 0123"),
        ("GET", "/plugins/nothing-here/json", 404, 'plugin "nothing-here" not found'),
        ("GET", "/images/a/b/c:d/json", 404, "No such image: a/b/c:d"),
        ("POST", "/v1.45/session", 400, "no upgrade proto in request"),
        ("POST", "/v1.45/grpc", 500, "no upgrade proto in request"),
    ],
)
def test_errors(served, method, path, status, text):
    assert served.message(method, path) == (status, text)


def test_after_a_defect_the_connection_still_works(served, api_tools):
    with served.connect() as client:
        client.sendall(b"POST /containers/box/kill HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers, rest = api_tools.read_head(client)
        while len(rest) < int(headers["content-length"]):
            rest += client.recv(1000)
        assert status == 500
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert api_tools.read_head(client)[0] == 200


# Bodies


def create(served, body, **headers):
    return served.message("POST", "/v1.45/containers/create", body, headers)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"Image": ', "invalid JSON: unexpected EOF"),
        (b"", "invalid JSON: got EOF while reading request body"),
        (b"{nope", "invalid JSON: invalid character 'n' looking for beginning of object key string"),
        (b'{"Tty": ?}', "invalid JSON: invalid character '?' looking for beginning of value"),
        (b'{"Tty" true}', "invalid JSON: invalid character 't' after object key"),
        (b'{"Tty":true "x"}', "invalid JSON: invalid character '\"' after object key:value pair"),
        (b"[1 2]", "invalid JSON: invalid character '2' after array element"),
        (b"{} {}", "invalid JSON: unexpected content after JSON"),
        (b"[" * 100_000, "invalid JSON: exceeded max depth"),
        (b'{"a":' * 100_000, "invalid JSON: exceeded max depth"),
        (b"[]", "invalid JSON: cannot unmarshal array into field the body: expected an object"),
        (b'{"Tty":1}', "invalid JSON: cannot unmarshal number into field Tty: expected true or false"),
        (b'{"Env":"A=b"}', "invalid JSON: cannot unmarshal string into field Env: expected an array"),
        (
            b'{"HostConfig":{"Memory":"5"}}',
            "invalid JSON: cannot unmarshal string into field HostConfig.Memory: expected a whole number",
        ),
        (
            b'{"HostConfig":{"Memory":99999999999999999999}}',
            "invalid JSON: cannot unmarshal number 99999999999999999999 into a field of type int64",
        ),
    ],
)
def test_bad_json(served, body, text):
    assert create(served, body, **{"Content-Type": "application/json"}) == (400, text)
    assert served.engine.containers.created == []


def test_json_may_be_lenient_where_dockers_is(served):
    body = b'{"Image":"i","Cmd":"ls","Env":null,"HostConfig":null,"Unknown":{"x":[1]},"Healthcheck":{"Test":["NONE"]}}'
    status, _, answer = served.ask("POST", "/containers/create", body, {"Content-Type": "application/json; charset=utf-8"})
    assert (status, json.loads(answer)["Warnings"]) == (201, [])
    request = served.engine.containers.created[0]
    assert (request.image, request.cmd, request.env) == ("i", ["ls"], None)


def test_the_content_type_must_be_json(served):
    assert create(served, b"Image=x", **{"Content-Type": "application/x-www-form-urlencoded"}) == (
        400,
        "unsupported Content-Type header (application/x-www-form-urlencoded): must be 'application/json'",
    )
    assert create(served, b'{"Image":"x"}', **{"Content-Type": "text/plain"})[0] == 400


def test_a_body_has_a_limit_declared_or_not(served, api_tools):
    head = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    piece = b"x" * 0x10000
    for length, framed in (
        (b"Content-Length: 5242880", piece),
        (b"Transfer-Encoding: chunked", b"10000\r\n" + piece + b"\r\n"),
    ):
        with served.connect() as client:
            client.sendall(head + length + b"\r\n\r\n")
            for _ in range(80):
                client.sendall(framed)
            status, _, rest = api_tools.read_head(client)
            assert status == 400
            assert b"too large" in (rest or client.recv(1000))


def test_a_chunked_body(served, api_tools):
    with served.connect() as client:
        client.sendall(
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
            b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"Ima\r\n8\r\nge":"i"}\r\n0\r\n\r\n'
        )
        assert api_tools.read_answer(client)[0] == 201
    assert served.engine.containers.created[0].image == "i"


@pytest.mark.parametrize("path", ["/containers/create", "/containers/box/attach"])
def test_two_lengths_are_refused_and_the_connection_is_closed(served, api_tools, path):
    with served.connect() as client:
        client.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 6\r\n".encode()
            + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        answer = api_tools.read_all(client)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert served.engine.containers.created == []


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"x" * 100_000, 431),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000, 431),
        (b"GET /_ping HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 66_000 + b"\r\n\r\n", 431),
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    ],
)
def test_heads_that_are_too_long_or_none(served, api_tools, request_bytes, status):
    with served.connect() as client:
        client.sendall(request_bytes)
        assert api_tools.read_all(client).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_head_that_does_not_come(served, api_tools, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    whole = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
    with served.connect() as silent, served.connect() as slow, served.connect() as second, served.connect() as busy:
        slow.sendall(whole[:9])
        second.sendall(whole)
        assert api_tools.read_head(second)[0] == 200
        second.sendall(whole[:-2])  # its first head was in time
        busy.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n" + whole[:9])
        assert api_tools.read_all(silent) == b""
        assert api_tools.read_all(slow).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"HTTP/1.1 408 Request Timeout\r\n" in api_tools.read_all(second)
        assert api_tools.read_head(busy)[0] == 200  # an answer that is under way is not cut off
        busy.settimeout(0.5)
        with pytest.raises(TimeoutError):
            busy.recv(1)


def test_start_takes_no_settings(served):
    assert served.ask("POST", "/containers/box/start", b"{}", {"Content-Type": "application/json"})[0] == 304
    assert served.message("POST", "/containers/box/start", {"Binds": ["/:/host"]})[0] == 400


# Parameters


@pytest.mark.parametrize("value", ["", "0", "no", "False", "none", " NONE "])
def test_false(served, value):
    assert served.message("GET", f"/containers/box/logs?stdout={value.replace(' ', '%20')}") == (
        400,
        "Bad parameters: you must choose at least one stream",
    )


@pytest.mark.parametrize("value", ["1", "true", "yes", "2", "whatever"])
def test_true(served, value):
    assert served.ask("GET", f"/containers/box/logs?stdout={value}")[0] == 200


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"label":["a=b","c"]}', {"label": ["a=b", "c"]}),
        ('{"label":{"a=b":true,"c":false}}', {"label": ["a=b"]}),
        ("{}", {}),
        ("", {}),
    ],
)
def test_both_forms_of_filters(served, text, found):
    assert served.ask("GET", f"/containers/json?filters={_quoted(text)}")[0] == 200
    assert served.engine.filters == found


@pytest.mark.parametrize("text", ["notjson", "[]", '{"a":1}', '{"a":[1]}', '{"a":{"b":1}}', "[" * 5000])
def test_filters_that_are_none(served, text):
    assert served.message("GET", f"/containers/json?filters={_quoted(text)}") == (400, "invalid filter")


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("h=x&w=1", 'strconv.Atoi: parsing "x": invalid syntax'),
        ("h=1", 'strconv.Atoi: parsing "": invalid syntax'),
        ("h=1&w=99999999999999999999", 'strconv.Atoi: parsing "99999999999999999999": invalid syntax'),
        ("h=1&w=-1", "a terminal cannot have -1 rows or columns"),
    ],
)
def test_bad_sizes(served, query, text):
    assert served.message("POST", f"/containers/box/resize?{query}") == (400, text)


def test_sizes_and_timeouts(served):
    assert served.ask("POST", "/containers/box/resize?h=40&w=120")[0] == 200
    assert served.engine.size == (40, 120)
    served.ask("POST", "/containers/box/stop?t=-1&signal=INT")
    assert served.engine.stopped == (-1, "INT")
    served.ask("POST", "/containers/box/stop")
    assert served.engine.stopped == (None, "")


# Not active


def test_swarm_is_inactive(served):
    for path in ("/swarm", "/nodes", "/services", "/tasks/x"):
        status, text = served.message("GET", path)
        assert (status, text.partition(".")[0]) == (503, "This node is not a swarm manager")


def test_what_is_experimental(served):
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/one")):
        status, text = served.message(method, f"/containers/box/checkpoints{path}")
        assert (status, text.partition(".")[0]) == (501, "This experimental feature is disabled by default")
    status, text = served.message("POST", "/containers/box/start?checkpoint=one")
    assert (status, text) == (400, "checkpoint is only supported in experimental mode")


def test_what_is_not_there_yet(served):
    for path, word in (("/build", "build images"), ("/swarm/init", "swarm mode"), ("/swarm/join", "swarm mode")):
        status, text = served.message("POST", path)
        assert (status, word in text) == (501, True)
    assert served.ask("GET", "/plugins")[2] == b"[]\n"
    assert served.ask("POST", "/build/prune")[2] == b'{"CachesDeleted":null,"SpaceReclaimed":0}\n'
    assert served.ask("GET", "/wharfie/plugins")[2] == b"[]\n"


def test_many_stuck_connections_stop_nobody(served):
    stuck = [served.connect() for _ in range(200)]
    for client in stuck:
        client.sendall(b"GET /_ping HTTP/1.1\r\nHo")
    assert served.ask("GET", "/_ping")[0] == 200
    for client in stuck:
        client.close()


def test_a_client_that_never_reads_stops_nobody(served):
    with served.connect() as client:
        client.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                sent += client.send(b"GET /containers/box/json/none HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
            except BlockingIOError:
                if served.ask("GET", "/_ping")[0] == 200:
                    break
        assert sent
