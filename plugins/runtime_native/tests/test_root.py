"""Mounts, devices, masks: what the container sees of a file system."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from wharfie.shim.cgroups import version
from wharfie.spi.errors import InvalidArgument, WharfieError

NULL = (1, 3)


def mount(destination, type="bind", source="", options=""):
    return {"destination": destination, "type": type, "source": source, "options": options.split()}


def table(text):
    """mountinfo as {mount point: (options, type)}, the last mount on a point winning."""
    found = {}
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        fields = head.split()
        found[fields[4]] = (set(fields[5].split(",")), tail.split()[0], " ".join(fields[6:]))
    return found


def test_mount_table_is_the_containers_own(bare):
    found = table(bare.sh("cat /proc/self/mountinfo"))
    assert found["/proc"][:2] == ({"rw", "nosuid", "nodev", "noexec", "relatime"}, "proc")
    assert found["/dev"][1] == "tmpfs"
    assert "ro" in found["/sys"][0]
    assert "ro" in found["/proc/sys"][0]
    assert {path.split("/")[1] for path in found if path != "/"} == {"proc", "dev", "sys"}
    assert not any("shared" in more or "master" in more for _, _, more in found.values())


def test_tmpfs_that_begins_with_what_is_there(bare):
    (bare.root / "data/deep").mkdir()
    (bare.root / "data/deep/file").write_text("content")
    (bare.root / "data").chmod(0o750)
    bare.spec["mounts"].append(mount("/data", "tmpfs", "tmpfs", "tmpcopyup ro size=1m"))
    bare.spec["mounts"].append(mount("/new", "tmpfs", "tmpfs", "tmpcopyup size=1m"))
    told = bare.sh("cat /data/deep/file; stat -c ' %a' /data /new; ! touch /data/x 2>/dev/null")
    assert told == "content 750\n 1777\n"


def test_devices_and_links(bare):
    bare.spec["linux"]["devices"] = [
        {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o620, "uid": 3, "gid": 4},
        {"path": "/dev/pipe", "type": "p"},
    ]
    listing = bare.sh(
        "stat -c '%n %t:%T %a %u %g %F' /dev/* /dev/net/tun; for l in ptmx fd stderr; do readlink /dev/$l; done"
    )
    assert "/dev/null 1:3 666 0 0 character special file" in listing
    assert "/dev/full 1:7 666" in listing
    assert "/dev/net/tun a:c8 620 3 4" in listing
    assert "/dev/pipe 0:0 666 0 0 fifo" in listing
    assert "pts/ptmx\n/proc/self/fd\n/proc/self/fd/2" in listing
    assert "console" not in listing


def test_masked_paths(bare):
    out = bare.sh(
        "stat -c '%n %t:%T' /proc/timer_list /proc/keys; ls /sys/firmware; cat /proc/keys; touch /sys/firmware/x || echo no"
    )
    assert out == "/proc/timer_list 1:3\n/proc/keys 1:3\nno\n"


def test_read_only_paths(bare):
    assert bare.sh("echo 1 > /proc/sys/kernel/domainname || echo no; echo h > /proc/sysrq-trigger || echo no") == "no\nno\n"


def test_read_only_root(bare):
    bare.spec["root"]["readonly"] = True
    bare.spec["mounts"].append(mount("/scratch", "tmpfs", "tmpfs", "nosuid size=1m"))
    out = bare.sh("touch /x || echo no; touch /scratch/x; touch /dev/x; touch /dev/shm/x; df /scratch 2>/dev/null || true")
    assert out.startswith("no\n")


def test_read_only_dev(bare):
    bare.spec["mounts"][1]["options"].append("ro")
    assert bare.sh("touch /dev/x || echo no; echo ok > /dev/null; touch /dev/shm/x") == "no\n"


def test_binds(bare, tmp_path):
    (tmp_path / "file").write_text("content\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    bare.spec["mounts"] += [
        mount("/etc/new/hosts", source=str(tmp_path / "file"), options="rbind rprivate"),
        mount("/vol", source=str(folder), options="rbind rprivate ro"),
        mount("/vol2", source=str(folder), options="rbind"),
    ]
    out = bare.sh("cat /etc/new/hosts; echo more >> /etc/new/hosts; touch /vol/x || echo no; touch /vol2/y; ls /vol")
    assert out == "content\nno\ny\n"
    assert (tmp_path / "file").read_text() == "content\nmore\n"


def test_bind_flags_cover_one_mount_or_all(bare, work):
    """`ro` is for the mount itself, `rro` for everything below (OCI runtime-spec, config.md)."""
    folder = work / "nested"
    (folder / "inner").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "inner"], check=True)
    try:
        bare.spec["mounts"] += [
            mount("/one", source=str(folder), options="rbind ro"),
            mount("/all", source=str(folder), options="rbind rro nosuid"),
            mount("/flat", source=str(folder), options="bind"),
        ]
        found = table(bare.sh("cat /proc/self/mountinfo"))
    finally:
        subprocess.run(["umount", folder / "inner"], check=True)
    assert "ro" in found["/one"][0]
    assert "rw" in found["/one/inner"][0]
    assert {"ro", "nosuid"} <= found["/all"][0]
    assert "ro" in found["/all/inner"][0]
    assert "nosuid" not in found["/all/inner"][0]
    assert "/flat/inner" not in found


@pytest.fixture
def shared(work):
    folder = work / "shared"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    subprocess.run(["mount", "--make-shared", folder], check=True)
    yield folder
    subprocess.run(["umount", "-R", folder], check=True)
    folder.rmdir()


@pytest.mark.parametrize(
    ("option", "sees", "shows"),
    [("rprivate", False, False), ("rslave", True, False), ("rshared", True, True), ("", False, False)],
)
def test_propagation(bare, shared, option, sees, shows):
    bare.spec["mounts"].append(mount("/vol", source=str(shared), options=f"rbind {option}"))
    bare.spec["process"]["capabilities"] = {
        name: [*bare.spec["process"]["capabilities"]["bounding"], "CAP_SYS_ADMIN"]
        for name in ("bounding", "permitted", "effective")
    }
    bare.sleeping()
    (shared / "host").mkdir()
    (shared / "inside").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", shared / "host"], check=True)
    code, out, err = bare.exec("sh", "-c", "grep -c ' /vol/host ' /proc/mounts; mount -t tmpfs x /vol/inside")
    assert (code, err) == (0, "")
    assert (out.strip() == "1") is sees
    assert (str(shared / "inside") in Path("/proc/self/mountinfo").read_text()) is shows


def test_propagation_of_the_root(bare):
    bare.spec["linux"]["rootfsPropagation"] = "shared"
    found = table(bare.sh("cat /proc/self/mountinfo"))
    assert "shared" in found["/"][2]


def test_own_groups_are_shown_read_only(bare):
    if version() == "v2":
        pytest.skip("without a control group namespace version 2 shows the host's tree (test_cgroup2)")
    out = bare.sh("cd /sys/fs/cgroup; mkdir pids/x 2>/dev/null || echo no; cat */cgroup.procs || cat cgroup.procs")
    assert out.startswith("no\n1\n"), "the only processes to be seen are the container's"


def test_cgroup_namespace(bare):
    bare.spec["linux"]["namespaces"].append({"type": "cgroup"})
    out = bare.sh(
        "cat /proc/self/cgroup; ls /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | head -1"
    )
    assert bare.id not in out
    assert "cgroup.procs" in out


def test_hostname_and_sysctls(bare):
    bare.spec["hostname"], bare.spec["domainname"] = "a.b.c", "dom"
    bare.spec["linux"]["sysctl"] = {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net/ipv4/ping_group_range": "0 2147483647",
        "kernel.msgmax": "9999",
        "fs.mqueue.msg_max": "11",
    }
    names = "kernel.hostname kernel.domainname net.ipv4.ip_unprivileged_port_start kernel.msgmax fs.mqueue.msg_max"
    assert bare.sh(f"sysctl -n {names}").split() == ["a.b.c", "dom", "0", "9999", "11"]
    assert Path("/proc/sys/kernel/msgmax").read_text().strip() != "9999"


def test_loopback_is_up(bare):
    assert "inet 127.0.0.1/8" in bare.sh("ip addr show lo")


@pytest.mark.parametrize("name", ["kernel.panic", "net.core.somaxconn", "kernel.msgmax", "net.ipv4.../x", "vm.swappiness"])
def test_sysctls_of_the_host_are_refused(bare, name):
    if name.startswith(("net.core", "kernel.msg")):
        bare.spec["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid"}]
        del bare.spec["hostname"]
    bare.spec["linux"]["sysctl"] = {name: "1"}
    with pytest.raises(InvalidArgument, match="sysctl"):
        bare.create("true")


def test_namespaces_are_joined_by_path(bare, bares):
    first = bare.sleeping()
    other = bares()
    other.spec["linux"]["namespaces"] = [
        {"type": "mount"},
        *(
            {"type": name, "path": f"/proc/{first}/ns/{kernel}"}
            for name, kernel in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid"))
        ),
    ]
    other.spec["hostname"] = ""
    out = other.sh("hostname; ps; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc")
    assert out.startswith("box\n")
    assert "sleep 300" in out
    assert out.split()[-2:] == [str(Path(f"/proc/{first}/ns/{name}").readlink()) for name in ("net", "ipc")]


def test_hosts_network_when_there_is_no_entry(bare):
    bare.spec["linux"]["namespaces"] = [entry for entry in bare.spec["linux"]["namespaces"] if entry["type"] != "network"]
    assert bare.sh("readlink /proc/self/ns/net").strip() == str(Path("/proc/self/ns/net").readlink())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"namespaces": [{"type": "mount"}, {"type": "moon"}]}, "moon"),
        ({"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "pid"}]}, "twice"),
        ({"namespaces": [{"type": "pid"}, {"type": "uts"}]}, "mount namespace"),
        ({"namespaces": [{"type": "mount"}]}, "UTS namespace"),
        ({"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/no/such"}]}, "/no/such"),
        ({"rootfsPropagation": "upwards"}, "upwards"),
        ({"cgroupsPath": "../up"}, "cgroupsPath"),
        ({"cgroupsPath": "system.slice:docker:abc"}, "systemd"),
        ({"devices": [{"path": "dev/x", "type": "c"}]}, "dev/x"),
        ({"devices": [{"path": "/dev/x", "type": "z"}]}, '"z"'),
    ],
)
def test_bad_configuration_is_refused(bare, change, word):
    bare.spec["linux"].update(change)
    with pytest.raises(InvalidArgument, match=word):
        bare.create("true")


def test_relative_destination_is_refused(bare):
    bare.spec["mounts"].append(mount("here", "tmpfs", "tmpfs"))
    with pytest.raises(InvalidArgument, match='"here" is not absolute'):
        bare.create("true")


@pytest.mark.parametrize(
    ("entry", "word"),
    [(mount("/", "tmpfs", "tmpfs"), "hide"), (mount("/x", source="/tmp", options="idmap"), "idmap needs")],
)
def test_mounts_that_cannot_be(bare, entry, word):
    bare.spec["mounts"].append(entry)
    with pytest.raises(WharfieError, match=word):
        bare.create("true")


def test_hostname_that_the_kernel_refuses(bare):
    bare.spec["hostname"] = "x" * 65
    with pytest.raises(InvalidArgument, match='cannot set hostname "xxx'):
        bare.create("true")


def test_kernels_word_for_a_bad_option(bare):
    bare.spec["mounts"].append(mount("/x", "tmpfs", "tmpfs", "size=banana"))
    with pytest.raises(InvalidArgument, match=r'error mounting "tmpfs" to rootfs at "/x".*invalid argument'):
        bare.create("true")


def test_user_namespace(bare):
    bare.spec["linux"]["namespaces"].append({"type": "user"})
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    bare.spec["linux"].update(uidMappings=mapping, gidMappings=mapping)
    for path in (bare.root, *bare.root.rglob("*")):
        os.chown(path, 100000, 100000, follow_symlinks=False)
    bare.spec["process"]["user"]["additionalGids"] = []
    script = "id -u; touch /x; stat -c %t:%T /dev/null; cat /proc/self/uid_map; hostname; touch /done; exec sleep 300"
    pid = bare.create("sh", "-c", script)
    assert os.stat(f"/proc/{pid}").st_uid in (0, 100000)
    bare.call("start")
    assert bare.exec("sh", "-c", "until [ -e /done ]; do sleep 0.05; done; id -u")[:2] == [0, "0\n"]
    bare.call("signal_all", signal=9)
    code, out, err = bare.call("wait", pid=pid)
    assert (code, err) == (-9, "")
    assert out.split() == ["0", "1:3", "0", "100000", "65536", "box"]
    assert (bare.root / "x").stat().st_uid == 100000
