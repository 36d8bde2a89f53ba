"""hosts.toml, as containerd has it: mirrors, what they are asked for, and where their certificates are."""

from __future__ import annotations

import base64
import ssl
import subprocess

import pytest
from wharfie_registry_oci import hosts
from wharfie_registry_oci.endpoints import Endpoints
from wharfie_registry_oci.settings import Settings

from wharfie.spi.errors import InvalidArgument, NotFound, Unavailable
from wharfie.spi.registry import Credentials, Reference

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ME = Credentials(username="me", password="secret")
BASIC = "Basic " + base64.b64encode(b"me:secret").decode()


def write(tmp_path, folder: str, text: str) -> None:
    (tmp_path / "certs.d" / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "certs.d" / folder / "hosts.toml").write_text(text)


def serving(server, reply, data: bytes = b"{}") -> None:
    server.answer = lambda handler: reply(handler, 200, data, Content_Type=MANIFEST)


def test_a_mirror_is_asked_first_and_gets_no_credentials(driver, script, reply_with, tmp_path) -> None:
    registry, mirror = script(), script()
    serving(registry, reply_with)
    serving(mirror, reply_with, b'{"a": 1}')
    write(tmp_path, registry.address, f'[host."http://{mirror.address}".header]\nx-team = "blue"')
    oci = driver()
    ref = Reference(server=registry.address, repository="x", tag="1")
    assert oci.resolve(ref, ME).data == b'{"a": 1}'
    ((path, headers),) = mirror.seen
    assert path == "/v2/x/manifests/1"
    assert headers["x-team"] == "blue"
    assert "authorization" not in headers
    assert registry.seen == []
    mirror.answer = lambda handler: reply_with(handler, 404)
    assert oci.resolve(ref, None).data == b"{}"


def test_capabilities(driver, script, reply_with, tmp_path) -> None:
    """What a tag means is asked for elsewhere than blobs by digest."""
    registry, mirror = script(), script()
    serving(registry, reply_with)
    serving(mirror, reply_with)
    write(tmp_path, registry.address, f'[host."http://{mirror.address}"]\ncapabilities = ["pull"]')
    oci = driver()
    digest = oci.resolve(Reference(server=registry.address, repository="x", tag="1"), None).digest
    assert (len(registry.seen), len(mirror.seen)) == (1, 0)
    oci.resolve(Reference(server=registry.address, repository="x", digest=digest), None)
    assert (len(registry.seen), len(mirror.seen)) == (1, 1)


def test_paths_and_a_server_of_another_name(driver, script, reply_with, tmp_path) -> None:
    real, mirror = script(), script()
    mirror.answer = lambda handler: reply_with(handler, 404)
    real.answer = lambda handler: (
        reply_with(handler, 200, b"{}", Content_Type=MANIFEST)
        if handler.headers.get("Authorization") == BASIC
        else reply_with(handler, 401, WWW_Authenticate='Basic realm="r"')
    )
    text = f'server = "http://{real.address}"\n[host."http://{mirror.address}/proxy"]\n'
    text += f'[host."http://{mirror.address}/v2/hub"]\noverride_path = true'
    write(tmp_path, "registry.invalid_5000_", text)
    assert driver().resolve(Reference(server="registry.invalid:5000", repository="x", tag="1"), ME).data == b"{}"
    assert [path for path, _ in mirror.seen] == ["/proxy/v2/x/manifests/1", "/v2/hub/x/manifests/1"]
    assert real.seen


def test_the_default_and_the_hub(driver, script, reply_with, tmp_path) -> None:
    mirror = script()
    serving(mirror, reply_with)
    write(tmp_path, "_default", f'server = "http://{mirror.address}"')
    oci = driver()
    assert oci.resolve(Reference(server="registry.invalid", repository="x", tag="1"), None).data == b"{}"
    write(tmp_path, "docker.io", f'server = "http://{mirror.address}"')
    serving(mirror, reply_with, b"[]")
    assert oci.resolve(Reference(server="registry-1.docker.io", repository="library/x", tag="1"), None).data == b"[]"
    mirror.answer = lambda handler: reply_with(handler, 404)
    with pytest.raises(NotFound):
        oci.resolve(Reference(server="registry-1.docker.io", repository="library/x", tag="1"), None)


