"""Servers that lie, break off, never end, or try to get at the credentials."""

from __future__ import annotations

import resource
import socket
import threading

import pytest

from wharfie.spi.errors import Cancelled, InvalidArgument, NotFound, Unavailable
from wharfie.spi.registry import Credentials, Reference

ME = Credentials(username="me", password="secret")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def endless(handler, status: int = 200) -> None:
    """A body that does not end, of a length that is not said."""
    handler.send_response(status)
    handler.send_header("Content-Type", MANIFEST)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    while True:
        handler.wfile.write(b" " * 65536)


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_a_manifest_that_does_not_end(driver, script) -> None:
    registry = script()
    registry.answer = endless
    before = peak_memory()
    with pytest.raises(InvalidArgument, match="longer than 4194304 bytes"):
        driver().resolve(Reference(server=registry.address, repository="x", tag="1"), None)
    assert peak_memory() - before < 64 << 10  # KiB


def test_an_error_that_does_not_end(driver, script) -> None:
    registry = script()
    registry.answer = lambda handler: endless(handler, 404)
    with pytest.raises(NotFound):
        driver().resolve(Reference(server=registry.address, repository="x", tag="1"), None)


def test_never_more_than_the_descriptor_says(driver, script, tools) -> None:
    registry = script()
    registry.answer = endless
    ref = Reference(server=registry.address, repository="x", tag="1")
    assert tools.fetch_blob(driver(), ref, tools.digest(b""), 1000) == b" " * 1000


def test_a_blob_that_breaks_off(driver, script, tools) -> None:
    registry = script()

    def answer(handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 400)
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    registry.answer = answer
    with pytest.raises(Unavailable, match="unexpected EOF"):
        tools.fetch_blob(driver(), Reference(server=registry.address, repository="x", tag="1"), tools.digest(b""), 1000)
    assert tools.fetch_blob.written == b"x" * 400


def test_ranges_that_are_not_honoured(driver, script, tools, reply_with) -> None:
    registry = script()
    ref = Reference(server=registry.address, repository="x", tag="1")
    data = bytes(range(250))
    registry.answer = lambda handler: reply_with(handler, 200, data)
    assert tools.fetch(driver(), ref, data, offset=100) == data[100:]
    assert registry.seen[0][1]["range"] == "bytes=100-"
    registry.answer = lambda handler: reply_with(handler, 206, data[120:], Content_Range="bytes 120-249/250")
    with pytest.raises(Unavailable, match="another part"):
        tools.fetch(driver(), ref, data, offset=100)


def test_credentials_do_not_follow_a_redirect(driver, script, tools, reply_with) -> None:
    registry, thief = script(), script()

    def answer(handler) -> None:
        if "Authorization" not in handler.headers:
            return reply_with(handler, 401, WWW_Authenticate='Basic realm="r"')
        return reply_with(handler, 307, Location=f"http://{thief.address}/stolen")

    registry.answer = answer
    ref = Reference(server=registry.address, repository="x", tag="1")
    thief.answer = lambda handler: reply_with(handler, 200, b"data")
    assert tools.fetch(driver(), ref, b"data", auth=ME) == b"data"
    # Nor when the other host asks for them.
    thief.answer = lambda handler: reply_with(handler, 401, WWW_Authenticate='Basic realm="give"')
    with pytest.raises(Exception, match="unauthorized"):
        tools.fetch(driver(), ref, b"data", auth=ME)
    assert len(thief.seen) == 2
    assert all("authorization" not in headers for _, headers in thief.seen)


def test_a_redirect_loop(driver, script, reply_with) -> None:
    registry = script()
    registry.answer = lambda handler: reply_with(handler, 302, Location=handler.path)
    with pytest.raises(Unavailable, match="stopped after 5 redirects"):
        driver().resolve(Reference(server=registry.address, repository="x", tag="1"), None)
    assert len(registry.seen) == 6


@pytest.mark.parametrize("location", ["http://192.0.2.1/x", "file:///etc/passwd", "ftp://h/x", "//", "https://"])
def test_redirects_to_where_nobody_should_go(driver, script, reply_with, location) -> None:
    registry = script()
    registry.answer = lambda handler: reply_with(handler, 302, Location=location)
    with pytest.raises(Unavailable):
        driver().resolve(Reference(server=registry.address, repository="x", tag="1"), None)


def test_come_back_later(driver, script, reply_with) -> None:
    registry = script()
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}'
    registry.answer = lambda handler: reply_with(handler, 429, body, Retry_After="7")
    with pytest.raises(Unavailable, match="toomanyrequests: slow down") as caught:
        driver().resolve(Reference(server=registry.address, repository="x", tag="1"), None)
    assert caught.value.retry_after == 7
    registry.answer = lambda handler: reply_with(handler, 503)
    with pytest.raises(Unavailable, match="received unexpected HTTP status: 503 Service Unavailable"):
        driver().resolve(Reference(server=registry.address, repository="x", tag="1"), None)


def test_a_server_that_says_nothing(driver, script) -> None:
    registry = script()
    done = threading.Event()
    registry.answer = lambda handler: done.wait(30)
    try:
        with pytest.raises(Unavailable, match="sent nothing for too long"):
            driver(**{"read-timeout": 0.3}).resolve(Reference(server=registry.address, repository="x", tag="1"), None)
    finally:
        done.set()


def test_a_reader_that_went_away(driver, script, tools) -> None:
    import os

    from wharfie.spi.registry import Descriptor

    registry = script()
    registry.answer = endless
    reading, writing = os.pipe()
    os.close(reading)
    blob = Descriptor(media_type="", digest=tools.digest(b""), size=1 << 30)
    try:
        with pytest.raises(Cancelled):
            driver().fetch(Reference(server=registry.address, repository="x", tag="1"), blob, writing, offset=0, auth=None)
    finally:
        os.close(writing)


def test_no_plain_http_beyond_loopback(driver) -> None:
    oci = driver()
    assert oci.describe_server("registry.example:5000") == {"endpoints": "https://registry.example:5000"}
    assert oci.describe_server("10.0.0.1") == {"endpoints": "https://10.0.0.1"}
    named = driver(**{"insecure-registries": ["registry.example:5000", "10.0.0.0/8"]})
    for server in ("registry.example:5000", "10.0.0.1", "[::1]:5000", "localhost:5000", "127.3.2.1"):
        assert named.describe_server(server) == {"endpoints": f"https://{server} http://{server}"}


def test_mirrors_are_asked_first_and_without_credentials(driver, script, reply_with) -> None:
    mirror = script()
    mirror.answer = lambda handler: reply_with(handler, 200, b"{}", Content_Type=MANIFEST)
    oci = driver(**{"registry-mirrors": [f"http://{mirror.address}/"]})
    hub = Reference(server="registry-1.docker.io", repository="library/x", tag="1")
    assert oci.resolve(hub, Credentials(registry_token="secret")).data == b"{}"
    ((path, headers),) = mirror.seen
    assert path == "/v2/library/x/manifests/1"
    assert "authorization" not in headers


def test_tags_over_pages_that_end(driver, script, reply_with) -> None:
    registry = script()

    def answer(handler) -> None:
        if "last=a" in handler.path:
            return reply_with(handler, 200, b'{"tags":["b"]}')
        return reply_with(handler, 200, b'{"tags":["a", 7]}', Link='</v2/x/tags/list?last=a&n=1>; rel="next"')

    registry.answer = answer
    assert driver().tags(Reference(server=registry.address, repository="x"), None) == ["a", "b"]
