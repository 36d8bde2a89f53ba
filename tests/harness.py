"""A daemon of the tests' own, and what goes with it: the stock docker CLI, images made here, a look at what is left over.

Every daemon has its own roots, bridge, subnet, cgroup parent and socket, so several run side by side and beside whatever
else the machine does. `Daemon.close` ends it and takes away all that it made, also after a failed test.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")
_NUMBERS = itertools.count(1)
PATIENCE = float(os.environ.get("WHARFIE_TEST_PATIENCE", "1"))
"""By how much longer everything may take, on a slow machine such as an emulated one."""


_PLACES = 16
_claims: dict[int, socket.socket] = {}
"""By process: a name (unix(7), abstract) that goes with the process that took it."""


def _place() -> int:
    """A number that no other process with daemons on this host has, so that subnets of runs side by side differ."""
    if os.getpid() not in _claims:
        _claims[os.getpid()] = claim = socket.socket(socket.AF_UNIX)
        for number in range(_PLACES):
            with contextlib.suppress(OSError):
                claim.bind(f"\0wharfie-tests-{number}")
                break
        else:
            raise RuntimeError(f"{_PLACES} test runs have daemons on this host already: wait for one to end")
    return int(_claims[os.getpid()].getsockname()[1:].rpartition(b"-")[2])


class Failed(AssertionError):
    """A command of the docker CLI ended with another status than expected."""


class Daemon:
    """One `wharfied` process and its folders. `start` again after `kill` finds everything as it was left."""

    def __init__(
        self,
        root: Path,
        *,
        config: Mapping[str, Any] | None = None,
        flags: Sequence[str] = (),
        bridge: bool = True,
    ) -> None:
        self.root = root
        self.number = next(_NUMBERS)
        self.tag = f"{os.getpid() % 10000:04d}{self.number:02d}"
        self.bridge = f"wt{self.tag}"
        place = _place()
        self.subnet = f"10.{208 + place}.{self.number % 250}.0/24"
        self.gateway = self.subnet.replace(".0/24", ".1")
        self.cgroup = f"/wharfie-test-{self.tag}"
        self.data, self.run = root / "data", root / "run"
        self.socket = root / "w.sock"
        self.log = root / "daemon.log"
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
        self.environment |= {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(root / "client")}
        self.environment |= {"DOCKER_CLI_HINTS": "false"}
        self.extra_environment: dict[str, str] = {}
        own_bridge = ("--bridge", self.bridge, "--bip", f"{self.gateway}/24") if bridge else ()
        self._flags = [*own_bridge, *flags]
        root.mkdir(parents=True, exist_ok=True)
        pools = [{"base": f"10.{232 + place}.{self.number % 250}.0/24", "size": 28}]
        self.config = {"cgroup-parent": self.cgroup, "default-address-pools": pools, **(config or {})}
        self.process: subprocess.Popen[bytes] | None = None

    # ---- life

    def command(self) -> list[str]:
        return [
            str(Path(sys.executable).with_name("wharfied")),
            *("--data-root", str(self.data), "--exec-root", str(self.run)),
            *("--host", f"unix://{self.socket}", "--pidfile", str(self.root / "w.pid")),
            *("--config-file", str(self.root / "daemon.json"), "--debug", *self._flags),
        ]

    def start(self, *, wait: float = 30.0) -> Daemon:
        (self.root / "daemon.json").write_text(json.dumps(self.config))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.extra_environment},
                start_new_session=True,
            )
        self.wait_ready(wait)
        return self

    def wait_ready(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds * PATIENCE
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                raise Failed(f"the daemon ended with {self.process.returncode}:\n{self.log_tail()}")
            with contextlib.suppress(OSError):
                if self.request("GET", "/_ping")[0] == 200:
                    return
            time.sleep(0.02)
        raise Failed(f"the daemon does not answer:\n{self.log_tail()}")

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def kill(self) -> None:
        """SIGKILL, as a crash: containers go on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, the clean end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60 * PATIENCE)

    def close(self) -> None:
        """End the daemon and take everything away, whatever state it is in."""
        if self.process is None:
            return
        if self.process.poll() is None:
            with contextlib.suppress(Exception):
                for container in self.docker("ps", "-aq").split():
                    self.docker("rm", "-f", container)
            with contextlib.suppress(Exception):
                for network in self.docker("network", "ls", "-q", "--filter", "type=custom").split():
                    self.docker("network", "rm", network)
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
        self._sweep()

    def _sweep(self) -> None:
        """What a crashed daemon would leave: processes by their files, then kernel objects by their names."""
        for path in self.run.rglob("shim.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(path.read_text().split()[0]), signal.SIGKILL)
        time.sleep(0.05)
        for mount in self.mounts():
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
        for cgroup in self._groups():
            for folder in sorted(cgroup.rglob("*/"), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()
            with contextlib.suppress(OSError):
                cgroup.rmdir()
        if self.instance:
            subprocess.run(["nft", "delete", "table", "inet", f"wharfie_{self.instance}"], capture_output=True, check=False)
        for link in self.links():
            subprocess.run(["ip", "link", "delete", link], capture_output=True, check=False)
        shutil.rmtree(self.root, ignore_errors=True)

    # ---- talking to it

    def docker(self, *words: str | Path, status: int = 0, stdin: bytes | None = None, both: bool = False) -> str:
        """Run the stock CLI; its output (with `both`, and its errors). Fails on another exit status."""
        result = self.run_docker(*words, stdin=stdin)
        if result.returncode != status:
            raise Failed(
                f"docker {' '.join(map(str, words))} ended with {result.returncode}, not {status}\n"
                f"stdout: {result.stdout.decode(errors='replace')[-2000:]}\n"
                f"stderr: {result.stderr.decode(errors='replace')[-2000:]}\ndaemon: {self.log_tail(15)}"
            )
        output = result.stdout + result.stderr if both else result.stdout
        return output.decode(errors="replace").strip()

    def run_docker(self, *words: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["docker", *map(str, words)],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.environment,
            timeout=90 * PATIENCE,
            check=False,
        )

    def spawn_docker(self, *words: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
        return subprocess.Popen(["docker", *map(str, words)], env=self.environment, **options)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> tuple[int, Any]:
        """One API call; status and decoded JSON (or text)."""
        status, _, content = self.exchange(method, path, body, headers=headers, raw=raw)
        text = content.decode(errors="replace")
        try:
            return status, json.loads(text) if text else None
        except ValueError:
            return status, text

    def exchange(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """One API call over a connection of its own: status, headers, body."""
        import http.client

        connection = http.client.HTTPConnection("docker", timeout=60 * PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60 * PATIENCE)
        with contextlib.closing(connection):
            connection.sock.connect(str(self.socket))
            content = raw if raw is not None else None if body is None else json.dumps(body).encode()
            more = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, content, {**more, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def inspect(self, ref: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.docker("container", "inspect", ref))[0]
        return document

    # ---- what is there

    @property
    def instance(self) -> str:
        for name in ("instance", "instance-id"):
            path = self.data / name
            if path.exists():
                return path.read_text().strip()
        return ""

    def mounts(self) -> list[str]:
        """Mounts of this daemon that the host sees, innermost first."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return sorted((line.split()[4] for line in lines if str(self.root) in line.split()[4]), reverse=True)

    def links(self) -> list[str]:
        """Our bridges and interfaces, by alias or name."""
        found = []
        for link in json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout):
            alias = link.get("ifalias", "")
            if link["ifname"] == self.bridge or (self.instance and f":{self.instance}:" in f"{alias}:"):
                found.append(link["ifname"])
        return found

    def cgroups(self) -> list[str]:
        return sorted(str(path) for group in self._groups() for path in group.glob("*/"))

    def _groups(self) -> list[Path]:
        """The parent of all containers' cgroups: in every hierarchy of version 1, in the one tree of version 2."""
        root = Path("/sys/fs/cgroup")
        return [path for path in (*root.glob(f"*{self.cgroup}"), root / self.cgroup.lstrip("/")) if path.is_dir()]

    def processes(self) -> list[str]:
        """Processes whose command line names this daemon's folders (the daemon itself, its zygote, its shims)."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if str(self.root) in line:
                        found.append(f"{entry.name} {line}")
        return found


def busybox_tar() -> bytes:
    """A root file system: busybox with its usual names, passwd and group, /tmp."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, mode in (
            ("bin", 0o755),
            ("etc", 0o755),
            ("tmp", 0o1777),
            ("var", 0o755),
            ("root", 0o700),
            ("home", 0o755),
        ):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        program = tarfile.TarInfo("bin/busybox")
        content = BUSYBOX.read_bytes()
        program.size, program.mode = len(content), 0o755
        tar.addfile(program, io.BytesIO(content))
        for name in subprocess.run([BUSYBOX, "--list"], capture_output=True, check=True, text=True).stdout.split():
            if name == "busybox":
                continue
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        files = {
            "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
            "worker:x:1000:1000::/home:/bin/sh\n",
            "etc/group": "root:x:0:\nnobody:x:65534:\nworker:x:1000:\nextra:x:2000:worker\n",
        }
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def import_busybox(daemon: Daemon, name: str = "busybox:latest") -> None:
    daemon.docker("import", "--change", 'CMD ["sh"]', "-", name, stdin=busybox_tar())


def until(condition: Any, seconds: float = 10.0, what: str = "the condition") -> Any:
    """Poll until `condition()` is true; its value."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(daemon: Daemon) -> Iterator[Daemon]:
    try:
        yield daemon.start()
    finally:
        daemon.close()
