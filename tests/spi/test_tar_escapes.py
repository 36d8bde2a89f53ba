"""No archive reaches outside of the folder that it is unpacked into: a canary beside it stays bit for bit the same."""

from __future__ import annotations

import os
import random
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from wharfie.spi.errors import InvalidArgument, OutOfSpace
from wharfie.spi.tar import OPAQUE_XATTR, Whiteouts, unpack

pytestmark = pytest.mark.root
MODES = list(Whiteouts)


def in_folder(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    folder = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
    yield folder
    os.close(folder)


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["../canary/secret", "a/../../canary/secret", "./../x", "..", "/../x", "a/b/../../../x"])
@pytest.mark.parametrize("kind", ["file", "dir", "link", "hard", "fifo", "char"])
def test_names_above_the_root_are_refused(root: int, canary: Path, as_fd, tar, mode, name: str, kind: str) -> None:
    rest = {"link": ["x"], "hard": ["x"], "char": [(1, 3)]}.get(kind, [])
    with pytest.raises(InvalidArgument, match="outside of the layer"):
        unpack(as_fd(tar((name, kind, *rest))), root, mode)


@pytest.mark.parametrize("mode", MODES)
def test_absolute_names_start_at_the_root(root: int, inside: Path, canary: Path, as_fd, tar, mode) -> None:
    name = str(canary / "secret")
    unpack(as_fd(tar((name, "file", b"mine"), ("//a/./b/../c", "file", b"c"))), root, mode)
    assert (inside / name.lstrip("/")).read_bytes() == b"mine"
    assert (inside / "a" / "c").read_bytes() == b"c"


def links_out(canary: Path) -> dict[str, str]:
    return {
        "absolute": str(canary),
        "relative": "../canary",
        "far above": "../" * 40 + str(canary).lstrip("/"),
        "through proc": "/proc/self/cwd",
        "proc root": f"/proc/{os.getpid()}/root{canary}",
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("which", ["absolute", "relative", "far above", "through proc", "proc root"])
def test_links_on_the_way_stay_inside(root: int, inside: Path, canary: Path, as_fd, tar, mode, which: str) -> None:
    target = links_out(canary)[which]
    data = tar(
        ("out", "link", target),
        ("out/secret", "file", b"hit"),
        ("out/new", "file", b"hit"),
        ("out/sub", "dir"),
        ("out/sub/file", "link", "hit"),
        ("out/device", "char", (1, 3)),
        ("out/.wh.secret", "file"),
        ("out/.wh..wh..opq", "file"),
    )
    unpack(as_fd(data), root, mode)
    assert str((inside / "out").readlink()) == target
    assert any(path.name == "new" for path in inside.rglob("*"))


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_that_becomes_a_link(root: int, inside: Path, canary: Path, as_fd, tar, mode) -> None:
    """The folder is open when its name is swapped."""
    data = tar(
        ("d", "dir"),
        ("d/first", "file", b"1"),
        ("d", "link", str(canary)),
        ("d/secret", "file", b"hit"),
        ("d/sub/file", "file", b"hit"),
        ("d", "dir"),
        ("d/last", "file", b"2"),
    )
    unpack(as_fd(data), root, mode)
    assert in_folder(inside / "d") == ["last"]


@pytest.mark.parametrize("mode", MODES)
def test_files_do_not_follow_a_link_of_their_name(root: int, inside: Path, canary: Path, as_fd, tar, mode) -> None:
    info = tarfile.TarInfo("x")
    info.mode, info.uid, info.mtime, info.devminor = 0o777, 4711, 5, 3
    info.pax_headers = {"SCHILY.xattr.user.hit": "1"}
    for kind in (tarfile.REGTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE):
        info.type, info.linkname = kind, "elsewhere" if kind == tarfile.SYMTYPE else ""
        unpack(as_fd(tar(("x", "link", str(canary / "secret")), info)), root, mode)
        assert stat.S_ISLNK(os.lstat(inside / "x").st_mode) == (kind == tarfile.SYMTYPE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["../canary/secret", "/etc/hostname", "out/secret", "out", "no/such", "d", "", "/"])
def test_hard_links_reach_nothing_outside(root: int, inside: Path, canary: Path, as_fd, tar, mode, target: str) -> None:
    data = tar(("d", "dir"), ("out", "link", str(canary)), ("hard", "hard", target), ("hard", "file", b"mine"))
    try:
        unpack(as_fd(data), root, mode)
    except InvalidArgument as error:
        assert '"hard"' in error.message
    assert os.stat(canary / "secret").st_nlink == 1


def test_hard_links_do_not_follow_the_last_link(root: int, inside: Path, canary: Path, as_fd, tar) -> None:
    unpack(as_fd(tar(("out", "link", str(canary / "secret")), ("hard", "hard", "out"))), root, Whiteouts.OVERLAY)
    assert os.path.samestat(os.lstat(inside / "hard"), os.lstat(inside / "out"))


def test_a_hard_link_to_itself_keeps_the_file(root: int, inside: Path, as_fd, tar) -> None:
    unpack(
        as_fd(tar(("a", "file", b"x"), ("a", "hard", "a"), ("b", "hard", "./a"), ("b", "hard", "a"))),
        root,
        Whiteouts.LITERAL,
    )
    assert (inside / "b").read_bytes() == (inside / "a").read_bytes() == b"x"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["file", "link", "fifo", "char"])
