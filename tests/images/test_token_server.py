"""Debian's registry behind a token server of ours, as Docker Hub has one: scopes, expiry, refusals, for pull and push."""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.harness import free_port
from tests.registries import Registry
from wharfie.spi.errors import WharfieError
from wharfie.spi.registry import Credentials

ME = Credentials(username="me", password="secret")
READER = Credentials(username="reader", password="weak")


class TokenServer:
    """Gives "me" everything and "reader" pull alone, in tokens (RFC 7519) that live as long as `life` says."""

    def __init__(self, folder: Path) -> None:
        self.life = 300
        self.asked: list[dict[str, list[str]]] = []
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens of a test")])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(name, name, self._key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(
            now + datetime.timedelta(hours=1)
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())
        self.bundle = folder / "tokens.pem"
        self.bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    issuer.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.server.daemon_threads = True
        self.realm = f"http://127.0.0.1:{self.server.server_port}/token"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        query = parse_qs(urlsplit(handler.path).query)
        self.asked.append(query)
        sent = base64.b64decode(handler.headers.get("Authorization", "Basic ").partition(" ")[2]).decode()
        allowed = {"me:secret": {"pull", "push"}, "reader:weak": {"pull"}, "": set[str]()}.get(sent)
        if allowed is None:
            handler.send_response(401)
            handler.end_headers()
            return
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.rsplit(":", 2)
            access.append({"type": kind, "name": name, "actions": sorted(set(actions.split(",")) & allowed)})
        body = json.dumps({"token": self._token(access), "expires_in": self.life}).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _token(self, access: list[dict[str, Any]]) -> str:
        chain = [base64.b64encode(self._certificate.public_bytes(serialization.Encoding.DER)).decode()]
        now = int(time.time())
        claims = {"iss": "test", "sub": "", "aud": "registry", "nbf": now - 60, "iat": now, "exp": now + 300}
        claims |= {"jti": str(len(self.asked)), "access": access}
        parts = [_encoded(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "RS256", "x5c": chain}, claims)]
        signature = self._key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
        return ".".join([*parts, _encoded(signature)])

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Registry, TokenServer]]:
    folder = tmp_path / "guarded"
    folder.mkdir()
    tokens = TokenServer(folder)
    auth = f"auth: {{token: {{realm: {tokens.realm}, service: registry, issuer: test, rootcertbundle: {tokens.bundle}}}}}\n"
    registry = Registry(folder, auth)
    yield registry, tokens
    registry.close()
    tokens.close()


@pytest.mark.root
@pytest.mark.parametrize("life", [300, 1])
def test_push_and_pull_with_tokens(with_house, make, guarded, life) -> None:
    """A token that has expired is fetched again, in the middle of a push too."""
    registry, tokens = guarded
    tokens.life = life
    name = f"{registry.address}/team/image"

    async def pieces():
        yield make.tar_of({"a": b"1" * 5000})

    async def work(house) -> None:
        options = {"repository": name, "tag": "1", "message": "", "changes": [], "platform": ""}
        await house.images.import_(pieces(), progress=lambda line: None, **options)
        image = house.images.get(f"{name}:1").id
        await house.images.push(name, "1", auth=ME, progress=lambda line: None)
        scopes = {scope for query in tokens.asked for scope in query.get("scope", [])}
        # Debian's registry names the actions in any order.
        assert scopes & {"repository:team/image:pull,push", "repository:team/image:push,pull"}
        assert all(query["service"] == ["registry"] for query in tokens.asked)
        assert (len(tokens.asked) <= 2) == (life == 300)  # one for each scope

        await house.images.remove(f"{name}:1", force=True, prune=True)
        tokens.asked.clear()
        await house.pull(name, "1", auth=READER)
        assert house.images.get(f"{name}:1").id == image
        assert {scope for query in tokens.asked for scope in query.get("scope", [])} == {"repository:team/image:pull"}

    with_house(work)


@pytest.mark.root
def test_who_may_not(with_house, make, guarded) -> None:
    registry, _ = guarded
    name = f"{registry.address}/team/image"

    async def pieces():
        yield make.tar_of({"a": b"1"})

    async def work(house) -> None:
        options = {"repository": name, "tag": "1", "message": "", "changes": [], "platform": ""}
        await house.images.import_(pieces(), progress=lambda line: None, **options)
        with pytest.raises(WharfieError, match="denied: requested access to the resource is denied"):
            await house.images.push(name, "1", auth=READER, progress=lambda line: None)
        for auth in (None, Credentials(username="me", password="guess")):
            with pytest.raises(WharfieError, match=r"unauthorized|denied|incorrect username or password"):
                await house.pull(name, "1", auth=auth)

    with_house(work)
