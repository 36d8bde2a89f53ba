"""What containers have escaped by, elsewhere: each row of known advisories that a runtime has to withstand."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from wharfie.spi.errors import InvalidArgument, WharfieError

STARTS = 25


def bind(destination, source):
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", "rprivate"]}


def mounts(*folders):
    """The host's mounts on or below folders of this test."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if any(str(folder) in line for folder in folders)]


@pytest.fixture
def canary(tmp_path):
    """A host folder that must stay as it is."""
    folder = tmp_path / "canary"
    folder.mkdir()
    (folder / "file").write_text("untouched")
    yield folder
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert (folder / "file").read_text() == "untouched"


# CVE-2019-5736: the runtime's own process, seen from inside the container


def test_a_process_before_execve_shows_nothing_to_those_inside(bare, bares):
    inside = bare.sleeping()
    other = bares()
    other.spec["linux"]["namespaces"] = [
        entry if entry["type"] != "pid" else {"type": "pid", "path": f"/proc/{inside}/ns/pid"}
        for entry in other.spec["linux"]["namespaces"]
    ]
    other.create("sleep", "300")
    script = """
        for p in /proc/[0-9]*; do
            case $p in /proc/1|/proc/$$) continue; esac
            echo $p
            for name in exe cwd root fd/0 fd/1 fd/3; do readlink $p/$name; done
            cat $p/fd/0; ls $p/root/ $p/cwd/; cat $p/environ; head -c 1 $p/mem; cat $p/maps
        done
    """
    _, out, err = bare.exec("sh", "-c", script)
    assert out == "/proc/2\n", "of the created container's process nothing but its number may be seen"
    assert err.count("Permission denied") >= 4


def test_a_watcher_in_the_container_catches_no_exec(bare):
    watcher = (
        "while [ ! -e /stop ]; do for p in /proc/[0-9]*; do readlink $p/exe >> /seen; readlink $p/cwd >> /seen; done; done"
    )
    pid = bare.create("sh", "-c", watcher)
    bare.call("start")
    for _ in range(STARTS):
        assert bare.exec("true")[0] == 0
    (bare.root / "stop").touch()
    bare.call("wait", pid=pid)
    seen = set((bare.root / "seen").read_text().split())
    assert "/bin/busybox" in seen
    assert seen <= {"/bin/busybox", "/"}


# CVE-2024-21626: a working directory that is a descriptor left open


@pytest.mark.parametrize("place", ["create", "exec"])
def test_no_descriptor_leads_out_as_working_directory(bare, bares, place):
    tried = 0
    if place == "exec":
        bare.sleeping()
    for number in range(3, 14):
        cwd = f"/proc/self/fd/{number}"
        try:
            if place == "exec":
                code, out, _ = bare.exec("sh", "-c", "ls ../../../..; pwd -P", cwd=cwd)
            else:
                one = bares()
                one.spec["process"]["cwd"] = cwd
                code, out, _ = one.run("sh", "-c", "ls ../../../..; pwd -P")
        except InvalidArgument:
            tried += 1
        else:
            pytest.fail(f"{cwd} was entered: {code} {out}")
    assert tried == 11


# CVE-2025-31133, 52565: what masks and consoles are bound from


def test_masks_do_not_come_from_the_containers_dev(bare, tmp_path):
    dev = tmp_path / "dev"
    dev.mkdir()
    (dev / "null").symlink_to("/proc/sys/kernel/core_pattern")
    bare.spec["mounts"] = [entry for entry in bare.spec["mounts"] if not entry["destination"].startswith("/dev")]
    bare.spec["mounts"].append(bind("/dev", dev))
    assert bare.sh("stat -c %t:%T /proc/timer_list; echo x > /dev/null || echo no") == "1:3\nno\n"
    assert [path.name for path in dev.iterdir()] == ["null"]


def test_terminal_is_not_taken_from_a_planted_file(bare, canary):
    for entry in bare.spec["mounts"]:
        if entry["destination"] == "/dev/pts":
            entry.update(type="bind", source=str(canary), options=["rbind"])
    with pytest.raises(WharfieError, match="devpts"):
        bare.create("true", terminal=True)


def test_console_that_is_a_link_in_the_image_is_not_followed_out(bare, canary):
    (bare.root / "dev").mkdir()
    (bare.root / "dev/console").symlink_to(canary / "file")
    assert bare.run("sh", "-c", "echo hi > /dev/console", terminal=True)[1].split() == ["hi"]


