"""Tokens, redirects and servers that misbehave, beyond what the kit tries; every server is a script of the test's."""

from __future__ import annotations

import json
import logging
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError
from wharfie_registry_plain.driver import PlainDriver
from wharfie_registry_plain.settings import Settings

from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.errors import Cancelled, InvalidArgument, NotFound, Unauthorized, Unavailable
from wharfie.spi.registry import Credentials, Descriptor, Reference

HOST = HostFacts(kernel=(6, 18), architecture="amd64", cgroup="v1", cpus=2, memory=1 << 30)
ME = Credentials(username="me", password="secret")


class Script:
    """`answer(handler)` writes the answer; every request is kept in `seen` as (path, authorization, body)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None, bytes]] = []
        self.answer: Callable[[Any], None] = lambda handler: reply(handler, 404)
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                script.seen.append((self.path, self.headers.get("Authorization"), body))
                try:
                    script.answer(self)
                except OSError:
                    self.close_connection = True  # the client has enough

            do_POST = do_GET  # noqa: N815  # the base class's spelling

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def reply(handler: Any, status: int, body: bytes = b"", **headers: str) -> None:
    """A whole answer; `_` in header names stands for `-`."""
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def script() -> Iterator[Callable[[], Script]]:
    made: list[Script] = []

    def build() -> Script:
        made.append(Script())
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.fixture
def driver(tmp_path: Path) -> PlainDriver:
    context = Context(
        state=tmp_path, run=tmp_path, instance="0badcafe", log=logging.getLogger("plain"), host=HOST, emit=lambda _: None
    )
    made = PlainDriver(context, Settings(timeout=5))
    made.open()
    return made


def ref(server: Script) -> Reference:
    return Reference(server=server.address, repository="x", tag="1")


def fetch(driver: PlainDriver, server: Script, size: int, *, offset: int = 0, auth: Credentials | None = None) -> bytes:
    blob = Descriptor(media_type="application/octet-stream", digest="sha256:" + "0" * 64, size=size)
    with open(os.memfd_create("blob"), "w+b") as file:
        driver.fetch(ref(server), blob, file.fileno(), offset=offset, auth=auth)
        file.seek(0)
        return file.read()


def guard(registry: Script, tokens: Script) -> None:
    """Let `registry` want a token of `tokens`, which gives one to "me" and to who says no name."""

    def serve(handler: Any) -> None:
        if handler.headers.get("Authorization") == "Bearer good":
            return reply(handler, 200, b"{}")
        challenge = f'Bearer realm="http://{tokens.address}/token",service=reg,scope="repository:x:pull"'
        return reply(handler, 401, WWW_Authenticate=challenge)

    def give(handler: Any) -> None:
        known = handler.headers.get("Authorization") in (None, "Basic bWU6c2VjcmV0")
        reply(handler, 200 if known else 401, json.dumps({"token": "good", "expires_in": 300}).encode())

    registry.answer, tokens.answer = serve, give


def test_a_token_is_fetched_once_and_for_one_user(driver, script) -> None:
    registry, tokens = script(), script()
    guard(registry, tokens)
    for _ in range(3):
        assert driver.resolve(ref(registry), ME).data == b"{}"
    ((path, authorization, _),) = tokens.seen
    assert parse_qs(urlsplit(path).query) == {"service": ["reg"], "scope": ["repository:x:pull"], "account": ["me"]}
    assert authorization == "Basic bWU6c2VjcmV0"
    assert {authorization for _, authorization, _ in registry.seen} == {None, "Bearer good"}
    driver.resolve(ref(registry), None)
    assert tokens.seen[1][1] is None


def test_wrong_credentials_of_a_token_server(driver, script) -> None:
    registry, tokens = script(), script()
    guard(registry, tokens)
    wrong = Credentials(username="me", password="guess")
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        driver.resolve(ref(registry), wrong)
    with pytest.raises(Unauthorized, match="login attempt"):
        driver.login(registry.address, wrong)
    assert driver.login(registry.address, ME).status == "Login Succeeded"


def test_an_identity_token_is_posted_and_follows_no_redirect(driver, script) -> None:
    registry, tokens, thief = script(), script(), script()
    guard(registry, tokens)
    assert driver.resolve(ref(registry), Credentials(identity_token="one")).data == b"{}"
    assert parse_qs(tokens.seen[0][2].decode())["refresh_token"] == ["one"]
    tokens.answer = lambda handler: reply(handler, 307, Location=f"http://{thief.address}/")
    with pytest.raises(Unavailable, match="answered 307"):
        driver.resolve(ref(registry), Credentials(identity_token="two"))
    assert thief.seen == []


@pytest.mark.parametrize("realm", ["http://192.0.2.1/token", "file:///etc/passwd", "https://[", "nothing"])
def test_token_servers_that_nobody_should_ask(driver, script, realm) -> None:
    registry = script()
    registry.answer = lambda handler: reply(handler, 401, WWW_Authenticate=f'Bearer realm="{realm}"')
    with pytest.raises(Unavailable, match="cannot be asked without TLS"):
        driver.resolve(ref(registry), ME)


def test_who_we_were_redirected_to_gets_no_credentials(driver, script) -> None:
    registry, thief = script(), script()

    def answer(handler: Any) -> None:
        if "Authorization" not in handler.headers:
            return reply(handler, 401, WWW_Authenticate='Basic realm="r"')
        return reply(handler, 307, Location=f"http://{thief.address}/stolen")

    registry.answer = answer
    thief.answer = lambda handler: reply(handler, 200, b"data")
    assert fetch(driver, registry, 4, auth=ME) == b"data"
    thief.answer = lambda handler: reply(handler, 401, WWW_Authenticate='Basic realm="give"')
    with pytest.raises(Unauthorized):
        fetch(driver, registry, 4, auth=ME)
    assert [authorization for _, authorization, _ in thief.seen] == [None, None]


@pytest.mark.parametrize("target", ["http://192.0.2.1/x", "file:///etc/passwd", "ftp://h/x", "https://", "http://["])
def test_redirects_to_where_nobody_should_go(driver, script, target) -> None:
    registry = script()
    registry.answer = lambda handler: reply(handler, 302, Location=target)
    with pytest.raises(Unavailable, match="not allowed"):
        driver.resolve(ref(registry), None)


def test_redirects_that_do_not_end(driver, script) -> None:
    registry = script()
    registry.answer = lambda handler: reply(handler, 302, Location=handler.path)
    with pytest.raises(Unavailable, match="stopped after 5 redirects"):
        driver.resolve(ref(registry), None)
    assert len(registry.seen) == 6


def test_a_part_that_was_not_asked_for(driver, script) -> None:
    registry, data = script(), bytes(range(250))
    registry.answer = lambda handler: reply(handler, 200, data)
    assert fetch(driver, registry, 250, offset=100) == data[100:]
    registry.answer = lambda handler: reply(handler, 206, data[120:], Content_Range="bytes 120-249/250")
    with pytest.raises(Unavailable, match="another part"):
        fetch(driver, registry, 250, offset=100)


def test_a_manifest_that_breaks_off_and_an_error_that_does_not_end(driver, script) -> None:
    registry = script()
    registry.answer = lambda handler: reply(handler, 200, b"{", Content_Length="10")
    with pytest.raises(Unavailable, match="unexpected EOF: 9 bytes"):
        driver.resolve(ref(registry), None)
    registry.answer = lambda handler: reply(handler, 404, b" " * (1 << 20))
    with pytest.raises(NotFound, match="manifest unknown"):
        driver.resolve(ref(registry), None)


def test_come_back_later(driver, script) -> None:
    registry = script()
    registry.answer = lambda handler: reply(handler, 429, Retry_After="7")
    with pytest.raises(Unavailable, match="toomanyrequests") as caught:
        driver.resolve(ref(registry), None)
    assert caught.value.retry_after == 7


def test_a_list_of_tags_stays_on_its_server_and_ends(driver, script) -> None:
    registry, other = script(), script()
    link = f'<http://{other.address}/v2/x/tags/list?last=a>; rel="next"'
    registry.answer = lambda handler: reply(
        handler, 200, b'{"tags":["a",1]}', **({} if "last" in handler.path else {"Link": link})
    )
    assert list(driver.tags(ref(registry), None)) == ["a", "a"]
    assert other.seen == []
    registry.answer = lambda handler: reply(handler, 200, b"[]")
    with pytest.raises(InvalidArgument, match="not a JSON object"):
        driver.tags(ref(registry), None)


def test_a_reader_that_went_away(driver, script) -> None:
    registry = script()
    registry.answer = lambda handler: reply(handler, 200, b"x" * 100)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(Cancelled):
            driver.fetch(
                ref(registry), Descriptor(media_type="", digest="sha256:0", size=100), writing, offset=0, auth=None
            )
    finally:
        os.close(writing)


def test_a_secret_that_is_no_header_is_not_told(driver, script) -> None:
    with pytest.raises(Unavailable) as caught:
        driver.resolve(ref(script()), Credentials(registry_token="sesame\nX: y"))
    assert "sesame" not in str(caught.value)


def test_nobody_there(driver) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable, match=f"dial tcp {address}: connect: connection refused"):
            driver.resolve(Reference(server=address, repository="x", tag="1"), None)


def beyond_loopback(server: Script) -> Reference:
    """The server by an address that leads to it and is none of loopback's."""
    return Reference(server=server.address.replace("127.0.0.1", "0.0.0.0"), repository="x", tag="1")


