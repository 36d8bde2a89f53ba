"""Archives as other tools write them, and as nobody should."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from wharfie.spi import tarformat
from wharfie.spi.call import Call, enter_call
from wharfie.spi.errors import Cancelled, InvalidArgument
from wharfie.spi.tar import Whiteouts, unpack
from wharfie.spi.tarformat import Entry, Reader


def in_folder(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with everything that a tar can hold."""
    root = tmp_path / "source"
    (root / "dir" / "inner").mkdir(parents=True)
    (root / "dir" / "file").write_bytes(os.urandom(70_000))
    (root / "empty").touch()
    (root / "setuid").write_text("s")
    (root / "setuid").chmod(0o4755)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    os.chown(root / "empty", 1234, 5678)
    os.link(root / "dir" / "file", root / "hard")
    (root / "symlink").symlink_to("dir/file")
    (root / "dangling").symlink_to("../../nowhere")
    os.lchown(root / "dangling", 99, 98)
    os.mknod(root / "char", 0o020666, os.makedev(1, 3))
    os.mknod(root / "block", 0o060640, os.makedev(7, 300))
    os.mkfifo(root / "fifo", 0o600)
    (root / "umlaut-ä").write_text("ä")
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, 1_600_000_000_000_000_000 + number * 1_000_000_000), follow_symlinks=False)
    return root


def unpacked(tmp_path: Path, source: int, whiteouts: Whiteouts = Whiteouts.LITERAL) -> Path:
    target = tmp_path / "target"
    target.mkdir()
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        unpack(source, root, whiteouts)
    finally:
        os.close(root)
    return target


@pytest.mark.parametrize("format", ["v7", "ustar", "gnu", "oldgnu", "posix"])
def test_what_gnu_tar_packs_comes_out_the_same(tmp_path: Path, source: Path, described, format: str) -> None:
    if format == "v7":
        for special in ("char", "block", "fifo"):
            (source / special).unlink()
        os.utime(source, ns=(0, 0))
    with subprocess.Popen(["tar", "-C", source, f"--format={format}", "-c", "."], stdout=subprocess.PIPE) as packer:
        target = unpacked(tmp_path, packer.stdout.fileno())
    assert packer.returncode == 0
    assert described(target) == described(source)


def test_nanoseconds_attributes_and_long_names(tmp_path: Path, source: Path, described) -> None:
    deep = source
    for _ in range(10):
        deep = deep / ("d" * 100)
    deep.mkdir(parents=True)
    (deep / ("f" * 250)).write_text("far down")
    (source / "long-link").symlink_to("x" * 3000)
    os.link(deep / ("f" * 250), source / "hard-to-long")
    os.setxattr(source / "empty", "user.note", b"\0binary\n=\xff")
    os.setxattr(source / "dir", "user.on-a-folder", b"yes")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(source / "hard", "security.capability", capability)
    os.utime(source / "empty", ns=(0, 1_700_000_000_123_456_789))
    os.utime(source / "dir", ns=(0, -1_500_000_000))
    command = ["tar", "-C", source, "--format=posix", "--xattrs", "--xattrs-include=*", "-c", "."]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as packer:
        target = unpacked(tmp_path, packer.stdout.fileno())
    assert described(target) == described(source)
    assert os.getxattr(target / "dir" / "file", "security.capability") == capability


def test_gnu_long_names(tmp_path: Path, as_fd, tar, described) -> None:
    data = tar(("n" * 200, "file", b"x"), ("l" * 150, "link", "t" * 300), format=tarfile.GNU_FORMAT)
    target = unpacked(tmp_path, as_fd(data))
    assert (target / ("n" * 200)).read_bytes() == b"x"
    assert str((target / ("l" * 150)).readlink()) == "t" * 300


