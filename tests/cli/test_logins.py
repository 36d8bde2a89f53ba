"""What `docker login` stored: in the file, with a helper, and what cannot be read."""

from __future__ import annotations

import base64
import json
import os

import click
import pytest

from wharfie.cli.pull import credentials

PAIR = base64.b64encode(b"me:se:cret").decode()
HELPER = """#!/bin/sh
read -r server
test "$1" = get || exit 3
case $server in
    asked.example) echo '{"ServerURL":"asked.example","Username":"me","Secret":"helped"}' ;;
    token.example) echo '{"Username":"<token>","Secret":"lasting"}' ;;
    odd.example) echo 'no json' ;;
    broken.example) echo 'the keyring is locked' >&2; exit 1 ;;
    *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Writes the docker command line's config.json; a helper `test` is in PATH."""
    (tmp_path / "docker-credential-test").write_text(HELPER)
    (tmp_path / "docker-credential-test").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return lambda document: (tmp_path / "config.json").write_text(
        document if isinstance(document, str) else json.dumps(document)
    )


def sent(name: str) -> dict[str, str] | None:
    header = credentials(name).get("X-Registry-Auth")
    return json.loads(base64.urlsafe_b64decode(header)) if header else None


@pytest.mark.parametrize(
    ("document", "name", "found"),
    [
        ({"auths": {"r.example": {"auth": PAIR}}}, "r.example/a:1", {"username": "me", "password": "se:cret"}),
        ({"auths": {"https://index.docker.io/v1/": {"auth": PAIR}}}, "busybox", {"username": "me", "password": "se:cret"}),
        ({"auths": {"r.example": {"auth": PAIR, "identitytoken": "t"}}}, "r.example/a", {"identitytoken": "t"}),
        ({"auths": {"r.example": {"auth": PAIR}}}, "other.example/a", None),
        ({"auths": {"r.example": {"auth": "not base64"}}}, "r.example/a", None),
        ({"auths": {"r.example": {"auth": "%%%"}}}, "r.example/a", None),
        ({"auths": {"r.example": 5}}, "r.example/a", None),
        ({"auths": []}, "r.example/a", None),
        ("[]", "r.example/a", None),
        ("{", "r.example/a", None),
        ({"credsStore": "test"}, "asked.example/a", {"username": "me", "password": "helped"}),
        ({"credsStore": "test"}, "token.example/a", {"identitytoken": "lasting"}),
        ({"credsStore": "test"}, "unknown.example/a", None),
        ({"credsStore": "nosuch", "credHelpers": {"asked.example": "test"}}, "asked.example/a",
         {"username": "me", "password": "helped"}),
        ({"credsStore": "test", "auths": {"unknown.example": {"auth": PAIR}}}, "unknown.example/a",
         {"username": "me", "password": "se:cret"}),
    ],
)  # fmt: skip
def test_what_is_sent(config, document, name, found) -> None:
    config(document)
    assert {key: value for key, value in (sent(name) or {}).items() if key != "serveraddress"} == (found or {})


@pytest.mark.parametrize(
    ("document", "name", "said"),
    [
        ({"credsStore": "test"}, "broken.example/a", "ended with 1: the keyring is locked"),
        ({"credsStore": "test"}, "odd.example/a", "did not answer with a user and a secret"),
        ({"credsStore": "nosuch"}, "r.example/a", "docker-credential-nosuch"),
    ],
)
def test_helpers_that_fail(config, document, name, said) -> None:
    config(document)
    with pytest.raises(click.ClickException, match=said):
        credentials(name)
