"""Authorization drivers are asked in order about the parsed request; no answer is a refusal."""

from __future__ import annotations

import grp
import json
import os

import pytest

from wharfie.api import authz
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


@pytest.fixture
def answers(judged):
    """What the judges are shown of answers; a reason that is put into `refusing` makes them refuse."""
    seen = []
    judged.refusing = ""

    def judge(request, response):
        seen.append((request.path, response))
        if judged.refusing == "late":
            raise DeadlineExceeded("took too long")
        return Decision(allow=not judged.refusing, reason=judged.refusing)

    judged.engine.drivers.capabilities = frozenset({AuthzCapability.RESPONSES})
    judged.engine.drivers.answer_judge = judge
    return seen


def test_answers_are_judged_whole_before_they_are_sent(judged, answers):
    assert judged.ask("GET", "/info")[0] == 200
    path, response = answers[0]
    assert len(answers) == 2  # both drivers
    assert (path, response.status, response.body) == ("/info", 200, b'{"ID":"x"}\n')
    assert response.headers["content-type"] == "application/json"
    assert judged.ask("GET", "/containers/nobody/json")[0] == 404
    assert answers[-1][1].status == 404
    assert judged.ask("POST", "/containers/box/stop")[0] == 204


@pytest.mark.parametrize(("refusing", "reason"), [("secret", "secret"), ("late", "took too long")])
def test_a_refused_answer_is_not_sent(judged, answers, refusing, reason):
    judged.refusing = refusing
    assert judged.message("GET", "/info") == (403, f"authorization denied by plugin first: {reason}")
    assert judged.message("GET", "/containers/nobody/json")[0] == 403
    assert judged.message("GET", "/containers/box/logs?stdout=1") == (
        403,
        f"authorization denied by plugin first: {reason}",
    )


def test_a_stream_is_judged_by_its_head(judged, answers):
    assert judged.ask("GET", "/containers/box/logs?stdout=1")[0] == 200
    assert answers[0][1].status == 200
    assert answers[0][1].body == b""


def test_an_answer_that_is_too_large_to_be_judged_is_not_sent(judged, answers, monkeypatch):
    monkeypatch.setattr(authz, "ANSWER_LIMIT", 5)
    status, text = judged.message("GET", "/info")
    assert status == 403
    assert "cannot be judged" in text


def test_a_refused_request_is_no_answer_to_judge(judged, answers):
    judged.engine.drivers.judges["second"] = lambda request: Decision(allow=False, reason="no")
    assert judged.ask("GET", "/info")[0] == 403
    assert answers == []


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
