"""`userns-remap`: which ids a value means."""

from __future__ import annotations

import pytest

from wharfie.daemon.users import check_kernel, remapped, root_of
from wharfie.spi.errors import InvalidArgument, Unsupported


@pytest.fixture
def ids(tmp_path):
    file = tmp_path / "ids"
    file.write_text("# a comment\nother:1:1\ndaemon:100000:1000\n1:300000:5\nbad\ndaemon:x:y\n")
    return file


@pytest.mark.parametrize("value", ["daemon", "1", "daemon:daemon", "1:1"])
def test_ranges_follow_each_other(ids, value):
    users = remapped(value, ids, ids)
    wanted = ({"containerID": 0, "hostID": 100000, "size": 1000}, {"containerID": 1000, "hostID": 300000, "size": 5})
    assert (users.uids, users.gids) == (wanted, wanted)
    assert root_of(users) == (100000, 100000)


def test_nothing_asked_for():
    assert remapped("") is None


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("nosuchuser", "there is no user nosuchuser"),
        ("default", "there is no user dockremap: make it with `useradd"),
        ("daemon:nosuchgroup", "there is no group nosuchgroup"),
        ("root", "root has no subordinate ids in .*add a line root:100000:65536"),
    ],
)
def test_values_that_mean_nobody(ids, value, word):
    with pytest.raises(InvalidArgument, match=word):
        remapped(value, ids, ids)


def test_no_file(tmp_path):
    with pytest.raises(InvalidArgument, match="No such file"):
        remapped("daemon", tmp_path / "missing", tmp_path / "missing")


def test_kernels(ids):
    users = remapped("daemon", ids, ids)
    check_kernel(users, (5, 19))
    check_kernel(None, (5, 12))
    with pytest.raises(Unsupported, match=r"needs Linux 5\.19 or later; this is 5\.18"):
        check_kernel(users, (5, 18))