def test_settings_of_the_server_itself_need_no_name(driver, script, reply_with, tmp_path) -> None:
    """Above all tables: they are the server's, which is reached as it is without a file."""
    registry, mirror = script(), script()
    serving(registry, reply_with)
    serving(mirror, reply_with, b"[]")
    text = f'capabilities = ["pull"]\n[header]\nx-team = "red"\n[host."http://{mirror.address}"]\n'
    write(tmp_path, registry.address, text)
    oci = driver()
    mirror.answer = lambda handler: reply_with(handler, 404)
    with pytest.raises(Unavailable, match="has no endpoint"):
        oci.resolve(Reference(server=registry.address, repository="x", tag="1"), None)
    assert registry.seen == []
    oci.resolve(Reference(server=registry.address, repository="x", digest="sha256:" + "0" * 64), None)
    ((_, headers),) = registry.seen
    assert headers["x-team"] == "red"


def test_a_server_that_is_written_to_be_plain(tmp_path) -> None:
    """Its own addresses, of uploads and tokens, are plain too; those of others stay refused."""
    write(tmp_path, "registry.example", 'server = "http://192.0.2.7:5000"')
    endpoints = Endpoints(Settings(certificates=tmp_path / "certs.d"))
    assert not endpoints.allows("http://192.0.2.7:5000/v2/x/blobs/uploads/1")
    assert [endpoint.url for endpoint in endpoints.of("registry.example")] == ["http://192.0.2.7:5000"]
    assert endpoints.allows("http://192.0.2.7:5000/v2/x/blobs/uploads/1")
    assert not endpoints.allows("http://192.0.2.8:5000/v2/x/blobs/uploads/1")


@pytest.fixture
def authority(tmp_path):
    """A CA of the test's, a certificate for 127.0.0.1 by it, and one for a client."""
    folder = tmp_path / "ca"
    folder.mkdir()

    def openssl(*words: object) -> None:
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", "/CN=ca", "-keyout", folder / "ca.key",
            "-out", folder / "ca.crt")  # fmt: skip
    for name in ("server", "client"):
        key, request, certificate = (folder / f"{name}.{kind}" for kind in ("key", "csr", "cert"))
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
        openssl("x509", "-req", "-in", request, "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key", "-CAcreateserial",
                "-days", 2, "-extfile", folder / "names", "-out", certificate)  # fmt: skip
    return folder


def test_a_mirror_that_wants_a_certificate(driver, script, reply_with, tmp_path, authority) -> None:
    """Both sides' certificates as hosts.toml names them; without them nothing is told."""
    registry, mirror = script(), script()
    serving(registry, reply_with)
    serving(mirror, reply_with, b"[]")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.cert", authority / "server.key")
    context.load_verify_locations(authority / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    mirror.server.socket = context.wrap_socket(mirror.server.socket, server_side=True)
    ref = Reference(server=registry.address, repository="x", tag="1")
    host = f'[host."https://{mirror.address}"]\n'
    pair = f'client = [["{authority}/client.cert", "{authority}/client.key"]]\n'
    for text, answer in (
        (f'ca = "{authority}/ca.crt"\n' + pair, b"[]"),
        (f'ca = ["{authority}/ca.crt"]\n', b"{}"),
        ("skip_verify = true\n" + pair, b"[]"),
        (f'ca = "{authority}/client.cert"\n' + pair, b"{}"),  # another authority than the mirror's
    ):
        write(tmp_path, registry.address, host + text)
        oci = driver()
        assert oci.resolve(ref, None).data == answer, text


def test_certificates(tmp_path) -> None:
    text = '[host."https://m"]\nca = "ca.crt"\nclient = [["us.cert", "us.key"], "both.pem"]\nskip_verify = true'
    write(tmp_path, "r", text)
    found = hosts.read(tmp_path / "certs.d", "r")
    assert found is not None
    (mirror,) = found.mirrors
    folder = tmp_path / "certs.d" / "r"
    assert mirror.authorities == (folder / "ca.crt",)
    assert mirror.client == ((folder / "us.cert", folder / "us.key"), (folder / "both.pem", None))
    assert mirror.skip_verify


@pytest.mark.parametrize(
    "text",
    [
        "server = ",
        "server = 7",
        'server = "ftp://x"',
        "host = 3",
        '[host."https://m"]\ncapabilities = ["fly"]',
        '[host."https://m"]\nca = 4',
        '[host."https://m"]\nclient = [["a", "b", "c"]]',
        '[host."https://m"]\nheader = 1',
    ],
)
def test_files_that_cannot_be_used(driver, tmp_path, text) -> None:
    write(tmp_path, "127.0.0.1:9", text)
    with pytest.raises(InvalidArgument, match=r"hosts\.toml cannot be used"):
        driver().resolve(Reference(server="127.0.0.1:9", repository="x", tag="1"), None)
