"""Control groups, version 2, on a kernel that has nothing else: `make test-cgroup2` boots one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wharfie_runtime_native.cgroups import v2

from wharfie.shim.cgroups import version
from wharfie.spi.errors import Conflict, InvalidArgument

FOLDERS = (str(Path(__file__).parents[3] / "core"), str(Path(__file__).parents[1]))
PARENT = "wharfie-test-n"
ROOT = Path("/sys/fs/cgroup" if version() == "v2" else "/sys/fs/cgroup/unified")
needs_v2 = pytest.mark.skipif(version() != "v2", reason="this host's controllers are version 1")
needs_tree = pytest.mark.skipif(not (ROOT / "cgroup.controllers").exists(), reason="no cgroup2 is mounted")
MIB = 1 << 20


def limits(bare, **resources):
    bare.spec["linux"]["resources"].update(resources)


def control(bare, name):
    return (bare.groups()[0] / name).read_text().strip()


def disk():
    """major, minor of the disk that the root is on."""
    device = os.stat("/").st_dev
    return {"major": os.major(device), "minor": os.minor(device)}


def eventually(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)
    return value


@pytest.fixture
def group():
    """A group in a cgroup2 tree, with or without controllers."""
    made = v2.CgroupV2(f"{PARENT}/c2-{os.getpid()}", str(ROOT))
    made.create()
    yield made
    made.delete()
    folder = Path(made.directories()[""])
    assert not folder.exists()
    folder.parent.rmdir()


FORKS = """
import os, sys
sys.path[:0] = sys.argv[2:]
from wharfie_runtime_native.syscalls import clone3_into_cgroup
group = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
child = clone3_into_cgroup(group)
if child == 0:
    # An interpreter that is whole: it imports, forks and waits.
    import decimal
    if (further := os.fork()) == 0:
        os._exit(3)
    assert os.waitpid(further, 0)[1] == 3 << 8
    os.write(1, open("/proc/self/cgroup", "rb").read())
    os._exit(7)
assert os.waitpid(child, 0) == (child, 7 << 8)
assert os.fork() or os._exit(0) is None
try:
    clone3_into_cgroup(0)
except OSError as error:
    os.write(1, str(error).encode())
