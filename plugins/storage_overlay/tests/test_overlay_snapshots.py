"""Snapshots: made, mounted, compared, promoted, removed, and found again."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tarfile
import threading
from pathlib import Path

import pydantic
import pytest
from wharfie_storage_overlay import host, trash
from wharfie_storage_overlay.settings import OverlaySettings
from wharfie_storage_overlay.store import Record, short_name

from wharfie.spi import nodes
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, Unsupported
from wharfie.spi.storage import Mount, SnapshotOptions, StorageCapability

pytestmark = pytest.mark.root
NO_OPTIONS = SnapshotOptions()
remove = nodes.remove


@pytest.fixture
def image(bench):
    """Two layers, and a snapshot `k` on them."""
    bench.apply(
        "sha256:a", None, ("bin", "dir"), ("bin/wget", "file", b"w"), ("etc", "dir"), ("etc/passwd", "file", b"root")
    )
    bench.apply("sha256:b", "sha256:a", ("opt/x/y", "file", b"y"), ("etc/other", "file", b"o"))
    bench.driver.create("k", "sha256:b", NO_OPTIONS)
    return bench


def test_this_host_can_do_it(bench) -> None:
    assert bench.driver.check() == []
    assert list(bench.state.glob(".trial-*")) == []
    assert bench.driver.capabilities() == {StorageCapability.PARALLEL_APPLY, StorageCapability.PROMOTE}
    rows = dict(bench.driver.status())
    assert list(rows) == ["Backing Filesystem", "Supports d_type", "Using metacopy", "Native Overlay Diff", "userxattr"]
    assert rows["Native Overlay Diff"] == "true"


def test_what_stands_in_the_way_is_named(bench, tmp_path: Path) -> None:
    (tmp_path / "a:b,c").mkdir()
    (problem,) = host.problems(tmp_path / "a:b,c")
    assert problem.fatal and "data-root" in problem.fix
    (problem,) = host.problems(Path("/proc/self"))
    assert "cannot be written" in problem.what
    # Overlay does not go on top of overlay.
    bench.apply("sha256:a", None, ("a", "file"))
    bench.driver.create("k", "sha256:a", NO_OPTIONS)
    (problem,) = bench.inside("k", host.problems)
    assert "overlayfs" in problem.what and "storage-driver" in problem.fix


def test_settings() -> None:
    assert OverlaySettings().sync is True
    with pytest.raises(pydantic.ValidationError, match="project quotas"):
        OverlaySettings(size="10G")
    with pytest.raises(pydantic.ValidationError, match="nonsense"):
        OverlaySettings(nonsense=1)  # type: ignore[call-arg]


def test_mounts_are_descriptions(image) -> None:
    (mount,) = image.driver.mounts("k")
    key, a, b = (short_name(name) for name in ("k", "sha256:a", "sha256:b"))
    assert mount == Mount(
        type="overlay",
        source="overlay",
        options=(
            f"lowerdir={image.state}/l/{b}:{image.state}/l/{a}",
            f"upperdir={image.state}/snapshots/{key}/diff",
            f"workdir={image.state}/snapshots/{key}/work",
            "index=off",
            "redirect_dir=off",
            "metacopy=off",
        ),
    )
    with pytest.raises(NotFound):
        image.driver.mounts("nothing")


def test_describe_has_the_rows_of_docker_inspect(image) -> None:
    rows = image.driver.describe("k")
    assert list(rows) == ["LowerDir", "MergedDir", "UpperDir", "WorkDir"]
    assert [Path(folder).is_dir() for folder in rows["LowerDir"].split(":")] == [True, True]
    assert Path(rows["UpperDir"]).is_dir() and Path(rows["WorkDir"]).is_dir()
    assert list(image.driver.describe("sha256:a")) == ["MergedDir", "UpperDir", "WorkDir"]
    with pytest.raises(NotFound):
        image.driver.describe("nothing")


def test_create_again_and_in_conflict(image) -> None:
    image.inside("k", lambda root: (root / "kept").write_text("k"))
    image.driver.create("k", "sha256:b", NO_OPTIONS)
    assert "kept" in image.inside("k")
    with pytest.raises(Conflict):
        image.driver.create("k", "sha256:a", NO_OPTIONS)
    with pytest.raises(Conflict):
        image.driver.create("sha256:a", None, NO_OPTIONS)
    with pytest.raises(NotFound, match="sha256:none"):
        image.driver.create("other", "sha256:none", NO_OPTIONS)
    with pytest.raises(Unsupported, match="size"):
        image.driver.create("other", "sha256:a", SnapshotOptions(size=1 << 30))
    with pytest.raises(Conflict):
        image.apply("k", None, ("a", "file"))
    assert list(image.state.glob("staging/*")) == []


def test_a_snapshot_on_nothing(bench) -> None:
    bench.driver.create("k", None, NO_OPTIONS)
    (mount,) = bench.driver.mounts("k")
    assert (mount.type, mount.options) == ("bind", ("bind",))
    bench.inside("k", lambda root: (root / "d").mkdir())
    assert [(change.path, int(change.kind)) for change in bench.driver.changes("k")] == [("/d", 1)]
    assert "LowerDir" not in bench.driver.describe("k")
    layer = bench.driver.promote("k", "sha256:new")
    assert layer.parent is None and list(bench.inside("sha256:new")) == ["d"]


def work(root: Path) -> None:
    """What a container might do to `image`."""
    (root / "newfile").write_text("12345678")
    (root / "bin" / "wget").unlink()
    (root / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "etc" / "other").open("r+").close()  # opened for writing: copied up, and the same
    shutil.rmtree(root / "opt")
    (root / "opt" / "x").mkdir(parents=True)
    (root / "opt" / "x" / "z").write_text("z")
    (root / "made").mkdir()


def test_changes_and_usage(image) -> None:
    image.inside("k", work)
    assert [(change.path, int(change.kind)) for change in image.driver.changes("k")] == [
        ("/bin", 0),
        ("/bin/wget", 2),
        ("/etc", 0),
        ("/etc/passwd", 0),
        ("/made", 1),
        ("/newfile", 1),
        ("/opt", 0),
        ("/opt/x", 0),
        ("/opt/x/y", 2),
        ("/opt/x/z", 1),
    ]
    used = image.driver.usage("k")
    assert used.size == 8 + 22 + 1 + 1
    assert image.driver.usage("sha256:a").size == 5
    assert image.driver.usage("sha256:a").inodes == 4
    for call in (image.driver.usage, image.driver.changes):
        with pytest.raises(NotFound):
            call("nothing")


def test_diff_is_a_layer(image, tmp_path: Path) -> None:
    image.inside("k", work)
    seen = image.inside("k")
    data = image.diff("k")
    (tmp_path / "layer.tar").write_bytes(data)
    with tarfile.open(tmp_path / "layer.tar") as tar:
        names = tar.getnames()
    assert names == [
        "bin",
        "bin/.wh.wget",
        "etc",
        "etc/passwd",
        "made",
        "newfile",
        "opt",
        "opt/x",
        "opt/x/.wh.y",
        "opt/x/z",
    ]
    image.apply_bytes("sha256:c", "sha256:b", data)
    assert image.inside("sha256:c") == seen
    assert image.driver.changes("sha256:c") == image.driver.changes("k")


def test_promote(image) -> None:
    image.inside("k", work)
    seen = image.inside("k")
    changes = image.driver.changes("k")
    layer = image.driver.promote("k", "sha256:c")
    assert (layer.name, layer.parent, layer.size) == ("sha256:c", "sha256:b", 32)
    assert image.driver.promote("k", "sha256:c") == layer
    assert image.inside("sha256:c") == seen
    assert image.driver.changes("sha256:c") == changes
    image.driver.create("on-top", "sha256:c", NO_OPTIONS)
    assert image.inside("on-top") == seen
    with pytest.raises(NotFound):
        image.driver.mounts("k")
    assert image.another().layers() == image.driver.layers()
    with pytest.raises(NotFound):
        image.driver.promote("nothing", "sha256:d")


@pytest.mark.parametrize("renamed", [False, True])
def test_killed_while_promoting(image, renamed: bool) -> None:
    """Before the one rename it is the snapshot, after it the layer, whatever else lies in the folder."""
    image.inside("k", work)
    seen = image.inside("k")
    folder = image.driver._store.snapshot_folder("k")
    image.driver._store.write_record(folder, Record(name="sha256:c", parent="sha256:b", size=32, inodes=9))
    if renamed:
        folder.rename(image.driver._store.layer_folder("sha256:c"))
    image.driver = image.another()
    assert image.driver.reconcile(frozenset({"sha256:c" if renamed else "k"})) == []
    assert image.inside("sha256:c" if renamed else "k") == seen
    assert image.driver.promote("k", "sha256:c").size == 32
    assert image.inside("sha256:c") == seen


def test_remove(image) -> None:
    for name in ("sha256:a", "sha256:b"):
        with pytest.raises(Conflict, match="in use"):
            image.driver.remove(name)
    image.inside("k", work)
    for name in ("k", "k", "sha256:b", "sha256:a", "nothing"):
        image.driver.remove(name)
    assert image.files() == []


def test_a_new_daemon_finds_everything(image) -> None:
    image.inside("k", work)
    before = image.inside("k")
    mounts, layers = image.driver.mounts("k"), image.driver.layers()
    image.driver = image.another()
    assert image.driver.mounts("k") == mounts
    assert image.driver.layers() == layers
    assert image.inside("k") == before
    with pytest.raises(Conflict):
        image.driver.remove("sha256:b")


def test_reconcile_keeps_what_is_wanted(image) -> None:
    image.apply("sha256:x", None, ("x", "file"))
    image.driver.create("old", "sha256:x", NO_OPTIONS)
    (image.state / "staging" / "left").mkdir()
    (image.state / "staging" / "left" / "over").touch()
    (image.state / "trash" / "t").mkdir()
    (image.state / "l" / "NOWHERE").symlink_to("../layers/NOWHERE/diff")
    (image.state / "l" / short_name("sha256:a")).unlink()
    (image.state / ".trial-x").mkdir()
    assert image.driver.reconcile(frozenset({"k"})) == []  # with the layers that it stands on
    assert [layer.name for layer in image.driver.layers()] == ["sha256:a", "sha256:b"]
    assert len(image.files()) == 2 + 2 + 1
    assert "etc" in image.inside("k")
    assert image.driver.reconcile(frozenset()) == []
    assert image.files() == [] and sorted(path.name for path in image.state.iterdir()) == [
        "l",
        "layers",
        "snapshots",
        "staging",
        "trash",
    ]


def test_reconcile_tells_what_is_broken(image) -> None:
    folders = {name: image.state / "layers" / short_name(name) for name in ("sha256:a", "sha256:b")}
    (folders["sha256:a"] / "layer.json").write_text("")
    image.driver.create("alone", None, NO_OPTIONS)
    shutil.rmtree(image.state / "snapshots" / short_name("alone") / "work")
    image.driver = image.another()
    faults = image.driver.reconcile(frozenset({"sha256:a", "sha256:b", "k", "alone", "missing"}))
    reasons = {fault.object: fault.reason for fault in faults}
    assert sorted(reasons) == ["alone", "k", "missing", "sha256:a", "sha256:b"]
    assert "damaged" in reasons["sha256:a"] and "damaged" in reasons["alone"]
    assert "sha256:a" in reasons["sha256:b"] and "sha256:a" in reasons["k"]
    with pytest.raises(NotFound):
        image.driver.mounts("k")
    # Pulled again, all is well.
    image.apply("sha256:a", None, ("etc", "dir"), ("etc/passwd", "file", b"root"))
    assert [fault.object for fault in image.driver.reconcile(frozenset({"sha256:a", "sha256:b", "k"}))] == []
    assert "opt/x/y" in image.inside("k")


def test_what_cannot_be_deleted_troubles_nobody_else(image, caplog) -> None:
    """A container may make a file immutable; the name is free all the same, and the rest goes at the next reconcile."""
    stubborn = image.state / "snapshots" / short_name("k") / "diff" / "stubborn"
    stubborn.touch()
    subprocess.run(["chattr", "+i", stubborn], check=True)
    try:
        with caplog.at_level(logging.WARNING):
            image.driver.remove("k")
            assert len(image.trash()) == 1
        assert "cannot be removed and takes space" in caplog.text
        image.driver.create("k", "sha256:b", NO_OPTIONS)
        image.driver.remove("k")
        assert len(image.trash()) == 1
    finally:
        (left,) = image.state.rglob("stubborn")
        subprocess.run(["chattr", "-i", left], check=True)
    image.driver.reconcile(frozenset({"sha256:b"}))
    assert image.trash() == []


def test_the_trash_of_a_killed_daemon_is_taken_up(image) -> None:
    left = image.state / "trash" / "left"
    (left / "diff" / "a" / "b").mkdir(parents=True)
    (left / "diff" / "a" / "b" / "file").touch()
    image.driver = image.another()
    assert image.trash() == []


def test_close_ends_the_trash_between_two_folders(image, monkeypatch) -> None:
    """What is left waits for the next start."""
    begun, go_on = threading.Event(), threading.Event()

    def slowly(folder: int, name: bytes) -> None:
        begun.set()
        go_on.wait(10)
        remove(folder, name)

    monkeypatch.setattr(nodes, "remove", slowly)
    monkeypatch.setattr(trash, "CLOSING_SECONDS", 0.01)
    image.driver.remove("k")
    assert begun.wait(10)
    closing = threading.Thread(target=image.driver.close)
    closing.start()
    go_on.set()
    closing.join(10)
    assert not closing.is_alive()
    monkeypatch.undo()
    image.driver = image.another()
    assert image.trash() == []


def test_where_space_is_short_removal_waits_for_it(image, monkeypatch) -> None:
    monkeypatch.setattr(trash, "SHORT_OF_BYTES", 1 << 62)
    image.driver.remove("k")
    image.driver.remove("sha256:b")
    assert list(image.state.glob("trash/*")) == []


def test_too_many_layers(bench) -> None:
    parent = None
    for number in range(129):
        bench.apply(f"sha256:{number}", parent, (f"f{number}", "file"))
        parent = f"sha256:{number}"
    with pytest.raises(InvalidArgument, match="max depth exceeded"):
        bench.driver.create("k", parent, NO_OPTIONS)


@pytest.mark.parametrize("depth", [1, 40, 128])
def test_deep_stacks_really_mount(bench, depth: int) -> None:
    parent = None
    for number in range(depth):
        bench.apply(f"sha256:{number}", parent, (f"d/f{number}", "file", b"%d" % number), ("top", "file", b"%d" % number))
        parent = f"sha256:{number}"
    bench.driver.create("k", parent, NO_OPTIONS)
    seen = bench.inside("k")
    assert len(seen) == depth + 2
    assert seen["top"][1] == b"%d" % (depth - 1)
    assert seen["d/f0"][1] == b"0"
    assert len(bench.inside(parent)) == depth + 2
    assert bench.driver.changes("k") == []


def test_no_descriptor_is_left(image) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    image.inside("k", work)
    for _ in range(3):
        image.driver.changes("k")
        image.diff("k")
        image.driver.usage("k")
        image.driver.check()
        image.driver.create("other", "sha256:a", NO_OPTIONS)
        image.driver.remove("other")
    assert image.trash() == []
    assert count() == before
    assert os.listxattr(image.state) == []