@pytest.mark.parametrize(
    "how", [["--format=gnu"], *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0"))]
)
def test_sparse_files_keep_their_holes(tmp_path: Path, how: list[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "sparse", "wb") as file:
        for place in range(60):  # more than fit into one header
            file.seek(place * 1_000_000)
            file.write(b"data %d" % place)
        file.truncate(100_000_001)
    with open(source / "hole", "wb") as file:
        file.truncate(5_000_000)
    (source / "after").write_text("the next entry is found")
    command = ["tar", "-C", source, *how, "--sparse", "-c", "sparse", "hole", "after"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as packer:
        target = unpacked(tmp_path, packer.stdout.fileno())
    assert (target / "after").read_text() == "the next entry is found"
    for name in ("sparse", "hole"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
        assert (target / name).stat().st_blocks <= (source / name).stat().st_blocks + 8


def test_numbers_in_base_256(tmp_path: Path, as_fd) -> None:
    info = tarfile.TarInfo("big-owner")
    info.uid = info.gid = 3_000_000_000
    info.mtime = 8**11 + 5
    target = unpacked(tmp_path, as_fd(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    facts = (target / "big-owner").stat()
    assert (facts.st_uid, facts.st_gid, int(facts.st_mtime)) == (3_000_000_000, 3_000_000_000, 8**11 + 5)


@pytest.mark.parametrize("data", [b"", bytes(512), bytes(1024), bytes(10240), bytes(1024) + b"whatever follows the end"])
def test_an_empty_archive(tmp_path: Path, as_fd, data: bytes) -> None:
    assert in_folder(unpacked(tmp_path, as_fd(data))) == []


def test_an_archive_without_end_blocks(tmp_path: Path, as_fd, tar) -> None:
    assert in_folder(unpacked(tmp_path, as_fd(tar(("a", "file", b"x"), end=False)))) == ["a"]


def test_the_rest_of_the_stream_is_taken(tmp_path: Path, tar) -> None:
    """Who writes into the pipe (and computes the digest) must be able to finish."""
    reading, writing = os.pipe()
    data = tar(("a", "file", b"x")) + bytes(5_000_000)

    def write() -> None:
        with open(writing, "wb") as stream:
            stream.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        unpacked(tmp_path, reading)
    finally:
        os.close(reading)
        writer.join()


@pytest.mark.parametrize("cut", [1, 100, 511, 512, 513, 700, 1023])
def test_cut_off(tmp_path: Path, as_fd, tar, cut: int) -> None:
    data = tar(("a", "file", b"x" * 600), ("b", "file", b"y"))
    with pytest.raises(InvalidArgument, match="unexpected EOF"):
        unpacked(tmp_path, as_fd(data[:cut]))


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("text", b"this is no archive at all" * 100),
        ("compressed", gzip.compress(os.urandom(4000))),
        ("one zero block in the middle", bytes(512) + tarfile.TarInfo("a").tobuf()),
    ],
)
def test_garbage(tmp_path: Path, as_fd, what: str, data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="invalid tar header"):
        unpacked(tmp_path, as_fd(data))


def test_a_damaged_header_in_the_middle_is_not_the_end(tmp_path: Path, as_fd, tar) -> None:
    data = bytearray(tar(("a", "file", b"x"), ("b", "file", b"y"), ("c", "file", b"z")))
    data[1024 + 10] ^= 1
    with pytest.raises(InvalidArgument, match="checksum"):
        unpacked(tmp_path, as_fd(bytes(data)))


def pax(*records: bytes, size: int | None = None) -> bytes:
    data = b"".join(records)
    info = tarfile.TarInfo("PaxHeaders/x")
    info.type = b"x"
    info.size = len(data) if size is None else size
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


HOSTILE_HEADERS = {
    "a PAX header that promises 8 GiB": pax(b"", size=8**11 - 1),
    "a PAX record longer than its header": pax(b"999 path=a\n"),
    "a PAX record of length 0": pax(b"0 path=a\n"),
    "a PAX record without a length": pax(b" path=a\n"),
    "a PAX record with a sign": pax(b"+12 path=a\n"),
    "a PAX record without a key": pax(b"5 =a\n"),
    "a zero byte in a path": pax(record(b"path", b"a\0b")),
    "a negative size": pax(record(b"size", b"-1")),
    "a size beyond 63 bits": pax(record(b"size", b"9" * 30)),
    "an owner beyond 32 bits": pax(record(b"uid", b"4294967295")),
    "a time that is none": pax(record(b"mtime", b"yesterday")),
    "a sparse map out of order": pax(
        record(b"GNU.sparse.major", b"0"), record(b"GNU.sparse.size", b"100"), record(b"GNU.sparse.map", b"50,0,10,0")
    ),
    "a sparse map beyond the file": pax(record(b"GNU.sparse.size", b"100"), record(b"GNU.sparse.map", b"99,2")),
    "a sparse map for other data": pax(record(b"GNU.sparse.size", b"100"), record(b"GNU.sparse.map", b"0,100")),
    "a sparse map without end": pax(
        record(b"GNU.sparse.major", b"1"), record(b"GNU.sparse.realsize", b"10"), record(b"size", b"512")
    )
    + tarfile.TarInfo("a").tobuf()
    + b"9999999\n".ljust(512, b"1"),
    "a header for nothing": pax(record(b"path", b"a")) + b"",
}


@pytest.mark.parametrize("what", HOSTILE_HEADERS)
def test_hostile_headers(tmp_path: Path, as_fd, what: str) -> None:
    data = HOSTILE_HEADERS[what]
    if what != "a header for nothing" and "without end" not in what:
        data += tarfile.TarInfo("a").tobuf() + bytes(1024)
    with pytest.raises(InvalidArgument):
        unpacked(tmp_path, as_fd(data))


def test_unknown_types_are_refused(tmp_path: Path, as_fd) -> None:
    info = tarfile.TarInfo("odd")
    info.type = b"Z"
    with pytest.raises(InvalidArgument, match="unknown type"):
        unpacked(tmp_path, as_fd(info.tobuf() + bytes(1024)))


def test_global_headers_are_skipped(tmp_path: Path, as_fd, tar) -> None:
    info = tarfile.TarInfo("pax_global_header")
    info.type = b"g"
    data = record(b"path", b"elsewhere")
    info.size = len(data)
    head = info.tobuf(tarfile.USTAR_FORMAT) + data.ljust(512, b"\0")
    assert in_folder(unpacked(tmp_path, as_fd(head + tar(("a", "file", b"x"))))) == ["a"]


def test_memory_stays_small(tmp_path: Path) -> None:
    """An endless PAX header and a file of zeros: both read within 40 MB more than the interpreter takes."""
    script = f"""
import os, resource, threading
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.tar import unpack, Whiteouts
import tarfile
os.mkdir({str(tmp_path / "t")!r}); root = os.open({str(tmp_path / "t")!r}, os.O_RDONLY)
def feed(head, count):
    r, w = os.pipe()
    def write():
        try:
            os.write(w, head)
            for _ in range(count): os.write(w, bytes(1 << 20))
        except BrokenPipeError: pass
        os.close(w)
    threading.Thread(target=write, daemon=True).start()
    return r
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
big = tarfile.TarInfo("zeros"); big.size = 200 << 20
unpack(feed(big.tobuf(), 201), root, Whiteouts.OVERLAY)
pax = tarfile.TarInfo("pax"); pax.type = b"x"; pax.size = 7 << 30
r = feed(pax.tobuf(), 7000)
try: unpack(r, root, Whiteouts.OVERLAY)
except InvalidArgument: os.close(r); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 40_000


def test_a_header_comes_back_as_it_was(as_fd) -> None:
    entries = [
        Entry(path=b"short", size=5, mode=0o4755, uid=7, gid=8, mtime_ns=1_700_000_000_000_000_000),
        Entry(path=b"d/" * 200 + b"x", kind=tarformat.SYMLINK, link=b"l" * 500, mtime_ns=-1_500_000_000),
        Entry(path="ä".encode(), uid=3_000_000_000, mtime_ns=1, xattrs={b"user.x": b"\n\0=", b"user.y": b"z" * 5000}),
        Entry(path=b"\xff\xfe", kind=tarformat.CHARACTER, device=(5, 1)),
        Entry(path=b"big", size=9 << 33),
    ]
    for entry in entries:
        data = tarformat.header(entry)
        assert len(data) % 512 == 0
        assert next(Reader(as_fd(data))) == entry
        with tarfile.open(fileobj=os.fdopen(os.dup(as_fd(data)), "rb"), errorlevel=2) as other:
            member = other.next()
            assert member is not None
            assert os.fsencode(member.name) == entry.path
            assert (member.size, member.mode, member.uid) == (entry.size, entry.mode, entry.uid)


def test_a_cancelled_call_stops(tmp_path: Path, as_fd, tar) -> None:
    call = Call(id="x")
    call.cancelled.set()
    outcome: list[BaseException] = []

    def run() -> None:
        enter_call(call)
        try:
            unpacked(tmp_path, as_fd(tar(("a", "file", b"x"))))
        except Cancelled as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert outcome


def test_no_descriptor_is_left(tmp_path: Path, as_fd, tar) -> None:
    data = tar(*((f"d{n}/e/f{n}", "file", b"x") for n in range(100)), ("../out", "file", b"x"))
    source = as_fd(data)
    before = open_descriptors()
    with pytest.raises(InvalidArgument):
        unpacked(tmp_path, source, Whiteouts.OVERLAY)
    assert open_descriptors() == before
