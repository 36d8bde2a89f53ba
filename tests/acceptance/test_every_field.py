"""Every field of a container's Config and HostConfig: what it does, or how it is refused. A new field needs a line here.

A case is a value, and then either a shell line whose output shows the effect, or what inspect shows, or the refusal's text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.harness import until
from wharfie.engine.model.config import Config
from wharfie.engine.model.host import HostConfig

CGROUP = "/sys/fs/cgroup"
CAT = "cat /sys/fs/cgroup"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The effect is what a shell line in the container prints. `more`: other fields of the request."""

    value: Any
    line: str
    output: str
    more: dict[str, Any] = field(default_factory=dict)
    only: str = ""  # a file of the host without which there is nothing to see


@dataclass(frozen=True, kw_only=True)
class Shown:
    """It is the client's own business or has a test of its own (named by `why`); inspect gives it back."""

    value: Any
    why: str
    shown: Any = None


@dataclass(frozen=True, kw_only=True)
class Discarded:
    """Where the kernel has no `only`: taken out, with a warning. Where it has, as Seen."""

    value: Any
    line: str
    output: str
    only: str
    warning: str


@dataclass(frozen=True, kw_only=True)
class Refused:
    value: Any
    text: str
    status: int = 400
    more: dict[str, Any] = field(default_factory=dict)
    at_start: bool = False


def device_path() -> str:
    return next((f"/dev/{path.name}" for path in Path("/sys/block").iterdir() if Path(f"/dev/{path.name}").exists()), "")


def number_of(path: str) -> str:
    number = os.stat(path).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"


DISK = device_path()
THROTTLE = [{"Path": DISK, "Rate": 1 << 20}]
IO = {"only": f"{CGROUP}/blkio/blkio.throttle.read_bps_device"}

