"""The shim with the native engine, end to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import House, eventually, frames, read_all

from wharfie.spi.errors import InvalidArgument
from wharfie.spi.runtime import Exited, Io, Lost, Preparation
from wharfie.spi.storage import Mount

driver = pytest.importorskip("wharfie_runtime_native.driver")


class NativeHouse(House):
    def open(self) -> None:
        self.driver = driver.NativeDriver(self.context(), None)
        self.driver.open()

    def make(self, id: str, command: list[str], *, io: Io | None = None, preparation: Preparation | None = None) -> int:
        bundle = self.base / "bundles" / id
        for folder in (bundle, self.base / f"upper-{id}", self.base / f"work-{id}"):
            folder.mkdir(parents=True, exist_ok=True)
        spec = {
            "ociVersion": "1.0.2",
            "process": {"args": command, "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
            "root": {"path": "rootfs"},
            "hostname": "box",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {
                    "destination": "/dev/pts",
                    "type": "devpts",
                    "source": "devpts",
                    "options": ["newinstance", "ptmxmode=0666"],
                },
            ],
            "linux": {
                "cgroupsPath": f"/wh-shim-test-{os.getpid()}/{id}",
                "namespaces": [{"type": kind} for kind in ("mount", "network", "uts", "pid", "ipc")],
            },
        }
        (bundle / "config.json").write_text(json.dumps(spec))
        options = (f"lowerdir={self.root}", f"upperdir={self.base}/upper-{id}", f"workdir={self.base}/work-{id}")
        mounts = (Mount(type="overlay", source="overlay", options=options),)
        return self.driver.create(id, bundle, mounts, io or Io(), preparation or Preparation()).pid


@pytest.fixture
def native(image: Path, tmp_path: Path) -> Iterator[NativeHouse]:
    subprocess.run(["cp", "-a", str(image), str(tmp_path / "root")], check=True)
    house = NativeHouse(tmp_path)
    yield house
    house.clear()
    for parent in Path("/sys/fs/cgroup").glob(f"*/wh-shim-test-{os.getpid()}"):
        assert [entry for entry in parent.iterdir() if entry.is_dir()] == []
        parent.rmdir()


def test_a_whole_life(native: NativeHouse) -> None:
    native.make(
        "one",
        ["sh", "-c", "id -u; cat; ls /proc/self/fd; exit 3"],
        io=Io(stdin=True, stdin_once=True),
        preparation=Preparation(user="web"),
    )
    client = native.attach("one", initial=b"input\n")
    native.driver.start("one")
    client.shutdown(1)
    assert frames(read_all(client))[1].split() == [b"33", b"input", b"0", b"1", b"2", b"3"]  # 3 is that of ls
    assert native.exit("one").code == 3
    native.driver.delete("one")


def test_terminal_and_exec(native: NativeHouse) -> None:
    native.make("one", ["sleep", "100"])
    native.driver.start("one")
    process = {"args": ["sh", "-c", "stty size; exit 4"], "cwd": "/", "env": ["PATH=/bin"]}
    native.driver.exec("one", "x1", process, Io(terminal=True, size=(33, 44)))
    client = native.attach("one", "x1")
    native.driver.exec_start("one", "x1")
    assert native.exec_exit("one", "x1") == 4
    assert read_all(client) == b"33 44\r\n"
    native.driver.pause("one")
    native.driver.resume("one")
    assert len(native.driver.pids("one")) == 1
    native.driver.signal("one", signal.SIGKILL)
    assert native.event(Exited).exit.code == 137


@pytest.mark.parametrize(
    ("command", "words"),
    [("nosuch", "executable file not found in"), ("/nosuch", "no such file or directory"), ("/etc", "is a directory")],
)
def test_programs_that_cannot_be_executed(native: NativeHouse, command: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        native.make("one", [command])
        native.driver.start("one")
    native.driver.delete("one", force=True)
    assert native.events.empty()


def test_a_killed_shim_and_what_it_leaves(native: NativeHouse) -> None:
    pid = native.make("one", ["sleep", "100"])
    native.driver.start("one")
    os.kill(native.shim_pid("one"), signal.SIGKILL)
    native.event(Lost)
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    native.driver.delete("one")
