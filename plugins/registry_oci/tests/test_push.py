"""Blobs and manifests on their way to a registry: Debian's, and one that answers as a script says."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from urllib.parse import parse_qs, urlsplit

import pytest

from wharfie.spi.errors import Forbidden, Unauthorized, Unavailable
from wharfie.spi.registry import Credentials, Descriptor, Manifest, Reference, RegistryCapability

OCTETS = "application/octet-stream"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ME = Credentials(username="me", password="secret")


def blob_of(data: bytes) -> Descriptor:
    return Descriptor(media_type=OCTETS, digest="sha256:" + hashlib.sha256(data).hexdigest(), size=len(data))


def push(oci, ref, data: bytes, *, mount_from: str = "", auth=None) -> bool:
    with open(os.memfd_create("blob"), "w+b") as file:
        file.write(data)
        file.flush()
        return oci.push_blob(ref, blob_of(data), file.fileno(), mount_from=mount_from, auth=auth)


def manifest_of(config: bytes, layer: bytes) -> Manifest:
    def descriptor(data: bytes, kind: str) -> dict[str, object]:
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": blob_of(data).digest, "size": len(data)}

    data = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(config, "config.v1+json"),
            "layers": [descriptor(layer, "layer.v1.tar")],
        }
    ).encode()
    return Manifest(media_type=MANIFEST, digest=blob_of(data).digest, data=data)


def test_push_and_fetch(driver, registries, tools, tmp_path) -> None:
    with registries.running(tmp_path / "registry") as address:
        oci = driver()
        assert RegistryCapability.PUSH in oci.capabilities()
        ref = Reference(server=address, repository="a/b", tag="1")
        config, layer = b"{}", os.urandom(1_000_000)
        for data in (config, layer, b"1", b""):
            assert not oci.exists(ref, blob_of(data), None)
            assert push(oci, ref, data) is False
            assert oci.exists(ref, blob_of(data), None)
        manifest = manifest_of(config, layer)
        told = oci.push_manifest(ref, manifest, None)
        assert (told.digest, told.size) == (manifest.digest, len(manifest.data))
        assert oci.resolve(ref, None).data == manifest.data
        assert tools.fetch(oci, ref, layer) == layer

        other = Reference(server=address, repository="c", tag="1")
        with open(os.memfd_create("nothing"), "rb") as nothing:
            assert oci.push_blob(other, blob_of(layer), nothing.fileno(), mount_from="a/b", auth=None) is True
        assert oci.exists(other, blob_of(layer), None)
        assert push(oci, other, b"new", mount_from="a/b") is False
        assert oci.exists(other, blob_of(b"new"), None)


def test_basic_authentication(driver, registries, tmp_path) -> None:
    users = tmp_path / "users"
    subprocess.run(["htpasswd", "-Bbc", str(users), "me", "secret"], check=True, capture_output=True)
    with registries.running(tmp_path / "registry", more=f"auth: {{htpasswd: {{realm: r, path: {users}}}}}") as address:
        ref = Reference(server=address, repository="x", tag="1")
        assert push(driver(), ref, b"data", auth=ME) is False
        with pytest.raises(Unauthorized) as caught:
            push(driver(), ref, b"data")
        assert caught.value.message == "no basic auth credentials"
        with pytest.raises(Unauthorized):
            push(driver(), ref, b"data", auth=Credentials(username="me", password="guess"))


def test_a_token_to_push_and_to_mount(driver, script, reply_with) -> None:
    registry, token_server = script(), script()

    def serve(handler) -> None:
        if handler.headers.get("Authorization") != "Bearer good":
            challenge = f'Bearer realm="http://{token_server.address}/token",service="reg"'
            return reply_with(handler, 401, WWW_Authenticate=challenge)
        return reply_with(handler, 201)

    registry.answer = serve
    token_server.answer = lambda handler: reply_with(handler, 200, b'{"token": "good"}')
    ref = Reference(server=registry.address, repository="x", tag="1")
    assert push(driver(), ref, b"data", mount_from="y", auth=ME) is True
    query = parse_qs(urlsplit(token_server.seen[0][0]).query)
    assert query["scope"] == ["repository:x:pull,push", "repository:y:pull"]


@pytest.mark.parametrize(
    ("status", "body", "headers", "error", "message"),
    [
        (403, b"", {}, Forbidden, "denied: requested access to the resource is denied"),
        (403, b'{"errors":[{"code":"DENIED","message":"not yours"}]}', {}, Forbidden, "denied: not yours"),
        (
            401,
            b"",
            {"WWW_Authenticate": 'Bearer realm="",error="insufficient_scope"'},
            Forbidden,
            "denied: requested access to the resource is denied",
        ),
        (401, b"", {}, Unauthorized, "unauthorized: authentication required"),
        (500, b"", {}, Unavailable, "received unexpected HTTP status: 500 Internal Server Error"),
    ],
)
def test_refusals_in_dockers_words(driver, script, reply_with, status, body, headers, error, message) -> None:
    registry = script()
    registry.answer = lambda handler: reply_with(handler, status, body, **headers)
    with pytest.raises(error) as caught:
        push(driver(), Reference(server=registry.address, repository="x", tag="1"), b"data")
    assert caught.value.message == message


class Uploads:
    """A registry's uploads; the first `breaks` streams are cut after `kept` bytes."""

    def __init__(self, registry, reply_with, *, breaks: int, kept: int) -> None:
        self.data = b""
        self.breaks, self.kept = breaks, kept
        self.reply = reply_with
        self.address = registry.address
        self.done = False
        registry.answer = self.answer

    def answer(self, handler) -> None:
        where = {"Location": "/upload/1"}
        held = {"Range": f"0-{max(0, len(self.data) - 1)}"}
        if handler.command == "POST":
            return self.reply(handler, 202, **where)
        if handler.command == "GET":
            return self.reply(handler, 204, **where, **held)
        if handler.command == "PUT":
            self.done = True
            return self.reply(handler, 201)
        size = int(handler.headers["Content-Length"])
        start = int(handler.headers.get("Content-Range", "0-").partition("-")[0])
        assert start == len(self.data)
        if self.breaks:
            self.breaks -= 1
            self.data += handler.rfile.read(self.kept)
            handler.close_connection = True
            return handler.connection.shutdown(2)
        self.data += handler.rfile.read(size)
        return self.reply(handler, 202, **where, Range=f"0-{len(self.data) - 1}")


