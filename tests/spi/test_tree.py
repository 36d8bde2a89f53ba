"""Two trees compared: as Docker lists changes, and as a layer that turns one into the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wharfie.spi.errors import Cancelled
from wharfie.spi.nodes import remove
from wharfie.spi.storage import ChangeKind
from wharfie.spi.tar import Whiteouts, unpack
from wharfie.spi.tree import Tree, changes, diff, usage

pytestmark = pytest.mark.root


def in_folder(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@contextmanager
def opened(*folders: Path) -> Iterator[list[int]]:
    fds = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in folders]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A tree and a copy of it."""
    old = tmp_path / "old"
    for name in ("bin/sh", "bin/wget", "etc/passwd", "etc/deep/down/file", "gone/with/all/below", "same/x"):
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_text(name)
    (old / "link").symlink_to("bin/sh")
    new = tmp_path / "new"
    subprocess.run(["cp", "-a", old, new], check=True)
    return old, new


def listed(old: Path | None, new: Path) -> list[tuple[str, int]]:
    with opened(new, *([old] if old else [])) as fds:
        return [(change.path, int(change.kind)) for change in changes(Tree(fds[1]) if old else None, Tree(fds[0]))]


def test_changes_as_docker_lists_them(pair: tuple[Path, Path]) -> None:
    """The recorded answer of dockerd to `touch /newfile; rm /bin/wget; echo x >>/etc/passwd`, sorted."""
    old, new = pair
    (new / "newfile").touch()
    (new / "bin" / "wget").unlink()
    (new / "etc" / "passwd").write_text("changed")
    assert listed(old, new) == [("/bin", 0), ("/bin/wget", 2), ("/etc", 0), ("/etc/passwd", 0), ("/newfile", 1)]


def test_no_changes(pair: tuple[Path, Path]) -> None:
    old, new = pair
    os.utime(new / "etc", ns=(0, 0))  # the time of a folder is no change
    assert listed(old, new) == []


def test_changes_of_every_kind(pair: tuple[Path, Path]) -> None:
    old, new = pair
    shutil.rmtree(new / "gone")
    (new / "added" / "inner").mkdir(parents=True)
    (new / "added" / "inner" / "file").touch()
    (new / "etc" / "deep" / "down" / "file").chmod(0o600)
    (new / "link").unlink()
    (new / "link").symlink_to("elsewhere")
    (new / "bin" / "sh").unlink()
    (new / "bin" / "sh").mkdir()
    (new / "bin" / "sh" / "x").touch()
    shutil.rmtree(new / "same")
    (new / "same").touch()
    assert listed(old, new) == [
        ("/added", 1),
        ("/added/inner", 1),
        ("/added/inner/file", 1),
        ("/bin", 0),
        ("/bin/sh", 0),
        ("/bin/sh/x", 1),
        ("/etc", 0),
        ("/etc/deep", 0),
        ("/etc/deep/down", 0),
        ("/etc/deep/down/file", 0),
        ("/gone", 2),
        ("/link", 0),
        ("/same", 0),
    ]


