"""What needs a terminal or a signal: raw keys, sizes, detaching, passing signals on, progress bars."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest

ID = "f" * 64


class Terminal:
    """The command line in a pseudo terminal of its own."""

    def __init__(self, command, engine):
        self.master, slave = pty.openpty()
        self.size(24, 80)
        self.output = b""
        self.before = termios.tcgetattr(slave)
        environment = {**os.environ, "DOCKER_HOST": engine.host, "TERM": "xterm"}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        self.slave = slave

    def size(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text):
        end = time.monotonic() + 10
        while text not in self.output:
            assert time.monotonic() < end, self.output
            if select.select([self.master], [], [], 0.1)[0]:
                self.output += os.read(self.master, 4096)

    def type(self, keys):
        os.write(self.master, keys)

    def wait(self):
        code = self.process.wait(timeout=10)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal was not restored"
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.slave)
        os.close(self.master)


@pytest.fixture
def terminal(engine, wharfie_command):
    made = []

    def start(*arguments):
        made.append(Terminal([*wharfie_command, *arguments], engine))
        return made[-1]

    yield start
    for one in made:
        one.close()


def eventually(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def shell(engine, ends_at=b"\x10\x11"):
    """A container that echoes its keys, and lets go at the detach keys as the engine does."""

    def streams(sock):
        sock.sendall(b"prompt# ")
        seen = b""
        while data := sock.recv(100):
            seen += data
            sock.sendall(b"<" + data.hex().encode() + b">")
            if ends_at in seen:
                return

    engine.on("POST", "/containers/create", {"Id": ID, "Warnings": []})
    engine.on("POST", f"/containers/{ID}/attach", engine.Answer(hijack=streams))
    engine.on("POST", f"/containers/{ID}/wait", {"StatusCode": 5})
    engine.on("POST", f"/containers/{ID}/start", engine.Answer(204))
    engine.on("POST", f"/containers/{ID}/resize", engine.Answer(200))


def test_keys_arrive_as_typed_and_the_size_follows(engine, terminal):
    shell(engine, ends_at=b"q")
    screen = terminal("run", "-it", "--rm", "alpine", "sh")
    screen.expect(b"prompt# ")
    screen.type(b"\x03")  # not a signal to the client: the container's terminal makes one of it
    screen.expect(b"<03>")
    screen.size(50, 132)
    screen.process.send_signal(signal.SIGWINCH)  # the kernel sends it only to a controlling terminal's processes
    eventually(lambda: {"h": "50", "w": "132"} in [call.query for call in engine.made("POST", f"/containers/{ID}/resize")])
    screen.type(b"q")
    assert screen.wait() == 5
    assert engine.made("POST", f"/containers/{ID}/resize")[0].query == {"h": "24", "w": "80"}
    assert engine.made("POST", "/containers/create")[0].json["HostConfig"]["ConsoleSize"] == [24, 80]


@pytest.mark.parametrize(("option", "keys"), [((), b"\x10\x11"), (("--detach-keys", "a,ctrl-b"), b"a\x02")])
def test_detaching_leaves_the_container_and_ends_with_0(engine, terminal, option, keys):
    shell(engine, ends_at=keys)
    screen = terminal("run", "-it", *option, "alpine", "sh")
    screen.expect(b"prompt# ")
    screen.type(b"ls\r" + keys[:1])
    screen.type(keys[1:])
    assert screen.wait() == 0


def test_exec_with_a_terminal(engine, terminal):
    engine.on("POST", "/containers/web/exec", {"Id": "e1"})
    engine.on("POST", "/exec/e1/start", engine.Answer(hijack=lambda sock: sock.sendall(b"plain, no frames")))
    engine.on("POST", "/exec/e1/resize", engine.Answer(200))
    engine.on("GET", "/exec/e1/json", {"ExitCode": 9})
    screen = terminal("exec", "-it", "web", "sh")
    screen.expect(b"plain, no frames")
    assert screen.wait() == 9
    assert engine.made("POST", "/exec/e1/resize")[0].query == {"h": "24", "w": "80"}


def test_signals_are_passed_on_without_a_terminal(engine, wharfie_command):
    over = threading.Event()
    engine.on("POST", "/containers/create", {"Id": ID, "Warnings": []})
    engine.on("POST", f"/containers/{ID}/attach", engine.Answer(hijack=lambda sock: over.wait(10)))
    engine.on("POST", f"/containers/{ID}/wait", {"StatusCode": 143})
    engine.on("POST", f"/containers/{ID}/start", engine.Answer(204))
    engine.on("POST", f"/containers/{ID}/kill", engine.Answer(204))
    environment = {**os.environ, "DOCKER_HOST": engine.host}
    process = subprocess.Popen([*wharfie_command, "run", "alpine"], stdin=subprocess.DEVNULL, env=environment)
    try:
        eventually(lambda: engine.made("POST", f"/containers/{ID}/start"))
        # The start was answered; the handler is there a moment later, seen in the process's mask of caught signals.
        eventually(lambda: caught(process.pid, signal.SIGTERM))
        for number, name in ((signal.SIGTERM, "TERM"), (signal.SIGUSR1, "USR1"), (signal.SIGINT, "INT")):
            process.send_signal(number)
            eventually(
                lambda name=name: {"signal": name} in [c.query for c in engine.made("POST", f"/containers/{ID}/kill")]
            )
        over.set()
        assert process.wait(timeout=10) == 143
    finally:
        over.set()
        process.kill()
        process.wait()


def caught(pid, number):
    with open(f"/proc/{pid}/status") as status:
        mask = next(line for line in status if line.startswith("SigCgt")).split()[1]
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_pull_shows_bars_on_a_terminal(engine, terminal):
    messages = [
        {"status": "Pulling from library/busybox", "id": "latest"},
        {"status": "Pulling fs layer", "id": "abcdef", "progressDetail": {}},
        {"status": "Downloading", "id": "abcdef", "progressDetail": {"current": 500, "total": 1000}},
        {"status": "Download complete", "id": "abcdef", "progressDetail": {}},
        {"status": "Pull complete", "id": "abcdef", "progressDetail": {}},
        {"status": "Digest: sha256:aa"},
    ]
    engine.on(
        "POST", "/images/create", engine.Answer(chunks=[json.dumps(message).encode() + b"\r\n" for message in messages])
    )
    screen = terminal("pull", "busybox")
    screen.expect(b"docker.io/library/busybox:latest")
    assert screen.wait() == 0
    for text in (b"latest: Pulling from library/busybox", b"abcdef", b"Pull complete", b"1.0/1.0 kB", b"Digest: sha256:aa"):
        assert text in screen.output
