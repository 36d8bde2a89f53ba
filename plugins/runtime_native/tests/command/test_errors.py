"""What the command line refuses, and how it says so. All in this process: nothing is made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import wharfie_runtime_native
from wharfie_runtime_native.command.app import run

import wharfie


@pytest.fixture
def call(tmp_path, capsys):
    def answer(*words):
        code = run(["--root", str(tmp_path / "state"), *map(str, words)])
        return code, *capsys.readouterr()

    return answer


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--systemd-cgroup", "list"], "systemd cgroup flag passed, but systemd support"),
        (["no-such-command"], "No such command"),
        ([], "Missing command"),
        (["create"], "Missing argument ID"),
        (["state", "a", "b"], 'Unexpected argument \\"b\\"'),
        (["state", "--what", "a"], 'No such option: \\"--what\\"'),
        (["run", "--bundle"], "Option --bundle needs a value: FOLDER"),
        (["list", "--format", "yaml"], 'Option --format: \\"yaml\\" is none of table, json'),
        (["--debug=maybe", "list"], 'Option --debug: \\"maybe\\" is none of true, false'),
        (["run", "--preserve-fds", "two", "x"], 'Option --preserve-fds: \\"two\\" is not a number'),
        (["state", "nope"], 'container \\"nope\\" does not exist'),
        (["state", "../x"], "does not exist"),
        (["kill", "nope", "TERM"], "does not exist"),
        (["kill", "nope", "9" * 5000], "unknown signal"),
        (["kill", "nope", "\u00b2"], "unknown signal"),
        (["delete", "nope"], "does not exist"),
        (["update", "nope"], "there is nothing to update"),
        (["update", "--memory", "many", "nope"], "is not a size such as 512m"),
        (["events", "--interval", "0s", "nope"], "must be greater than 0"),
        (["run", "--bundle", "/proc/1", "x"], "JSON specification file /proc/1/config.json not found"),
        (["run", "--preserve-fds", "1000", "x"], "please check that preserved file descriptor"),
    ],
)
def test_is_refused_in_one_line(call, words, text):
    code, out, err = call(*words)
    assert (code, out) == (1, "")
    assert err.startswith('time="')
    assert " level=error msg=" in err
    assert text in err
    assert len(err.splitlines()) == 1


def test_log_in_json_and_the_line_on_stderr(call, tmp_path):
    log = tmp_path / "log"
    code, _, err = call("--log", log, "--log-format", "json", "state", "nope")
    assert (code, err) == (1, 'container "nope" does not exist\n')
    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == ("error", 'container "nope" does not exist')
    assert entry["time"].endswith("Z")


def test_debugging_says_what_is_done(call, tmp_path):
    assert call("--log", tmp_path / "log", "--debug", "delete", "--force", "nope")[0] == 0
    assert 'level=debug msg="nope is deleted"' in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ("[]", "has no JSON object"),
        ("[" * 100_000, "config.json: maximum recursion depth exceeded"),
        ("{", "cannot read"),
        ('{"ociVersion": "2.0.0"}', 'ociVersion \\"2.0.0\\" is not supported'),
        ('{"ociVersion": "1.2.0", "root": {"path": "nope"}}', "is not a directory"),
        ('{"ociVersion": "1.2.0", "process": {"terminal": true}}', "cannot allocate tty if"),
    ],
)
def test_bundle_that_is_none(call, tmp_path, config, text):
    (tmp_path / "config.json").write_text(config)
    code, _, err = call("create", "--bundle", tmp_path, "x")
    assert code == 1
    assert text in err
    assert "wharfie-runtime create failed: " in err
    assert call("list", "--quiet") == (0, "", "")


def test_versions_and_help(call):
    code, out, _ = call("--version")
    assert code == 0
    assert out.splitlines()[1] == "spec: 1.2.0"
    out = call("--help")[1]
    for name in [
        "create",
        "start",
        "state",
        "kill",
        "delete",
        "run",
        "exec",
        "ps",
        "pause",
        "resume",
        "update",
        "events",
        "spec",
        "features",
        "list",
    ]:
        assert f"  {name} " in out
        assert call(name, "--help")[0] == 0


def test_features(call):
    assert json.loads(call("features")[1])["ociVersionMax"] == "1.2.0"


def test_list_of_nothing(call):
    assert call("list")[1].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert json.loads(call("list", "--format", "json")[1]) == []


def _loaded(name):
    """The modules that are there when a command is about to run, in the interpreter that a maker is run by."""
    folders = [str(Path(module.__path__[0]).parent) for module in (wharfie, wharfie_runtime_native)]
    code = f"""
import sys
sys.path += {folders}
from wharfie_runtime_native.command.app import command_of
command_of("{name}")
print(*sys.modules)
"""
    return set(subprocess.check_output([sys.executable, "-I", "-S", "-c", code], text=True).split())


@pytest.mark.parametrize("name", ["state", "list", "ps", "kill", "spec", "features"])
def test_what_only_looks_loads_nothing_that_makes(name):
    """Engines ask for states all the time, and each call is an interpreter's start."""
    makers = {f"wharfie_runtime_native.{module}" for module in ("container", "init", "exec", "seccomp", "cgroups")}
    assert not _loaded(name).intersection({*makers, "socket", "ctypes"})


@pytest.mark.parametrize("name", ["create", "run", "start", "exec", "kill", "delete", "update", "events"])
def test_no_command_loads_what_takes_longer_than_a_container(name):
    loaded = _loaded(name)
    assert not loaded.intersection({"dataclasses", "inspect", "pathlib", "subprocess", "argparse", "click", "logging"})
    assert "wharfie_runtime_native.init" not in loaded or name in ("create", "run")
