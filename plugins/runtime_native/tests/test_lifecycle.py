"""A container from create to delete."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from wharfie.spi.errors import Conflict, InvalidArgument


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_program_runs_as_first_process_with_its_streams(bare):
    code, out, err = bare.run("sh", "-c", "echo $$ $0 $A; cat; echo no >&2; exit 7", given="input\n")
    assert (code, out, err) == (7, "1 sh\ninput\n", "no\n")


def test_nothing_is_executed_before_start(bare):
    pid = bare.create("sh", "-c", "touch /ran")
    time.sleep(0.05)
    assert alive(pid)
    assert not (bare.root / "ran").exists()
    bare.call("start")
    assert bare.call("wait", pid=pid)[0] == 0
    assert (bare.root / "ran").exists()


def test_delete_takes_the_groups_away_and_may_be_repeated(bare):
    bare.run("true")
    assert bare.groups()
    bare.call("delete")
    assert not bare.groups()
    bare.call("delete")


def test_delete_of_a_container_that_was_never_started_ends_it(bare):
    pid = bare.create("sleep", "300")
    bare.call("delete")
    assert not alive(pid)
    assert not bare.groups()


def test_another_shim_cleans_up(bare, bares):
    pid = bare.sleeping()
    bare.process.kill()
    bare.process.wait()
    end = time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(pid), "the container outlived its shim"
    assert bare.groups()
    other = bares()
    other.call("new", id=bare.id, spec=bare.spec, rootfs=str(bare.root), options={})
    other.call("delete")
    assert not bare.groups()


def test_start_twice_is_a_conflict(bare):
    bare.sleeping()
    with pytest.raises(Conflict):
        bare.call("start")


def test_group_of_a_living_container_is_a_conflict(bare, bares):
    bare.sleeping()
    other = bares()
    with pytest.raises(Conflict, match="in use"):
        other.call("create", id="x", spec=bare.spec, rootfs=str(bare.root), options={})
    assert bare.exec("true")[0] == 0


def test_the_shim_is_as_it_was(bare):
    """After create, exec and delete: no descriptor more, the same namespaces for the next child."""
    before, spaces = bare.call("descriptors"), bare.call("namespace", name="pid")
    pid = bare.sleeping()
    assert bare.exec("true")[0] == 0
    assert bare.call("namespace", name="pid") == spaces
    bare.call("signal_all", signal=signal.SIGKILL)
    assert bare.call("wait", pid=pid)[0] == -signal.SIGKILL
    bare.call("delete")
    assert bare.call("descriptors") == before


@pytest.mark.parametrize(
    "break_it",
    [
        lambda spec: spec["process"].update(args=["no-such-program"]),
        lambda spec: spec["mounts"].append(
            {"destination": "/x", "type": "bind", "source": "/no/such", "options": ["rbind"]}
        ),
        lambda spec: spec["mounts"].append({"destination": "/x", "type": "no-such-fs", "source": "x"}),
        lambda spec: spec["linux"]["resources"].update(memory={"limit": 1 << 20, "swap": 1}),
        lambda spec: spec["process"].update(cwd="/etc/passwd"),
        lambda spec: spec["linux"].update(sysctl={"kernel.panic": "1"}),
    ],
)
def test_a_failed_create_leaves_nothing(bare, break_it):
    break_it(bare.spec)
    before = bare.call("descriptors")
    with pytest.raises(InvalidArgument):
        bare.create()
    assert not bare.groups()
    children = Path(f"/proc/{bare.process.pid}/task/{bare.process.pid}/children").read_text()
    assert children == ""
    assert str(bare.root) not in Path("/proc/self/mountinfo").read_text()
    # The streams of the failed attempt are this test's own: two pipes and an input.
    assert len(bare.call("descriptors")) <= len(before) + 5


def test_pause_and_resume(bare):
    pid = bare.sleeping("sh", "-c", "while :; do :; done")
    bare.call("pause")
    stopped = ticks(pid)
    time.sleep(0.1)
    assert ticks(pid) == stopped
    bare.call("resume")
    end = time.monotonic() + 5
    while ticks(pid) == stopped and time.monotonic() < end:
        time.sleep(0.02)
    assert ticks(pid) > stopped


def test_delete_of_a_paused_container(bare):
    pid = bare.sleeping()
    bare.call("pause")
    bare.call("delete")
    assert not alive(pid)
    assert not bare.groups()


def ticks(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[11])


def test_pids_and_signals_to_all(bare):
    pid = bare.sleeping("sh", "-c", "sleep 300 & sleep 300 & wait")
    end = time.monotonic() + 5
    while len(bare.call("pids")) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    pids = bare.call("pids")
    assert len(pids) == 3
    assert pid in pids
    bare.call("signal_all", signal=signal.SIGKILL)
    assert bare.call("wait", pid=pid)[0] == -signal.SIGKILL


def test_host_pid_namespace_is_ended_by_its_group(bare):
    """Without a pid namespace the kernel does not end the rest with the first process."""
    bare.spec["linux"]["namespaces"] = [{"type": name} for name in ("mount", "network", "uts", "ipc")]
    bare.spec["mounts"] = [entry for entry in bare.spec["mounts"] if entry["type"] != "proc"]
    bare.spec["linux"]["maskedPaths"] = bare.spec["linux"]["readonlyPaths"] = []
    pid = bare.create("sh", "-c", "(trap '' TERM; sleep 300) & exit 0")
    bare.call("start")
    os.waitid(os.P_PID, bare.process.pid, os.WNOHANG | os.WEXITED | os.WNOWAIT)
    end = time.monotonic() + 5
    while pid in bare.call("pids") and time.monotonic() < end:
        time.sleep(0.01)
    left = bare.call("pids")
    bare.call("delete")
    assert not bare.groups()
    assert not any(alive(found) for found in left)


def test_unstarted_program_that_cannot_be_executed(bare):
    """Only execve itself knows that a file is no program; its word comes from start."""
    (bare.root / "bin/odd").write_bytes(b"\x01\x02\x03")
    (bare.root / "bin/odd").chmod(0o755)
    bare.create("odd")
    with pytest.raises(InvalidArgument, match=r'exec "/bin/odd": exec format error'):
        bare.call("start")
