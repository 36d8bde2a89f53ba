"""Layers: how they come, what they take from below, what a kill or a full disk leaves."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from wharfie_storage_overlay.settings import OverlaySettings

from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, OutOfSpace
from wharfie.spi.storage import Layer, SnapshotOptions

pytestmark = pytest.mark.root


def test_two_layers_are_one_tree(bench) -> None:
    first = bench.apply(
        "sha256:a", None, ("etc", "dir"), ("etc/a", "file", b"a"), ("etc/b", "file", b"bb"), ("bin", "link", "etc")
    )
    second = bench.apply("sha256:b", "sha256:a", ("etc/.wh.a", "file"), ("etc/c", "file", b"c"))
    assert first == Layer(name="sha256:a", parent=None, size=3)
    assert second == Layer(name="sha256:b", parent="sha256:a", size=1)
    assert bench.driver.layers() == [first, second]
    bench.driver.create("k", "sha256:b", SnapshotOptions())
    seen = bench.inside("k")
    assert {path: value for path, (_, value) in seen.items()} == {"bin": "etc", "etc": None, "etc/b": b"bb", "etc/c": b"c"}
    assert bench.inside("sha256:b") == seen
    assert sorted(bench.inside("sha256:a")) == ["bin", "etc", "etc/a", "etc/b"]


def test_a_layer_that_is_there_is_not_read_again(bench) -> None:
    layer = bench.apply("sha256:a", None, ("a", "file", b"a"))
    reading, writing = os.pipe()
    assert bench.driver.apply("sha256:a", None, reading) == layer  # nobody writes: reading would wait for ever
    os.close(reading)
    os.close(writing)
    with pytest.raises(Conflict, match="parent"):
        bench.apply("sha256:a", "sha256:other", ("a", "file", b"a"))


def test_layers_views_are_read_only(bench) -> None:
    bench.apply("sha256:a", None, ("a", "file", b"a"))
    bench.apply("sha256:b", "sha256:a", ("b", "file", b"b"))
    for name in ("sha256:a", "sha256:b"):
        with pytest.raises(RuntimeError, match="Read-only"):
            bench.inside(name, lambda root: (root / "new").touch())


def test_folders_without_an_entry_look_as_below(bench, folder) -> None:
    bench.apply(
        "sha256:a",
        None,
        folder("./", 0o700, 1000, uid=5),
        folder("tmp", 0o1777, 2000),
        folder("home", 0o711, 3000, uid=7),
        ("home/x", "dir"),
    )
    bench.apply("sha256:b", "sha256:a", ("tmp/f", "file", b"f"), ("home/x/y/z", "file", b"z"), ("home/.wh.gone", "file"))
    bench.driver.create("k", "sha256:b", SnapshotOptions())

    def look(root: Path) -> dict[str, tuple]:
        facts = {name: (root / name).stat() for name in (".", "tmp", "home", "home/x/y")}
        return {name: (stat.S_IMODE(fact.st_mode), fact.st_uid, int(fact.st_mtime)) for name, fact in facts.items()}

    seen = bench.inside("k", look)
    assert seen["."] == (0o700, 5, 1000)
    assert seen["tmp"] == (0o1777, 0, 2000)
    assert seen["home"] == (0o711, 7, 3000)
    assert seen["home/x/y"][:2] == (0o755, 0)


@pytest.mark.parametrize("order", [("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a"), ("b", "a", "c")])
def test_layers_come_in_any_order(bench, folder, order: tuple[str, ...]) -> None:
    layers = {
        "a": (None, [folder("tmp", 0o1777), ("tmp/a", "file", b"a"), ("data", "file", b"data")]),
        "b": ("sha256:a", [("tmp/b", "file", b"b"), ("again", "hard", "data"), ("twice", "hard", "again")]),
        "c": (
            "sha256:b",
            [("tmp/c", "file", b"c"), ("tmp/thrice", "hard", "twice"), ("new/deep/link", "hard", "/tmp/../tmp/a")],
        ),
    }
    for number, name in enumerate(order):
        parent, specs = layers[name]
        bench.apply(f"sha256:{name}", parent, *specs)
        if "a" not in order[: number + 1]:
            with pytest.raises(NotFound, match="no such layer"):
                bench.driver.create("k", f"sha256:{name}", SnapshotOptions())
    bench.driver.create("k", "sha256:c", SnapshotOptions())
    seen = bench.inside("k")
    assert stat.S_IMODE(seen["tmp"][0]) == 0o1777
    assert {path: value for path, (_, value) in seen.items() if value is not None} == {
        "again": b"data",
        "data": b"data",
        "new/deep/link": b"a",
        "tmp/a": b"a",
        "tmp/b": b"b",
        "tmp/c": b"c",
        "tmp/thrice": b"data",
        "twice": b"data",
    }
    assert list(bench.state.glob("layers/*/pending.json")) == []


def test_a_hard_link_that_no_layer_can_satisfy(bench) -> None:
    with pytest.raises(InvalidArgument, match='"x" is a hard link to "nowhere"'):
        bench.apply("sha256:a", None, ("x", "hard", "nowhere"))
    bench.apply("sha256:b", "sha256:late", ("x", "hard", "nowhere"))
    bench.apply("sha256:late", None, ("a", "file", b"a"))
    with pytest.raises(InvalidArgument, match="no layer has"):
        bench.driver.create("k", "sha256:b", SnapshotOptions())
    assert [layer.name for layer in bench.driver.layers()] == ["sha256:b", "sha256:late"]


def test_an_opaque_root_hides_everything_below(bench) -> None:
    bench.apply("sha256:a", None, ("old", "file", b"old"), ("d", "dir"), ("d/x", "file"))
    bench.apply("sha256:b", "sha256:a", (".wh..wh..opq", "file"), ("d", "dir"), ("new", "file", b"new"))
    bench.apply("sha256:c", "sha256:b", ("more", "file", b"more"))
    bench.driver.create("k", "sha256:c", SnapshotOptions())
    assert sorted(bench.inside("k")) == ["d", "more", "new"]
    assert sorted(bench.inside("sha256:b")) == ["d", "new"]
    assert bench.driver.changes("sha256:b") == bench.driver.changes("sha256:b")


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("garbage", b"no tar" * 1000),
        ("cut off", None),
        ("escaping", "../../x"),
        ("a file within a file", "a/b"),
    ],
)
def test_bad_layers_leave_nothing(bench, tar, what: str, data: bytes | str | None) -> None:
    before = bench.files()
    if data is None:
        data = tar(("a", "file", b"x" * 5000))[:3000]
    elif isinstance(data, str):
        data = tar(("a", "file", b"x"), (data, "file", b"x"))
    with pytest.raises(InvalidArgument):
        bench.apply_bytes("sha256:a", None, data)
    assert bench.files() == before
    assert bench.driver.layers() == []
    assert bench.apply("sha256:a", None, ("a", "file", b"x")).size == 1


@pytest.mark.parametrize("after", [0.0, 0.05, 0.15, 0.3])
def test_killed_while_unpacking(bench, tar, after: float) -> None:
    """SIGKILL at some instant of unpacking or of removing: the layer is whole or not there, and a new daemon can go on."""
    data = tar(*((f"d{number % 40}/f{number}", "file", b"x" * 100) for number in range(1500)))
    (bench.state.parent / "layer.tar").write_bytes(data)
    script = f"""
