"""What drivers of the registry protocol share: challenges, what holds for how long, lists, refusals."""

from __future__ import annotations

import email.utils
import json
import re
import time

import pytest

from wharfie.spi import distribution
from wharfie.spi.distribution import Authorizations, begin_of, next_page, parse_challenges, read_token, referrer, refused
from wharfie.spi.errors import Forbidden, InvalidArgument, NotFound, Unauthorized, Unavailable, WharfieError
from wharfie.spi.registry import Credentials, Reference

REF = Reference(server="r.example", repository="a/b", tag="1")
ME = Credentials(username="me", password="secret")


def test_challenges() -> None:
    both = parse_challenges('Basic realm="a, b", Bearer realm="https://t/",service="s",scope="repository:x:pull,push"')
    assert [(challenge.scheme, dict(challenge.parameters)) for challenge in both] == [
        ("bearer", {"realm": "https://t/", "service": "s", "scope": "repository:x:pull,push"}),
        ("basic", {"realm": "a, b"}),
    ]
    assert parse_challenges("Negotiate abc") == []


def test_an_authorization_holds_a_little_less_long_than_said(monkeypatch) -> None:
    now = 1000.0
    known = Authorizations()
    asker = ("r.example", "repository:a/b:pull", ME)
    monkeypatch.setattr(distribution.time, "monotonic", lambda: now)
    assert known.remember(asker, "Bearer x", 100_000_000) == "Bearer x"
    assert known.header(asker) == "Bearer x"
    assert known.header((*asker[:2], None)) == ""
    now += 3589
    assert known.header(asker) == "Bearer x"
    now += 2
    assert known.header(asker) == ""
    known.remember(asker, "Bearer y", 60)
    known.forget(asker)
    assert known.header(asker) == ""
    assert known.header(("r.example", "", Credentials(registry_token="t"))) == "Bearer t"


def test_only_so_many_are_kept() -> None:
    known = Authorizations()
    for number in range(300):
        known.remember((str(number), "", None), "Bearer x", 60)
    assert known.header(("0", "", None)) == ""
    assert known.header(("299", "", None)) == "Bearer x"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"token": "a", "expires_in": 300}, ("a", 300.0)),
        ({"access_token": "a"}, ("a", 60.0)),
        ({"token": "a", "expires_in": -5}, ("a", 60.0)),
        ({"token": "a", "expires_in": "soon"}, ("a", 60.0)),
    ],
)
def test_tokens(body, found) -> None:
    assert read_token(json.dumps(body).encode(), "https://t/") == found


@pytest.mark.parametrize("token", [None, "", 5, "a\r\nX-Evil: 1", "\u00e4"])
def test_what_is_no_token(token) -> None:
    with pytest.raises(Unavailable, match="sent no token"):
        read_token(json.dumps({"token": token}).encode(), "https://t/")
    with pytest.raises(InvalidArgument, match="the token of https://t/ is not a JSON object"):
        read_token(b"[]", "https://t/")


def test_pages_and_parts() -> None:
    assert next_page({"Link": '</v2/a/tags/list?n=2&last=b>; rel="next"'}) == "/v2/a/tags/list?n=2&last=b"
    assert next_page({"Link": '</v2/a>; rel="prev"'}) is None
    assert next_page({}) is None
    assert begin_of(206, {"Content-Range": "bytes 5-9/10"}) == 5
    assert begin_of(200, {"Content-Range": "bytes 5-9/10"}) == 0
    assert begin_of(206, {"Content-Range": "five"}) == 0


def test_a_line_of_referrers_that_is_odd() -> None:
    found = referrer({"mediaType": 5, "digest": None, "size": "1", "annotations": {"a": 1}, "artifactType": "x/y"})
    assert (found.media_type, found.digest, found.size, found.artifact_type) == ("5", "", 0, "x/y")
    assert found.annotations == {"a": "1"}


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (404, "MANIFEST_UNKNOWN", NotFound, "manifest for r.example/a/b:1 not found: manifest unknown: why"),
        (404, "", NotFound, "manifest for r.example/a/b:1 not found: manifest unknown: 404 Words"),
        (404, "NAME_UNKNOWN", NotFound, "repository r.example/a/b not found: name unknown: why"),
        (401, "", Unauthorized, "unauthorized: authentication required"),
        (401, "DENIED", NotFound, "pull access denied for r.example/a/b, .*: denied: why"),
        (403, "", Forbidden, "r.example/a/b:1: the registry refuses access: 403 Words"),
        (429, "", Unavailable, "toomanyrequests: the registry asks to come back later"),
        (503, "", Unavailable, "received unexpected HTTP status: 503 Words"),
        (418, "", WharfieError, "the registry r.example does not answer for r.example/a/b:1: 418 Words"),
    ],
)
def test_refusals(status, code, kind, text) -> None:
    body = json.dumps({"errors": [{"code": code, "message": "why"}]}).encode() if code else b"<html>"
    error = refused(REF, status, "Words", {}, body)
    assert type(error) is kind
    assert re.fullmatch(text, error.message)


def test_when_to_come_back() -> None:
    assert refused(REF, 429, "", {"Retry-After": "7"}, b"").retry_after == 7
    assert refused(REF, 503, "", {"Retry-After": "99999999"}, b"").retry_after == 3600
    later = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert 90 < refused(REF, 429, "", {"Retry-After": later}, b"").retry_after < 101
    assert refused(REF, 429, "", {"Retry-After": "soon"}, b"").retry_after is None
