"""The driver `btrfs`: what belongs to subvolumes. The rest it shares with `vfs`, whose tests have it, and with the kit."""

from __future__ import annotations

import logging
import os
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wharfie_storage_btrfs import subvolumes
from wharfie_storage_btrfs.driver import BtrfsDriver

from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.errors import NotFound, OutOfSpace, Unsupported
from wharfie.spi.storage import Layer, SnapshotOptions

pytestmark = pytest.mark.root
NO_OPTIONS = SnapshotOptions()
FACTS = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v2", cpus=2, memory=1 << 30)


def make(state: Path) -> BtrfsDriver:
    log = logging.getLogger("test")
    context = Context(state=state, run=state, instance="00000000", log=log, host=FACTS, emit=lambda event: None)
    driver = BtrfsDriver(context, None)
    driver.open()
    return driver


@pytest.fixture
def state(btrfs: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=btrfs))
    yield folder
    make(folder).reconcile(frozenset())


@pytest.fixture
def driver(state: Path) -> BtrfsDriver:
    return make(state)


def apply(driver: BtrfsDriver, layer: str, parent: str | None, **files: str | None) -> Layer:
    """A layer of files; a name with `wh_` in front is a whiteout, `__` is a slash, None a folder."""
    with tempfile.TemporaryFile() as out:
        with tarfile.open(fileobj=out, mode="w") as tar:
            for name, content in files.items():
                path = name.replace("__", "/")
                folder, _, last = path.rpartition("/")
                info = tarfile.TarInfo(f"{folder}/.wh.{last[3:]}" if last.startswith("wh_") else path)
                info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
                info.size = len(content or "")
                with tempfile.TemporaryFile() as data:
                    data.write((content or "").encode())
                    data.seek(0)
                    tar.addfile(info, data)
        out.seek(0)
        return driver.apply(layer, parent, out.fileno())


@pytest.fixture
def image(driver: BtrfsDriver) -> BtrfsDriver:
    apply(driver, "sha256:a", None, etc=None, etc__one="1", etc__two="22")
    apply(driver, "sha256:b", "sha256:a", etc__wh_one="", etc__three="333")
    driver.create("k", "sha256:b", NO_OPTIONS)
    return driver


def files(driver: BtrfsDriver, name: str) -> dict[str, str]:
    root = Path(driver.mounts(name)[0].source)
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def at_work(driver: BtrfsDriver, key: str, work: Callable[[Path], Any]) -> None:
    work(Path(driver.mounts(key)[0].source))


def test_layers_and_a_snapshot(image: BtrfsDriver) -> None:
    assert files(image, "k") == {"etc/three": "333", "etc/two": "22"}
    assert files(image, "sha256:a") == {"etc/one": "1", "etc/two": "22"}
    assert image.mounts("k")[0].options == ("bind",)
    assert image.mounts("sha256:b")[0].options == ("bind", "ro")
    assert [(layer.name, layer.parent, layer.size) for layer in image.layers()] == [
        ("sha256:a", None, 3),
        ("sha256:b", "sha256:a", 3),
    ]
    assert apply(image, "sha256:b", "sha256:a").size == 3


def test_copied_folders_are_told(image: BtrfsDriver, state: Path) -> None:
    """As a backup of files would bring them back."""
    folder = Path(image.mounts("k")[0].source).parent
    subprocess.run(["cp", "-a", folder, folder.with_name("copy")], check=True)
    image.remove("k")
    folder.with_name("copy").rename(folder)
    image = make(state)
    (fault,) = image.reconcile(frozenset({"sha256:b", "k"}))
    assert fault.object == "k" and "not a subvolume" in fault.reason


def test_check(image: BtrfsDriver, tmp_path: Path) -> None:
    assert image.check() == []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        context = Context(
            state=Path(folder), run=Path(folder), instance="0", log=logging.getLogger(), host=FACTS, emit=lambda event: None
        )
        (problem,) = BtrfsDriver(context, None).check()
    assert "not on btrfs" in problem.what and "data-root" in problem.fix


def test_blocks_are_shared(driver: BtrfsDriver, btrfs: Path) -> None:
    apply(driver, "sha256:a", None, big=os.urandom(8_000_000).hex())
    os.sync()
    before = os.statvfs(btrfs).f_bfree
    for number in range(20):
        driver.create(f"k{number}", "sha256:a", NO_OPTIONS)
    os.sync()
    stat = os.statvfs(btrfs)
    assert (before - stat.f_bfree) * stat.f_frsize < 160_000_000  # copies would take 320 million


def test_promote(image: BtrfsDriver) -> None:
    at_work(image, "k", lambda root: (root / "new").write_text("12345"))
    wanted = files(image, "k")
    layer = image.promote("k", "sha256:c")
    assert (layer.parent, layer.size) == ("sha256:b", 5)
    assert image.promote("k", "sha256:c") == layer
    assert files(image, "sha256:c") == wanted
    with pytest.raises(NotFound):
        image.mounts("k")
    with pytest.raises(NotFound):
        image.promote("k", "sha256:d")


def test_subvolumes_that_a_container_made_go_with_its_own(image: BtrfsDriver, state: Path) -> None:
    """Also read-only ones, in one another, and below paths that are longer than any call takes."""
    root = Path(image.mounts("k")[0].source)
    here = os.open(root, os.O_RDONLY)
    for depth in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        if depth % 9 == 0:
            subvolumes.create(here, "inner")
            below = os.open("inner", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    os.close(here)
    subvolumes.create(os_folder := os.open(root, os.O_RDONLY), "locked")
    subvolumes.create(locked := os.open(root / "locked", os.O_RDONLY), "in")
    subprocess.run(["btrfs", "property", "set", root / "locked", "ro", "true"], check=True)
    assert len(subvolumes.nested(locked)) == 1 and len(subvolumes.nested(os_folder)) == 5
    os.close(locked)
    os.close(os_folder)
    with pytest.raises(Unsupported, match="subvolumes of its own"):
        image.promote("k", "sha256:c")
    image.remove("k")
    assert list(state.glob("trash/*")) == []


def test_a_full_disk(tmp_path: Path, btrfs: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with open(tmp_path / "disk", "wb") as file:
        file.truncate(128 << 20)
    subprocess.run(["mkfs.btrfs", "-q", tmp_path / "disk"], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", tmp_path / "disk", state], check=True)
    try:
        driver = make(state)
        with pytest.raises(OutOfSpace):
            apply(driver, "sha256:a", None, big=os.urandom(80_000_000).hex())
        assert driver.layers() == [] and list(state.glob("staging/*")) == []
        for _ in range(100):  # the kernel cleans up a little later
            subprocess.run(["btrfs", "filesystem", "sync", state], check=True)
            try:
                apply(driver, "sha256:a", None, small="x")
                break
            except OutOfSpace:
                time.sleep(0.1)
        assert files(driver, "sha256:a") == {"small": "x"}
    finally:
        subprocess.run(["umount", "-l", state], check=True)
