"""podman drives `wharfie-runtime` by way of conmon: same commands, same answers as with runc."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from wharfie.shim.cgroups import prune

from .conftest import SCRIPT, wait_for

pytestmark = pytest.mark.skipif(not (shutil.which("podman") and os.geteuid() == 0), reason="needs podman, and root")

CONFIG = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "wharfie-runtime"
runtime_supports_json = ["wharfie-runtime"]
[engine.runtimes]
wharfie-runtime = ["{script}"]
[network]
network_backend = "cni"
network_config_dir = "{folder}/net"
"""

NETWORK = {
    "cniVersion": "0.4.0",
    "name": "wharfie-test",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "whtest-podman",
            "isGateway": True,
            "ipMasq": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.190.7.0/24"}]], "dataDir": "{folder}/ipam"},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


class Podman:
    """A podman of folders of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "containers.conf").write_text(CONFIG.format(script=SCRIPT, folder=folder))
        (folder / "net").mkdir()
        network = json.dumps(NETWORK).replace("{folder}", str(folder))
        (folder / "net/wharfie-test.conflist").write_text(network)
        self.environment = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}
        folders = {"--root": "root", "--runroot": "run", "--tmpdir": "tmp"}
        own = [word for option, name in folders.items() for word in (option, str(folder / name))]
        self.words = ["podman", *own, "--storage-driver", "vfs"]

    def call(self, *words, **more):
        more = {"stdin": subprocess.DEVNULL, **more}
        environment = self.environment
        return subprocess.run(
            [*self.words, *words], env=environment, capture_output=True, text=True, timeout=90, check=False, **more
        )

    def ok(self, *words, **more):
        done = self.call(*words, **more)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture(scope="module")
def podman(image):
    folder = Path(tempfile.mkdtemp(prefix="wh-podman-"))
    made = Podman(folder)
    with subprocess.Popen(["tar", "-C", str(image), "-c", "."], stdout=subprocess.PIPE) as tar:
        made.ok("import", "-", "box", stdin=tar.stdout)
    yield made
    made.call("rm", "--all", "--force", "--time", "0")
    made.call("pod", "rm", "--all", "--force", "--time", "0")
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([mount for mount in mounts if mount.startswith(str(folder))]):
        subprocess.run(["umount", mount], check=False)
    shutil.rmtree(folder)
    for group in ("libpod_parent/conmon", "libpod_parent"):  # podman leaves them; another one may be using them
        prune(group)


def test_run_with_streams_and_exit_code(podman):
    done = podman.call("run", "--rm", "-i", "box", "sh", "-c", "cat; echo no >&2; exit 4", stdin=None, input="given\n")
    assert (done.returncode, done.stdout, done.stderr) == (4, "given\n", "no\n")
    assert podman.ok("run", "--rm", "-t", "box", "tty") == "/dev/pts/0\n"


def test_program_that_is_missing_is_127(podman):
    done = podman.call("run", "--rm", "box", "nope")
    assert done.returncode == 127
    assert 'exec: "nope": executable file not found in $PATH' in done.stderr


def test_life_of_a_container(podman):
    limits = ["--memory", "64m", "--pids-limit", "50", "--user", "7:8", "--read-only", "--tmpfs", "/scratch"]
    script = "trap 'echo bye; exit 6' TERM; echo up; touch /scratch/x; while :; do sleep 0.1; done"
    podman.ok("run", "-d", "--name", "one", *limits, "box", "sh", "-c", script)
    wait_for(lambda: podman.ok("logs", "one") == "up\n")
    told = json.loads(podman.ok("inspect", "one"))[0]
    assert (told["OCIRuntime"], told["State"]["Status"]) == ("wharfie-runtime", "running")
    state = json.loads(subprocess.check_output([SCRIPT, "state", told["Id"]], text=True))
    assert (state["status"], state["pid"]) == ("running", told["State"]["Pid"])
    done = podman.call("exec", "-w", "/scratch", "-e", "A=b", "one", "sh", "-c", "id -u; pwd; echo $A; ls; exit 3")
    assert (done.returncode, done.stdout) == (3, "7\n/scratch\nb\nx\n")
    assert podman.call("exec", "one", "nope").returncode == 127
    assert podman.ok("exec", "-t", "one", "tty") == "/dev/pts/0\n"
    assert set(podman.ok("top", "one", "user").split()[1:]) == {"7"}
    assert "67.11MB" in podman.ok("stats", "--no-stream", "--format", "{{.MemUsage}}", "one").partition("/")[2]
    podman.ok("pause", "one")
    assert json.loads(subprocess.check_output([SCRIPT, "state", told["Id"]], text=True))["status"] == "paused"
    podman.ok("unpause", "one")
    podman.ok("stop", "--time", "20", "one")
    assert podman.ok("logs", "one") == "up\nbye\n"
    assert podman.ok("inspect", "--format", "{{.State.ExitCode}}", "one") == "6\n"
    podman.ok("start", "one")
    podman.ok("rm", "--force", "--time", "0", "one")
    assert subprocess.run([SCRIPT, "state", told["Id"]], capture_output=True, check=False).returncode == 1
    assert not list(Path("/sys/fs/cgroup").glob(f"**/*{told['Id']}"))


def test_pod_shares_its_namespaces(podman):
    pod = podman.ok(
        "pod", "create", "--name", "pod", "--infra-image", "box", "--infra-command", "sleep 300", "--network", "none"
    )
    podman.ok("run", "-d", "--pod", "pod", "--name", "member", "box", "sleep", "300")
    spaces = podman.ok("exec", "member", "sh", "-c", "for kind in net ipc; do readlink /proc/1/ns/$kind; done").split()
    infra = podman.ok("pod", "inspect", "--format", "{{.InfraContainerID}}", "pod").strip()
    pid = podman.ok("inspect", "--format", "{{.State.Pid}}", infra).strip()
    assert spaces == [str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in ("net", "ipc")]
    podman.ok("pod", "rm", "--force", "--time", "0", "pod")
    prune(f"libpod_parent/{pod.strip()}")  # podman forgets the named hierarchy, with runc too


@pytest.mark.skipif(not Path("/usr/lib/cni/portmap").exists(), reason="needs containernetworking-plugins")
def test_published_port(podman):
    """In network and mount namespaces of the test's own, so that bridge and firewall rules are nobody else's."""
    script = """
        ip link set lo up
        "$@" run -d --name web --network wharfie-test -p 127.0.0.1:8099:80 box sh -c 'while :; do
            printf "HTTP/1.0 200 OK\\r\\n\\r\\nserved" | nc -l -p 80; done' > /dev/null || exit 1
        for i in $(seq 100); do busybox wget -q -O - http://127.0.0.1:8099/ && break; sleep 0.1; done
        "$@" rm -f -t 0 web > /dev/null
    """
    command = ["unshare", "--net", "--mount", "sh", "-c", script, "sh", *podman.words]
    done = subprocess.run(
        command, env=podman.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == "served", done.stderr
