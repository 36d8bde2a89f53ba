"""Hooks of six kinds: where they run, what they are told, what their failure means."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from wharfie_runtime_native import plan

from wharfie.spi.errors import DriverError, InvalidArgument

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
SHELL = shutil.which("sh")


@pytest.fixture
def said(tmp_path):
    """A folder into which hooks write, one file a kind."""
    folder = tmp_path / "said"
    folder.mkdir()
    return folder


def hook(script, *, env=(), timeout=None, path=SHELL):
    entry = {"path": path, "args": ["sh", "-c", script], "env": [f"PATH={os.environ['PATH']}", *env]}
    return entry if timeout is None else {**entry, "timeout": timeout}


def records(folder, kind):
    """A hook that writes its state, its namespaces and its folder."""
    return hook(
        f"cat > {folder}/{kind}.json; for n in pid mnt net; do readlink /proc/self/ns/$n; done > {folder}/{kind}.ns; "
        f"pwd -P > {folder}/{kind}.cwd; readlink /proc/1/exe > {folder}/{kind}.init; echo $WORD > {folder}/{kind}.word",
        env=["WORD=given"],
    )


def state(folder, kind):
    return json.loads((folder / f"{kind}.json").read_text())


def text(folder, kind, what):
    return (folder / f"{kind}.{what}").read_text().split()


def test_each_kind_runs_in_its_namespaces_with_the_state(bare, said):
    bare.spec["annotations"] = {"org.example": "yes"}
    bare.spec["hooks"] = {kind: [records(said, kind)] for kind in KINDS if kind != "startContainer"}
    # In the container there is no folder of the host's: it is bound into it.
    bare.spec["mounts"].append({"destination": "/said", "type": "bind", "source": str(said), "options": ["rbind"]})
    bare.spec["hooks"]["startContainer"] = [
        hook(
            "cat > /said/startContainer.json; readlink /proc/self/ns/pid > /said/startContainer.ns",
            path="/bin/sh",
            env=["PATH=/bin"],
        )
    ]
    pid = bare.create("sleep", "300")
    container = [str(Path(f"/proc/{pid}/ns/{name}").readlink()) for name in ("pid", "mnt", "net")]
    host = [str(Path(f"/proc/self/ns/{name}").readlink()) for name in ("pid", "mnt", "net")]
    for kind in ("prestart", "createRuntime"):
        assert state(said, kind) == {
            "ociVersion": "1.2.0",
            "id": bare.id,
            "status": "creating",
            "pid": pid,
            "bundle": str(bare.root.parent),
            "annotations": {"org.example": "yes"},
        }
        assert text(said, kind, "ns") == host
        assert text(said, kind, "cwd") == [str(bare.root.parent)]
    assert (state(said, "createContainer")["pid"], state(said, "createContainer")["status"]) == (1, "creating")
    assert text(said, "createContainer", "ns") == container
    assert text(said, "createContainer", "cwd") == [str(bare.root)], "still with the host's root"
    assert not (said / "startContainer.json").exists()
    bare.call("start")
    assert (state(said, "startContainer")["pid"], state(said, "startContainer")["status"]) == (1, "created")
    assert text(said, "startContainer", "ns") == container[:1]
    assert (state(said, "poststart")["pid"], state(said, "poststart")["status"]) == (pid, "running")
    assert text(said, "poststart", "ns") == host
    assert not (said / "poststop.json").exists()
    bare.call("signal_all", signal=9)
    bare.call("wait", pid=pid)
    bare.call("delete")
    assert state(said, "poststop")["status"] == "stopped"
    assert "pid" not in state(said, "poststop")
    assert {text(said, kind, "word")[0] for kind in KINDS if kind != "startContainer"} == {"given"}


def test_hooks_of_a_kind_run_in_order_and_before_the_root_is_entered(bare, said):
    """What a hook mounts, or writes into the root, is there for the program."""
    bare.spec["hooks"] = {
        "prestart": [hook(f"echo one >> {said}/order"), hook(f"echo two >> {said}/order")],
        "createRuntime": [hook(f"echo three >> {said}/order")],
        "createContainer": [hook("mount -t tmpfs -o size=4k hook data && echo in > data/file")],
    }
    assert bare.sh("cat /data/file; grep -c hook /proc/self/mounts") == "in\n1\n"
    assert (said / "order").read_text().split() == ["one", "two", "three"]
    assert "hook /" not in Path("/proc/self/mounts").read_text()


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failure_while_creating_ends_it(bare, said, kind):
    bare.spec["hooks"] = {
        kind: [hook("echo because >&2; exit 3"), hook(f"touch {said}/second")],
        "poststop": [records(said, "poststop")],
    }
    with pytest.raises(DriverError, match=rf"error running {kind} hook #0 \(.*sh\): exit status 3, output: because"):
        bare.create("true")
    assert not bare.groups()
    assert not (said / "second").exists()
    assert state(said, "poststop")["status"] == "stopped"


def test_a_start_hook_is_as_confined_as_the_program(bare, said):
    (bare.root / "said").mkdir(mode=0o777)
    (bare.root / "said").chmod(0o777)
    bare.spec["process"]["user"] = {"uid": 1000, "gid": 1000}
    script = "grep -E 'Cap(Eff|Bnd)|Uid|NoNewPrivs' /proc/self/status > /said/hook; ls /proc/self/fd > /said/fds"
    bare.spec["hooks"] = {"startContainer": [hook(script, path="/bin/sh", env=["PATH=/bin"])]}
    out = bare.sh("grep -E 'Cap(Eff|Bnd)|Uid|NoNewPrivs' /proc/self/status")
    assert (bare.root / "said/hook").read_text() == out
    assert (bare.root / "said/fds").read_text().split() == ["0", "1", "2", "3"], "the last one is ls's own"


@pytest.mark.parametrize(("kind", "path"), [("startContainer", "/bin/sh"), ("poststart", SHELL)])
def test_a_failure_while_starting_is_the_answer(bare, kind, path):
    bare.spec["hooks"] = {kind: [hook("exit 4", path=path)]}
    pid = bare.create("sleep", "300")
    with pytest.raises(DriverError, match=f"error running {kind} hook #0"):
        bare.call("start")
    assert bare.call("wait", pid=pid)[0] != 0


def test_a_failure_after_the_end_changes_nothing(bare, said):
    bare.spec["hooks"] = {"poststop": [hook("exit 1"), records(said, "poststop")]}
    bare.run("true")
    bare.call("delete")
    assert state(said, "poststop")["id"] == bare.id
    assert not bare.groups()


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_hook_that_takes_too_long_is_ended(bare, said, kind):
    bare.spec["hooks"] = {kind: [hook(f"sleep 300 & echo $! > {said}/pid; wait", timeout=1)]}
    with pytest.raises(DriverError, match=f"error running {kind} hook #0 .*: it did not end within 1 s"):
        bare.create("true")
    if kind == "createRuntime":  # the other one's is a number of the container's
        left = int((said / "pid").read_text())
        for _ in range(200):
            if not Path(f"/proc/{left}").exists() or "Z" in Path(f"/proc/{left}/stat").read_text().split(")")[1][:3]:
                return
            time.sleep(0.05)
        pytest.fail("what the hook had started lives on")


def test_hooks_need_not_read_and_may_leave_programs_behind(bare, said):
    """A state larger than a pipe, a hook that closes its input, another that leaves its output open."""
    bare.spec["annotations"] = {"large": "x" * 200000}
    bare.spec["hooks"] = {
        "createRuntime": [hook("exec <&-"), hook("wc -c > " + f"{said}/size"), hook(f"sleep 300 & echo $! > {said}/pid")]
    }
    bare.run("true")
    assert int((said / "size").read_text()) > 200000
    os.kill(int((said / "pid").read_text()), 9)


@pytest.mark.parametrize(
    ("hooks", "word"),
    [
        ({"createRuntime": [{"path": "true"}]}, 'path "true" is not absolute'),
        ({"createRuntime": [{"path": "/bin/true", "timeout": 0}]}, "timeout 0"),
        ({"beforeAll": [{"path": "/bin/true"}]}, "hooks.beforeAll is unknown"),
    ],
)
def test_bad_hooks_are_refused(base, hooks, word):
    base["hooks"] = hooks
    with pytest.raises(InvalidArgument, match=word):
        plan.parse(base)


def test_a_hook_that_is_not_there(bare):
    bare.spec["hooks"] = {"prestart": [{"path": "/no/such/hook"}]}
    with pytest.raises(DriverError, match=r"hook #0 \(/no/such/hook\): exit status 127, output: .*no such file"):
        bare.create("true")


def test_without_hooks_nothing_of_them_is_in_the_shim(bare):
    bare.run("true")
    assert not {"wharfie_runtime_native.hooks", "wharfie_runtime_native.attributes"} & set(bare.call("modules"))
