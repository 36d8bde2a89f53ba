"""Containers for the rules of runtime drivers: a root from a static busybox, and an OCI configuration like the engine's."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wharfie.kit.rules import NotTried

APPLETS = (
    "cat",
    "echo",
    "env",
    "false",
    "id",
    "kill",
    "ls",
    "mkdir",
    "pwd",
    "rm",
    "sh",
    "sleep",
    "stty",
    "true",
    "tty",
    "test",
    "wc",
    "seq",
)
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_NET_BIND_SERVICE",
)


def make_image(folder: Path) -> Path:
    """A root tree at `folder`. Raises NotTried: there is no static busybox."""
    busybox = shutil.which("busybox")
    if busybox is None or not _static(Path(busybox).read_bytes()):
        raise NotTried("containers are made of a static busybox, and there is none; apt-get install busybox-static")
    for name in ("bin", "etc", "proc", "dev", "sys", "tmp", "root", "data"):
        (folder / name).mkdir(parents=True)
    shutil.copy(busybox, folder / "bin/busybox")
    for name in APPLETS:
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    (folder / "etc/group").write_text("root:x:0:\nann:x:1000:\nstaff:x:50:ann\nkit:x:77:\n")
    (folder / "etc/text").write_text("not to be executed")
    folder.chmod(0o755)
    return folder


def _static(program: bytes) -> bool:
    """elf(5): a program that wants shared libraries names its interpreter in a program header."""
    begin, size, count = *struct.unpack_from("<Q", program, 32), *struct.unpack_from("<HH", program, 54)
    return 3 not in {struct.unpack_from("<I", program, begin + index * size)[0] for index in range(count)}


def configuration(
    words: Sequence[str], cgroup: str, *, terminal: bool = False, env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """config.json of a container that executes `words` (OCI runtime-spec)."""
    variables = {"PATH": "/bin", **(env or {})}
    private = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": list(words),
            "env": [f"{name}={value}" for name, value in variables.items()],
            "cwd": "/",
            "capabilities": {name: list(CAPABILITIES) for name in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "hostname": "kit",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": private},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": name} for name in ("mount", "network", "uts", "pid", "ipc")],
        },
    }


def process(*words: str) -> dict[str, Any]:
    """A further process, for exec."""
    return {"args": list(words), "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}}


def write_bundle(folder: Path, config: Mapping[str, Any], image: Path) -> Path:
    """A bundle with a root of its own."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    subprocess.run(["cp", "--archive", str(image), str(folder / "root")], check=True)
    return folder


class Client:
    """An attached client: the end of a socket pair whose other end the runtime has."""

    def __init__(self) -> None:
        self.mine, self.theirs = socket.socketpair()
        self.mine.settimeout(10)

    def all(self) -> bytes:
        """What comes until the stream's end."""
        data = b""
        while piece := self.mine.recv(65536):
            data += piece
        return data

    def until(self, text: bytes) -> bytes:
        """What comes until `text` has come."""
        data = b""
        while text not in data:
            if not (piece := self.mine.recv(65536)):
                break
            data += piece
        return data

    def close(self) -> None:
        self.mine.close()
        self.theirs.close()


def unframed(data: bytes) -> dict[int, bytes]:
    """Output by stream (1 stdout, 2 stderr), Docker's 8-byte heads taken off."""
    found: dict[int, bytes] = {}
    while data:
        stream, size = struct.unpack_from(">BxxxI", data)
        found[stream] = found.get(stream, b"") + data[8 : 8 + size]
        data = data[8 + size :]
    return found


def alive(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def executes(pid: int) -> str:
    """Which program the process executes."""
    try:
        return os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - of another mount namespace: no path of ours
    except OSError:
        return ""
