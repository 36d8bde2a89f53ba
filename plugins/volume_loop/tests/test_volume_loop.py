"""The driver `loop`: the limit, loop devices that do not leak, and what a crash or a full disk does."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from wharfie_volume_loop import image, sizes
from wharfie_volume_loop.driver import LoopDriver
from wharfie_volume_loop.settings import LoopSettings

from wharfie.spi import loop_devices
from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.errors import DataLoss, InvalidArgument, NotFound, OutOfSpace
from wharfie.spi.mount_points import is_mounted, unmount

SMALL = {"size": "8m"}


def make_driver(root):
    root.mkdir(mode=0o700, exist_ok=True)
    facts = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v1", cpus=2, memory=1 << 30)
    log = logging.getLogger("volume")
    context = Context(state=root, run=root, instance="0" * 8, log=log, host=facts, emit=lambda event: None)
    driver = LoopDriver(context, LoopSettings())
    driver.open()
    return driver


@pytest.fixture
def root(tmp_path):
    return tmp_path / f"loops-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def driver(root):
    driver = make_driver(root)
    yield driver
    for folder in root.iterdir():
        unmount(folder / "mnt")


def devices(root):
    """Loop devices whose files are below `root`."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if path.read_text().startswith(str(root)):
                found.append(path.parts[3])
        except OSError:
            continue
    return found


def gone(root):
    """A device clears itself a moment after its last user has gone."""
    deadline = time.monotonic() + 5
    while devices(root) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not devices(root)


def test_there_is_no_more_than_the_limit_and_it_says_so(driver):
    driver.create("v", SMALL, {})
    path = driver.mount("v", "c1")
    with pytest.raises(OSError) as caught, (path / "big").open("wb", buffering=0) as file:
        for _ in range(16):
            file.write(b"x" * 2**20)
    assert caught.value.errno == errno.ENOSPC
    assert driver.usage("v").size >= 5 * 2**20
    (path / "big").unlink()
    (path / "small").write_bytes(b"y" * 2**20)
    driver.unmount("v", "c1")


def test_usage_is_the_same_mounted_or_not(driver):
    driver.create("v", {"size": "32m"}, {})
    path = driver.mount("v", "c1")
    (path / "file").write_bytes(b"x" * 3_000_000)
    os.sync()
    mounted = driver.usage("v")
    driver.unmount("v", "c1")
    assert not is_mounted(path.parent)
    unmounted = driver.usage("v")
    assert 3_000_000 <= unmounted.size < 3_300_000
    assert abs(mounted.size - unmounted.size) < 100_000
    assert mounted.inodes == unmounted.inodes


def test_the_host_space_is_taken_at_once(driver, root):
    driver.create("v", {"size": "32m"}, {})
    assert (root / "v" / "image").stat().st_blocks * 512 >= 32 * 2**20


def test_a_host_without_the_space_refuses_and_keeps_nothing(tmp_path):
    place = tmp_path / "tight"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place], check=True)
    try:
        driver = make_driver(place / "state")
        driver.create("fits", SMALL, {})
        with pytest.raises(OutOfSpace, match="allocating 67108864 bytes"):
            driver.create("large", {"size": "64m"}, {})
        assert [volume.name for volume in driver.volumes()] == ["fits"]
        driver.create("too", SMALL, {})
    finally:
        subprocess.run(["umount", place], check=True)


def test_the_loop_device_goes_with_the_last_use(driver, root):
    driver.create("v", SMALL, {})
    assert devices(root) == []
    driver.mount("v", "c1")
    driver.mount("v", "c2")
    assert len(devices(root)) == 1
    driver.unmount("v", "c1")
    assert len(devices(root)) == 1
    driver.unmount("v", "c2")
    assert gone(root)


def test_a_device_that_was_never_mounted_clears_itself(driver, root):
    driver.create("v", SMALL, {})
    with loop_devices.attached(root / "v" / "image"):
        assert len(devices(root)) == 1
    assert gone(root)


