"""A ShimRuntime on the plain engine, a root made of busybox, and what tests do with containers."""

from __future__ import annotations

import json
import logging
import os
import queue
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from wharfie.shim.driver import ShimRuntime
from wharfie.spi.driver import Context, DriverEvent, HostFacts
from wharfie.spi.runtime import AttachRequest, ExecExited, Exit, Exited, Io, LogTarget, Preparation, Process
from wharfie.spi.storage import Mount

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the engine and the sink are found as an installed package's modules would be

APPLETS = (
    "sh",
    "cat",
    "echo",
    "sleep",
    "seq",
    "head",
    "true",
    "kill",
    "id",
    "stty",
    "nslookup",
    "nc",
    "dd",
    "test",
    "ls",
    "wc",
)


class PlainRuntime(ShimRuntime):
    name = "plain"
    spi = "1.0"
    engine = "plain_engine:PlainEngine"
    options: dict[str, Any] = {}

    def engine_options(self) -> dict[str, Any]:
        return self.options


@dataclass
class House:
    """A daemon's runtime driver, with folders that a later one can be opened on."""

    base: Path
    events: queue.Queue[DriverEvent] = field(default_factory=queue.Queue)
    driver: PlainRuntime = field(init=False)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.driver = PlainRuntime(self.context(), None)
        self.driver.open()

    def context(self) -> Context:
        host = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="v2", cpus=2, memory=1 << 30)
        log = logging.getLogger("shim-test")
        base = self.base
        return Context(
            state=base / "state", run=base / "run", instance="5a5a5a5a", log=log, host=host, emit=self.events.put
        )

    @property
    def root(self) -> Path:
        return self.base / "root"

    def folder(self, id: str) -> Path:
        return self.base / "run" / id

    def create(
        self,
        id: str,
        command: str | list[str],
        *,
        io: Io | None = None,
        log: bool = False,
        preparation: Preparation | None = None,
        namespaces: tuple[str, ...] = ("pid", "network"),
        env: tuple[str, ...] = (),
    ) -> Process:
        bundle = self.base / "bundles" / id
        bundle.mkdir(parents=True, exist_ok=True)
        args = command if isinstance(command, list) else ["/bin/sh", "-c", command]
        spec = {
            "process": {"args": args, "env": ["PATH=/bin", *env]},
            "root": {"path": "rootfs"},
            "linux": {"namespaces": [{"type": kind} for kind in namespaces]},
        }
        (bundle / "config.json").write_text(json.dumps(spec))
        mounts = (Mount(type="none", source=str(self.root), options=("rbind", "rw")),)
        io = io or Io(log=LogTarget(sink="file_sink:FileSink", options={"path": str(self.log(id))}) if log else None)
        return self.driver.create(id, bundle, mounts, io, preparation or Preparation())

    def log(self, id: str) -> Path:
        return self.base / f"{id}.log"

    def attach(self, id: str, exec_id: str = "", **wanted: Any) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            request = AttachRequest(**{"stdin": True, "stdout": True, "stderr": True, **wanted})
            self.driver.attach(id, exec_id, theirs, request)
        ours.settimeout(20)
        return ours

    def event(self, kind: type[DriverEvent], seconds: float = 20) -> Any:
        """The next event, which must be of `kind`."""
        event = self.events.get(timeout=seconds)
        assert isinstance(event, kind), event
        return event

    def exit(self, id: str) -> Exit:
        event = self.event(Exited)
        assert event.id == id
        return event.exit

    def exec_exit(self, id: str, exec_id: str) -> int:
        """The code of an exec, recorded as the core does it, so that its clients' connections end."""
        event = self.event(ExecExited)
        assert (event.id, event.exec_id) == (id, exec_id)
        self.driver.exec_delete(id, exec_id)
        return int(event.exit.code)

    def shim_pid(self, id: str) -> int:
        return int((self.folder(id) / "shim.pid").read_text())

    def clear(self) -> None:
        """Remove everything, also when a test failed while its daemon was away."""
        self.driver.close()
        self.events = queue.Queue()
        self.open()
        for state in self.driver.containers():
            self.driver.delete(state.id, force=True)
        self.driver.close()


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("image")
    for name in ("bin", "etc", "proc", "dev", "tmp"):
        (root / name).mkdir()
    root.chmod(0o755)
    os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/srv/web:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nwww:x:44:\nlog:x:55:root,web\nadm:x:66:web\n")
    return root


@pytest.fixture
def house(image: Path, tmp_path: Path) -> Iterator[House]:
    subprocess.run(["cp", "-a", str(image), str(tmp_path / "root")], check=True)
    house = House(tmp_path)
    yield house
    house.clear()
    assert list((tmp_path / "run").iterdir()) == []
    with open("/proc/self/mountinfo") as table:
        assert str(tmp_path) not in table.read()


@pytest.fixture
def options() -> Iterator[dict[str, Any]]:
    """Options of the plain engine."""
    PlainRuntime.options = {}
    yield PlainRuntime.options
    PlainRuntime.options = {}


def read_all(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65536):
        data += piece
    client.close()
    return data


def frames(data: bytes) -> dict[int, bytes]:
    """The payload of each stream."""
    streams: dict[int, bytes] = {}
    while data:
        assert data[1:4] == b"\0\0\0"
        length = int.from_bytes(data[4:8], "big")
        streams[data[0]] = streams.get(data[0], b"") + data[8 : 8 + length]
        data = data[8 + length :]
    return streams


def eventually(condition: Callable[[], Any], seconds: float = 10) -> Any:
    """The condition's value, as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)
    return value


def fds(pid: int) -> set[str]:
    return {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
