"""Bearer tokens, from a token server that the test scripts."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs, urlsplit

import pytest

from wharfie.spi.errors import NotFound, Unauthorized, Unavailable
from wharfie.spi.registry import Credentials, Reference

ME = Credentials(username="me", password="secret")
BASIC = "Basic " + base64.b64encode(b"me:secret").decode()


def guarded(registry, token_server, reply, manifest: bytes, *, token: str = "good", life: int = 300) -> None:
    """Let `registry` demand a token of `token_server`, which gives one to "me" and to anonymous clients."""

    def serve(handler) -> None:
        if handler.headers.get("Authorization") == f"Bearer {token}":
            return reply(handler, 200, manifest, Content_Type="application/vnd.oci.image.manifest.v1+json")
        challenge = f'Bearer realm="http://{token_server.address}/token",service="reg",scope="repository:x:pull"'
        return reply(handler, 401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', WWW_Authenticate=challenge)

    def give(handler) -> None:
        if handler.headers.get("Authorization") not in (None, BASIC):
            return reply(handler, 401)
        return reply(handler, 200, json.dumps({"token": token, "expires_in": life}).encode())

    registry.answer = serve
    token_server.answer = give


def test_a_token_is_fetched_once_for_a_repository(driver, script, reply_with) -> None:
    registry, token_server = script(), script()
    guarded(registry, token_server, reply_with, b"{}")
    ref = Reference(server=registry.address, repository="x", tag="1")
    oci = driver()
    for _ in range(3):
        assert oci.resolve(ref, ME).data == b"{}"
    ((path, headers),) = token_server.seen
    query = parse_qs(urlsplit(path).query)
    assert query == {"service": ["reg"], "scope": ["repository:x:pull"], "account": ["me"]}
    assert headers["authorization"] == BASIC
    assert BASIC not in [headers.get("authorization") for _, headers in registry.seen]
    oci.resolve(ref, None)
    assert "authorization" not in token_server.seen[1][1]


def test_a_token_that_expires_is_fetched_again(driver, script, reply_with) -> None:
    registry, token_server = script(), script()
    guarded(registry, token_server, reply_with, b"{}", life=5)
    oci = driver()
    for _ in range(2):
        oci.resolve(Reference(server=registry.address, repository="x", tag="1"), ME)
    assert len(token_server.seen) == 2


def test_wrong_credentials(driver, script, reply_with) -> None:
    registry, token_server = script(), script()
    guarded(registry, token_server, reply_with, b"{}")
    wrong = Credentials(username="me", password="guess")
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        driver().resolve(Reference(server=registry.address, repository="x", tag="1"), wrong)
    with pytest.raises(Unauthorized):
        driver().login(registry.address, wrong)
    assert driver().login(registry.address, ME).status == "Login Succeeded"


def test_an_identity_token_is_exchanged_without_following_redirects(driver, script, reply_with) -> None:
    registry, token_server, thief = script(), script(), script()
    guarded(registry, token_server, reply_with, b"{}")
    ref = Reference(server=registry.address, repository="x", tag="1")
    identity = Credentials(identity_token="secret identity")
    assert driver().resolve(ref, identity).data == b"{}"
    token_server.answer = lambda handler: reply_with(handler, 307, Location=f"http://{thief.address}/")
    with pytest.raises(Unavailable):
        driver().resolve(ref, identity)
    assert thief.seen == []


def test_a_login_asks_for_what_stands_for_the_password(driver, script, reply_with) -> None:
    registry, token_server = script(), script()
    guarded(registry, token_server, reply_with, b"{}")
    for given, identity in (("lasting", "lasting"), (None, ""), (5, ""), ("a\r\nb", "")):
        answer = json.dumps({"token": "good", "refresh_token": given}).encode()
        token_server.answer = lambda handler, answer=answer: reply_with(handler, 200, answer)
        token_server.seen.clear()
        assert driver().login(registry.address, ME).identity_token == identity
        query = parse_qs(urlsplit(token_server.seen[0][0]).query)
        assert (query["offline_token"], query["client_id"], query["account"]) == (["true"], ["wharfie"], ["me"])
    driver().resolve(Reference(server=registry.address, repository="x", tag="1"), ME)
    assert "offline_token" not in parse_qs(urlsplit(token_server.seen[-1][0]).query)


def test_a_registry_token_is_sent_as_it_is(driver, script, reply_with) -> None:
    registry, token_server = script(), script()
    guarded(registry, token_server, reply_with, b"{}", token="mine")
    ref = Reference(server=registry.address, repository="x", tag="1")
    assert driver().resolve(ref, Credentials(registry_token="mine")).data == b"{}"
    assert token_server.seen == []


def test_access_denied(driver, script, reply_with) -> None:
    registry = script()
    body = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
    registry.answer = lambda handler: reply_with(handler, 403, body)
    with pytest.raises(NotFound) as caught:
        driver().resolve(Reference(server=registry.address, repository="x", tag="1"), None)
    assert caught.value.message == (
        f"pull access denied for {registry.address}/x, repository does not exist or may require 'docker login': "
        "denied: requested access to the resource is denied"
    )


@pytest.mark.parametrize(
    "answer", [b"[" * 100_000, b"{}", b'{"token": 7}', b'{"token": "a\\r\\nX-Evil: 1"}', b'{"token":"' + b"x" * (2 << 20)]
)
def test_bad_answers_of_a_token_server(driver, script, reply_with, answer) -> None:
    registry, token_server = script(), script()
    guarded(registry, token_server, reply_with, b"{}")
    token_server.answer = lambda handler: reply_with(handler, 200, answer)
    with pytest.raises(Exception, match=r"token|JSON"):
        driver().resolve(Reference(server=registry.address, repository="x", tag="1"), ME)


def test_a_token_server_elsewhere_must_have_tls(driver, script, reply_with) -> None:
    registry = script()
    challenge = 'Bearer realm="http://192.0.2.1/token",service="s"'
    registry.answer = lambda handler: reply_with(handler, 401, WWW_Authenticate=challenge)
    with pytest.raises(Unavailable, match="without TLS"):
        driver().resolve(Reference(server=registry.address, repository="x", tag="1"), ME)
