"""The driver `vfs`, through the same contract as every other."""

from __future__ import annotations

import logging
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wharfie_storage_vfs.driver import VfsDriver

from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, OutOfSpace, Unsupported
from wharfie.spi.storage import Layer, SnapshotOptions

pytestmark = pytest.mark.root
NO_OPTIONS = SnapshotOptions()


def make(state: Path) -> VfsDriver:
    facts = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v2", cpus=2, memory=1 << 30)
    log = logging.getLogger("test")
    context = Context(state=state, run=state, instance="00000000", log=log, host=facts, emit=lambda event: None)
    driver = VfsDriver(context, None)
    driver.open()
    return driver


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def driver(state: Path) -> VfsDriver:
    return make(state)


def apply(driver: VfsDriver, layer: str, parent: str | None, **files: str | None) -> Layer:
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
def image(driver: VfsDriver) -> VfsDriver:
    apply(driver, "sha256:a", None, etc=None, etc__one="1", etc__two="22")
    apply(driver, "sha256:b", "sha256:a", etc__wh_one="", etc__three="333")
    driver.create("k", "sha256:b", NO_OPTIONS)
    return driver


def files(driver: VfsDriver, name: str) -> dict[str, str]:
    root = Path(driver.mounts(name)[0].source)
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def at_work(driver: VfsDriver, key: str, work: Callable[[Path], Any]) -> None:
    work(Path(driver.mounts(key)[0].source))


def test_layers_and_a_snapshot(image: VfsDriver) -> None:
    assert files(image, "k") == {"etc/three": "333", "etc/two": "22"}
    assert files(image, "sha256:a") == {"etc/one": "1", "etc/two": "22"}
    assert image.mounts("k")[0].options == ("bind",)
    assert image.mounts("sha256:b")[0].options == ("bind", "ro")
    assert [(layer.name, layer.parent, layer.size) for layer in image.layers()] == [
        ("sha256:a", None, 3),
        ("sha256:b", "sha256:a", 3),
    ]
    assert apply(image, "sha256:b", "sha256:a").size == 3


def test_changes_diff_and_usage(image: VfsDriver, state: Path) -> None:
    def work(root: Path) -> None:
        (root / "etc" / "two").unlink()
        (root / "new").write_text("12345")

    assert image.changes("k") == [] and image.usage("k").size == 0
    at_work(image, "k", work)
    assert [(change.path, int(change.kind)) for change in image.changes("k")] == [("/etc", 0), ("/etc/two", 2), ("/new", 1)]
    assert image.usage("k").size == 5
    with tempfile.TemporaryFile() as out:
        image.diff("k", out.fileno())
        out.seek(0)
        image.apply("sha256:c", "sha256:b", out.fileno())
    assert files(image, "sha256:c") == files(image, "k")


def test_one_is_not_the_other(image: VfsDriver) -> None:
    at_work(image, "k", lambda root: (root / "etc" / "two").write_text("changed"))
    assert files(image, "sha256:b")["etc/two"] == "22"


def test_errors(image: VfsDriver) -> None:
    for call in (
        lambda: image.create("x", "sha256:none", NO_OPTIONS),
        lambda: apply(image, "sha256:x", "sha256:none", a=""),
        lambda: image.mounts("none"),
        lambda: image.usage("none"),
        lambda: image.changes("none"),
    ):
        with pytest.raises(NotFound):
            call()
    for call in (
        lambda: image.remove("sha256:a"),
        lambda: image.remove("sha256:b"),
        lambda: image.create("sha256:a", None, NO_OPTIONS),
        lambda: image.create("k", "sha256:a", NO_OPTIONS),
        lambda: apply(image, "k", None, a=""),
    ):
        with pytest.raises(Conflict):
            call()
    with pytest.raises(Unsupported):
        image.create("x", "sha256:a", SnapshotOptions(size=1))
    with tempfile.TemporaryFile() as out:
        out.write(b"garbage" * 100)
        out.seek(0)
        with pytest.raises(InvalidArgument):
            image.apply("sha256:x", "sha256:a", out.fileno())


def test_remove_and_reconcile(image: VfsDriver, state: Path) -> None:
    (state / "staging" / "left").mkdir()
    (state / "trash" / "over").mkdir()
    image.create("other", "sha256:a", NO_OPTIONS)
    assert image.reconcile(frozenset({"k", "gone"}))[0].object == "gone"
    assert len(list(state.glob("*/*"))) == 3
    again = make(state)
    assert files(again, "k") == files(image, "k") and again.layers() == image.layers()
    for name in ("k", "k", "sha256:b", "sha256:a"):
        again.remove(name)
    assert list(state.glob("*/*")) == []


def test_a_damaged_tree_is_told_and_made_again(image: VfsDriver, state: Path) -> None:
    folder = Path(image.mounts("sha256:a")[0].source).parent
    (folder / "record.json").write_text("")
    image = make(state)
    (fault,) = image.reconcile(frozenset({"sha256:a", "sha256:b", "k"}))
    assert fault.object == "sha256:a" and "damaged" in fault.reason
    apply(image, "sha256:a", None, etc=None, etc__one="1", etc__two="22")
    assert image.reconcile(frozenset({"sha256:a", "sha256:b", "k"})) == []


def test_a_full_disk(state: Path, tmp_path: Path) -> None:
    with open(tmp_path / "disk", "wb") as file:
        file.truncate(12 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", tmp_path / "disk"], check=True)
    subprocess.run(["mount", "-o", "loop", tmp_path / "disk", state], check=True)
    try:
        driver = make(state)
        apply(driver, "sha256:a", None, big="x" * 6_000_000)
        free = os.statvfs(state).f_bfree
        with pytest.raises(OutOfSpace):
            driver.create("k", "sha256:a", NO_OPTIONS)
        assert os.statvfs(state).f_bfree == free
        assert list(state.glob("staging/*")) == []
    finally:
        subprocess.run(["umount", state], check=True)