def test_a_capability_is_a_change(pair: tuple[Path, Path]) -> None:
    old, new = pair
    os.setxattr(new / "bin" / "sh", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    assert listed(old, new) == [("/bin", 0), ("/bin/sh", 0)]


def test_everything_is_new_without_a_parent(pair: tuple[Path, Path]) -> None:
    _, new = pair
    assert listed(None, new) == sorted(("/" + str(path.relative_to(new)), 1) for path in new.rglob("*"))


def difference(old: Path | None, new: Path) -> bytes:
    with opened(new, *([old] if old else [])) as fds, tempfile.TemporaryFile() as out:
        diff(Tree(fds[1]) if old else None, Tree(fds[0]), out.fileno())
        out.seek(0)
        return out.read()


def names(data: bytes, tmp_path: Path) -> list[str]:
    file = tmp_path / "diff.tar"
    file.write_bytes(data)
    with tarfile.open(file) as tar:
        return tar.getnames()


def test_a_layer_has_explicit_whiteouts_and_hard_links(pair: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = pair
    shutil.rmtree(new / "gone")
    (new / "bin" / "wget").unlink()
    (new / "new").write_bytes(b"x" * 3_000_000)
    os.link(new / "new", new / "new-too")
    data = difference(old, new)
    assert names(data, tmp_path) == ["bin", "bin/.wh.wget", ".wh.gone", "new", "new-too"]
    with tarfile.open(tmp_path / "diff.tar") as tar:
        assert tar.getmember("new-too").islnk() and tar.getmember("new-too").linkname == "new"
    assert subprocess.run(["tar", "-tf", tmp_path / "diff.tar"], capture_output=True, check=True).stderr == b""


def test_what_no_layer_can_hold_is_left_out(pair: tuple[Path, Path], tmp_path: Path) -> None:
    import socket

    old, new = pair
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(new / "socket"))
        (new / ".wh.literal").mkdir()
        (new / ".wh.literal" / "x").touch()
        (new / "plain").touch()
        assert names(difference(old, new), tmp_path) == ["plain"]


def test_old_and_layer_make_new(pair: tuple[Path, Path], tmp_path: Path, as_fd, described) -> None:
    old, new = pair
    shutil.rmtree(new / "gone")
    (new / "gone").symlink_to("etc")
    (new / "bin" / "sh").unlink()
    (new / "bin" / "sh" / "folder").mkdir(parents=True)
    os.mknod(new / "device", 0o020600, os.makedev(1, 7))
    os.mkfifo(new / "fifo")
    (new / "etc" / "passwd").write_text("changed")
    os.chown(new / "etc" / "passwd", 12345, 3_000_000_000)
    os.setxattr(new / "etc", "user.note", b"here")
    (new / ("long" * 60)).write_text("long")
    (new / "bin" / "setuid").touch()
    (new / "bin" / "setuid").chmod(0o6755)
    data = difference(old, new)
    with opened(old) as fds:
        unpack(as_fd(data), fds[0], Whiteouts.REMOVE)
    assert described(old) == described(new)


def test_a_file_that_shrinks_meanwhile_does_not_break_the_archive(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "a").write_bytes(b"x" * 20_000_000)
    (new / "b").write_text("after")
    reading, writing = os.pipe()
    with opened(new) as fds:
        thread = threading.Thread(target=lambda: (diff(None, Tree(fds[0]), writing), os.close(writing)))
        thread.start()
        with open(reading, "rb") as stream:
            head = stream.read(512)  # the size has been said, and the pipe is full
            os.truncate(new / "a", 1000)
            data = head + stream.read()
        thread.join()
    assert names(data, tmp_path) == ["a", "b"]


def test_a_reader_that_goes_away(pair: tuple[Path, Path]) -> None:
    _, new = pair
    reading, writing = os.pipe()
    os.close(reading)
    with opened(new) as fds, pytest.raises(Cancelled):
        diff(None, Tree(fds[0]), writing)
    os.close(writing)


def test_changes_while_the_tree_changes(tmp_path: Path) -> None:
    """A container may run on it: files come and go, nothing of that is an error."""
    root = tmp_path / "busy"
    root.mkdir()
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(50):
                folder = root / f"d{number}"
                folder.mkdir(exist_ok=True)
                (folder / "file").touch()
            for number in range(50):
                shutil.rmtree(root / f"d{number}", ignore_errors=True)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        with opened(root) as fds:
            until = time.monotonic() + 1
            while time.monotonic() < until:
                for _ in range(10):
                    usage(fds[0])
                    changes(None, Tree(fds[0]))
                with tempfile.TemporaryFile() as out:
                    diff(None, Tree(fds[0]), out.fileno())
    finally:
        stop.set()
        thread.join()


def test_usage_counts_as_docker_does(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "file").write_bytes(b"x" * 1000)
    os.link(root / "d" / "file", root / "again")
    (root / "link").symlink_to("1234567890")
    with opened(root) as fds:
        assert (usage(fds[0]).size, usage(fds[0]).inodes) == (1010, 4)


@pytest.fixture
def bottomless(tmp_path: Path) -> Callable[[int], Path]:
    def make(depth: int) -> Path:
        root = tmp_path / "deep"
        root.mkdir()
        here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        for _ in range(depth):
            os.mkdir("d" * 200, dir_fd=here)
            below = os.open("d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.close(here)
        return root

    return make


def test_trees_deeper_than_any_path(tmp_path: Path, bottomless) -> None:
    """What a container can make by mkdir and chdir, the driver can measure and remove."""
    root = bottomless(1500)
    before = len(open_descriptors())
    with opened(root) as fds:
        assert usage(fds[0]).inodes == 1501
    with opened(tmp_path) as fds:
        remove(fds[0], b"deep")
    assert not root.exists()
    assert len(open_descriptors()) == before


def test_remove_takes_anything_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "inner" / "x").mkdir(parents=True)
    (tmp_path / "outside").write_text("stays")
    (tmp_path / "folder" / "link").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to("outside")
    with opened(tmp_path) as fds:
        for name in (b"file", b"folder", b"link", b"not-there"):
            remove(fds[0], name)
    assert in_folder(tmp_path) == ["outside"]


FILES = st.dictionaries(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join),
    st.sampled_from(["1", "22", "333", None]),  # the content; None is a folder
    max_size=8,
)


def build(root: Path, files: dict[str, str | None]) -> None:
    for path, content in sorted(files.items()):
        target = root / path
        if any((root / parent).is_file() for parent in Path(path).parents if str(parent) != "."):
            continue
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
        elif not target.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
            os.utime(target, ns=(0, 10**9 * len(content)))


def contents(root: Path) -> dict[str, str | None]:
    return {str(path.relative_to(root)): None if path.is_dir() else path.read_text() for path in root.rglob("*")}


def expected_changes(old: dict[str, str | None], new: dict[str, str | None]) -> set[tuple[str, ChangeKind]]:
    """By comparing two whole lists."""
    found = {(path, ChangeKind.ADDED) for path in new.keys() - old.keys()}
    found |= {(path, ChangeKind.MODIFIED) for path in new.keys() & old.keys() if new[path] != old[path]}
    for path in old.keys() - new.keys():
        parent = str(Path(path).parent)
        if parent == "." or (parent in new and new[parent] is None):
            found.add((path, ChangeKind.DELETED))
    touched = {path for path, _ in found}
    above = {str(parent) for path in touched for parent in Path(path).parents if str(parent) != "."}
    return {("/" + path, kind) for path, kind in found | {(path, ChangeKind.MODIFIED) for path in above - touched}}


@settings(max_examples=60, deadline=None)
@given(FILES, FILES)
def test_changes_and_layers_of_random_trees(before: dict[str, str | None], after: dict[str, str | None]) -> None:
    with tempfile.TemporaryDirectory() as place:
        old, new = Path(place) / "old", Path(place) / "new"
        for root, files in ((old, before), (new, after)):
            root.mkdir()
            build(root, files)
        with opened(old, new) as fds, tempfile.TemporaryFile() as layer:
            found = {(change.path, change.kind) for change in changes(Tree(fds[0]), Tree(fds[1]))}
            assert found == expected_changes(contents(old), contents(new))
            diff(Tree(fds[0]), Tree(fds[1]), layer.fileno())
            layer.seek(0)
            unpack(layer.fileno(), fds[0], Whiteouts.REMOVE)
        assert contents(old) == contents(new)