def test_the_root_is_not_replaced(root: int, as_fd, tar, mode, kind: str) -> None:
    rest = {"link": ["x"], "char": [(1, 3)]}.get(kind, [])
    for name in (".", "./", "a/.."):
        with pytest.raises(InvalidArgument):
            info = tar((name, kind, *rest)) if not (kind == "file" and name == "./") else tar(("a/..", "file"))
            unpack(as_fd(info), root, mode)


@pytest.mark.parametrize("name", [".wh.", "d/.wh.", ".wh..", ".wh...", "d/.wh..", "d/.wh..."])
@pytest.mark.parametrize("mode", [Whiteouts.OVERLAY, Whiteouts.REMOVE])
def test_whiteouts_of_no_name(root: int, inside: Path, canary: Path, as_fd, tar, mode, name: str) -> None:
    (inside / "d").mkdir()
    with pytest.raises(InvalidArgument, match="whiteout"):
        unpack(as_fd(tar((name, "file"))), root, mode)
    assert (inside / "d").is_dir()


def test_names_within_a_whiteout(root: int, as_fd, tar) -> None:
    with pytest.raises(InvalidArgument, match="within a whiteout"):
        unpack(as_fd(tar((".wh.d/x", "file"))), root, Whiteouts.OVERLAY)


def test_what_aufs_kept_is_ignored(root: int, inside: Path, as_fd, tar) -> None:
    data = tar((".wh..wh.plnk", "dir"), (".wh..wh.plnk/1.2", "file", b"x"), (".wh..wh.aufs", "file"), ("a", "file", b"a"))
    unpack(as_fd(data), root, Whiteouts.OVERLAY)
    assert in_folder(inside) == ["a"]


@pytest.mark.parametrize("mode", MODES)
def test_overlays_own_attributes_are_never_applied(root: int, inside: Path, as_fd, tar, mode) -> None:
    names = [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.overlay.overlay.opaque",
    ]
    names += ["user.overlay.opaque", "user.overlay.redirect", "security.selinux", "trusted.other"]
    for kind in (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE):
        info = tarfile.TarInfo("x")
        info.type, info.linkname = kind, "y" if kind == tarfile.SYMTYPE else ""
        info.pax_headers = {f"SCHILY.xattr.{name}": "/etc" for name in names}
        unpack(as_fd(tar(info)), root, mode)
        ours = [OPAQUE_XATTR] if kind == tarfile.DIRTYPE and mode is Whiteouts.OVERLAY else []
        assert [name for name in os.listxattr(inside / "x", follow_symlinks=False) if name not in ours] == []


def test_an_opaque_mark_for_the_root_does_not_forge(root: int, inside: Path, as_fd, tar) -> None:
    info = tarfile.TarInfo("./")
    info.type = tarfile.DIRTYPE
    info.pax_headers = {"SCHILY.xattr.trusted.overlay.opaque": "y"}
    unpack(as_fd(tar(info)), root, Whiteouts.OVERLAY)
    assert os.listxattr(inside) == []


def test_links_that_go_round(root: int, as_fd, tar) -> None:
    for data in (
        tar(("a", "link", "b"), ("b", "link", "a"), ("a/x", "file")),
        tar(("a", "link", "a/b"), ("a/x", "file")),
        tar(*((f"l{n}", "link", f"l{n + 1}/d") for n in range(60)), ("l0/x", "file")),
    ):
        with pytest.raises(InvalidArgument):
            unpack(as_fd(data), root, Whiteouts.OVERLAY)


