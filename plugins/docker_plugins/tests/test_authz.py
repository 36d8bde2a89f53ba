"""Authorization by a legacy plugin: it fails closed."""

from __future__ import annotations

import base64
import json

import pytest

from wharfie.spi.authz import ApiRequest, ApiResponse, AuthzCapability
from wharfie.spi.errors import WharfieError


@pytest.fixture
def server(plugins):
    return plugins("judge", "authz")


@pytest.fixture
def driver(server, make):
    return make("authz", "judge")


def request(body=None, **changes):
    fields = {
        "user": "ann",
        "authentication": "TLS",
        "method": "POST",
        "path": "/containers/create",
        "version": "1.43",
        "parameters": {"name": "a b", "x": "1\n2"},
        "body": body,
    }
    return ApiRequest(**(fields | changes))


def test_what_the_plugin_is_shown(driver, server):
    assert driver.capabilities() == {AuthzCapability.RESPONSES}
    assert driver.request(request({"Image": "i"}, peer_certificates=(b"der",))).allow
    ((method, asked),) = server.calls("AuthZReq")
    assert method == "AuthZPlugin.AuthZReq"
    assert (asked["User"], asked["UserAuthNMethod"]) == ("ann", "TLS")
    assert (asked["RequestMethod"], asked["RequestUri"]) == ("POST", "/v1.43/containers/create?name=a+b&x=1&x=2")
    assert json.loads(base64.b64decode(asked["RequestBody"])) == {"Image": "i"}
    assert asked["RequestHeaders"] == {"Content-Type": "application/json"}
    assert b"BEGIN CERTIFICATE" in base64.b64decode(asked["RequestPeerCertificates"][0])
    driver.request(request(method="GET", path="/_ping", parameters={}, authentication="socket"))
    _, asked = server.calls("AuthZReq")[-1]
    assert (asked["RequestUri"], asked["UserAuthNMethod"]) == ("/_ping", "")
    assert "RequestBody" not in asked


def test_a_refusal_has_the_plugins_words(driver):
    decision = driver.request(request({"HostConfig": {"Privileged": True}}))
    assert (decision.allow, decision.reason.partition(" for ")[0]) == (False, "no privileged containers")


@pytest.mark.parametrize(("mode", "reason"), [("error", "broken inside"), ("strange", "refused without a reason")])
def test_anything_but_a_clear_yes_is_a_no(driver, server, mode, reason):
    (server.state / "mode").write_text(mode)
    decision = driver.request(request())
    assert (decision.allow, decision.reason) == (False, reason)


def test_silence_and_absence_are_errors_which_refuse(driver, server, monkeypatch):
    monkeypatch.setattr("wharfie_docker_plugins.authz._SECONDS", 0.2)
    (server.state / "mode").write_text("sleep")
    with pytest.raises(WharfieError, match="timed out"):
        driver.request(request())
    server.stop()
    with pytest.raises(WharfieError, match="does not answer"):
        driver.request(request())
    with pytest.raises(WharfieError):
        driver.response(request(), ApiResponse(status=200))


def test_a_method_that_it_lacks_is_no_permission(plugins, make):
    plugins("half", "authz", "--without", "AuthZReq")
    with pytest.raises(WharfieError):
        make("authz", "half").request(request())


def test_answers(driver, server):
    assert driver.response(request(), ApiResponse(status=200, body=b"hello", headers={"a": "b"})).allow
    decision = driver.response(request(), ApiResponse(status=200, body=b"a secret"))
    assert (decision.allow, decision.reason) == (False, "it says a secret")
    _, asked = server.calls("AuthZRes")[0]
    assert (asked["ResponseStatusCode"], base64.b64decode(asked["ResponseBody"])) == (200, b"hello")
    assert asked["ResponseHeaders"] == {"a": "b"}


def test_a_body_that_is_too_large_is_not_cut_but_refused(driver, server):
    decision = driver.request(request({"Image": "x" * (4 * 1024 * 1024 + 1)}))
    assert not decision.allow
    assert server.calls("AuthZReq") == []