def test_a_broken_upload_goes_on_where_it_was(driver, script, reply_with) -> None:
    registry = script()
    uploads = Uploads(registry, reply_with, breaks=2, kept=100_000)
    data = os.urandom(1_000_000)
    assert push(driver(), Reference(server=registry.address, repository="x", tag="1"), data) is False
    assert uploads.done
    assert uploads.data == data


def test_an_upload_that_always_breaks_ends(driver, script, reply_with) -> None:
    registry = script()
    uploads = Uploads(registry, reply_with, breaks=100, kept=1)
    with pytest.raises(Unavailable):
        push(driver(), Reference(server=registry.address, repository="x", tag="1"), os.urandom(1_000_000))
    assert not uploads.done


@pytest.mark.parametrize("broken", [False, True])
def test_an_upload_that_failed_is_taken_back_while_the_registry_answers(driver, script, reply_with, broken) -> None:
    registry = script()
    asked = []

    def serve(handler) -> None:
        asked.append(handler.command)
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        if handler.command == "PUT" and broken:
            handler.close_connection = True
            return handler.connection.shutdown(2)
        status = {"PUT": 500, "DELETE": 204}.get(handler.command, 202)
        return reply_with(handler, status, Location="/upload/1")

    registry.answer = serve
    with pytest.raises(Unavailable):
        push(driver(), Reference(server=registry.address, repository="x", tag="1"), b"data")
    assert asked == ["POST", "PATCH", "PUT"] + ([] if broken else ["DELETE"])


def test_an_upload_does_not_carry_credentials_elsewhere(driver, script, reply_with) -> None:
    registry, thief = script(), script()

    def serve(handler) -> None:
        if "Authorization" not in handler.headers:
            return reply_with(handler, 401, WWW_Authenticate='Basic realm="r"')
        return reply_with(handler, 202, Location=f"http://{thief.address}/upload")

    registry.answer = serve
    thief.answer = lambda handler: (
        handler.rfile.read(int(handler.headers["Content-Length"])),
        reply_with(handler, 201 if handler.command == "PUT" else 202, Location="/upload"),
    )
    push(driver(), Reference(server=registry.address, repository="x", tag="1"), b"data", auth=ME)
    assert thief.seen
    assert not any("authorization" in headers for _, headers in thief.seen)

    registry.answer = lambda handler: reply_with(handler, 202, Location="http://192.0.2.1/upload")
    with pytest.raises(Unavailable, match="names no usable address"):
        push(driver(), Reference(server=registry.address, repository="x", tag="1"), b"data")
