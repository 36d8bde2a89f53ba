"""SCMP_ACT_NOTIFY: an agent outside decides on the container's calls."""

from __future__ import annotations

import json
import os
import platform
import socket
import struct
import threading
from contextlib import suppress
from fcntl import ioctl

import pytest

from wharfie.spi.errors import InvalidArgument

# linux/seccomp.h
RECEIVE = 0xC0502100
SEND = 0xC0182101
CONTINUE = 1
MKDIR = {"x86_64": 83, "aarch64": 34}[platform.machine()]  # mkdir, mkdirat
EXECVE = {"x86_64": 59, "aarch64": 221}[platform.machine()]


class Agent:
    """Listens at a path; answers mkdir with EDOM, lets all else go on, and remembers what it was asked."""

    def __init__(self, path):
        self.path = path
        self.states = []
        self.asked = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                data, fds, _, _ = socket.recv_fds(connection, 65536, 4)
                self.states.append((json.loads(data), len(fds)))
                connection.close()
                thread = threading.Thread(target=self._decide, args=(fds[0],), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _decide(self, fd):
        with suppress(OSError):
            while True:
                request = bytearray(80)
                ioctl(fd, RECEIVE, request)
                cookie, pid, _, number = struct.unpack_from("=QIIi", request)
                self.asked.append((pid, number))
                answer = (cookie, 0, -33, 0) if number == MKDIR else (cookie, 0, 0, CONTINUE)
                ioctl(fd, SEND, struct.pack("=QqiI", *answer))
        os.close(fd)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)


@pytest.fixture
def agent(tmp_path):
    one = Agent(tmp_path / "agent")
    yield one
    one.close()


def rules(agent, *names, default="SCMP_ACT_ALLOW"):
    return {
        "defaultAction": default,
        "listenerPath": str(agent.path),
        "listenerMetadata": "of the test",
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}] if names else [],
    }


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_agent_gets_the_listener_and_decides(bare, agent, no_new_privileges):
    bare.spec["process"]["noNewPrivileges"] = no_new_privileges
    bare.spec["linux"]["seccomp"] = rules(agent, "mkdir", "mkdirat", "execve")
    pid = bare.create("sh", "-c", "mkdir /tmp/x; ls /proc/self/fd; touch /tmp/done; exec sleep 300")
    assert agent.states == []
    bare.call("start")
    told, fds = agent.states[0]
    assert (told["fds"], fds, told["pid"], told["metadata"]) == (["seccompFd"], 1, pid, "of the test")
    assert (told["state"]["id"], told["state"]["bundle"]) == (bare.id, str(bare.root.parent))
    code, out, err = bare.exec("sh", "-c", "mkdir /tmp/y; ls /proc/self/fd")
    assert (code, out.split()) == (0, ["0", "1", "2", "3"])
    assert "Numerical argument out of domain" in err or "domain" in err
    assert len(agent.states) == 2, "an exec has a listener of its own"
    _, out, err = bare.end(pid)
    assert (out.split(), "domain" in err) == (["0", "1", "2", "3"], True)
    assert (pid, EXECVE) in agent.asked


def test_every_call_may_be_the_agents(bare, agent):
    """Also those that the runtime's own process makes between filter and execve."""
    bare.spec["linux"]["seccomp"] = rules(agent, default="SCMP_ACT_NOTIFY")
    bare.spec["annotations"] = {"org.wharfie.init": "true"}
    assert bare.run("echo", "hi")[:2] == [0, "hi\n"]
    assert len(agent.asked) > 10


def test_no_agent(bare, tmp_path):
    class Missing:
        path = tmp_path / "nobody"

    bare.spec["linux"]["seccomp"] = rules(Missing, "mkdir")
    bare.create("true")
    with pytest.raises(InvalidArgument, match=r"listenerPath .*nobody.*: no such file"):
        bare.call("start")


def test_a_listener_needs_a_place(bare):
    bare.spec["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_NOTIFY"}
    with pytest.raises(InvalidArgument, match=r"needs linux.seccomp.listenerPath"):
        bare.create("true")
