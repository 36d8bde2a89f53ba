"""The drivers as the core uses them, each on a root of busybox: zygote, shim, engine and the real binary."""

from __future__ import annotations

import copy
import json
import logging
import os
import queue
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from wharfie_runtime_oci.driver import CrunDriver, RuncDriver, RunscDriver
from wharfie_runtime_oci.settings import OciSettings

from wharfie.shim.cgroups import open_reader, prune
from wharfie.spi.driver import Context, HostFacts
from wharfie.spi.runtime import AttachRequest, ExecExited, Exited, Io, Preparation
from wharfie.spi.storage import Mount

PARENT = "wharfie-test-o"
DRIVERS = {"runc": RuncDriver, "crun": CrunDriver, "runsc": RunscDriver}
CAPABILITIES = ["CAP_CHOWN", "CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def mount(place, kind, source, options):
    return {"destination": place, "type": kind, "source": source, "options": options.split()}


BASE = {
    "ociVersion": "1.2.0",
    "process": {
        "user": {"uid": 0, "gid": 0},
        "env": ["PATH=/bin:/sbin", "HOSTNAME=box"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        "oomScoreAdj": 0,
    },
    "root": {"path": "rootfs"},
    "hostname": "box",
    "mounts": [
        mount("/proc", "proc", "proc", "nosuid noexec nodev"),
        mount("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
        mount("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
        mount("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro nosuid noexec nodev"),
    ],
    "linux": {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": name} for name in ("mount", "network", "uts", "pid", "ipc")],
        "maskedPaths": ["/proc/kcore", "/proc/no-such"],
        "readonlyPaths": ["/proc/sys"],
    },
}


def read_all(client):
    data = b""
    while piece := client.recv(65536):
        data += piece
    client.close()
    return data


def eventually(condition, seconds=10):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)
    return value


class House:
    """A driver, and folders that a later one can be opened on."""

    mount, read_all, eventually = staticmethod(mount), staticmethod(read_all), staticmethod(eventually)

    def __init__(self, base: Path, image: Path, name: str) -> None:
        self.base, self.name = base, name
        self.root = base / "root"
        subprocess.run(["cp", "-a", str(image), str(self.root)], check=True)
        self.settings = OciSettings(runtime_args=["--network=none"] if name == "runsc" else [])
        self.spec = copy.deepcopy(BASE)
        self.made = []
        self.open()

    def open(self):
        self.events = queue.Queue()
        facts = HostFacts(kernel=(6, 1), architecture="amd64", cgroup="hybrid", cpus=2, memory=1 << 30)
        folders = {"state": self.base / "state", "run": self.base / "run"}
        context = Context(**folders, instance="0a0b0c0d", log=logging.getLogger("test"), host=facts, emit=self.events.put)
        self.driver = DRIVERS[self.name](context, self.settings)
        assert not self.driver.check()
        self.driver.open()
        return self.driver

    def create(self, *args, io=None, preparation=None):
        box = f"t{uuid.uuid4().hex[:12]}"
        self.spec["process"]["args"] = list(args)
        self.spec["linux"]["cgroupsPath"] = f"/{PARENT}/{box}"
        bundle = self.base / "bundles" / box
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(self.spec))
        self.made.append(box)
        root = (Mount(type="none", source=str(self.root), options=("rbind", "rw")),)
        self.process = self.driver.create(box, bundle, root, io or Io(), preparation or Preparation())
        return box

    def attach(self, box, exec_id="", **wanted):
        ours, theirs = socket.socketpair()
        with theirs:
            self.driver.attach(box, exec_id, theirs, AttachRequest(**{"stdout": True, "stderr": True, **wanted}))
        ours.settimeout(20)
        return ours

    def run(self, *args, given=None, **more):
        """Exit code and output (stdout and stderr as they came)."""
        io = more.pop("io", None) or Io(stdin=given is not None, stdin_once=True)
        box = self.create(*args, io=io, **more)
        client = self.attach(box, framed=False, stdin=given is not None)
        self.driver.start(box)
        if given is not None:
            client.sendall(given)
            client.shutdown(socket.SHUT_WR)
        code = self.exit()
        self.driver.delete(box)
        return code, read_all(client).decode()

    def sleeping(self, *args, **more):
        box = self.create(*(args or ("sleep", "300")), **more)
        self.driver.start(box)
        return box

    def exec(self, box, *args, io=None, exec_id="e", user="", **process):
        wanted = {**self.spec["process"], "args": list(args), **process}
        del wanted["user"]
        self.driver.exec(box, exec_id, wanted, io or Io(), user=user)
        client = self.attach(box, exec_id, framed=False)
        self.driver.exec_start(box, exec_id)
        code = self.event(ExecExited).exit.code
        self.driver.exec_delete(box, exec_id)
        return code, read_all(client).decode()

    def event(self, kind):
        event = self.events.get(timeout=20)
        assert isinstance(event, kind), event
        return event

    def exit(self):
        return self.event(Exited).exit.code

    def groups(self):
        folders = [f"/sys/fs/cgroup/unified/{PARENT}"]
        for box in self.made:
            folders += open_reader(f"{PARENT}/{box}").directories().values()
        return [folder for folder in folders if Path(folder).exists() and folder != folders[0]]

    def close(self):
        self.driver.close()
        self.open()
        for state in self.driver.containers():
            self.driver.delete(state.id, force=True)
        self.driver.close()
        left = self.groups()
        prune(PARENT)
        assert not left
        assert [path.name for path in (self.base / "run").iterdir()] == [".oci"]
        assert not list((self.base / "run/.oci/bundles").iterdir())
        assert str(self.base) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    busybox = shutil.which("busybox")
    if busybox is None or os.geteuid() != 0:
        pytest.skip("needs root and busybox-static")
    root = tmp_path_factory.mktemp("image") / "root"
    for name in ("bin", "etc", "tmp", "data"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for name in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:33:44::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nwww:x:44:\nlog:x:55:web\n")
    return root


@pytest.fixture
def make_house(image):
    """Makes the house of one binary; everything of it is gone with the test, also when that failed."""
    houses = []

    def make(name):
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}")
        base = Path(tempfile.mkdtemp(prefix="wh-oci-"))
        base.chmod(0o755)
        houses.append(House(base, image, name))
        return houses[-1]

    yield make
    for house in houses:
        try:
            house.close()
        finally:
            shutil.rmtree(house.base)


@pytest.fixture
def base():
    """A configuration to change."""
    return copy.deepcopy(BASE)


@pytest.fixture(params=["runc", "crun"])
def house(request, make_house):
    return make_house(request.param)
