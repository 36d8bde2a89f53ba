"""The driver against Debian's docker-registry: plain, TLS, basic authentication."""

from __future__ import annotations

import subprocess

import pytest

from wharfie.spi.errors import NotFound, Unauthorized, Unavailable
from wharfie.spi.registry import Credentials, Reference


def test_plain_http_on_loopback(driver, registries, tools, tmp_path) -> None:
    with registries.running(tmp_path / "registry") as address:
        manifest, blob = registries.push(address, "a/b:1", tmp_path / "image")
        oci = driver()
        by_tag = oci.resolve(Reference(server=address, repository="a/b", tag="1"), None)
        assert by_tag.data == manifest
        assert by_tag.digest == tools.digest(manifest)
        assert by_tag.media_type == "application/vnd.oci.image.manifest.v1+json"
        ref = Reference(server=address, repository="a/b", digest=by_tag.digest)
        assert oci.resolve(ref, None) == by_tag
        assert tools.fetch(oci, ref, blob) == blob
        assert tools.fetch(oci, ref, blob, offset=1000) == blob[1000:]
        assert tools.fetch(oci, ref, blob, offset=len(blob)) == b""
        assert oci.tags(Reference(server=address, repository="a/b"), None) == ["1"]
        with pytest.raises(NotFound, match=f"manifest for {address}/a/b:2 not found: manifest unknown: manifest unknown"):
            oci.resolve(Reference(server=address, repository="a/b", tag="2"), None)
        with pytest.raises(NotFound):
            oci.tags(Reference(server=address, repository="nothing"), None)
        assert oci.describe_server(address) == {"endpoints": f"http://{address}"}


def certificates(folder) -> None:
    """An authority `ca.crt`, and `server.crt`, `server.key` for 127.0.0.2."""
    folder.mkdir()
    (folder / "names").write_text("subjectAltName=IP:127.0.0.2")
    request = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for command in (
        [*request, "-x509", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt"],
        [*request, "-subj", "/CN=registry", "-keyout", "server.key", "-out", "server.csr"],
        [
            "openssl",
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "names",
            "-out",
            "server.crt",
        ],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)


def test_tls_by_an_authority_of_certs_d(driver, registries, tools, tmp_path) -> None:
    keys = tmp_path / "keys"
    certificates(keys)
    tls = f"tls: {{certificate: {keys / 'server.crt'}, key: {keys / 'server.key'}}}"
    with registries.running(tmp_path / "registry", host="127.0.0.2", http=tls) as address:
        manifest, blob = registries.push(address, "x:1", tmp_path / "image")
        ref = Reference(server=address, repository="x", tag="1")
        trusted = tmp_path / "certs.d" / address
        trusted.mkdir(parents=True)
        (trusted / "ca.crt").write_bytes((keys / "ca.crt").read_bytes())
        oci = driver()
        assert oci.resolve(ref, None).data == manifest
        assert tools.fetch(oci, ref, blob) == blob
        assert oci.describe_server(address) == {"endpoints": f"https://{address}"}

        # Another authority: even on loopback, a folder for the server means that it is checked.
        other = tmp_path / "other"
        certificates(other)
        (trusted / "ca.crt").write_bytes((other / "ca.crt").read_bytes())
        with pytest.raises(Unavailable):
            driver().resolve(ref, None)
        (trusted / "ca.crt").write_text("no certificate")
        with pytest.raises(Exception, match="cannot be used"):
            driver().resolve(ref, None)


def test_basic_authentication(driver, registries, tools, tmp_path) -> None:
    users = tmp_path / "users"
    subprocess.run(["htpasswd", "-Bbc", str(users), "me", "secret"], check=True, capture_output=True)
    with registries.running(tmp_path / "registry", more=f"auth: {{htpasswd: {{realm: r, path: {users}}}}}") as address:
        manifest, blob = registries.push(address, "x:1", tmp_path / "image", "--dest-creds=me:secret")
        ref = Reference(server=address, repository="x", tag="1")
        me, wrong = Credentials(username="me", password="secret"), Credentials(username="me", password="guess")
        oci = driver()
        assert oci.resolve(ref, me).data == manifest
        assert tools.fetch(oci, ref, blob, auth=me) == blob
        with pytest.raises(Unauthorized, match="no basic auth credentials"):
            oci.resolve(ref, None)
        with pytest.raises(Unauthorized, match="unauthorized: authentication required"):
            oci.resolve(ref, wrong)
        assert oci.login(address, me).status == "Login Succeeded"
        with pytest.raises(Unauthorized, match="failed with status: 401 Unauthorized"):
            oci.login(address, wrong)