def test_a_mount_that_lives_on_in_a_container_and_a_new_one_are_one_file_system(driver, root):
    """The namespace of a container that has ended goes a moment later: two devices would both write its blocks."""
    driver.create("v", SMALL, {})
    path = driver.mount("v", "c1")
    script = f"echo ready; read line; echo late > {path}/late; echo done; read line"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as ending:
        assert ending.stdout.readline() == "ready\n"
        driver.unmount("v", "c1")
        assert not is_mounted(path.parent)
        path = driver.mount("v", "c2")
        ending.stdin.write("\n")
        ending.stdin.flush()
        assert ending.stdout.readline() == "done\n"
        assert (path / "late").read_text() == "late\n"
        assert len(devices(root)) == 1
        ending.stdin.write("\n")
        ending.stdin.close()
    driver.unmount("v", "c2")
    assert gone(root)


def test_after_a_crash_uses_are_as_the_core_says(driver, root):
    for name in ("kept", "left"):
        driver.create(name, SMALL, {})
        (driver.mount(name, "c1") / "file").write_text(name)
    again = make_driver(root)
    assert again.reconcile({"kept": frozenset({"c1"}), "none": frozenset({"c2"})})[0].object == "none"
    assert is_mounted(root / "kept" / "mnt")
    assert not is_mounted(root / "left" / "mnt")
    again.unmount("kept", "c1")
    assert gone(root)
    assert (again.mount("left", "c3") / "file").read_text() == "left"
    again.unmount("left", "c3")


def test_what_a_killed_create_left_is_swept(driver, root):
    draft = root / ".staging" / "half"
    draft.mkdir()
    image.make(draft / "image", sizes.MINIMUM, draft)
    (root / ".trash" / "old").mkdir()
    make_driver(root)
    assert list((root / ".staging").iterdir()) == list((root / ".trash").iterdir()) == []


def test_remove_takes_a_forgotten_mount_along(driver, root):
    driver.create("v", SMALL, {})
    driver.mount("v", "c1")
    make_driver(root).remove("v")
    assert not (root / "v").exists()
    assert gone(root)


def test_a_damaged_file_system_is_named_with_its_remedy(driver, root):
    driver.create("v", SMALL, {})
    with (root / "v" / "image").open("r+b") as file:
        file.seek(1024)
        file.write(b"\0" * 1024)
    with pytest.raises(DataLoss, match="e2fsck -f"):
        driver.mount("v", "c1")
    assert gone(root)
    (root / "v" / "opts.json").unlink()
    with pytest.raises(DataLoss):
        driver.get("v")
    assert driver.volumes() == []
    driver.remove("v")


def test_a_power_cut_is_mended_by_the_journal(driver, root):
    driver.create("v", {"size": "32m"}, {})
    path = driver.mount("v", "c1")
    file = os.open(path / "file", os.O_WRONLY | os.O_CREAT)
    os.write(file, b"kept")
    os.fsync(file)
    os.close(file)
    snapshot = (root / "v" / "image").read_bytes()  # what would be on the disk if the power went now
    driver.unmount("v", "c1")
    assert gone(root)
    (root / "v" / "image").write_bytes(snapshot)
    assert (driver.mount("v", "c2") / "file").read_text() == "kept"
    driver.unmount("v", "c2")


def test_the_image_is_no_link_to_another_file(driver, root, tmp_path):
    driver.create("v", SMALL, {})
    (root / "v" / "image").rename(tmp_path / "elsewhere")
    (root / "v" / "image").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        driver.mount("v", "c1")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"size": "much"}, "invalid size"),
        ({"size": "1m"}, "too small"),
        ({"size": "-5m"}, "invalid size"),
        ({"o": "ro"}, '"o"'),
    ],
)
def test_bad_options(driver, options, word):
    with pytest.raises(InvalidArgument, match=word):
        driver.create("v", options, {})
    with pytest.raises(NotFound):
        driver.get("v")


@pytest.mark.parametrize(("text", "size"), [("4m", 4 << 20), ("1.5g", 3 << 29), ("5000000", 5_001_216), ("8MiB", 8 << 20)])
def test_sizes(text, size):
    assert sizes.parse(text) == size


def test_settings():
    assert LoopSettings.model_validate({"default-size": "2g"}).default_size == "2g"
    with pytest.raises(ValueError, match="too small"):
        LoopSettings(default_size="1k")
