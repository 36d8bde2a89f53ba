"""Limits, counters, pause and memory kills by the stock CLI, on either version of control groups."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.harness import until

UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers").exists()
MIB = 1 << 20
# What a container's limit is called in version 1, with its controller, and in version 2.
FILES = {
    "memory": ("memory/memory.limit_in_bytes", "memory.max"),
    "swap": ("memory/memory.memsw.limit_in_bytes", "memory.swap.max"),
    "reservation": ("memory/memory.soft_limit_in_bytes", "memory.low"),
    "shares": ("cpu/cpu.shares", "cpu.weight"),
    "quota": ("cpu/cpu.cfs_quota_us", "cpu.max"),
    "cpus": ("cpuset/cpuset.cpus", "cpuset.cpus"),
    "pids": ("pids/pids.max", "pids.max"),
    "used": ("memory/memory.usage_in_bytes", "memory.current"),
}
HOG = "tail -c 200m /dev/zero"


def file(name):
    return f"/sys/fs/cgroup/{FILES[name][UNIFIED]}"


def limits(daemon, container):
    """What the container reads of its limits, by name."""
    names = ("memory", "swap", "reservation", "shares", "quota", "cpus", "pids")
    lines = daemon.docker("exec", container, "cat", *map(file, names)).splitlines()
    return dict(zip(names, lines, strict=True))


def test_limits_and_their_update(daemon, name):
    daemon.docker(
        *("run", "-d", "--name", name, "-m", "64m", "--memory-swap", "96m", "--memory-reservation", "32m"),
        *("--cpus", "0.5", "--cpu-shares", "512", "--cpuset-cpus", "0", "--pids-limit", "20", "busybox", "sleep", "300"),
    )
    assert limits(daemon, name) == {
        "memory": str(64 * MIB),
        "swap": str(32 * MIB if UNIFIED else 96 * MIB),
        "reservation": str(32 * MIB),
        "shares": "20" if UNIFIED else "512",
        "quota": "50000 100000" if UNIFIED else "50000",
        "cpus": "0",
        "pids": "20",
    }
    daemon.docker(
        *("update", "-m", "128m", "--memory-swap", "128m", "--memory-reservation", "16m", "--cpus", "0.25"),
        *("--cpu-shares", "2048", "--pids-limit", "-1", name),
    )
    assert limits(daemon, name) == {
        "memory": str(128 * MIB),
        "swap": str(0 if UNIFIED else 128 * MIB),
        "reservation": str(16 * MIB),
        "shares": "79" if UNIFIED else "2048",
        "quota": "25000 100000" if UNIFIED else "25000",
        "cpus": "0",
        "pids": "max",
    }


def test_twice_the_memory_where_swap_is_not_mentioned(daemon):
    told = daemon.docker("run", "--rm", "-m", "64m", "busybox", "cat", file("swap"))
    assert told == str(64 * MIB if UNIFIED else 128 * MIB)


def test_a_paused_container_stands_still(daemon, name):
    daemon.docker("run", "-d", "--name", name, "busybox", "sh", "-c", "while :; do echo; done > /dev/null")
    pid = daemon.inspect(name)["State"]["Pid"]
    daemon.docker("pause", name)
    assert daemon.inspect(name)["State"]["Status"] == "paused"
    before = ticks(pid)
    time.sleep(0.2)
    assert ticks(pid) == before
    assert "is paused" in daemon.docker("exec", name, "true", status=1, both=True)
    daemon.docker("unpause", name)
    until(lambda: ticks(pid) > before, 30, "processor time")
    daemon.docker("pause", name)
    daemon.docker("rm", "-f", name)


def ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()
    return int(fields[11]) + int(fields[12])


def test_counters_are_the_kernels(daemon, name):
    """Of a paused container, whose counters do not move."""
    script = "dd if=/dev/zero of=/x bs=64k count=64 conv=fsync 2> /dev/null; sleep 300 & sleep 300 & touch /ready; wait"
    daemon.docker("run", "-d", "--name", name, "-m", "64m", "--pids-limit", "30", "busybox", "sh", "-c", script)
    until(lambda: daemon.run_docker("exec", name, "test", "-e", "/ready").returncode == 0, 30, "the container's file")
    used = daemon.docker("exec", name, "cat", file("used"))
    assert int(used) > 4 * MIB
    daemon.docker("pause", name)
    _, told = daemon.request("GET", f"/containers/{name}/stats?stream=false&one-shot=true")
    memory = told["memory_stats"]
    group = Path("/sys/fs/cgroup", "" if UNIFIED else "memory", daemon.cgroup.strip("/"), daemon.inspect(name)["Id"])
    assert memory["usage"] == int((group / Path(FILES["used"][UNIFIED]).name).read_text())
    assert memory["limit"] == 64 * MIB
    assert told["pids_stats"] == {"current": 3, "limit": 30}
    assert told["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert ("max_usage" in memory, "percpu_usage" in told["cpu_stats"]["cpu_usage"]) == (not UNIFIED, not UNIFIED)
    blkio = told["blkio_stats"]
    written = [entry["value"] for entry in blkio.pop("io_service_bytes_recursive") if entry["op"] == "write"]
    # Version 1 cannot tell on whose behalf the page cache is written.
    assert sum(written) >= (4 * MIB if UNIFIED else 0)
    assert {type(value) for value in blkio.values()} == {type(None) if UNIFIED else list}
    row = json.loads(daemon.docker("stats", "--no-stream", "--format", "json", name))
    assert row["PIDs"] == "3"
    assert not UNIFIED or row["BlockIO"].endswith("MB")
    # The kernel settles accounts a little later, also of who stands still.
    until(lambda: shown_memory(daemon, name) == counted_memory(daemon, name), 30, "what the CLI shows")


def shown_memory(daemon, name):
    return daemon.docker("stats", "--no-stream", "--format", "{{.MemUsage}}", name)


def counted_memory(daemon, name):
    """The CLI leaves out the part of the page cache that could go at once (docker stats, "Description")."""
    memory = daemon.request("GET", f"/containers/{name}/stats?stream=false&one-shot=true")[1]["memory_stats"]
    inactive = memory["stats"]["inactive_file" if UNIFIED else "total_inactive_file"]
    return f"{size(memory['usage'] - inactive)} / 64MiB"


def size(number):
    """As the CLI writes it: four digits and a binary unit."""
    unit = 0
    value = float(number)
    while value >= 1024:
        value, unit = value / 1024, unit + 1
    return f"{value:.4g}{('B', 'KiB', 'MiB', 'GiB')[unit]}"


def test_a_memory_kill_of_the_first_process(daemon, name):
    since = daemon.docker("info", "--format", "{{.SystemTime}}")
    assert daemon.run_docker("run", "--name", name, "-m", "16m", "busybox", "sh", "-c", f"exec {HOG}").returncode == 137
    state = daemon.inspect(name)["State"]
    assert (state["OOMKilled"], state["ExitCode"], state["Status"]) == (True, 137, "exited")
    assert "oom" in actions(daemon, name, since)


def test_a_memory_kill_of_another_process(daemon, name):
    """The container goes on, and is known to have met its limit until it is started again."""
    since = daemon.docker("info", "--format", "{{.SystemTime}}")
    daemon.docker("run", "-d", "--name", name, "-m", "16m", "busybox", "sh", "-c", "while :; do sleep 1; done")
    assert daemon.run_docker("exec", name, "sh", "-c", f"exec {HOG}").returncode == 137
    until(lambda: daemon.inspect(name)["State"]["OOMKilled"], 30, "the word on the kill")
    assert daemon.inspect(name)["State"]["Running"]
    assert daemon.run_docker("exec", name, "sh", "-c", f"exec {HOG}").returncode == 137
    until(lambda: actions(daemon, name, since).count("oom") >= 2, 30, "the word on the second kill")
    daemon.docker("restart", "-t", "0", name)
    assert not daemon.inspect(name)["State"]["OOMKilled"]


def actions(daemon, name, since):
    until = daemon.docker("info", "--format", "{{.SystemTime}}")
    words = ("events", "--since", since, "--until", until, "--filter", f"container={name}", "--format", "{{.Action}}")
    return daemon.docker(*words).splitlines()


def test_what_the_engine_says_of_this_host(daemon):
    told = json.loads(daemon.docker("info", "--format", "json"))
    assert (told["CgroupVersion"], told["CgroupDriver"]) == ("2" if UNIFIED else "1", "cgroupfs")
    assert told["OomKillDisable"] is not UNIFIED
    abilities = ("MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit")
    assert [key for key in abilities if not told[key]] == []
    assert any("cgroupns" in option for option in told["SecurityOptions"]) is UNIFIED


@pytest.mark.parametrize("mode", ["private", "host"])
def test_whose_tree_a_container_sees(daemon, mode):
    lines = daemon.docker("run", "--rm", "--cgroupns", mode, "busybox", "cat", "/proc/self/cgroup").splitlines()
    assert all(line.endswith(":/") for line in lines if daemon.cgroup in line or UNIFIED) is (mode == "private")


def test_devices(daemon):
    null = "echo > /dev/null && echo writes; mknod /tmp/tun c 10 200; : < /tmp/tun && echo opens"
    assert daemon.docker("run", "--rm", "busybox", "sh", "-c", null, status=1) == "writes"
    rule = ("--device-cgroup-rule", "c 10:200 r")
    assert daemon.docker("run", "--rm", *rule, "busybox", "sh", "-c", null) == "writes\nopens"
    assert daemon.docker("run", "--rm", "--privileged", "busybox", "sh", "-c", null) == "writes\nopens"