import logging, os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from conftest import Bench
bench = Bench(Path({str(bench.state)!r}), Path("/nonexistent"))
print("ready", flush=True)
while True:
    bench.driver.apply("sha256:a", None, os.open({str(bench.state.parent / "layer.tar")!r}, os.O_RDONLY))
    bench.driver.remove("sha256:a")
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(after)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    bench.driver = bench.another()
    assert bench.driver.layers() in ([], [Layer(name="sha256:a", parent=None, size=150_000)])
    if bench.driver.layers():
        assert len(bench.inside("sha256:a")) == 1540
    assert bench.driver.reconcile(frozenset()) == []
    assert bench.files() == []
    assert bench.apply_bytes("sha256:a", None, data).size == 150_000


@pytest.fixture
def small_disk(bench):
    """The state on an ext4 of 12 MB, in this process's own way: a loop mount that goes with the test."""
    image = bench.state.parent / "disk"
    with open(image, "wb") as file:
        file.truncate(12 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-N", "2000", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, bench.state], check=True)
    try:
        (bench.state / "lost+found").rmdir()
        bench.driver = bench.another()
        yield bench
    finally:
        subprocess.run(["umount", bench.state], check=True)


@pytest.mark.parametrize("full", ["blocks", "inodes"])
def test_a_full_disk(small_disk, full: str) -> None:
    bench = small_disk
    bench.apply("sha256:a", None, ("a", "file", b"a"))
    before, free = bench.files(), os.statvfs(bench.state).f_bfree
    if full == "blocks":
        specs = [(f"f{number}", "file", bytes([number]) * 1_000_000) for number in range(20)]
    else:
        specs = [(f"f{number}", "file") for number in range(2500)]
    with pytest.raises(OutOfSpace, match="f1"):
        bench.apply("sha256:b", "sha256:a", *specs)
    assert bench.files() == before
    assert os.statvfs(bench.state).f_bfree == free
    assert [layer.name for layer in bench.driver.layers()] == ["sha256:a"]
    bench.apply("sha256:b", "sha256:a", ("b", "file", b"b"))


def test_a_snapshot_on_a_full_disk(small_disk) -> None:
    bench = small_disk
    bench.apply("sha256:a", None, ("a", "file", b"a"))
    filler = bench.state / "filler"
    with pytest.raises(OSError, match="No space"), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    with pytest.raises(OutOfSpace, match="full"):
        for number in range(2000):
            bench.driver.create(f"k{number}", "sha256:a", SnapshotOptions())
    filler.unlink()
    assert list(bench.state.glob("staging/*")) == []
    bench.driver.create("another", "sha256:a", SnapshotOptions())


def test_many_threads_with_one_and_many_layers(bench, tar) -> None:
    data = tar(*((f"d/f{number}", "file", b"x") for number in range(200)))
    outcome: list[object] = []

    def apply(name: str, parent: str | None) -> None:
        try:
            outcome.append(bench.apply_bytes(name, parent, data))
        except BaseException as error:
            outcome.append(error)

    threads = [threading.Thread(target=apply, args=("sha256:a", None)) for _ in range(4)]
    threads += [threading.Thread(target=apply, args=(f"sha256:b{number}", "sha256:a")) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(item, Layer) for item in outcome)
    assert len(bench.driver.layers()) == 5
    assert list(bench.state.glob("staging/*")) == bench.trash() == []


def test_attributes_of_layers(bench) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    info = tarfile.TarInfo("ping")
    info.pax_headers = {
        "SCHILY.xattr.security.capability": capability.decode("latin-1"),
        "SCHILY.xattr.user.note": "here",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "mtime": "1700000000.123456789",
    }
    data = info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)
    assert capability in data
    bench.apply_bytes("sha256:a", None, data)
    bench.driver.create("k", "sha256:a", SnapshotOptions())

    def look(root: Path) -> tuple[dict[str, bytes], int]:
        path = root / "ping"
        return {name: os.getxattr(path, name) for name in os.listxattr(path)}, path.stat().st_mtime_ns

    xattrs, mtime = bench.inside("k", look)
    assert xattrs == {"security.capability": capability, "user.note": b"here"}
    assert mtime == 1_700_000_000_123_456_789


def test_through_the_disk_before_it_is_visible(bench) -> None:
    """The default of daemon.json."""
    bench.driver = bench.another(sync=OverlaySettings().sync)
    bench.apply("sha256:a", None, ("a", "file", b"a"))
    bench.driver.create("k", "sha256:a", SnapshotOptions())
    bench.inside("k", lambda root: (root / "b").touch())
    bench.driver.promote("k", "sha256:b")
    assert sorted(bench.inside("sha256:b")) == ["a", "b"]
