"""Control groups: limits as they arrive in the kernel, counters, out of memory, device rules of both versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wharfie_runtime_native.cgroups import device_program, device_rules, v2
from wharfie_runtime_native.cgroups.device_rules import WILDCARD, Rule

from wharfie.shim.cgroups import version
from wharfie.spi.errors import InvalidArgument

V1 = version() == "v1"
needs_v1 = pytest.mark.skipif(not V1, reason="this host's controllers are version 2")
MIB = 1 << 20


def limits(bare, **resources):
    bare.spec["linux"]["resources"].update(resources)


def control(bare, name, controller=""):
    groups = bare.groups()
    group = next(path for path in groups if controller in str(path).split("/")[4].split(",")) if V1 else groups[0]
    return (group / name).read_text().strip()


@needs_v1
def test_limits_arrive(bare):
    limits(
        bare,
        memory={"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB, "swappiness": 7, "disableOOMKiller": False},
        cpu={"shares": 512, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0"},
        pids={"limit": 20},
        blockIO={},
    )
    bare.create("true")
    assert control(bare, "memory.limit_in_bytes", "memory") == str(64 * MIB)
    assert control(bare, "memory.memsw.limit_in_bytes", "memory") == str(96 * MIB)
    assert control(bare, "memory.soft_limit_in_bytes", "memory") == str(32 * MIB)
    assert control(bare, "memory.swappiness", "memory") == "7"
    assert control(bare, "cpu.shares", "cpu") == "512"
    assert control(bare, "cpu.cfs_quota_us", "cpu") == "50000"
    assert control(bare, "cpuset.cpus", "cpuset") == "0"
    assert control(bare, "pids.max", "pids") == "20"


@needs_v1
def test_updates_in_any_direction(bare):
    """The kernel wants memory <= memory+swap, and a period that fits the quota, at every step."""
    bare.sleeping()
    for memory in (
        {"limit": 64 * MIB, "swap": 64 * MIB},
        {"limit": 256 * MIB, "swap": 512 * MIB},
        {"limit": 32 * MIB, "swap": 32 * MIB},
    ):
        bare.call("update", resources={"memory": memory})
        assert control(bare, "memory.limit_in_bytes", "memory") == str(memory["limit"])
        assert control(bare, "memory.memsw.limit_in_bytes", "memory") == str(memory["swap"])
    for cpu in (
        {"quota": 50000, "period": 100000},
        {"quota": 5000, "period": 10000},
        {"quota": 2000000, "period": 1000000},
    ):
        bare.call("update", resources={"cpu": cpu})
        assert control(bare, "cpu.cfs_quota_us", "cpu") == str(cpu["quota"])
        assert control(bare, "cpu.cfs_period_us", "cpu") == str(cpu["period"])
    bare.call("update", resources={"pids": {"limit": -1}, "memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1}})
    assert control(bare, "pids.max", "pids") == "max"
    assert control(bare, "cpu.cfs_quota_us", "cpu") == "-1"


@needs_v1
@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"cpu": {"quota": 5}}, 'failed to write "5" to cpu.cfs_quota_us: invalid argument'),
        ({"cpu": {"cpus": "900"}}, 'failed to write "900" to cpuset.cpus: '),
        ({"memory": {"limit": 64 * MIB, "swap": MIB}}, f'failed to write "{MIB}" to memory.memsw.limit_in_bytes: '),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 0, "minor": 99, "rate": 5}]}},
            'failed to write "0:99 5" to blkio',
        ),
        ({"unified": {"memory.max": "5"}}, "cgroup v2"),
        ({"devices": [{"allow": True, "type": "x"}]}, 'device rule type "x"'),
    ],
)
def test_kernels_refusal_names_file_and_word(bare, resources, message):
    limits(bare, **resources)
    with pytest.raises(InvalidArgument) as caught:
        bare.create("true")
    assert message in caught.value.message
    assert not bare.groups()


def test_pids_limit_holds(bare):
    limits(bare, pids={"limit": 5})
    code, _, err = bare.run("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait")
    assert "fork" in err
    assert code != 0


def test_smallest_memory_limit_is_enough_to_start(bare):
    """Docker allows 6 MB; what the engine itself needs until execve is charged to the container."""
    limits(bare, memory={"limit": 6 * MIB, "swap": 6 * MIB})
    bare.spec["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    assert bare.run("echo", "small")[1] == "small\n"
    assert not bare.call("oom_killed")


def test_out_of_memory_is_seen(bare):
    limits(bare, memory={"limit": 16 * MIB, "swap": 16 * MIB})
    pid = bare.create("sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1")
    fd = bare.call("oom_fd")
    assert not bare.call("oom_killed")
    bare.call("start")
    assert bare.call("wait", pid=pid)[0] in (137, -9)
    assert bare.call("oom_killed")
    assert fd >= 0
    assert bare.call("wait_readable", fd=fd)


def test_counters(bare):
    limits(bare, memory={"limit": 64 * MIB}, pids={"limit": 9})
    pid = bare.sleeping("sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 300")
    end = time.monotonic() + 10
    while bare.call("stats")["cpu"]["usage_ns"] < 5_000_000 and time.monotonic() < end:
        time.sleep(0.02)
    found = bare.call("stats")
    assert found["cpu"]["usage_ns"] >= 5_000_000
    assert 0 < found["memory"]["usage"] <= found["memory"]["limit"] == 64 * MIB
    assert found["memory"]["stats"]["pgfault"] > 0
    assert 1 <= found["pids"]["current"] <= 2
    assert found["pids"]["limit"] == 9
    assert isinstance(found["blkio"], list)
    assert pid in bare.call("pids")


def test_devices_of_the_host_are_out_of_reach(bare):
    assert bare.sh("mknod /tmp/disk b 254 0; dd if=/tmp/disk of=/dev/null count=1 2>&1 || echo no").endswith(
        "permitted\nno\n"
    )


def test_allowed_device(bare):
    tun = {"type": "c", "major": 10, "minor": 200}
    limits(bare, devices=[{"allow": False, "access": "rwm"}, {"allow": True, **tun, "access": "r"}])
    bare.spec["linux"]["devices"] = [{"path": "/dev/net/tun", **tun}]
    assert bare.sh(": < /dev/net/tun && echo read; (: > /dev/net/tun) || echo no") == "read\nno\n"


def test_rules_are_said_once_and_from_the_last_wildcard_on():
    deny = {"allow": False, "access": "rwm"}
    null = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}
    fuse = {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"}
    tun = {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "rw"}
    found = device_rules.effective([{**tun}, deny, null, fuse, deny, null, fuse, tun])
    assert found[0] == Rule(False, "a", WILDCARD, WILDCARD, "rwm")
    assert Rule(True, "c", 10, 200, "rw") in found
    assert found.count(Rule(True, "c", 1, 3, "rwm")) == 1
    assert device_rules.effective([{"allow": True, "access": "rwm"}]) == [Rule(True, "a", WILDCARD, WILDCARD, "rwm")]
    assert [rule.v1() for rule in found[:2]] == ["a", "c 10:200 rw"]


def interpret(program: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """The few instructions of eBPF that the programs use."""
    registers = [0] * 11
    context = {0: access << 16 | kind, 4: major, 8: minor}
    at = 0
    while True:
        code, pair, low, high, *value = program[at * 8 : at * 8 + 8]
        dst, src = pair & 15, pair >> 4
        offset = int.from_bytes(bytes((low, high)), "little", signed=True)
        number = int.from_bytes(bytes(value), "little", signed=True)
        at += 1
        if code == 0x61:
            registers[dst] = context[offset]
        elif code == 0xB7:
            registers[dst] = number
        elif code == 0xBF:
            registers[dst] = registers[src]
        elif code == 0x57:
            registers[dst] &= number
        elif code == 0x77:
            registers[dst] >>= number
        elif code == 0x55:
            at += offset if registers[dst] != number else 0
        else:
            assert code == 0x95
            return registers[0]


NUMBER = st.sampled_from([WILDCARD, 0, 1, 2])
RULE = st.builds(Rule, st.booleans(), st.sampled_from("bc"), NUMBER, NUMBER, st.sampled_from(["r", "w", "m", "rw", "rwm"]))


@settings(max_examples=200, deadline=None)
@given(
    st.booleans(),
    st.lists(RULE, max_size=5),
    st.sampled_from("bc"),
    st.integers(0, 2),
    st.integers(0, 2),
    st.integers(1, 7),
)
def test_program_follows_the_rules(first, rules, kind, major, minor, access):
    wanted = first
    for rule in rules:
        letters = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in rule.access)
        if (
            rule.type == kind
            and rule.major in (WILDCARD, major)
            and rule.minor in (WILDCARD, minor)
            and access & ~letters == 0
        ):
            wanted = rule.allow
    program = device_program.assemble([Rule(first, "a", WILDCARD, WILDCARD, "rwm"), *rules])
    assert interpret(program, {"b": 1, "c": 2}[kind], access, major, minor) == wanted


@pytest.fixture
def unified():
    """A group in a cgroup2 tree, with or without controllers."""
    root = "/sys/fs/cgroup/unified" if V1 else "/sys/fs/cgroup"
    if not Path(root, "cgroup.controllers").exists():
        pytest.skip("no cgroup2 is mounted")
    group = v2.CgroupV2(f"wharfie-test-n/v2-{os.getpid()}", root)
    group.create()
    yield group
    group.delete()
    folder = Path(group.directories()[""])
    assert not folder.exists()
    folder.parent.rmdir()


def inside(group, *command):
    """Run a program in the group."""
    return subprocess.Popen(command, preexec_fn=group.join)


def test_v2_kernel_takes_the_device_program(unified):
    unified.apply({"devices": [{"allow": False, "access": "rwm"}]})
    assert inside(unified, "sh", "-c", "echo x > /dev/null").wait() == 0
    assert inside(unified, "sh", "-c", "exec 2> /dev/null; : < /dev/net/tun").wait() != 0


def test_v2_device_rules_are_replaced(unified):
    denied = {"allow": False, "access": "rwm"}
    unified.apply({"devices": [denied]})
    unified.apply({"devices": [denied, {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "r"}]})
    assert inside(unified, "sh", "-c", ": < /dev/net/tun").wait() == 0
    unified.apply({"devices": [denied]})
    assert inside(unified, "sh", "-c", "exec 2> /dev/null; : < /dev/net/tun").wait() != 0


def test_v2_pause_kill_and_counters(unified):
    sleeper = inside(unified, "sleep", "300")
    assert unified.pids() == [sleeper.pid]
    unified.freeze()
    assert "frozen 1" in (Path(unified.directories()[""]) / "cgroup.events").read_text()
    unified.thaw()
    found = unified.stats()
    assert found["cpu"]["usage_ns"] > 0
    unified.kill()
    assert sleeper.wait() == -9
    with pytest.raises(InvalidArgument, match="not the name of a control file"):
        unified.apply({"unified": {"../cgroup.procs": "1"}})


def test_v2_limits_as_text(tmp_path):
    """Version 2's files, on a folder that only records what is written: this host may have no controllers in its tree."""
    for name in ("cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "memory.low", "pids.max", "io.max", "io.weight"):
        (tmp_path / "x").mkdir(exist_ok=True)
        (tmp_path / "x" / name).write_text("")
    group = v2.CgroupV2("x", str(tmp_path))
    group.apply(
        {
            "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": MIB, "swappiness": 5},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000},
            "pids": {"limit": -1},
            "blockIO": {"weight": 300, "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 7}]},
        }
    )
    assert {file.name: file.read_text() for file in (tmp_path / "x").iterdir()} == {
        "cpu.weight": "39",
        "cpu.max": "50000 100000",
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(32 * MIB),
        "memory.low": str(MIB),
        "pids.max": "max",
        "io.max": "8:0 wiops=7",
        "io.weight": "2930",
    }
    with pytest.raises(InvalidArgument, match="below the memory limit"):
        group.apply({"memory": {"limit": 64 * MIB, "swap": MIB}})
    shutil.rmtree(tmp_path / "x")
