"""The plugin `admission-policy` in a whole daemon: a 403 that says what to do, and SIGHUP that changes what holds."""

from __future__ import annotations

import json
import shutil
import signal

import pytest

from tests.harness import until

pytest.importorskip("wharfie_admission_policy")
pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line")


def test_refusals_and_reload(make_daemon, tmp_path) -> None:
    daemon = make_daemon(config={"plugins": {"admission-policy": {"local": "allow"}}}, busybox=True, bridge=False)

    def reload(policy) -> None:
        before = daemon.log.read_text().count("the configuration was reloaded")
        daemon.config["plugins"] = {} if policy is None else {"admission-policy": policy}
        (daemon.root / "daemon.json").write_text(json.dumps(daemon.config))
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: daemon.log.read_text().count("the configuration was reloaded") > before, 30, "the reload")

    def row() -> list[str]:
        rows = daemon.request("GET", "/wharfie/plugins")[1]
        return [one["State"] for one in rows if one["Name"] == "admission-policy"]

    assert row() == ["open"]
    saved = tmp_path / "saved.tar"
    daemon.docker("save", "-o", saved, "busybox")
    daemon.docker("rmi", "busybox")
    reload({"rules": []})

    def load() -> str:
        return daemon.docker("load", "-i", saved, both=True, status=1)

    until(lambda: "is denied" in daemon.run_docker("load", "-i", saved).stderr.decode(), 30, "the refusal")
    assert "comes from no registry" in load()
    status, answer = daemon.request("POST", "/commit?container=nobody")
    assert status == 404, answer
    reload({"colour": "blue"})
    until(lambda: row() == ["misconfigured"], 30, "the state")
    assert "plugins.admission-policy.colour: no such key; known are local, rules" in load()
    daemon.docker("images")
    reload(None)
    until(lambda: daemon.run_docker("load", "-i", saved).returncode == 0, 30, "the load")
