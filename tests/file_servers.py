"""Servers of NFS and SMB on the loopback, for volumes from the network: Linux's own nfsd, and Samba.

They take the host's ports, and nfsd is a part of the kernel. So they are only started where nobody else serves, and where
their programs are: on the virtual machine of `make test-cgroup2`, or a host whose owner installed them.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.harness import until

USER, PASSWORD, SHARE = "root", "wharfie-secret", "share"
_RECORDS = Path("/var/lib/nfs")
_THREADS = Path("/proc/fs/nfsd/threads")
_numbers = itertools.count(1)


class NfsServer:
    """nfsd and its helpers. `export` offers a folder to this host."""

    def __init__(self) -> None:
        _need("NFS", ("rpcbind", "rpc.nfsd", "rpc.mountd", "exportfs"), ("nfs", "nfsd"), (111, 2049))
        self._helpers: list[subprocess.Popen[bytes]] = []
        self._exported: list[str] = []

    def export(self, folder: Path) -> None:
        folder.chmod(0o777)
        options = f"rw,no_root_squash,insecure,no_subtree_check,fsid={next(_numbers)}"
        _run("exportfs", "-o", options, f"127.0.0.1:{folder}")
        self._exported.append(str(folder))

    def start(self) -> None:
        _RECORDS.mkdir(parents=True, exist_ok=True)
        for name in ("etab", "rmtab", "xtab"):
            (_RECORDS / name).touch()
        Path("/run/rpcbind").mkdir(exist_ok=True)
        if not _THREADS.exists():
            _run("mount", "-t", "nfsd", "nfsd", _THREADS.parent)
        self._helpers.append(subprocess.Popen(["rpcbind", "-f", "-w"]))
        until(lambda: not _is_free(111), what="rpcbind")
        self.go_on()
        self._helpers.append(subprocess.Popen(["rpc.mountd", "--foreground"], stderr=subprocess.DEVNULL))

    def pause(self) -> None:
        """Nobody listens any more; clients' mounts wait."""
        _run("rpc.nfsd", "0")

    def go_on(self) -> None:
        _run("rpc.nfsd", "--grace-time", "10", "--lease-time", "10", "2")
        with contextlib.suppress(OSError):  # there may be no grace to end
            (_THREADS.parent / "v4_end_grace").write_text("Y")

    def stop(self) -> None:
        for folder in self._exported:
            subprocess.run(["exportfs", "-u", f"127.0.0.1:{folder}"], check=False, capture_output=True)
        subprocess.run(["rpc.nfsd", "0"], check=False, capture_output=True)
        for helper in reversed(self._helpers):
            helper.terminate()
            helper.wait()


class SmbServer:
    """Samba's smbd, with one share and one user."""

    def __init__(self, folder: Path) -> None:
        _need("SMB", ("smbd", "smbpasswd"), ("cifs",), (445,))
        self.folder = folder / "shared"
        self._state = folder / "state"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir()
        self._state.mkdir()
        own = ("private dir", "lock directory", "state directory", "cache directory", "pid directory", "ncalrpc dir")
        settings = {
            **dict.fromkeys(own, str(self._state)),
            "server role": "standalone server",
            "passdb backend": f"tdbsam:{self._state}/users",
            "log file": f"{self._state}/log",
            "interfaces": "127.0.0.1",
            "bind interfaces only": "yes",
            "smb ports": "445",
            "load printers": "no",
            "disable spoolss": "yes",
        }
        lines = ["[global]", *(f"{name} = {value}" for name, value in settings.items())]
        lines += [f"[{SHARE}]", f"path = {self.folder}", "read only = no"]
        config = self._state / "smb.conf"
        config.write_text("\n".join(lines) + "\n")
        twice = f"{PASSWORD}\n{PASSWORD}\n".encode()
        command = ["smbpasswd", "-c", config, "-a", "-s", USER]
        subprocess.run(command, input=twice, check=True, capture_output=True)
        command = ["smbd", "-s", str(config), "-F"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, stdout=quiet, stderr=quiet
        )  # it makes a process group of its own, and ends all of it
        until(lambda: not _is_free(445), what="smbd")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def _need(kind: str, programs: Sequence[str], modules: Sequence[str], ports: Sequence[int]) -> None:
    """Skip the test where such a server cannot be, or is somebody's already."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {kind} server: this host has no {', '.join(missing)}")
    if shutil.which("modprobe") is None or subprocess.run(["modprobe", "-aq", *modules], check=False).returncode:
        pytest.skip(f"no {kind} server: this kernel has no {' or '.join(modules)}")
    taken = [port for port in ports if not _is_free(port)]
    if taken:
        pytest.skip(f"no {kind} server: this host has one, at port {taken[0]}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
