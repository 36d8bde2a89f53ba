"""What is done on a root before the process is made, on roots that mean no good."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import House, read_all

from wharfie.shim import copy_up, safe_path, users
from wharfie.shim.root import mount_root
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.runtime import CopyUp, Io, Preparation


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    (path / "etc").mkdir(parents=True)
    (path / "etc/passwd").write_text(
        "# comment\nroot:x:0:0:root:/root:/bin/sh\nweb:x:33:44::/srv/web:/bin/sh\n"
        "12:x:99:99::/odd:\nbroken\nhuge:x:4294967296:0::/:\n"
    )
    (path / "etc/group").write_text("root:x:0:\nwww:x:44:\nlog:x:55:root,web\nadm:x:66:web\nbroken:x\n")
    return path


@pytest.fixture
def opened(root: Path) -> Iterator[int]:
    fd = safe_path.open_root(str(root))
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("wanted", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (0, 55), "/root"),
        ("root", 0, 0, (0, 55), "/root"),
        ("web", 33, 44, (44, 55, 66), "/srv/web"),
        ("33", 33, 44, (44, 55, 66), "/srv/web"),
        ("web:log", 33, 55, (55,), "/srv/web"),
        ("web:1234", 33, 1234, (1234,), "/srv/web"),
        ("12", 12, 0, (0,), "/"),
        ("99", 99, 99, (99,), "/odd"),
        ("4321", 4321, 0, (0,), "/"),
        ("4321:www", 4321, 44, (44,), "/"),
    ],
)
def test_users(opened: int, wanted: str, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
    assert users.resolve(opened, wanted) == users.User(uid, gid, groups, home)


@pytest.mark.parametrize(
    "wanted",
    [
        "nosuch",
        "huge",
        "broken",
        "4294967296",
        "2147483648",
        "-1",
        "99999999999999999999",
        "web:nosuch",
        "web:4294967295",
        "0:-1",
        "root:broken",
    ],
)
def test_users_that_are_refused(opened: int, wanted: str) -> None:
    with pytest.raises(InvalidArgument):
        users.resolve(opened, wanted)


def test_more_groups(opened: int) -> None:
    assert users.resolve(opened, "web", ["log", "77"]).groups == (44, 55, 66, 77)
    with pytest.raises(InvalidArgument, match="unable to find group nosuch"):
        users.resolve(opened, "web", ["nosuch"])


def test_passwd_files_that_mean_no_good(root: Path, opened: int, tmp_path: Path) -> None:
    """None makes the look-up wait, act, or read a file of the host."""
    passwd = root / "etc/passwd"
    host = tmp_path / "host"
    host.write_text("evil:x:5:5::/:\n")
    for make in (
        lambda: os.mkfifo(passwd),
        lambda: passwd.mkdir(),
        lambda: os.mknod(passwd, stat.S_IFCHR | 0o666, os.makedev(1, 5)),
        lambda: passwd.symlink_to(host),
        lambda: passwd.symlink_to("../../../../../../../../" + str(host)),
        lambda: passwd.symlink_to("passwd"),
        lambda: passwd.symlink_to("/proc/self/fd/0"),
        lambda: socket.socket(socket.AF_UNIX).bind(str(passwd)),
        lambda: None,
    ):
        if passwd.is_dir() and not passwd.is_symlink():
            passwd.rmdir()
        else:
            passwd.unlink(missing_ok=True)
        make()
        with pytest.raises(InvalidArgument, match="unable to find user evil: no matching entries in passwd file"):
            users.resolve(opened, "evil")
        assert users.resolve(opened, "5").uid == 5


def test_a_huge_passwd_is_read_in_part(root: Path, opened: int) -> None:
    with (root / "etc/passwd").open("ab") as file:
        file.truncate(1 << 40)
        file.seek(1 << 40)
        file.write(b"\nlate:x:5:5::/:\n")
    assert users.resolve(opened, "web").uid == 33
    with pytest.raises(InvalidArgument):
        users.resolve(opened, "late")


def test_a_link_within_the_root_is_followed(root: Path, opened: int) -> None:
    (root / "etc/passwd").rename(root / "store")
    (root / "etc/passwd").symlink_to("/store")
    assert users.resolve(opened, "web").uid == 33


def test_mount_points(root: Path, opened: int, tmp_path: Path) -> None:
    (root / "run").symlink_to(tmp_path / "outside")
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolv.conf")
    (root / "etc/hosts").write_text("mine")
    (root / "etc/hostname").symlink_to("hosts")
    for path in ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/dev/shm/", "/a/b/c/", "/run/x"):
        safe_path.ensure_in(opened, path)
    assert (root / "etc/resolv.conf").is_file()
    assert not (root / "etc/resolv.conf").is_symlink()
    assert (root / "etc/hosts").read_text() == "mine"
    assert (root / "etc/hostname").is_symlink()
    assert (root / "dev/shm").is_dir()
    assert stat.S_IMODE((root / "a/b/c").stat().st_mode) == 0o755
    assert not (tmp_path / "outside").exists()
    for path in ("/", "", "/a/../../x"):
        with pytest.raises(ValueError, match="mount point"):
            safe_path.ensure_in(opened, path)


def test_copy_up_keeps_everything(root: Path, opened: int, tmp_path: Path) -> None:
    data = root / "srv/data"
    (data / "sub/deep").mkdir(parents=True)
    data.chmod(0o1770)
    os.chown(data, 33, 44)
    (data / "file").write_bytes(b"x" * 100_000)
    (data / "file").chmod(0o4755)
    os.setxattr(data / "file", "user.note", b"n")
    os.utime(data / "file", ns=(1, 2))
    os.link(data / "file", data / "sub/same")
    (data / "link").symlink_to("/etc/passwd")
    os.lchown(data / "link", 5, 6)
    os.mkfifo(data / "fifo", 0o640)
    os.mknod(data / "null", stat.S_IFCHR, os.makedev(1, 3))
    (data / "null").chmod(0o622)
    with (data / "sparse").open("wb") as file:
        file.seek(50_000_000)
        file.write(b"end")
        file.truncate(60_000_000)
    volume = tmp_path / "volume"
    volume.mkdir()
    copy_up.copy_up(opened, "/srv/data", str(volume))
    facts = volume.stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (0o1770, 33, 44)
    copy = volume / "file"
    assert copy.read_bytes() == b"x" * 100_000
    assert stat.S_IMODE(copy.stat().st_mode) == 0o4755
    assert copy.stat().st_mtime_ns == 2
    assert os.getxattr(copy, "user.note") == b"n"
    assert copy.stat().st_ino == (volume / "sub/same").stat().st_ino
    assert str((volume / "link").readlink()) == "/etc/passwd"
    assert (volume / "link").lstat().st_uid == 5
    assert stat.S_ISFIFO((volume / "fifo").stat().st_mode)
    assert (volume / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_IMODE((volume / "null").stat().st_mode) == 0o622
    assert (volume / "sparse").stat().st_size == 60_000_000
    assert (volume / "sparse").stat().st_blocks < 1000
    with (volume / "sparse").open("rb") as file:
        file.seek(50_000_000)
        assert file.read(4) == b"end\0"


def test_copy_up_reads_nothing_of_the_host(root: Path, opened: int, tmp_path: Path) -> None:
    """As CVE-2022-23648 did."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/key").write_text("secret")
    for number, target in enumerate(
        [str(tmp_path / "secrets"), f"../../../../../..{tmp_path}/secrets", "/proc/self/root" + str(tmp_path)]
    ):
        (root / f"data{number}").symlink_to(target)
        volume = tmp_path / f"volume{number}"
        volume.mkdir()
        copy_up.copy_up(opened, f"/data{number}", str(volume))
        assert list(volume.iterdir()) == []
        copy_up.copy_up(opened, f"/../../../../..{tmp_path}/secrets", str(volume))
        assert list(volume.iterdir()) == []


