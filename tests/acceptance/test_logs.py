"""Logs of real containers: their options, and a disk that is full beneath them."""

from __future__ import annotations

import contextlib
import gzip
import subprocess
from pathlib import Path

import pytest

from tests.harness import until

LINES = 'i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo "line $i"; done'


def test_rotation_compression_and_attributes(daemon, name):
    daemon.docker(
        *("run", "--name", name, "--log-driver", "json-file", "--label", "tier=front", "--env", "STAGE=test"),
        *("--log-opt", "max-size=20k", "--log-opt", "max-file=3", "--log-opt", "compress=true"),
        *("--log-opt", "labels=tier", "--log-opt", "env=STAGE", "--log-opt", "tag={{.Name}}"),
        *("--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=2m"),
        *("busybox", "sh", "-c", LINES.format(count=3000)),
    )
    log = daemon.inspect(name)["LogPath"]
    folder = daemon.data / "containers" / daemon.inspect(name)["Id"]
    kept = sorted(path.name.removeprefix(log.rsplit("/", 1)[1]) for path in folder.glob("*-json.log*"))
    assert kept == ["", ".1.gz", ".2.gz"]
    assert all(len(gzip.decompress(path.read_bytes())) <= 20_000 for path in folder.glob("*.gz"))
    lines = daemon.docker("logs", name).splitlines()
    assert lines == [f"line {number}" for number in range(3001 - len(lines), 3001)]
    assert len(lines) > 250
    details = daemon.docker("logs", "--details", "--tail", "1", name)
    assert details == f"STAGE=test,tag={name},tier=front line 3000"


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_full_disk_costs_lines_of_the_log_and_nothing_else(daemon, name, driver):
    program = f"{LINES.format(count=4000)}; echo errors >&2; exit 3"
    daemon.docker("create", "--name", name, "--log-driver", driver, "busybox", "sh", "-c", program)
    folder = daemon.data / "containers" / daemon.inspect(name)["Id"]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=True)
    try:
        result = daemon.run_docker("start", "-a", name)
        assert result.returncode == 3
        assert result.stdout.decode().splitlines() == [f"line {number}" for number in range(1, 4001)]
        assert result.stderr == b"errors\n"
        assert daemon.inspect(name)["State"]["ExitCode"] == 3
        kept = daemon.docker("logs", name).splitlines()
        assert 0 < len(kept) < 4000
        # Whole lines in their order; a gap where the daemon's own files in there gave a page back meanwhile.
        numbers = [int(line.removeprefix("line ")) for line in kept]
        assert kept == [f"line {number}" for number in numbers]
        assert numbers == sorted(set(numbers)) and numbers[0] == 1
        subprocess.run(["mount", "-o", "remount,size=16m", folder], check=True)
        assert daemon.run_docker("start", "-a", name).returncode == 3
        later = daemon.docker("logs", name, both=True).splitlines()
        assert later[: len(kept)] == kept
        assert set(later[len(kept) :]) == {f"line {number}" for number in range(1, 4001)} | {"errors"}
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_follower_that_is_slower_than_rotations_misses_nothing(daemon, name):
    """dockerd 20.10 gives such a client the lines of the first file alone."""
    options = ("--log-opt", "max-size=1m", "--log-opt", "max-file=2")
    script = f"echo ready; while read first last; do seq $first $last | sed 's/$/{'x' * 100}/'; done"
    writer = daemon.spawn_docker(
        "run", "-i", "--name", name, *options, "busybox", "sh", "-c", script, stdin=subprocess.PIPE
    )
    assert writer.stdout.readline() == b"ready\n"
    log = Path(daemon.inspect(name)["LogPath"])
    slow = daemon.spawn_docker("logs", "-f", name)
    assert slow.stdout.readline() == b"ready\n"

    def held() -> bool:
        """Whether the daemon has the file open that is written to."""
        newest = log.stat()
        for path in Path(f"/proc/{daemon.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                facts = path.stat()
                if (facts.st_dev, facts.st_ino) == (newest.st_dev, newest.st_ino):
                    return True
        return False

    lines = []
    for first in range(1, 60000, 6000):  # each time a file and a little more
        writer.stdin.write(f"{first} {first + 5999}\n".encode())
        writer.stdin.flush()
        lines += [writer.stdout.readline() for _ in range(6000)]
        until(held)
    writer.communicate()
    assert [int(line.strip(b"x\n")) for line in lines] == list(range(1, 60001))
    assert len(list(log.parent.glob("*-json.log*"))) == 2
    assert slow.communicate()[0].splitlines(keepends=True) == lines
