"""Authorization drivers are asked in order about the parsed request; no answer is a refusal."""

from __future__ import annotations

import grp
import json
import os

import pytest

from wharfie.spi.authz import AuthzCapability, Decision
from wharfie.spi.errors import DeadlineExceeded


@pytest.fixture
def judged(serve):
    served = serve(authorization_plugins=("first", "second"))
    served.asked = []

    def allow(request):
        served.asked.append(request)
        return Decision(allow=True)

    served.engine.drivers.judges = {"first": allow, "second": allow}
    return served


def test_all_are_asked_about_what_is_executed(judged):
    body = {"Image": "i", "HostConfig": {"Privileged": True}}
    status, _, _ = judged.ask("POST", "/v1.45/containers/create?name=x&name=y", body)
    assert status == 201
    request = judged.asked[0]
    assert len(judged.asked) == 2
    assert (request.method, request.path) == ("POST", "/containers/create")
    assert request.parameters == {"name": "x\ny"}
    assert request.body == body
    assert json.loads(request.raw_body) == body
    assert (request.user, request.authentication) == ("root", "socket")
    assert judged.engine.containers.created[0].host_config.privileged is True


def test_an_escaped_path_is_judged_as_it_is_executed(judged):
    assert judged.ask("GET", "/v1.45/containers/b%6fx/json%2e%2e")[0] == 404
    assert judged.ask("GET", "/containers/%6eobody/json")[0] == 404
    assert judged.asked[-1].path == "/containers/nobody/json"


@pytest.mark.parametrize(
    ("judge", "reason"),
    [
        (lambda request: Decision(allow=False, reason="not today"), "not today"),
        (lambda request: (_ for _ in ()).throw(DeadlineExceeded("took too long")), "took too long"),
    ],
)
def test_one_refusal_is_enough(judged, judge, reason):
    judged.engine.drivers.judges["second"] = judge
    assert judged.message("POST", "/containers/create", {"Image": "i"}) == (
        403,
        f"authorization denied by plugin second: {reason}",
    )
    assert judged.engine.containers.created == []
    assert judged.ask("GET", "/_ping")[0] == 403


def test_a_missing_driver_refuses(judged):
    del judged.engine.drivers.judges["first"]
    status, text = judged.message("GET", "/info")
    assert status == 403
    assert text.startswith("authorization denied by plugin first: ")
    assert judged.asked == []


def test_who_wants_to_judge_answers_too_is_not_half_obeyed(judged):
    judged.engine.drivers.capabilities = frozenset({AuthzCapability.RESPONSES})
    assert judged.ask("GET", "/info")[0] == 403
    assert judged.asked == []


def test_a_stream_is_judged_before_the_connection_is_taken(judged, api_tools):
    judged.engine.drivers.judges["first"] = lambda request: Decision(allow=False, reason="no")
    with judged.connect() as client:
        client.sendall(
            b"POST /containers/box/attach?stream=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        assert api_tools.read_head(client)[0] == 403
    assert judged.engine.containers.attached == []


def test_an_archive_is_not_read_for_the_judges(judged):
    judged.ask("POST", "/images/load?quiet=1", b"x" * 100_000, {"Content-Type": "application/x-tar"})
    assert judged.asked[0].body is None
    assert judged.engine.images.uploaded == 100_000


def test_a_body_that_is_no_json_reaches_nobody(judged):
    status, _ = judged.message("POST", "/containers/create", b'{"Image":', {"Content-Type": "application/json"})
    assert status == 400
    assert judged.asked == []


def test_our_own_field_names_mean_nothing_on_the_wire(judged):
    """`host_config` beside `HostConfig` would be a field that judges do not look at."""
    hidden = {"Image": "i", "host_config": {"Privileged": True}, "HostConfig": {"privileged": True}}
    assert judged.ask("POST", "/containers/create", hidden)[0] == 201
    assert judged.engine.containers.created[0].host_config.privileged is False


def test_the_groups_of_a_sockets_user_are_told(judged):
    assert judged.ask("GET", "/_ping")[0] == 200
    own = {grp.getgrgid(number).gr_name for number in (os.getegid(), *os.getgroups())}
    assert set(judged.asked[0].groups) == own