# CVE-2021-30465, 2023-27561, 2019-19921, 2024-45310: where mounts land


@pytest.mark.parametrize(
    "target", ["{canary}", "../../../../../../../../../..{canary}", "/proc/1/root{canary}", "/proc/self/cwd"]
)
@pytest.mark.parametrize("destination", ["/vol", "/vol/deeper/still"])
def test_links_on_the_way_to_a_mount_stay_inside(bare, canary, tmp_path, target, destination):
    (bare.root / "vol").symlink_to(target.format(canary=canary))
    source = tmp_path / "source"
    source.mkdir()
    bare.spec["mounts"].append(bind(destination, source))
    before = mounts(tmp_path, bare.root)
    try:
        out = bare.sh("grep -c /source /proc/self/mountinfo")
    except InvalidArgument:  # magic links are refused
        assert "/proc" in target
    else:
        assert out == "1\n"
    assert mounts(tmp_path, bare.root) == before
    assert list(source.iterdir()) == []


def test_dangling_links_are_made_whole_inside(bare, tmp_path):
    (bare.root / "var").mkdir()
    (bare.root / "var/run").symlink_to("/run")
    (bare.root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub.conf")
    (tmp_path / "file").write_text("content\n")
    bare.spec["mounts"] += [bind("/var/run/app/socket", tmp_path / "file"), bind("/etc/resolv.conf", tmp_path / "file")]
    assert bare.sh("cat /run/app/socket /etc/resolv.conf") == "content\ncontent\n"


def test_links_in_a_circle_end(bare, tmp_path):
    (bare.root / "a").symlink_to("b")
    (bare.root / "b").symlink_to("a")
    bare.spec["mounts"].append(bind("/a/x", tmp_path))
    with pytest.raises(InvalidArgument, match=r"symbolic links|too many links"):
        bare.create("true")


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_proc_sys_and_dev_may_not_be_links(bare, name):
    (bare.root / name).symlink_to("data")
    with pytest.raises(InvalidArgument, match="must be mounted on ordinary directory"):
        bare.create("true")


@pytest.mark.parametrize("destination", ["/proc/sys", "/proc/self/attr", "/proc/tty/driver", "/proc"])
def test_nothing_covers_procfs(bare, tmp_path, destination):
    bare.spec["mounts"].append(bind(destination, tmp_path))
    with pytest.raises(InvalidArgument, match="because it is inside /proc"):
        bare.create("true")


def test_what_lxcfs_covers_may_be_covered(bare, tmp_path):
    (tmp_path / "uptime").write_text("1 1\n")
    bare.spec["mounts"].append(bind("/proc/uptime", tmp_path / "uptime"))
    assert bare.sh("cat /proc/uptime") == "1 1\n"


def test_a_volume_whose_links_are_being_swapped(bare, bares, canary, tmp_path):
    """Another container on the volume swaps a folder and a link out of it, during many starts that mount there."""
    volume, source = tmp_path / "volume", tmp_path / "source"
    volume.mkdir()
    source.mkdir()
    (volume / "real").mkdir()
    (volume / "link").symlink_to(canary)
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            for name in ("real", "link"):
                try:
                    (volume / name).rename(volume / "point")
                    (volume / "point").rename(volume / name)
                except OSError:
                    continue

    thread = threading.Thread(target=swap)
    thread.start()
    before = mounts(tmp_path, bare.root)
    try:
        for _ in range(STARTS):
            one = bares()
            one.spec["mounts"] += [bind("/vol", volume), bind("/vol/point/inner", source)]
            try:
                one.run("touch", "/vol/point/inner/made")
            except InvalidArgument:
                continue
            finally:
                one.close()
                one.made = False
    finally:
        stop.set()
        thread.join()
    assert mounts(tmp_path, bare.root) == before


# CVE-2022-0492 and its like: kernel files through which a process becomes the host's root


def test_kernel_helpers_cannot_be_set(bare):
    script = """
    for file in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/release_agent /proc/sys/kernel/core_pattern \
        /proc/sys/kernel/modprobe /sys/kernel/uevent_helper /proc/sysrq-trigger /sys/fs/cgroup/*/notify_on_release; do
        if (echo "|/x" > $file) 2> /dev/null; then echo $file; fi
    done
    mount -t tmpfs x /tmp 2> /dev/null && echo mounted || true
    """
    assert bare.sh(script) == ""