"""


@needs_tree
def test_a_process_is_forked_into_its_group(group):
    command = [sys.executable, "-S", "-I", "-c", FORKS, group.directories()[""], *FOLDERS]
    told = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert not told.stderr
    assert f"0::/{group.path}\n" in told.stdout
    assert "clone3: bad file descriptor" in told.stdout


@needs_tree
def test_kill_without_cgroup_kill(group):
    sleeper = subprocess.Popen(["sleep", "300"], preexec_fn=group.join)
    group.kill_each()
    assert sleeper.wait() == -9


@pytest.mark.parametrize(("shares", "weight"), [(1, 1), (2, 1), (1024, 39), (262144, 10000), (900000, 10000)])
def test_weights(shares, weight):
    assert v2.weight_of_shares(shares) == weight
    assert (v2.weight_of_block_io(10), v2.weight_of_block_io(1000)) == (1, 10000)


@needs_v2
def test_limits_arrive(bare):
    limits(
        bare,
        memory={"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB, "swappiness": 7, "disableOOMKiller": False},
        cpu={"shares": 512, "quota": 50000, "period": 100000, "burst": 1000, "cpus": "0", "mems": "0"},
        pids={"limit": 20},
        blockIO={"weight": 500, "throttleWriteBpsDevice": [{**disk(), "rate": 7 * MIB}]},
        hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MIB}],
    )
    bare.create("true")
    found = {
        name: control(bare, name)
        for name in """
            memory.max memory.swap.max memory.low cpu.weight cpu.max cpu.max.burst cpuset.cpus cpuset.mems pids.max
            io.weight io.max hugetlb.2MB.max
        """.split()  # noqa: SIM905  # a list of files reads as a list of words
    }
    assert found == {
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(32 * MIB),
        "memory.low": str(32 * MIB),
        "cpu.weight": "20",
        "cpu.max": "50000 100000",
        "cpu.max.burst": "1000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "pids.max": "20",
        "io.weight": "default 4950",
        "io.max": f"{disk()['major']}:{disk()['minor']} rbps=max wbps={7 * MIB} riops=max wiops=max",
        "hugetlb.2MB.max": str(4 * MIB),
    }


@needs_v2
def test_updates_in_any_direction(bare):
    bare.sleeping()
    for memory, swap in (
        ({"limit": 64 * MIB, "swap": 64 * MIB}, 0),
        ({"limit": 256 * MIB, "swap": 512 * MIB}, 256 * MIB),
        ({"limit": 32 * MIB}, 256 * MIB),  # what is not mentioned stays
        ({"swap": 48 * MIB}, 16 * MIB),
    ):
        bare.call("update", resources={"memory": memory})
        assert control(bare, "memory.max") == str(memory.get("limit", 32 * MIB))
        assert control(bare, "memory.swap.max") == str(swap)
    for cpu, told in (
        ({"quota": 50000, "period": 100000, "burst": 40000}, "50000 100000"),
        ({"quota": 5000, "period": 10000, "burst": 0}, "5000 10000"),
        ({"quota": 60000, "burst": 60000}, "60000 10000"),
        ({"period": 200000}, "60000 200000"),
    ):
        bare.call("update", resources={"cpu": cpu})
        assert control(bare, "cpu.max") == told
    bare.call("update", resources={"pids": {"limit": -1}, "memory": {"limit": -1, "swap": -1}, "cpu": {"quota": -1}})
    assert [control(bare, name) for name in ("pids.max", "memory.max", "memory.swap.max")] == ["max"] * 3
    assert control(bare, "cpu.max") == "max 200000"
    bare.call("update", resources={"cpu": {"idle": 1, "shares": 512}})
    assert control(bare, "cpu.idle") == "1"


@needs_v2
@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"cpu": {"quota": 5}}, 'failed to write "5 100000" to cpu.max: invalid argument'),
        ({"cpu": {"cpus": "900"}}, 'failed to write "900" to cpuset.cpus: '),
        ({"cpu": {"realtimeRuntime": 900}}, "real-time limits need cgroup v1"),
        ({"memory": {"limit": 64 * MIB, "swap": MIB}}, "below the memory limit"),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 0, "minor": 99, "rate": 5}]}},
            'failed to write "0:99 rbps=5" to ',
        ),
        ({"network": {"classID": 5}}, "linux.resources.network needs cgroup v1"),
        ({"devices": [{"allow": True, "type": "x"}]}, 'device rule type "x"'),
        ({"unified": {"pids.max": "many"}}, 'failed to write "many" to pids.max: invalid argument'),
        ({"unified": {"mint.max": "5"}}, 'has no controller "mint"'),
        ({"unified": {"memory.maximum": "5"}}, 'failed to write "5" to memory.maximum: no such file or directory'),
        ({"unified": {"../cgroup.procs": "1"}}, "not the name of a control file"),
    ],
)
def test_refusals_name_file_and_word(bare, resources, message):
    limits(bare, **resources)
    with pytest.raises(InvalidArgument) as caught:
        bare.create("true")
    assert message in caught.value.message
    assert not bare.groups()


@needs_v2
def test_unified_keys(bare):
    both = f"{disk()['major']}:{disk()['minor']} rbps=1048576\n{disk()['major']}:{disk()['minor']} wiops=90"
    limits(bare, unified={"memory.high": str(48 * MIB), "pids.max": "9", "io.max": both, "memory.oom.group": "1"})
    bare.create("true")
    assert control(bare, "memory.high") == str(48 * MIB)
    assert control(bare, "pids.max") == "9"
    assert "rbps=1048576" in control(bare, "io.max")
    assert "wiops=90" in control(bare, "io.max")
    assert control(bare, "memory.oom.group") == "1"


@needs_v2
def test_a_controller_that_is_not_passed_on(group):
    """As in a container whose root group has processes: the kernel then gives groups below no controllers."""
    outer = Path(group.directories()[""])
    sleeper = subprocess.Popen(["sleep", "300"], preexec_fn=group.join)
    inner = v2.CgroupV2("inner", str(outer))
    try:
        inner.create()
        with pytest.raises(InvalidArgument, match=r'cannot set pids\.max: .*inner has no controller "pids"'):
            inner.apply({"pids": {"limit": 5}})
        # A container without limits is possible there.
        assert subprocess.run(["true"], preexec_fn=inner.join, check=False).returncode == 0
    finally:
        inner.delete()
        sleeper.kill()
        sleeper.wait()


@needs_v2
def test_a_limit_below_what_is_used_is_refused_on_request(bare):
    bare.sleeping("sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=24 2> /dev/null; touch /dev/shm/done; sleep 300")
    eventually(lambda: bare.exec("test", "-e", "/dev/shm/done")[0] == 0)
    with pytest.raises(InvalidArgument, match="bytes are in use"):
        bare.call("update", resources={"memory": {"limit": 8 * MIB, "swap": 8 * MIB, "checkBeforeUpdate": True}})
    assert control(bare, "memory.max") == "max"


@needs_v2
def test_counters_of_all_kinds(bare):
    limits(bare, memory={"limit": 64 * MIB}, pids={"limit": 9}, cpu={"quota": 20000, "period": 100000})
    bare.sleeping("sh", "-c", "dd if=/dev/zero of=/data/x bs=64k count=64 conv=fsync 2> /dev/null; while :; do :; done")
    eventually(lambda: bare.call("stats")["cpu"]["throttled_periods"])
    eventually(lambda: sum(entry["value"] for entry in bare.call("stats")["blkio"] if entry["op"] == "write") >= 4 * MIB)
    eventually(lambda: bare.call("stats")["pids"]["current"] == 1)
    found = bare.call("stats")
    assert found["cpu"]["throttled_ns"] > 0
    assert found["cpu"]["usage_ns"] >= found["cpu"]["user_ns"] > 0
    assert found["memory"]["limit"] == 64 * MIB
    assert 0 < found["memory"]["stats"]["inactive_file"] <= found["memory"]["usage"]
    assert found["pids"] == {"current": 1, "limit": 9}
    assert {"max_usage", "failcnt"}.isdisjoint(found["memory"])
    assert {"percpu_ns"}.isdisjoint(found["cpu"])
    written = next(entry for entry in found["blkio"] if entry["op"] == "write" and entry["value"])
    assert {"major": written["major"], "minor": written["minor"]} == disk()


def prepare_tree(bare):
    """A container with a group namespace of its own and a tree that it may write to."""
    bare.spec["linux"]["namespaces"].append({"type": "cgroup"})
    entry = next(entry for entry in bare.spec["mounts"] if entry["type"] == "cgroup")
    entry["options"] = ["rw", "nosuid", "noexec", "nodev"]


@needs_v2
def test_exec_where_an_init_has_made_groups(bare):
    """As systemd does: then the container's own group takes no process any more, and exec joins the init's."""
    prepare_tree(bare)
    bare.sleeping(
        "sh",
        "-ec",
        """
        cd /sys/fs/cgroup; mkdir init; echo 1 > init/cgroup.procs
        echo +memory +pids > cgroup.subtree_control; touch /data/done; sleep 300
        """,
    )
    eventually((bare.root / "data/done").exists)
    code, out, _ = bare.exec("cat", "/proc/self/cgroup")
    assert (code, out) == (0, "0::/init\n")
    bare.call("pause")
    assert "frozen 1" in control(bare, "init/cgroup.events")
    bare.call("resume")
    assert len(bare.call("pids")) == 2


@needs_v2
def test_memory_kill_in_a_group_below(bare):
    prepare_tree(bare)
    limits(bare, memory={"limit": 16 * MIB, "swap": 16 * MIB})
    pid = bare.create(
        "sh",
        "-ec",
        """
        cd /sys/fs/cgroup; mkdir init; echo 1 > init/cgroup.procs; echo +memory > cgroup.subtree_control
        dd if=/dev/zero of=/dev/null bs=64M count=1 || exit 9
        """,
    )
    fd = bare.call("oom_fd")
    bare.call("start")
    assert bare.call("wait", pid=pid)[0] in (9, 137, -9)
    assert bare.call("oom_killed")
    assert bare.call("wait_readable", fd=fd)


@needs_v2
def test_exec_beyond_the_limit_of_processes(bare):
    """The limit is on what the container forks; a process that comes from outside is let in, as it is by runc."""
    limits(bare, pids={"limit": 1})
    bare.sleeping()
    code, out, _ = bare.exec("cat", "/proc/self/cgroup")
    assert (code, out) == (0, f"0::/{PARENT}/{bare.id}\n")


@needs_v2
def test_the_hosts_tree_without_a_namespace(bare):
    before = options_of(ROOT)
    out = bare.sh("cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.controllers; mkdir /sys/fs/cgroup/x 2>&1 || echo $?")
    assert out.splitlines()[0] == f"0::/{PARENT}/{bare.id}"
    assert "memory" in out
    assert "Read-only file system" in out
    assert options_of(ROOT) == before


@needs_v2
def test_the_own_tree_with_a_namespace(bare):
    before = options_of(ROOT)
    prepare_tree(bare)
    limits(bare, memory={"limit": 32 * MIB})
    out = bare.sh("cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max; grep -c . /sys/fs/cgroup/cgroup.procs")
    assert out.splitlines()[:2] == ["0::/", str(32 * MIB)]
    assert options_of(ROOT) == before


def options_of(point):
    lines = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return next(fields[3] for fields in lines if fields[1] == str(point))


@needs_v2
def test_a_group_in_use_is_a_conflict_without_a_process_made(bare, bares):
    bare.sleeping()
    other = bares()
    with pytest.raises(Conflict, match="in use"):
        other.call("create", id="x", spec=bare.spec, rootfs=str(bare.root), options={})
    assert Path(f"/proc/{other.process.pid}/task/{other.process.pid}/children").read_text() == ""
