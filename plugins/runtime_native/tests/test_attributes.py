"""Scheduler, I/O priority, CPUs, execution domain: what the kernel says of the process afterwards."""

from __future__ import annotations

import os
import platform

import pytest
from wharfie_runtime_native import attributes

from wharfie.spi.errors import InvalidArgument


def stat_field(text, number):
    """Of /proc/PID/stat, counted as proc(5) does."""
    return int(text.rpartition(")")[2].split()[number - 3])


@pytest.mark.parametrize(
    ("scheduler", "policy", "nice"),
    [
        ({"policy": "SCHED_BATCH", "nice": 7}, 3, 7),
        ({"policy": "SCHED_IDLE"}, 5, 0),
        ({"policy": "SCHED_OTHER", "nice": -5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, 0, -5),
    ],
)
def test_scheduler(bare, scheduler, policy, nice):
    bare.spec["process"]["scheduler"] = scheduler
    _, out, _ = bare.run("cat", "/proc/self/stat")
    assert (stat_field(out, 41), stat_field(out, 19)) == (policy, nice)


def test_scheduler_of_a_further_process(bare):
    bare.sleeping()
    _, out, _ = bare.exec("cat", "/proc/self/stat", scheduler={"policy": "SCHED_BATCH"})
    assert stat_field(out, 41) == 3


def test_real_time_or_the_kernels_word(bare):
    """In a group of version 1 without real-time shares the kernel refuses, which is said."""
    bare.spec["process"]["scheduler"] = {"policy": "SCHED_FIFO", "priority": 10}
    try:
        _, out, _ = bare.run("cat", "/proc/self/stat")
    except InvalidArgument as error:
        assert "SCHED_FIFO: operation not permitted; with cgroup v1" in error.message
    else:
        assert (stat_field(out, 41), stat_field(out, 40)) == (1, 10)


def test_io_priority(bare):
    bare.spec["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    pid = bare.sleeping()
    # ioprio_get(IOPRIO_WHO_PROCESS, pid), through util-linux, which has no other way to say it
    assert os.popen(f"ionice -p {pid}").read().strip() == "best-effort: prio 6"


def test_cpus_of_a_further_process(bare):
    bare.sleeping()
    wanted = max(os.sched_getaffinity(0))
    script = "grep Cpus_allowed_list /proc/self/status"
    _, out, _ = bare.exec("sh", "-c", script, execCPUAffinity={"initial": "0", "final": f"{wanted}"})
    assert out.split() == ["Cpus_allowed_list:", f"{wanted}"]


def test_cpus_are_not_the_first_processs(bare):
    bare.spec["process"]["execCPUAffinity"] = {"initial": "0", "final": "0"}
    out = bare.sh("grep Cpus_allowed: /proc/self/status")
    assert int(out.split()[1].replace(",", ""), 16).bit_count() == len(os.sched_getaffinity(0))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the word for 32 bit differs elsewhere")
def test_personality_of_first_and_further_process(bare):
    bare.spec["linux"]["personality"] = {"domain": "LINUX32"}
    pid = bare.create("sh", "-c", "uname -m; touch /tmp/done; exec sleep 300")
    bare.call("start")
    assert bare.exec("uname", "-m")[1] == "i686\n"
    assert bare.end(pid)[1] == "i686\n"


@pytest.mark.parametrize(
    ("process", "linux", "word"),
    [
        ({"scheduler": {"policy": "SCHED_SOON"}}, {}, "SCHED_SOON"),
        ({"scheduler": {"policy": "SCHED_OTHER", "nice": 20}}, {}, "nice 20"),
        ({"scheduler": {"policy": "SCHED_OTHER", "priority": 1}}, {}, "priority goes with"),
        ({"scheduler": {"policy": "SCHED_FIFO", "runtime": 1}}, {}, "go with SCHED_DEADLINE"),
        ({"scheduler": {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"]}}, {}, "SCHED_FLAG_X"),
        ({"ioPriority": {"class": "IOPRIO_CLASS_NONE"}}, {}, "IOPRIO_CLASS_NONE"),
        ({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}, {}, "priority 8"),
        ({"execCPUAffinity": {"initial": "0-"}}, {}, '"0-" is not a list of CPUs'),
        ({"execCPUAffinity": {"initial": "3-1"}}, {}, '"3-1" is not a list of CPUs'),
        ({"execCPUAffinity": {"final": "0-99999999999"}}, {}, "is not a list of CPUs"),
        ({}, {"personality": {"domain": "SVR4"}}, "SVR4"),
        ({}, {"personality": {"domain": "LINUX", "flags": ["X"]}}, "no flags"),
    ],
)
def test_bad_attributes_are_refused(process, linux, word):
    with pytest.raises(InvalidArgument, match=word):
        attributes.parse(process, linux.get("personality"))


def test_a_policy_that_no_kernel_has(bare):
    bare.spec["process"]["scheduler"] = {"policy": "SCHED_ISO"}
    with pytest.raises(InvalidArgument, match="SCHED_ISO: invalid argument"):
        bare.create("true")
    assert not bare.groups()


def test_cpus_that_are_not_there(bare):
    bare.sleeping()
    with pytest.raises(InvalidArgument, match="execCPUAffinity to 65000: invalid argument"):
        bare.exec("true", execCPUAffinity={"initial": "65000"})
