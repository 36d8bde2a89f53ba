"""`authorization-plugins` with the real daemon: what the policy saw is what would have been executed."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.harness import Daemon, import_busybox, running

POLICY = """
[[rules]]
who = ["socket:root"]

[[rules]]
who = ["group:daemon"]
paths = ["/_ping", "/version", "/info", "/containers/**", "/images/*/json"]
[rules.containers]
host-mounts = ["/srv"]
"""
DENIED = "authorization denied by plugin policy: "
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
MEMBER = ("setpriv", "--reuid=65534", "--regid=65534", "--groups=1")  # group 1 is `daemon`


class Policed:
    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.path = daemon.root / "policy.toml"

    def docker(self, who, *words):
        """The stock CLI as another user of this host."""
        environment = {**self.daemon.environment, "HOME": "/nonexistent", "DOCKER_CONFIG": "/nonexistent"}
        return subprocess.run([*who, "docker", *words], env=environment, capture_output=True, text=True, timeout=60)

    def raw(self, request: bytes) -> tuple[int, str]:
        """What one connection answers to these bytes, asked by the member."""
        script = (
            "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
            "s.sendall(sys.stdin.buffer.read())\ns.settimeout(10)\n"
            "data = b''\nwhile chunk := s.recv(65536):\n    data += chunk\nsys.stdout.buffer.write(data)\n"
        )
        done = subprocess.run(
            [*MEMBER, "/usr/bin/python3", "-c", script, str(self.daemon.socket)],
            input=request,
            capture_output=True,
            check=True,
            timeout=30,
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def create(self, body: bytes, *headers: str, path: str = "/containers/create") -> tuple[int, str]:
        lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: close", *headers]
        if not any(header.lower().startswith("transfer-encoding") for header in headers):
            lines.append(f"Content-Length: {len(body)}")
        return self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


@pytest.fixture(scope="module")
def policed():
    # Not below pytest's own folder, which every other run of pytest closes to all but root again.
    with tempfile.TemporaryDirectory(prefix="policed-") as folder:
        yield from _policed(Path(folder))


def _policed(root):
    root.chmod(0o711)
    policy = root / "policy.toml"
    policy.write_text(POLICY)
    config = {"authorization-plugins": ["policy"], "drivers": {"authz.policy": {"file": str(policy)}}}
    with running(Daemon(root, config=config)) as daemon:
        daemon.socket.chmod(0o666)
        import_busybox(daemon)
        yield Policed(daemon)


@pytest.fixture(autouse=True)
def _the_usual_policy(policed):
    yield
    policed.path.write_text(POLICY)


def test_who_has_no_rule_is_told_so(policed):
    done = policed.docker(NOBODY, "ps")
    assert done.returncode == 1
    assert f"{DENIED}no rule lets nobody (socket)" in done.stderr


def test_a_member_of_the_group_stays_within_its_limits(policed):
    done = policed.docker(MEMBER, "run", "--rm", "busybox", "echo", "hello")
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr
    for flags, reason in (
        (("--privileged",), "privileged is not allowed"),
        (("-v", "/etc:/x"), "the host's /etc must not be mounted; allowed: /srv"),
        (("--mount", "type=bind,src=/,dst=/x"), "the host's / must not be mounted"),
        (("--network", "host"), "the network host is not allowed"),
        (("--pid", "host"), "PidMode is not allowed"),
        (("--cap-add", "SYS_ADMIN"), "the capability SYS_ADMIN is not allowed"),
        (("--device", "/dev/loop0"), "the device /dev/loop0 is not allowed"),
        (("--security-opt", "systempaths=unconfined"), "Paths is not allowed"),
    ):
        done = policed.docker(MEMBER, "create", *flags, "busybox")
        assert done.returncode == 1, flags
        assert f"{DENIED}rule 2: " in done.stderr
        assert reason in done.stderr
    assert policed.daemon.docker("ps", "-aq") == ""


PRIVILEGED = json.dumps({"Image": "busybox", "HostConfig": {"Privileged": True}}).encode()
JSON = "Content-Type: application/json"


def chunked(body: bytes) -> bytes:
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    return b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "headers", "path"),
    [
        (PRIVILEGED, (JSON,), "/containers/create"),
        (PRIVILEGED, (JSON,), "/v1.43/containers/create?name=x"),
        (PRIVILEGED, (JSON,), "/containers/%63reate"),
        (PRIVILEGED, (JSON,), "http://docker/v1.43/containers/create"),
        (PRIVILEGED, ("Content-Type: application/json; charset=utf-8",), "/containers/create"),
        (PRIVILEGED, ("Content-Type: APPLICATION/JSON",), "/containers/create"),
        (chunked(PRIVILEGED), (JSON, "Transfer-Encoding: chunked"), "/containers/create"),
        (PRIVILEGED.replace(b"{", b'{"HostConfig": {}, ', 1), (JSON,), "/containers/create"),
        (b" " * 3_000_000 + PRIVILEGED, (JSON,), "/containers/create"),
        (b"", (JSON,), "/containers/create"),
        (b"", (), "/containers/create"),
        (b"null", (JSON,), "/containers/create"),
        (PRIVILEGED, (), "/containers/create"),
        (PRIVILEGED, ("Content-Type: text/plain",), "/containers/create"),
    ],
)
def test_no_spelling_of_a_request_hides_what_it_asks_for(policed, body, headers, path):
    status, answer = policed.create(body, *headers, path=path)
    assert status == 403
    assert DENIED in answer


@pytest.mark.parametrize(
    ("body", "headers", "path"),
    [
        (b" " * 5_000_000 + PRIVILEGED, (JSON,), "/containers/create"),
        (PRIVILEGED, (JSON, "Transfer-Encoding: chunked", f"Content-Length: {len(PRIVILEGED)}"), "/containers/create"),
        (PRIVILEGED, (JSON,), "//containers/create"),
        (PRIVILEGED, (JSON,), "/info/../containers/create"),
        (PRIVILEGED, (JSON,), "/containers%2Fcreate/"),
        (PRIVILEGED, (JSON,), "/v1.43/v1.43/containers/create"),
    ],
)
def test_what_is_no_request_reaches_nobody(policed, body, headers, path):
    try:
        status, _ = policed.create(body, *headers, path=path)
    except subprocess.CalledProcessError:  # the connection was cut while the body was on its way
        status = 400
    assert status in (400, 403, 404)
    assert policed.daemon.docker("ps", "-aq") == ""


def test_the_rules_change_without_a_restart_and_a_broken_file_refuses_everybody(policed):
    assert policed.docker(MEMBER, "ps").returncode == 0
    policed.path.write_text(POLICY.replace("group:daemon", "group:mail"))
    assert f"{DENIED}no rule lets nobody (socket)" in policed.docker(MEMBER, "ps").stderr
    policed.path.write_text("[[rules")
    status, answer = policed.daemon.request("GET", "/info")
    assert status == 403
    assert answer["message"].startswith(f"{DENIED}the policy file {policed.path} is broken: ")
    policed.path.unlink()
    assert policed.daemon.request("GET", "/_ping")[0] == 403
    policed.path.write_text(POLICY)
    assert policed.daemon.request("GET", "/info")[0] == 200