def test_a_link_to_a_folder_that_comes_later(root: int, inside: Path, as_fd, tar) -> None:
    data = tar(
        ("run", "dir"),
        ("var/run", "link", "../run/here"),
        ("var/run/pid", "file", b"1"),
        ("abs", "link", "/x/y"),
        ("abs/z", "file"),
    )
    unpack(as_fd(data), root, Whiteouts.OVERLAY)
    assert (inside / "run" / "here" / "pid").read_bytes() == b"1"
    assert (inside / "x" / "y" / "z").exists()


@pytest.mark.parametrize("mode", MODES)
def test_a_file_is_no_folder(root: int, as_fd, tar, mode) -> None:
    with pytest.raises(InvalidArgument, match='"a/b"'):
        unpack(as_fd(tar(("a", "file", b"x"), ("a/b", "file"))), root, mode)


def test_long_and_deep_names(root: int, inside: Path, as_fd, tar) -> None:
    with pytest.raises(InvalidArgument):
        unpack(as_fd(tar(("n" * 256, "file"))), root, Whiteouts.OVERLAY)
    with pytest.raises(InvalidArgument, match="4095"):
        unpack(as_fd(tar(("d/" * 2500 + "x", "file"))), root, Whiteouts.OVERLAY)
    unpack(as_fd(tar(("d/" * 2040 + "x", "file", b"deep"))), root, Whiteouts.OVERLAY)
    # Deeper than any path, through a link; and then all of it replaced by a file.
    links = [("l", "link", "d/" * 2000), *(("l/" + "e/" * 1900 + "x", "file", b"deeper"),)]
    unpack(as_fd(tar(*links, ("d", "file", b"flat"))), root, Whiteouts.OVERLAY)
    assert (inside / "d").read_bytes() == b"flat"
    assert in_folder(inside) == ["d", "l"]


def test_a_flood_of_devices_and_folders(root: int, inside: Path, as_fd, tar) -> None:
    data = tar(*((f"dev/n{n}", "char", (n % 4000, n)) for n in range(3000)), *((f"d{n}/e/f", "dir") for n in range(3000)))
    done = unpack(as_fd(data), root, Whiteouts.OVERLAY)
    assert done.entries == 6000 and len(done.implied) == 2 + 2 * 3000


def test_too_much_to_remember(root: int, as_fd, tar) -> None:
    link = tarfile.TarInfo("h")
    link.type, link.linkname = tarfile.LNKTYPE, "t/" * 1950 + "x"
    one = link.tobuf(tarfile.PAX_FORMAT)
    with pytest.raises(InvalidArgument, match="too many"):
        unpack(as_fd(one * 9000 + bytes(1024)), root, Whiteouts.OVERLAY)


@pytest.mark.parametrize("mode", MODES)
def test_random_damage(tmp_path: Path, canary: Path, as_fd, tar, mode) -> None:
    """Mutants of an archive that tries everything: each is unpacked or refused, and nothing else happens."""
    whole = tar(
        ("d", "dir"),
        ("d/a", "file", b"a" * 700),
        ("d/l", "link", "../../canary"),
        ("d/l/secret", "file", b"hit"),
        ("h", "hard", "d/a"),
        ("d/h2", "hard", "/d/l/../a"),
        ("dev", "char", (1, 3)),
        ("d/.wh.b", "file"),
        ("d/.wh..wh..opq", "file"),
        ("n" * 180, "file", b"long"),
        (str(canary / "secret"), "file", b"hit"),
    )
    chance = random.Random(20_240_101)
    for number in range(120):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            data[at] = chance.choice([chance.randrange(256), ord("/"), ord("."), 0, 0x37, data[at] ^ 1])
        if chance.random() < 0.7:  # most damage would only be a wrong checksum
            for block in range(0, len(data) - 511, 512):
                if data[block + 257 : block + 262] == b"ustar":
                    data[block + 148 : block + 156] = b" " * 8
                    data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        folder = tmp_path / f"root{number}"
        folder.mkdir()
        target = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            unpack(as_fd(bytes(data)), target, mode)
        except (InvalidArgument, OutOfSpace):
            pass
        finally:
            os.close(target)
