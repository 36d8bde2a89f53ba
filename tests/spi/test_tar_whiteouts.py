"""Whiteouts as OCI's image-spec has them: on a copy of the lower layers (REMOVE), and as overlayfs's marks (OVERLAY)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from wharfie.spi.tar import OPAQUE_XATTR, Unpacked, Whiteouts, is_whiteout, unpack

pytestmark = pytest.mark.root


@pytest.fixture
def on(tmp_path: Path, as_fd, tar) -> Callable[..., Unpacked]:
    def run(mode: Whiteouts, *specs: object) -> Unpacked:
        root = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
        try:
            return unpack(as_fd(tar(*specs)), root, mode)
        finally:
            os.close(root)

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def lower(root: Path) -> Path:
    for name in ("d/a", "d/b", "d/sub/x", "e/y", "top"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("lower")
    return root


def tree(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_remove_takes_what_is_below(lower: Path, on) -> None:
    on(Whiteouts.REMOVE, (".wh.top", "file"), ("d/.wh.sub", "file"), ("d/.wh.not-there", "file"), ("f/.wh.x", "file"))
    assert tree(lower) == ["d", "d/a", "d/b", "e", "e/y", "f"]


@pytest.mark.parametrize("turn", [1, -1])
def test_remove_spares_what_the_layer_brings(lower: Path, on, turn: int) -> None:
    """In whatever order: a whiteout and a file of one name mean a new file, an opaque folder keeps what is new."""
    entries = [
        ("d/a", "file", b"new"),
        ("d/sub/z", "file", b"new"),
        ("d/.wh..wh..opq", "file"),
        ("e/.wh.y", "file"),
        ("e/y/new", "file", b"new"),
        (".wh.top", "file"),
        ("top", "file", b"new"),
    ]
    on(Whiteouts.REMOVE, *entries[::turn])
    assert tree(lower) == ["d", "d/a", "d/sub", "d/sub/z", "e", "e/y", "e/y/new", "top"]
    assert (lower / "d" / "a").read_bytes() == (lower / "top").read_bytes() == b"new"


@pytest.mark.parametrize("turn", [1, -1])
def test_overlay_marks(root: Path, on, turn: int) -> None:
    entries = [
        (".wh.gone", "file"),
        ("d/.wh..wh..opq", "file"),
        ("d/keep", "file", b"k"),
        (".wh.both", "file"),
        ("both", "file", b"b"),
        (".wh.folder", "file"),
        ("folder/x", "file", b"x"),
    ]
    done = on(Whiteouts.OVERLAY, *entries[::turn])
    assert tree(root) == ["both", "d", "d/keep", "folder", "folder/x", "gone"]
    assert is_whiteout(os.lstat(root / "gone"))
    assert os.getxattr(root / "d", OPAQUE_XATTR) == os.getxattr(root / "folder", OPAQUE_XATTR) == b"y"
    assert (root / "both").read_bytes() == b"b"
    assert set(done.implied) == {b"", b"d"}  # `folder` is new, whatever the layers below have
    assert done.size == 3


def test_overlay_a_folder_instead_of_a_file(root: Path, on) -> None:
    on(Whiteouts.OVERLAY, ("x", "file", b"f"), ("x", "dir"), ("y", "dir"), ("y/in", "file"), ("y", "file", b"f"))
    assert os.getxattr(root / "x", OPAQUE_XATTR) == b"y"
    assert (root / "y").read_bytes() == b"f"


def test_overlay_notes_links_to_other_layers(root: Path, on) -> None:
    done = on(Whiteouts.OVERLAY, ("d", "dir"), ("d/new", "hard", "usr/bin/old"), ("also", "hard", "d/other"))
    assert done.borrowed == ((b"d/new", b"usr/bin/old"), (b"also", b"d/other"))
    assert done.implied == (b"",)


def test_literal_takes_names_as_they_are(root: Path, on) -> None:
    on(Whiteouts.LITERAL, (".wh.x", "file", b"1"), ("d/.wh..wh..opq", "file", b"2"))
    assert tree(root) == [".wh.x", "d", "d/.wh..wh..opq"]


def test_folders_keep_their_times_whatever_comes_into_them(root: Path, on, tar) -> None:
    import tarfile

    folder = tarfile.TarInfo("d")
    folder.type, folder.mtime, folder.mode = tarfile.DIRTYPE, 1_000_000, 0o2750
    on(Whiteouts.OVERLAY, folder, ("d/x", "file", b"x"), ("d/.wh.y", "file"), ("d/sub", "dir"))
    facts = os.stat(root / "d")
    assert (facts.st_mtime, facts.st_mode & 0o7777) == (1_000_000, 0o2750)


def test_the_umask_does_not_matter(root: Path, on) -> None:
    before = os.umask(0o077)
    try:
        on(Whiteouts.OVERLAY, ("implied/x", "file", b"x"), ("d", "dir"), ("c", "char", (1, 3)))
    finally:
        os.umask(before)
    modes = [os.lstat(root / name).st_mode & 0o7777 for name in ("implied", "implied/x", "d", "c")]
    assert modes == [0o755, 0o644, 0o755, 0o644]