def test_no_plain_http_beyond_loopback(driver, script) -> None:
    registry = script()
    registry.answer = lambda handler: reply(handler, 200, b"{}")
    assert driver.resolve(ref(registry), None).data == b"{}"
    registry.seen.clear()
    with pytest.raises(Unavailable, match="tls"):
        driver.resolve(beyond_loopback(registry), ME)
    assert registry.seen == []


def test_certificates_are_verified_beyond_loopback(driver, script, tmp_path) -> None:
    registry = script()
    registry.answer = lambda handler: reply(handler, 200, b"{}")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=x",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    subprocess.run(words, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    # The handshake is the handling thread's, where a refused one is only an error of this connection.
    registry.server.socket = context.wrap_socket(registry.server.socket, server_side=True, do_handshake_on_connect=False)
    registry.server.handle_error = lambda request, address: None
    with pytest.raises(Unavailable, match="failed to verify certificate"):
        driver.resolve(beyond_loopback(registry), ME)
    assert registry.seen == []
    assert driver.resolve(ref(registry), None).data == b"{}"
    assert driver.describe_server(registry.address) == {"endpoints": f"https://{registry.address}"}


def test_where_plain_http_is_allowed() -> None:
    settings = Settings.model_validate({"insecure-registries": ["reg.example:5000", "10.9.0.0/16", "other.example"]})
    allowed = ["reg.example:5000", "10.9.1.2:80", "other.example:1", "localhost:5000", "127.3.2.1", "[::1]:5000", "[::1]"]
    assert [host for host in allowed if not settings.insecure(host)] == []
    refused = [
        "reg.example",
        "reg.example:443",
        "10.10.0.1",
        "localhost.example",
        "evil@localhost:80",
        "[2001:db8::1]:1",
        "",
    ]
    assert [host for host in refused if settings.insecure(host)] == []
    with pytest.raises(ValidationError):
        Settings.model_validate({"insecure-registries": ["10.9.0.0/99"]})
