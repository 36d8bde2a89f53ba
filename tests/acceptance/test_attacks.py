"""Attacks from inside of a container as the stock CLI starts it. Those on the native runtime alone are in its own tests."""

from __future__ import annotations

import errno
import os
import platform
from collections import Counter
from pathlib import Path

import pytest

from tests.attacker import LOADER, OVERWRITING, swap
from tests.harness import until


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the attacker's program is written for it")
@pytest.mark.parametrize("how", ["exec", "run"])
def test_the_runtimes_program_cannot_be_overwritten(daemon, name, how, tmp_path):
    """CVE-2019-5736: a program swapped for `#!/proc/self/exe` has the kernel execute the runtime's own file, with the
    container's loader; what it holds open of it then is written to. The attack comes as far as it can: to a sealed copy."""
    swap(tmp_path)
    tool, volumes = f"{LOADER.parent}/tool", ["-v", f"{tmp_path}:{LOADER.parent}:ro"]
    if how == "exec":
        daemon.docker("run", "-d", "--name", name, *volumes, "busybox", "sleep", "300")
        daemon.docker("exec", "-d", name, tool)
    else:
        daemon.docker("run", "-d", "--name", name, *volumes, "busybox", tool)
    out = daemon.docker("exec", name, "sh", "-c", OVERWRITING)
    assert out.split() == ["/memfd:wharfie-python", "(deleted)"] * 2, out
    assert daemon.docker("run", "--rm", "busybox", "echo", "well") == "well"


def test_nothing_of_the_kernels_can_be_written(daemon, name):
    """Every file of /proc/sys and /sys, through the container's own mounts, with the host's root: the mount says no."""
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "300")
    root = Path(f"/proc/{daemon.inspect(name)['State']['Pid']}/root")
    refused = Counter()
    for top in ("proc/sys", "sys"):
        for folder, _, files in os.walk(root / top):
            for file in files:
                try:
                    os.close(os.open(f"{folder}/{file}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
                except OSError as error:
                    refused[error.errno] += 1
                else:
                    pytest.fail(f"{folder}/{file} can be written")
    assert refused[errno.EROFS] > 1000, refused


# CAP_SYS_ADMIN is not among the options: it is meant to be the host's administrator, who may set a release_agent, and the
# hierarchies are this machine's own.
@pytest.mark.parametrize("options", [(), ("--security-opt", "seccomp=unconfined")])
def test_release_agent_stays_the_hosts(daemon, name, options):
    """CVE-2022-0492: a cgroup file system of one's own, by way of a user namespace, and its release_agent."""
    # What is there already is written back: should it succeed one day, nothing has changed.
    script = """
        cat > /tmp/try <<'END'
            mount -t cgroup -o $1 x /tmp/g && cd /tmp/g && old=$(cat release_agent) &&
            echo "$old" > release_agent && echo WRITTEN
END
        mkdir /tmp/g
        for way in '' 'unshare -UrmC' 'unshare -Urm' 'unshare -m'; do for group in memory pids rdma misc; do
            $way sh /tmp/try $group 2>/dev/null
            umount /tmp/g 2>/dev/null
        done; done
        for file in $(find /sys/fs/cgroup -name release_agent); do
            old=$(cat $file) && (echo "$old" > $file) 2>/dev/null && echo WRITTEN
        done
        true
    """
    before = [path.read_text() for path in Path("/sys/fs/cgroup").glob("*/release_agent")]
    assert "WRITTEN" not in daemon.docker("run", "--rm", "--name", name, *options, "busybox", "sh", "-c", script)
    assert [path.read_text() for path in Path("/sys/fs/cgroup").glob("*/release_agent")] == before


@pytest.mark.parametrize("user", ["0", "1000:1000"])
def test_no_capability_is_inherited_and_no_descriptor(daemon, name, user):
    """CVE-2022-24769, CVE-2016-9962, CVE-2024-21626: of first process and exec, with a terminal and without."""
    script = "grep -E 'Cap(Inh|Amb)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; readlink /proc/self/cwd"
    daemon.docker("run", "-d", "--name", name, "--user", user, "busybox", "sh", "-c", f"{script}; exec sleep 300")
    first = until(lambda: (told := daemon.docker("logs", name)).endswith("/") and told, what="the first process's words")
    for out in (
        first,
        daemon.docker("exec", name, "sh", "-c", script),
        daemon.docker("exec", "-t", name, "sh", "-c", script),
    ):
        words = out.replace("\r", "").split()
        assert words == ["CapInh:", "0" * 16, "CapAmb:", "0" * 16, "0", "1", "2", "3", "/"], "3 is ls's own"


def test_a_mask_does_not_come_from_a_volume_that_changes(daemon, name, tmp_path):
    """CVE-2025-31133: /dev is a volume on which another container keeps swapping `null` for a link to a kernel file."""
    dev = tmp_path / "dev"
    dev.mkdir()
    swapping = (
        "cd /v; ln -s /proc/sys/kernel/core_pattern link; touch file; "
        "while :; do mv -f link null; ln -s /proc/sys/kernel/core_pattern link; mv -f file null; touch file; done"
    )
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    daemon.docker("run", "-d", "--name", f"{name}a", "-v", f"{dev}:/v", "busybox", "sh", "-c", swapping)
    until(lambda: (dev / "null").is_symlink() or (dev / "null").exists(), what="the swapping")
    for _ in range(5):
        out = daemon.docker(
            *("run", "--rm", "-v", f"{dev}:/dev", "busybox", "sh", "-c"),
            "cd /proc; for f in kcore timer_list; do stat -c %t:%T $f; echo attack > $f; done",
        )
        assert set(out.split()) == {"1:3"}
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before
