"""The file: reloaded when it changes, everything refused when it is not right."""

from __future__ import annotations

import json
import logging
import os

import pytest
from wharfie_authz_policy import file as policy_file
from wharfie_authz_policy.driver import PolicyDriver
from wharfie_authz_policy.settings import PolicySettings

from wharfie.spi.authz import ApiRequest
from wharfie.spi.driver import Context, HostFacts

ALL = '[[rules]]\nwho = ["anyone"]\n'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "policy.toml"


@pytest.fixture
def driver(tmp_path, path):
    return make_driver(tmp_path, path)


def make_driver(tmp_path, path):
    facts = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v1", cpus=2, memory=1 << 30)
    log = logging.getLogger("policy")
    context = Context(state=tmp_path, run=tmp_path, instance="0" * 8, log=log, host=facts, emit=lambda event: None)
    return PolicyDriver(context, PolicySettings(file=path))


def ask(driver, body=None, path="/info"):
    request = ApiRequest(user="root", authentication="socket", method="POST", path=path, body=body)
    return driver.request(request)


def test_a_missing_file_refuses_until_it_is_there(driver, path):
    assert ask(driver).reason == f"the policy file {path} cannot be read: No such file or directory"
    (problem,) = driver.check()
    assert not problem.fatal
    path.write_text(ALL)
    assert ask(driver).allow
    assert driver.check() == ()
    assert dict(driver.status())["Rules"] == "1"
    path.unlink()
    assert not ask(driver).allow
    assert dict(driver.status())["Rules"].startswith("none, everything is refused")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[rules]\n", "(at line 1"),
        ('[[rules]]\nwho = ["root"]\n', "rules.0.who.0: "),
        ('[[rules]]\nwho = ["anyone"]\nefect = "deny"\n', "rules.0.efect: Extra inputs"),
        ("rule = 1\n", "rule: "),
        (b"\xff", "utf-8"),
        ("#" * (1024 * 1024 + 1), "larger than"),
    ],
)
def test_a_broken_file_refuses_and_names_the_place(driver, path, text, words):
    path.write_text(ALL)
    assert ask(driver).allow
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    decision = ask(driver)
    assert not decision.allow
    assert decision.reason.startswith(f"the policy file {path} is broken: ")
    assert words in decision.reason
    path.write_text(ALL)
    assert ask(driver).allow


def test_a_change_that_leaves_no_trace_in_the_time_stamps_is_seen_all_the_same(driver, path):
    one, two = ALL.replace("anyone", "tls:aa"), ALL.replace("anyone", "anyone")
    assert len(one) == len(two)
    path.write_text(one)
    stamp = path.stat().st_mtime_ns
    assert not ask(driver).allow
    path.write_text(two)
    os.utime(path, ns=(stamp, stamp))
    assert ask(driver).allow


def test_an_old_file_is_not_read_for_each_request(driver, path, monkeypatch):
    path.write_text(ALL)
    monkeypatch.setattr(policy_file, "_SETTLED_NS", -1)
    assert ask(driver).allow
    monkeypatch.setattr(policy_file, "_document", lambda path: pytest.fail("read again"))
    assert ask(driver).allow


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_may_write_is_not_obeyed(driver, path, mode):
    path.write_text(ALL)
    path.chmod(mode)
    assert "chmod 0644" in ask(driver).reason
    path.chmod(0o644)
    assert ask(driver).allow


def test_a_file_of_somebody_else_is_not_obeyed(driver, path):
    path.write_text(ALL)
    os.chown(path, 1000, -1)
    assert not ask(driver).allow


def test_a_fifo_does_not_hold_the_requests(driver, path):
    os.mkfifo(path)
    assert "no regular file" in ask(driver).reason


def test_json_too(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"rules": [{"who": ["anyone"], "containers": {"host-mounts": ["/srv"]}}]}))
    driver = make_driver(tmp_path, path)
    assert ask(driver).allow
    path.write_text("[" * 100_000)
    assert not ask(driver).allow


@pytest.mark.parametrize("source", ["/srv/\0x:/y", "/srv/" + "x" * 5000 + ":/y"])
def test_a_body_that_trips_the_judge_is_refused_and_no_failure_of_the_driver(driver, path, source):
    path.write_text(ALL + '[rules.containers]\nhost-mounts = ["/srv"]\n')
    decision = ask(driver, {"Image": "i", "HostConfig": {"Binds": [source]}}, "/containers/create")
    assert isinstance(decision.allow, bool)
    assert ("\0" in source) is not decision.allow


def test_settings_want_an_absolute_path():
    with pytest.raises(ValueError, match="absolute"):
        PolicySettings(file="policy.toml")
