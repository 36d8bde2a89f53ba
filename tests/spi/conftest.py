from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def describe(root: Path) -> dict[str, tuple]:
    """Everything that a tar can say of the files below `root`, by path."""
    found: dict[str, tuple] = {}
    links: dict[tuple[int, int], str] = {}
    for folder, folders, files in os.walk(root):
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            facts = os.lstat(path)
            content: object = None
            if stat.S_ISREG(facts.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            elif stat.S_ISLNK(facts.st_mode):
                content = str(Path(path).readlink())
            elif not stat.S_ISDIR(facts.st_mode):
                content = facts.st_rdev
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
            }
            first = links.setdefault((facts.st_dev, facts.st_ino), os.path.relpath(path, root))
            times = facts.st_mtime_ns
            found[os.path.relpath(path, root)] = (facts.st_mode, facts.st_uid, facts.st_gid, times, content, xattrs, first)
    return found


@pytest.fixture
def described() -> Callable[[Path], dict[str, tuple]]:
    return describe


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A folder outside, and links and a file that an escape would hit; it must be bit for bit the same at the end."""
    folder = tmp_path / "canary"
    (folder / "sub").mkdir(parents=True)
    (folder / "secret").write_text("untouched")
    (folder / "sub" / "file").write_text("untouched too")
    (folder / "secret").chmod(0o600)

    def state() -> dict[str, tuple]:
        inodes = {
            str(path): (os.lstat(path).st_ino, os.lstat(path).st_ctime_ns, os.lstat(path).st_nlink)
            for path in folder.rglob("*")
        }
        return describe(folder) | inodes

    before = state()
    yield folder
    assert state() == before


def make_tar(*specs: object, format: int = tarfile.PAX_FORMAT, end: bool = True) -> bytes:
    """A tar of (name, kind, value) tuples or TarInfo objects. Kinds: file, dir, link (symlink), hard, char, block, fifo."""
    kinds = {
        "dir": tarfile.DIRTYPE,
        "link": tarfile.SYMTYPE,
        "hard": tarfile.LNKTYPE,
        "char": tarfile.CHRTYPE,
        "block": tarfile.BLKTYPE,
        "fifo": tarfile.FIFOTYPE,
        "file": tarfile.REGTYPE,
    }
    out = bytearray()
    for spec in specs:
        if isinstance(spec, bytes):
            out += spec
            continue
        data = b""
        if isinstance(spec, tarfile.TarInfo):
            info = spec
        else:
            name, kind, *rest = spec  # type: ignore[misc]
            info = tarfile.TarInfo(name)
            info.type = kinds[kind]
            info.mode = 0o755 if kind == "dir" else 0o644
            if kind in ("link", "hard"):
                info.linkname = rest[0]
            elif kind in ("char", "block"):
                info.devmajor, info.devminor = rest[0]
            elif kind == "file":
                data = rest[0] if rest else b""
                info.size = len(data)
        out += info.tobuf(format, errors="surrogateescape")
        out += data + bytes(-len(data) % 512)
    return bytes(out) + (bytes(1024) if end else b"")


@pytest.fixture
def tar() -> Callable[..., bytes]:
    return make_tar


@pytest.fixture
def as_fd() -> Iterator[Callable[[bytes], int]]:
    """A descriptor from which the bytes can be read."""
    files = []

    def give(data: bytes) -> int:
        file = io.FileIO(os.memfd_create("tar"), "r+")
        file.write(data)
        file.seek(0)
        files.append(file)
        return file.fileno()

    yield give
    for file in files:
        file.close()
