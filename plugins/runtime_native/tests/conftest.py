"""A container's root from busybox, a configuration as the engine writes it, and a bare process that makes containers."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from wharfie_runtime_native import cgroups

from wharfie.shim.cgroups import prune
from wharfie.spi import errors

ROOM = Path(__file__).parents[3]
FOLDERS = (str(ROOM / "core"), str(Path(__file__).parents[1]))
PARENT = "wharfie-test-n"
APPLETS = """
    cat chmod cut dd echo env false free getopt grep head hostname id ip kill ln ls mkdir mknod mount nc nproc ps pwd
    readlink rm seq sh sleep sort stat stty sysctl tail test touch tr true tty umount uname wc
""".split()  # noqa: SIM905  # a list of programs reads as a list of words
CAPABILITIES = [
    f"CAP_{name}"
    for name in """
        CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT
        KILL AUDIT_WRITE
    """.split()  # noqa: SIM905  # as above
]


def options(text):
    return text.split()


BASE = {
    "ociVersion": "1.2.0",
    "process": {
        "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
        "args": ["true"],
        "env": ["PATH=/bin:/sbin", "HOSTNAME=box"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
        "oomScoreAdj": 0,
    },
    "root": {"path": "rootfs"},
    "hostname": "box",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": options("nosuid noexec nodev")},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": options("nosuid strictatime mode=755 size=65536k"),
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": options("nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": options("nosuid noexec nodev ro")},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": options("ro nosuid noexec nodev"),
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": options("nosuid noexec nodev")},
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": options("nosuid noexec nodev mode=1777 size=67108864"),
        },
    ],
    "linux": {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": name} for name in ("mount", "network", "uts", "pid", "ipc")],
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/sys/firmware", "/proc/no-such"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
}


class Failed(AssertionError):
    """The bare process itself went wrong."""


class Bare:
    """A shim-like process with at most one container; its methods are the commands of `bare.py` and the engine's."""

    def __init__(self, root: Path, cache: Path) -> None:
        self.root = root
        self.cache = cache
        self.id = f"t{uuid.uuid4().hex[:12]}"
        self.spec = copy.deepcopy(BASE)
        self.spec["linux"]["cgroupsPath"] = f"/{PARENT}/{self.id}"
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-I", "-X", "utf8", str(Path(__file__).with_name("bare.py")), *FOLDERS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.made = False

    def call(self, command, /, **arguments):
        self.process.stdin.write(json.dumps([command, arguments]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if answer.get("error") == "bare":
            raise Failed(answer["message"])
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
        return answer["value"]

    def create(self, *args, terminal=False, given="", **more):
        if args:
            self.spec["process"]["args"] = list(args)
        if terminal:
            self.spec["process"]["terminal"] = True
        self.made = True
        found = {"id": self.id, "spec": self.spec, "rootfs": str(self.root), "options": {"cache": str(self.cache)}}
        return self.call("create", **found, terminal=terminal, given=given, **more)

    def run(self, *args, **more):
        """From create to the end; exit code, stdout, stderr (a terminal: both in one)."""
        pid = self.create(*args, **more)
        self.call("start")
        return self.call("wait", pid=pid)

    def sh(self, script, **more):
        """The output of a shell script that has to succeed."""
        code, *texts = self.run("sh", "-ec", script, **more)
        assert code == 0, (code, texts)
        return texts[0]

    def exec(self, *args, terminal=False, given="", **process):
        wanted = {**self.spec["process"], "args": list(args), "terminal": terminal, **process}
        pid = self.call("execute", process=wanted, terminal=terminal, given=given)
        return self.call("wait", pid=pid)

    def sleeping(self, *args):
        """A running container that does nothing."""
        pid = self.create(*(args or ("sleep", "300")))
        self.call("start")
        return pid

    def end(self, pid):
        """Kill a first process that has said what it has to say, and made /tmp/done; its exit code and words."""
        done = self.root / "tmp/done"
        deadline = time.monotonic() + 20
        while not done.exists():
            assert time.monotonic() < deadline, "the first process does not come to its end"
            time.sleep(0.02)
        self.call("signal_all", signal=9)
        return self.call("wait", pid=pid)

    def groups(self):
        """The container's cgroup folders that exist."""
        return [
            Path(path) for path in cgroups.open_cgroup(f"{PARENT}/{self.id}").directories().values() if Path(path).exists()
        ]

    def close(self) -> None:
        try:
            if self.made and self.process.poll() is None:
                self.call("delete")
        finally:
            self.process.stdin.close()
            self.process.wait(10)
            self.process.stdout.close()
            cgroups.open_cgroup(f"{PARENT}/{self.id}").delete()


@pytest.fixture(scope="session")
def work():
    """A folder on the disk; pytest's own would do too, but some tests fill it with mounts."""
    folder = Path(tempfile.mkdtemp(prefix="wh-runtime-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def image(work):
    """A root that no test writes to."""
    busybox = shutil.which("busybox")
    if busybox is None or os.geteuid() != 0:
        pytest.skip("needs root and busybox-static")
    root = work / "image"
    for name in ("bin", "etc", "tmp", "root", "data"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin/busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "tmp").chmod(0o1777)
    return root


@pytest.fixture
def base():
    """A configuration to change."""
    return copy.deepcopy(BASE)


@pytest.fixture
def root(image, tmp_path_factory, work):
    """A copy of the image for one test."""
    folder = Path(tempfile.mkdtemp(prefix="root-", dir=work))
    copied = folder / "rootfs"
    shutil.copytree(image, copied, symlinks=True)
    folder.chmod(0o755)
    yield copied
    shutil.rmtree(folder)


@pytest.fixture
def bares(root, work):
    """Makes bare processes, all on one root."""
    made: list[Bare] = []

    def make():
        made.append(Bare(root, work))
        return made[-1]

    yield make
    for one in made:
        one.close()
    prune(PARENT)


@pytest.fixture
def bare(bares):
    return bares()