def test_copy_up_leaves_a_used_volume_alone(root: Path, opened: int, tmp_path: Path) -> None:
    (root / "data").mkdir()
    (root / "data/new").write_text("new")
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o711)
    (volume / "old").write_text("old")
    copy_up.copy_up(opened, "/data", str(volume))
    assert [entry.name for entry in volume.iterdir()] == ["old"]
    copy_up.copy_up(opened, "/nosuch", str(volume))
    copy_up.copy_up(opened, "/etc/passwd", str(volume))


def test_copy_up_ends_in_a_bottomless_tree(root: Path, opened: int, tmp_path: Path) -> None:
    here = os.open(".", os.O_PATH)
    (root / "data").mkdir()
    (tmp_path / "volume").mkdir()
    try:
        os.chdir(root / "data")
        for _ in range(2000):
            os.mkdir("d")  # noqa: PTH102  # deeper than a path may be long
            os.chdir("d")
        os.fchdir(here)
        with pytest.raises(InvalidArgument, match="deep"):
            copy_up.copy_up(opened, "/data", str(tmp_path / "volume"))
    finally:
        os.fchdir(here)
        os.close(here)
        # Too deep for pytest's own way of removing it.
        subprocess.run(["rm", "-rf", str(root / "data"), str(tmp_path / "volume")], check=True)


def test_all_of_it_in_a_container(house: House, tmp_path: Path) -> None:
    (house.root / "srv").mkdir()
    (house.root / "srv/page").write_text("from the image")
    volume = tmp_path / "volume"
    volume.mkdir()
    preparation = Preparation(
        user="web", groups=("77",), files=("/dev/shm/", "/etc/hosts"), copy_up=(CopyUp(destination="/srv", folder=volume),)
    )
    house.create(
        "one",
        "id -u; id -g; id -G; echo $HOME; test -d /dev/shm && test -f /etc/hosts && echo there",
        preparation=preparation,
    )
    client = house.attach("one", framed=False)
    house.driver.start("one")
    assert read_all(client) == b"33\n44\n44 55 66 77\n/srv/web\nthere\n"
    assert (volume / "page").read_text() == "from the image"
    house.exit("one")
    house.create("two", "echo $HOME", env=("HOME=/mine",), io=Io())
    client = house.attach("two", framed=False)
    house.driver.start("two")
    assert read_all(client) == b"/mine\n"


def test_more_layers_than_fit_into_a_page(tmp_path: Path) -> None:
    layers = []
    for number in range(44):
        layer = tmp_path / f"layer-with-a-rather-long-name-{number:040d}" / "diff"
        layer.mkdir(parents=True)
        (layer / f"file{number}").touch()
        layers.append(str(layer))
    for name in ("upper", "work", "target"):
        (tmp_path / name).mkdir()
    options = [f"lowerdir={':'.join(layers)}", f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work", "nodev"]
    child = os.fork()
    if child == 0:
        from wharfie.shim.system import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare

        try:
            unshare(CLONE_NEWNS)
            mount("none", "/", "none", MS_REC | MS_PRIVATE)
            mount_root([("overlay", "overlay", options)], str(tmp_path / "target"))
            found = len(list((tmp_path / "target").iterdir()))
            os._exit(0 if found == 44 and os.getcwd() else 1)  # noqa: PTH109
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
