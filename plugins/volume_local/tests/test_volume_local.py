"""The driver `local`: folders, mounts, and what a killed predecessor leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from wharfie_volume_local import mounting

from wharfie.spi.errors import Conflict, DataLoss, InvalidArgument, NotFound, WharfieError
from wharfie.spi.mount_points import is_mounted

TMPFS = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,mode=1777,nosuid"}


@pytest.fixture
def driver(make_driver, tmp_path):
    return make_driver(tmp_path / "volumes")


def settle(driver):
    """Wait for the sweep that `open` began."""
    if driver._sweeper is not None:
        driver._sweeper.join()


def test_a_volume_is_a_folder_with_dockers_modes(driver, tmp_path):
    old = os.umask(0o077)
    try:
        volume = driver.create("data", {}, {"a": "b"})
    finally:
        os.umask(old)
    assert volume.mountpoint == tmp_path / "volumes" / "data" / "_data"
    assert volume.mountpoint.stat().st_mode & 0o7777 == 0o755
    assert volume.mountpoint.parent.stat().st_mode & 0o7777 == 0o701
    assert time.strptime(volume.created, "%Y-%m-%dT%H:%M:%SZ")
    assert driver.mount("data", "c1") == driver.mount("data", "c2") == volume.mountpoint
    driver.unmount("data", "c1")
    driver.unmount("data", "c1")
    assert driver.create("data", {}, {}) == volume == driver.get("data")
    assert driver.volumes() == [volume]


def test_remove_takes_all_and_may_be_repeated(driver):
    volume = driver.create("data", {}, {})
    (volume.mountpoint / "file").write_text("x")
    (volume.mountpoint / "link").symlink_to("/etc")
    driver.remove("data")
    driver.remove("data")
    driver.unmount("data", "c1")
    assert driver.volumes() == []
    assert not any((volume.mountpoint.parent.parent / ".trash").iterdir())
    with pytest.raises(NotFound, match="get data: no such volume"):
        driver.get("data")
    with pytest.raises(NotFound):
        driver.mount("data", "c1")


def test_remove_of_a_tree_deeper_than_any_path(driver):
    volume = driver.create("deep", {}, {})
    here = os.open(volume.mountpoint, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("directory", dir_fd=here)
        deeper = os.open("directory", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    assert driver.usage("deep").inodes > 100
    driver.remove("deep")
    assert not any((volume.mountpoint.parent.parent / ".trash").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nosuch": "1"}, '^invalid option: "nosuch"'),
        ({"size": "10m"}, "quota size requested but no quota support"),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"device": "/srv"}, 'missing required option: "type"'),
        ({"o": "ro"}, 'missing required option: "device"'),
    ],
)
def test_bad_options_are_refused_by_name_and_leave_nothing(driver, options, message):
    with pytest.raises(InvalidArgument, match=message):
        driver.create("v", options, {})
    assert driver.volumes() == []


@pytest.mark.parametrize("name", ["", ".trash", "..", "a/b", "a\0b"])
def test_names_that_lead_elsewhere_are_refused(driver, name):
    with pytest.raises(InvalidArgument):
        driver.create(name, {}, {})


def test_other_options_for_an_existing_name_conflict(driver):
    driver.create("v", TMPFS, {})
    with pytest.raises(Conflict, match="exists with other options"):
        driver.create("v", {}, {})
    assert driver.create("v", dict(TMPFS), {}).options == TMPFS


def test_tmpfs_is_mounted_for_the_first_and_unmounted_after_the_last(driver):
    path = driver.create("t", TMPFS, {}).mountpoint
    assert not is_mounted(path)
    assert driver.mount("t", "c1") == path
    (path / "file").write_text("kept while in use")
    driver.mount("t", "c2")
    driver.mount("t", "c2")
    driver.unmount("t", "c1")
    assert (path / "file").exists()
    statistics = os.statvfs(path)
    assert statistics.f_blocks * statistics.f_frsize == 1 << 20
    assert statistics.f_flag & os.ST_NOSUID
    driver.unmount("t", "c2")
    assert not is_mounted(path)
    assert list(path.iterdir()) == []


def test_bind_read_only_and_remove_never_touches_the_source(driver, tmp_path):
    source = tmp_path / "a source"
    source.mkdir()
    (source / "precious").write_text("p")
    path = driver.create("b", {"type": "none", "device": str(source), "o": "bind,ro,rprivate"}, {}).mountpoint
    driver.mount("b", "c1")
    assert (path / "precious").read_text() == "p"
    with pytest.raises(OSError, match="Read-only"):
        (path / "new").write_text("x")
    driver.remove("b")
    assert not is_mounted(path)
    assert (source / "precious").read_text() == "p"


def test_deleting_never_enters_a_mount_that_nobody_expected(driver, tmp_path, caplog):
    source = tmp_path / "source"
    source.mkdir()
    (source / "precious").write_text("p")
    inside = driver.create("v", {}, {}).mountpoint / "deep" / "inside"
    inside.mkdir(parents=True)
    mounting.mount(str(source), inside, "none", "bind")
    driver.remove("v")
    assert "cannot delete the remains" in caplog.text
    assert (source / "precious").read_text() == "p"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if str(tmp_path) in line:
            subprocess.run(["umount", line.split()[4]], check=True)
    driver.open()
    settle(driver)
    assert not any((tmp_path / "volumes" / ".trash").iterdir())
    assert (source / "precious").read_text() == "p"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "none", "device": "/nonexistent-source", "o": "bind"}, "failed to mount local volume.*no such file"),
        ({"type": "nosuchfs", "device": "none"}, "no file system 'nosuchfs'"),
        ({"type": "tmpfs", "device": "tmpfs", "o": "no=1,nosuid"}, "_data, flags: 0x2, data: no=1: invalid argument$"),
        ({"type": "nosuchfs", "device": "//s/x", "o": "user=u,password=hunter2"}, r"password=\*{8}: no such device"),
        ({"type": "nfs", "device": ":/x", "o": "addr=no.such.invalid,ro"}, "network volume address: lookup no.such.inv"),
        ({"type": "cifs", "device": "//no.such.invalid/s", "o": "user=u"}, "network volume address: lookup no.such.inv"),
    ],
)
def test_a_mount_that_fails_says_why_and_leaves_nothing(driver, options, message):
    path = driver.create("v", options, {}).mountpoint
    with pytest.raises(WharfieError, match=message) as caught:
        driver.mount("v", "c1")
    assert "hunter2" not in str(caught.value)
    assert not is_mounted(path)
    driver.unmount("v", "c1")


def test_options_are_read_as_mount_reads_them():
    options = mounting.Options.parse("ro,rw,noexec, rbind,rslave,size=5m,,uid=3")
    assert options.flags == mounting.MS_NOEXEC | mounting.MS_BIND | mounting.MS_REC
    assert options.propagation == mounting.MS_SLAVE | mounting.MS_REC
    assert options.data == "size=5m,uid=3"


def test_usage_counts_each_inode_once(driver):
    path = driver.create("v", {}, {}).mountpoint
    (path / "sub").mkdir()
    (path / "sub" / "a").write_bytes(b"x" * 1000)
    os.link(path / "sub" / "a", path / "b")
    (path / "c").write_bytes(b"y" * 234)
    assert driver.usage("v").size == 1234
    with pytest.raises(NotFound):
        driver.usage("other")


def test_reconcile_makes_mounts_fit_the_uses(driver, make_driver, tmp_path):
    used = driver.create("used", TMPFS, {}).mountpoint
    unused = driver.create("unused", TMPFS, {}).mountpoint
    driver.create("plain", {}, {})
    driver.create("bad", {"type": "nosuchfs", "device": "x"}, {})
    driver.mount("unused", "gone")
    successor = make_driver(tmp_path / "volumes")
    uses = {
        "used": frozenset(("c1", "c2")),
        "plain": frozenset(("c1",)),
        "bad": frozenset(("c1",)),
        "no": frozenset(("c1",)),
    }
    for _ in range(2):
        faults = successor.reconcile(uses)
        assert sorted(fault.object for fault in faults) == ["bad", "no"]
        assert is_mounted(used)
        assert not is_mounted(unused)
    successor.unmount("used", "c1")
    assert is_mounted(used)
    successor.unmount("used", "c2")
    assert not is_mounted(used)


def test_damaged_records_cost_only_their_volume(driver, caplog):
    driver.create("good", {}, {})
    for name, text in (("torn", '{"created": "20'), ("odd", "[]"), ("empty", "")):
        volume = driver.create(name, {}, {})
        (volume.mountpoint.parent / "opts.json").write_text(text)
        with pytest.raises(DataLoss, match=f"volume {name}: .*is damaged"):
            driver.get(name)
    lost = driver.create("lost", {}, {})
    (lost.mountpoint.parent / "opts.json").unlink()
    with pytest.raises(DataLoss, match="is missing"):
        driver.get("lost")
    assert [volume.name for volume in driver.volumes()] == ["good"]
    driver.remove("torn")
    driver.create("gone", {}, {}).mountpoint.rmdir()
    with pytest.raises(DataLoss, match="is gone"):
        driver.mount("gone", "c1")


def test_a_kill_at_any_moment_leaves_volumes_whole_or_absent(make_driver, tmp_path):
    """A child creates and removes until it is killed; each survivor must be whole, and nothing else must be left."""
    root = tmp_path / "volumes"
    code = textwrap.dedent(
        """
        import logging, sys, itertools
        from pathlib import Path
        from wharfie.spi.driver import Context, HostFacts
        from wharfie_volume_local.driver import LocalDriver
        facts = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v1", cpus=2, memory=1)
        root = Path(sys.argv[1])
        log = logging.getLogger()
        driver = LocalDriver(Context(state=root, run=root, instance="", log=log, host=facts, emit=print), None)
        driver.open()
        print("ready", flush=True)
        for turn in itertools.count():
            volume = driver.create(f"v{turn % 5}", {}, {})
            for number in range(20):
                (volume.mountpoint / str(number)).write_text("x")
            print(turn, flush=True)
            driver.remove(f"v{(turn + 2) % 5}")
        """
    )
    root.mkdir()
    for delay in (0.0, 0.01, 0.02, 0.03, 0.05):
        child = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        child.stdout.readline()
        time.sleep(delay)
        child.kill()
        child.wait()
        child.stdout.close()
        driver = make_driver(root)
        settle(driver)
        assert not any((root / ".trash").iterdir())
        assert not any((root / ".staging").iterdir())
        names = {folder.name for folder in root.iterdir() if not folder.name.startswith(".")}
        assert {volume.name for volume in driver.volumes()} == names
        for volume in driver.volumes():
            assert volume.mountpoint.is_dir()
            assert json.loads((volume.mountpoint.parent / "opts.json").read_text())["options"] == {}
