"""User, time and other namespaces: new ones with their maps and clocks, and all kinds joined by path."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
from wharfie_runtime_native import capabilities, namespaces
from wharfie_runtime_native.namespaces import FLAGS

from wharfie.spi.errors import InvalidArgument

MAPPING = [{"containerID": 0, "hostID": 100000, "size": 65536}]
SYS_RESOURCE = 1 << capabilities.NAMES.index("CAP_SYS_RESOURCE")
FILES = {"mount": "mnt", "network": "net"}
"""Names under /proc/PID/ns that differ from OCI's."""


def with_users(bare):
    """A root of the mapped users, and a user namespace."""
    bare.spec["linux"]["namespaces"].append({"type": "user"})
    bare.spec["linux"].update(uidMappings=MAPPING, gidMappings=MAPPING)
    bare.spec["process"]["user"]["additionalGids"] = []
    give(bare.root)


def give(folder, owner=100000):
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, owner, follow_symlinks=False)


def join(bare, pid, *names):
    """In place of new ones."""
    kept = [entry for entry in bare.spec["linux"]["namespaces"] if entry["type"] not in names]
    bare.spec["linux"]["namespaces"] = [
        *kept,
        *({"type": name, "path": f"/proc/{pid}/ns/{FILES.get(name, name)}"} for name in names),
    ]


def inode(pid, name):
    return str(Path(f"/proc/{pid}/ns/{FILES.get(name, name)}").readlink())


