"""`make test-cgroup2` finds what it runs. The machine itself is minutes of work, and no part of `make test`."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import cgroup2  # noqa: E402  # a script, not a package
import guest_image  # noqa: E402  # likewise


def test_the_tests_are_there():
    assert [name for name in cgroup2.TESTS if not (cgroup2.WORK / name).is_file()] == []


def test_a_tree_of_this_hosts_programs(tmp_path):
    tree = guest_image.Tree(tmp_path / "root")
    tree.add_programs(["mount", "umount"])
    tree.add_libraries()
    tree.add_busybox(Path("/bin/busybox"))
    assert (tree.root / "bin/sh").readlink() == Path("/usr/bin/busybox")
    assert not (tree.root / "usr/bin/mount").is_symlink()
    assert list(tree.root.rglob("libmount.so.1"))
    assert list(tree.root.rglob("ld-linux-*.so.*"))
    assert (tree.root / "etc/ld.so.cache").exists()