HOST: dict[str, Any] = {
    "Binds": Seen(value=["/etc:/bound:ro"], line="touch /bound/x 2>&1 | grep -o 'Read-only'", output="Read-only"),
    "ContainerIDFile": Shown(value="/tmp/cid", why="the client writes the file"),
    "LogConfig": Shown(value={"Type": "local", "Config": {}}, why="plugins/log_files"),
    "NetworkMode": Seen(value="none", line="ls /sys/class/net", output="lo"),
    "PortBindings": Shown(
        value={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
        why="test_run",
        shown={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]},
    ),
    "RestartPolicy": Shown(value={"Name": "on-failure", "MaximumRetryCount": 2}, why="test_restarts"),
    "AutoRemove": Shown(value=True, why="test_run"),
    "VolumeDriver": Refused(value="nosuch", text="nosuch", more={"Volumes": {"/v": {}}}),
    "VolumesFrom": Refused(value=["nosuch-container"], text="No such container: nosuch-container"),
    "ConsoleSize": Seen(value=[33, 44], line="stty size", output="33 44", more={"Tty": True}),
    "Annotations": Shown(value={"a": "b"}, why="handed to the runtime and to hook plugins"),
    "CapAdd": Seen(value=["SYS_TIME"], line="grep CapEff /proc/self/status | cut -f2", output="00000000aa0425fb"),
    "CapDrop": Seen(value=["ALL"], line="grep CapEff /proc/self/status | cut -f2", output="0000000000000000"),
    "CgroupnsMode": Seen(value="private", line="head -1 /proc/self/cgroup | grep -o ':/$'", output=":/"),
    "Dns": Seen(value=["192.0.2.9"], line="grep nameserver /etc/resolv.conf", output="nameserver 192.0.2.9"),
    "DnsOptions": Seen(value=["timeout:7"], line="grep options /etc/resolv.conf", output="options timeout:7"),
    "DnsSearch": Seen(value=["example.org"], line="grep search /etc/resolv.conf", output="search example.org"),
    "ExtraHosts": Seen(value=["extra:192.0.2.8"], line="grep extra /etc/hosts | tr '\\t' ' '", output="192.0.2.8 extra"),
    "GroupAdd": Seen(value=["extra", "77"], line="id -G", output="0 77 2000"),
    "IpcMode": Seen(value="none", line="df /dev/shm | tail -1 | grep -c shm$", output="0"),
    "Cgroup": Refused(value="container:x", text="Cgroup: another container's control group"),
    "Links": Refused(value=["nosuch:x"], text="could not get container for nosuch"),
    "OomScoreAdj": Seen(value=77, line="cat /proc/self/oom_score_adj", output="77"),
    "PidMode": Seen(value="host", line="test -d /proc/2 && echo host", output="host"),
    "Privileged": Seen(
        value=True, line="grep NoNewPrivs /proc/self/status; ls -d /dev/kmsg", output="NoNewPrivs:\t0\n/dev/kmsg"
    ),
    "PublishAllPorts": Shown(value=True, why="test_networks"),
    "ReadonlyRootfs": Seen(value=True, line="touch /x 2>&1 | grep -o Read-only", output="Read-only"),
    "SecurityOpt": Seen(value=["no-new-privileges"], line="grep NoNew /proc/self/status | cut -f2", output="1"),
    "StorageOpt": Refused(value={"nosuch": "1"}, text="unknown or invalid storage option: nosuch=1"),
    "Tmpfs": Seen(value={"/scratch": "size=1m"}, line="df -k /scratch | tail -1 | awk '{print $2}'", output="1024"),
    "UTSMode": Seen(value="host", line="hostname", output=os.uname().nodename),
    "UsernsMode": Refused(value="private", text="invalid USER mode: private"),
    "ShmSize": Seen(value=1 << 20, line="df -k /dev/shm | tail -1 | awk '{print $2}'", output="1024"),
    "Sysctls": Seen(value={"net.ipv4.ip_forward": "0"}, line="cat /proc/sys/net/ipv4/ip_forward", output="0"),
    "Runtime": Refused(value="nosuch", text="unknown or invalid runtime name: nosuch"),
    "Isolation": Refused(value="hyperv", text="invalid isolation: \"hyperv\" - linux only supports 'default'"),
    "CpuShares": Seen(value=512, line=f"{CAT}/cpu/cpu.shares", output="512"),
    "Memory": Seen(value=64 << 20, line=f"{CAT}/memory/memory.limit_in_bytes", output=str(64 << 20)),
    "NanoCpus": Seen(value=500_000_000, line=f"{CAT}/cpu/cpu.cfs_quota_us", output="50000"),
    "CgroupParent": Seen(value="{cgroup}/parent", line="grep -c /parent/ /proc/self/cgroup | grep -vc ^0", output="1"),
    "BlkioWeight": Discarded(
        value=300,
        line=f"{CAT}/blkio/blkio.bfq.weight",
        output="300",
        only=f"{CGROUP}/blkio/blkio.bfq.weight",
        warning="Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
    ),
    "BlkioWeightDevice": Discarded(
        value=[{"Path": DISK, "Weight": 300}],
        line=f"{CAT}/blkio/blkio.weight_device | cut -d' ' -f2",
        output="300",
        only=f"{CGROUP}/blkio/blkio.weight_device",
        warning="Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
        "Weight-device discarded.",
    ),
    "BlkioDeviceReadBps": Seen(
        value=THROTTLE, line=f"{CAT}/blkio/blkio.throttle.read_bps_device | cut -d' ' -f2", output=str(1 << 20), **IO
    ),
    "BlkioDeviceWriteBps": Seen(
        value=THROTTLE, line=f"{CAT}/blkio/blkio.throttle.write_bps_device | cut -d' ' -f2", output=str(1 << 20), **IO
    ),
    "BlkioDeviceReadIOps": Seen(
        value=THROTTLE, line=f"{CAT}/blkio/blkio.throttle.read_iops_device | cut -d' ' -f2", output=str(1 << 20), **IO
    ),
    "BlkioDeviceWriteIOps": Seen(
        value=THROTTLE, line=f"{CAT}/blkio/blkio.throttle.write_iops_device | cut -d' ' -f2", output=str(1 << 20), **IO
    ),
    "CpuPeriod": Seen(value=50_000, line=f"{CAT}/cpu/cpu.cfs_period_us", output="50000"),
    "CpuQuota": Seen(value=20_000, line=f"{CAT}/cpu/cpu.cfs_quota_us", output="20000"),
    "CpuRealtimePeriod": Seen(
        value=900_000, line=f"{CAT}/cpu/cpu.rt_period_us", output="900000", only=f"{CGROUP}/cpu/cpu.rt_period_us"
    ),
    # The kernel gives no more than the group above has, and this daemon gives that none (Docker's --cpu-rt-runtime).
    "CpuRealtimeRuntime": Refused(value=1000, text="cpu.rt_runtime_us", status=500, at_start=True),
    "CpusetCpus": Seen(value="0", line=f"{CAT}/cpuset/cpuset.cpus", output="0", only=f"{CGROUP}/cpuset"),
    "CpusetMems": Seen(value="0", line=f"{CAT}/cpuset/cpuset.mems", output="0", only=f"{CGROUP}/cpuset"),
    "Devices": Seen(
        value=[{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/own", "CgroupPermissions": "r"}],
        line="stat -c %t:%T /dev/own",
        output="1:5",
    ),
    "DeviceCgroupRules": Seen(
        value=["c 10:229 r"], line=f"{CAT}/devices/devices.list | grep 229", output="c 10:229 r", only=f"{CGROUP}/devices"
    ),
    "DeviceRequests": Refused(
        value=[{"Driver": "cdi", "Count": 1}], text="a device request of the driver cdi names its devices"
    ),
    "KernelMemoryTCP": Refused(value=1 << 30, text="KernelMemoryTCP: the kernel counts TCP buffers"),
    "MemoryReservation": Seen(value=32 << 20, line=f"{CAT}/memory/memory.soft_limit_in_bytes", output=str(32 << 20)),
    "MemorySwap": Seen(
        value=96 << 20,
        line=f"{CAT}/memory/memory.memsw.limit_in_bytes",
        output=str(96 << 20),
        more={"HostConfig": {"Memory": 64 << 20}},
        only=f"{CGROUP}/memory/memory.memsw.limit_in_bytes",
    ),
    "MemorySwappiness": Seen(value=7, line=f"{CAT}/memory/memory.swappiness", output="7"),
    "OomKillDisable": Seen(
        value=True,
        line="grep oom_kill_disable /sys/fs/cgroup/memory/memory.oom_control",
        output="oom_kill_disable 1",
        more={"HostConfig": {"Memory": 64 << 20}},
    ),
    "PidsLimit": Seen(value=55, line=f"{CAT}/pids/pids.max", output="55"),
    "Ulimits": Seen(value=[{"Name": "nofile", "Soft": 111, "Hard": 222}], line="ulimit -n; ulimit -Hn", output="111\n222"),
    "CpuCount": Refused(value=1, text="CpuCount: this limit exists on Windows only"),
    "CpuPercent": Refused(value=1, text="CpuPercent: this limit exists on Windows only"),
    "IOMaximumIOps": Refused(value=1, text="IOMaximumIOps: this limit exists on Windows only"),
    "IOMaximumBandwidth": Refused(value=1, text="IOMaximumBandwidth: this limit exists on Windows only"),
    "Mounts": Seen(
        value=[{"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700}}],
        line="stat -c %a /m",
        output="700",
    ),
    "MaskedPaths": Seen(value=["/etc/passwd"], line="wc -c < /etc/passwd", output="0"),
    "ReadonlyPaths": Seen(value=["/home"], line="touch /home/x 2>&1 | grep -o Read-only", output="Read-only"),
    "Init": Seen(
        value=True, line="grep -c -e init -e python /proc/1/comm /proc/1/cmdline | head -1 | cut -c1-6", output="/proc/"
    ),
}

CONFIG: dict[str, Any] = {
    "Hostname": Seen(value="own.name", line="hostname", output="own.name"),
    "Domainname": Seen(value="example.org", line="cat /proc/sys/kernel/domainname", output="example.org"),
    "User": Seen(value="worker", line="id -u", output="1000"),
    "AttachStdin": Shown(value=True, why="what the client is going to do"),
    "AttachStdout": Shown(value=True, why="what the client is going to do"),
    "AttachStderr": Shown(value=True, why="what the client is going to do"),
    "ExposedPorts": Shown(value={"80/tcp": {}}, why="test_networks"),
    "Tty": Seen(value=True, line="tty", output="/dev/pts/0"),
    "OpenStdin": Shown(value=True, why="test_run"),
    "StdinOnce": Shown(value=True, why="test_run"),
    "Env": Seen(value=["A=b c"], line="echo $A", output="b c"),
    "Cmd": Seen(value=["sh", "-c", "echo own"], line="", output="own"),
    "Healthcheck": Shown(value={"Test": ["CMD", "true"], "Interval": 10**9}, why="test_health"),
    "ArgsEscaped": Shown(value=True, why="it changes nothing on Linux, as with Docker"),
    "Image": Refused(value="nosuch:1", text="No such image: nosuch:1", status=404),
    "Volumes": Seen(value={"/vol": {}}, line="mount | grep -c ' /vol '", output="1"),
    "WorkingDir": Seen(value="/made/here", line="pwd", output="/made/here"),
    "Entrypoint": Seen(value=["echo", "first"], line="", output="first", more={"Cmd": []}),
    "NetworkDisabled": Seen(value=True, line="ls /sys/class/net", output="lo"),
    "MacAddress": Seen(value="02:42:0a:00:00:99", line="cat /sys/class/net/eth0/address", output="02:42:0a:00:00:99"),
    "OnBuild": Shown(value=["RUN true"], why="for builds on an image that is committed from it"),
    "Labels": Shown(value={"k": "v"}, why="test_run"),
    "StopSignal": Refused(value="NOPE", text="invalid signal: NOPE"),
    "StopTimeout": Refused(value=-2, text="invalid stop timeout -2"),
    "Shell": Shown(value=["/bin/sh", "-ec"], why="test_health"),
}


def aliases(model):
    return {field.alias for field in model.model_fields.values()}


def test_no_field_is_forgotten():
    assert HOST.keys() == aliases(HostConfig)
    assert CONFIG.keys() == aliases(Config)


def request_of(place, name, case):
    body: dict[str, Any] = {"Image": "busybox", "Cmd": ["sh", "-c", getattr(case, "line", "true")]}
    body |= {key: value for key, value in getattr(case, "more", {}).items() if key != "HostConfig"}
    host = dict(getattr(case, "more", {}).get("HostConfig", {}))
    if place == "HostConfig":
        host[name] = case.value
    else:
        body[name] = case.value
    return {**body, "HostConfig": host}


CASES = [("HostConfig", name, case) for name, case in HOST.items()] + [
    ("Config", name, case) for name, case in CONFIG.items()
]


@pytest.mark.parametrize(("place", "field", "case"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_field(daemon, name, place, field, case):
    body = json.loads(json.dumps(request_of(place, field, case)).replace("{cgroup}", daemon.cgroup))
    try_field(daemon, name, body, case, lambda: daemon.inspect(name)[place][field])


def try_field(daemon, name: str, body: dict[str, Any], case: Any, shown: Callable[[], Any]) -> None:
    """Make the container and see that the case is right. `shown`: what inspect says of the field."""
    if isinstance(case, Seen) and case.only and not Path(case.only).exists():
        pytest.skip(f"this kernel has no {case.only}")
    status, answer = daemon.request("POST", f"/containers/create?name={name}", body)
    if isinstance(case, Refused):
        if case.at_start:
            status, answer = daemon.request("POST", f"/containers/{name}/start")
        assert status == case.status, answer
        assert case.text in answer["message"]
        return
    assert status == 201, answer
    if isinstance(case, Discarded) and not Path(case.only).exists():
        assert answer["Warnings"] == [case.warning]
        assert not shown()
        return
    if isinstance(case, Shown):
        assert shown() == (case.value if case.shown is None else case.shown)
        return
    status, answer = daemon.request("POST", f"/containers/{name}/start")
    assert status == 204, answer
    until(lambda: daemon.inspect(name)["State"]["Status"] == "exited", what="the end")
    assert daemon.docker("logs", name).replace("\r", "") == case.output