@pytest.fixture
def elsewhere():
    """A process in new namespaces of all kinds, held by unshare(1)."""
    process = subprocess.Popen(
        ["unshare", "-muinpCT", "--fork", "--propagation", "private", "sh", "-c", "echo $$; exec sleep 300"],
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
    yield child
    os.kill(child, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_every_kind_is_joined_by_path(bare, elsewhere):
    names = [name for name in FLAGS if name != "user"]
    (bare.root / "sys").mkdir()
    join(bare, elsewhere, *names)
    bare.spec["hostname"] = ""
    pid = bare.sleeping()
    for name in names:
        assert inode(pid, name) == inode(elsewhere, name), name
    script = "for n in pid net uts ipc cgroup time mnt; do readlink /proc/self/ns/$n; done; ls /"
    code, out, _ = bare.exec("sh", "-c", script)
    assert code == 0
    assert out.split()[:7] == [inode(elsewhere, name) for name in ("pid", "net", "uts", "ipc", "cgroup", "time", "mnt")]
    assert "data" in out.split()
    bare.call("signal_all", signal=9)
    bare.call("wait", pid=pid)  # the namespace's first process ends when those in it were collected


def test_the_hosts_mounts_are_not_joined(bare):
    join(bare, "self", "mount")
    with pytest.raises(InvalidArgument, match="it is the host's own"):
        bare.create("true")


def test_a_container_without_mounts_of_its_own_is_refused(bare):
    bare.spec["linux"]["namespaces"] = [entry for entry in bare.spec["linux"]["namespaces"] if entry["type"] != "mount"]
    with pytest.raises(InvalidArgument, match="mount namespace of its own"):
        bare.create("true")


# Users


def test_a_root_that_only_the_host_may_look_at(bare):
    """What is above the root, and a bind's source, is closed to the container's users; program and exec work."""
    with_users(bare)
    secret = bare.root.parent / "secret"
    secret.mkdir(mode=0o700)
    (secret / "file").write_text("content\n")
    bare.root.parent.chmod(0o700)
    bare.spec["mounts"].append({"destination": "/in", "type": "bind", "source": str(secret / "file"), "options": ["bind"]})
    bare.spec["process"]["cwd"] = "/private"
    (bare.root / "private").mkdir(mode=0o700)
    give(bare.root)
    pid = bare.create("sh", "-c", "cat /in; id -u; touch /tmp/done; exec sleep 300")
    bare.call("start")
    code, out, _ = bare.exec(
        "sh", "-c", "pwd; touch made; cat /proc/self/gid_map; grep CapEff /proc/self/status", cwd="/private"
    )
    assert code == 0
    assert out.split()[:4] == ["/private", "0", "100000", "65536"]
    assert (bare.root / "private/made").stat().st_uid == 100000
    assert bare.end(pid)[1] == "content\n0\n"


def test_a_terminal_of_the_containers_users(bare):
    with_users(bare)
    code, out = bare.run("sh", "-c", "stty size; stat -c %u $(tty); echo hi > /dev/console", terminal=True)
    assert (code, out.split()) == (0, ["33", "99", "0", "hi"])


def test_limits_of_the_containers_users(bare):
    """Set from outside, where they may be raised too, if the host's root may."""
    with_users(bare)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    hard += 10 if capabilities.held() & SYS_RESOURCE else -10
    bare.spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": hard - 1, "hard": hard}]
    pid = bare.create("sh", "-c", "ulimit -n; ulimit -Hn; touch /tmp/done; exec sleep 300")
    bare.call("start")
    assert bare.exec("sh", "-c", "ulimit -n; ulimit -Hn")[1].split() == [str(hard - 1), str(hard)]
    assert bare.end(pid)[1].split() == [str(hard - 1), str(hard)]


def test_users_are_joined_by_path(bare, bares):
    with_users(bare)
    pid = bare.sleeping()
    other = bares()
    other.spec["process"]["user"]["additionalGids"] = []
    join(other, pid, "user", "pid", "network", "ipc", "uts")
    other.spec["hostname"] = ""
    made = other.create(
        "sh",
        "-c",
        "cat /proc/self/uid_map; cat /proc/1/cmdline; touch /tmp/done; exec sleep 300",
    )
    for name in ("user", "pid", "network", "ipc", "uts"):
        assert inode(made, name) == inode(pid, name)
    other.call("start")
    assert other.exec("id", "-u")[:2] == [0, "0\n"]
    assert other.end(made)[1].split() == ["0", "100000", "65536", "sleep\x00300\x00"]


def test_maps_that_are_not_those_of_the_users_joined(bare, bares):
    with_users(bare)
    pid = bare.sleeping()
    other = bares()
    join(other, pid, "user")
    other.spec["linux"].update(uidMappings=[{**MAPPING[0], "size": 1000}], gidMappings=MAPPING)
    with pytest.raises(InvalidArgument, match=r"linux.uidMappings differ"):
        other.create("true")


def test_users_of_its_own_among_the_hosts_processes(bare):
    """It may not mount what shows the host's namespaces, so it gets the host's mounts of that."""
    with_users(bare)
    shared = ("pid", "network", "ipc")
    bare.spec["linux"]["namespaces"] = [entry for entry in bare.spec["linux"]["namespaces"] if entry["type"] not in shared]
    bare.spec["mounts"] = [entry for entry in bare.spec["mounts"] if entry["type"] != "mqueue"]  # not all hosts have one
    pid = bare.sleeping()
    assert inode(pid, "user") != inode("self", "user")
    code, out, _ = bare.exec(
        "sh", "-c", f"readlink /proc/self/ns/net; cat /proc/{pid}/comm; ls /sys; echo > /proc/sysrq-trigger"
    )
    assert (code, out.split()[:2]) == (1, [inode("self", "network"), "sleep"])
    assert "class" in out.split()


def test_what_is_mounted_inside_does_not_reach_the_host(bare, tmp_path):
    """A shared volume in a user namespace: shared among the container's own, and with nobody else."""
    volume = tmp_path / "volume"
    (volume / "point").mkdir(parents=True)
    give(volume)
    subprocess.run(["mount", "--bind", volume, volume], check=True)
    try:
        subprocess.run(["mount", "--make-shared", volume], check=True)
        with_users(bare)
        for namespace in ("bounding", "effective", "permitted"):
            bare.spec["process"]["capabilities"][namespace] = [
                *bare.spec["process"]["capabilities"][namespace],
                "CAP_SYS_ADMIN",
            ]
        bare.spec["mounts"].append(
            {"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind", "rshared"]}
        )
        assert bare.sh("mount -t tmpfs inside /v/point; grep -c ' /v/point ' /proc/self/mounts") == "1\n"
        assert "point" not in Path("/proc/self/mountinfo").read_text()
    finally:
        subprocess.run(["umount", volume], check=True)


@pytest.mark.parametrize(
    ("mappings", "word"),
    [
        ([{"containerID": 0, "hostID": 0}], "containerID, hostID and size"),
        ([{"containerID": 0, "hostID": -1, "size": 1}], "outside of what ids can be"),
        ([{"containerID": 0, "hostID": 0, "size": 0}], "outside of what ids can be"),
    ],
)
def test_bad_mappings_are_refused(mappings, word):
    with pytest.raises(InvalidArgument, match=word):
        namespaces.id_map(mappings, "linux.uidMappings")


def test_mappings_that_the_kernel_refuses(bare):
    with_users(bare)
    bare.spec["linux"]["uidMappings"] = [*MAPPING, *MAPPING]
    with pytest.raises(InvalidArgument, match="the kernel refuses the id mappings"):
        bare.create("true")
    assert not bare.groups()


def test_a_user_who_is_not_mapped(bare):
    with_users(bare)
    bare.spec["process"]["user"] = {"uid": 70000, "gid": 0}
    with pytest.raises(InvalidArgument, match=r"cannot become user 70000, group 0, .*not all of them are mapped"):
        bare.create("true")


def test_users_without_a_root(bare):
    with_users(bare)
    bare.spec["linux"]["uidMappings"] = [{"containerID": 1000, "hostID": 100000, "size": 10}]
    with pytest.raises(InvalidArgument, match="maps no user and group 0"):
        bare.create("true")


# Clocks


@pytest.mark.parametrize("users", [False, True])
def test_clocks_of_its_own(bare, users):
    if users:
        with_users(bare)
    bare.spec["linux"]["namespaces"].append({"type": "time"})
    bare.spec["linux"]["timeOffsets"] = {"monotonic": {"secs": 86400}, "boottime": {"secs": 1000000, "nanosecs": 5}}
    pid = bare.create("sh", "-c", "cat /proc/uptime; touch /tmp/done; exec sleep 300")
    assert inode(pid, "time") != str(Path("/proc/self/ns/time").readlink())
    assert inode(pid, "time") == str(Path(f"/proc/{pid}/ns/time_for_children").readlink())
    bare.call("start")
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert float(bare.exec("cat", "/proc/uptime")[1].split()[0]) - up > 999999
    assert float(bare.end(pid)[1].split()[0]) - up > 999990


def test_clocks_that_cannot_be_set(bare):
    bare.spec["linux"]["timeOffsets"] = {"monotonic": {"secs": 1}}
    with pytest.raises(InvalidArgument, match="needs a new time namespace"):
        bare.create("true")
    bare.spec["linux"]["namespaces"].append({"type": "time"})
    bare.spec["linux"]["timeOffsets"] = {"boottime": {"secs": -(1 << 40)}}
    with pytest.raises(InvalidArgument, match=r"the kernel refuses linux.timeOffsets .*out of range"):
        bare.create("true")
    for offsets, word in (({"realtime": {}}, "realtime"), ({"monotonic": {"nanosecs": 1000000000}}, "no part of a second")):
        with pytest.raises(InvalidArgument, match=word):
            namespaces.time_offsets(offsets)
