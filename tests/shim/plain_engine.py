"""An engine of a few lines: a forked process in a changed root, with a network and pid namespace when asked."""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import signal
import socket
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wharfie.shim.engine import Engine, Streams
from wharfie.shim.system import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    MNT_DETACH,
    MS_PRIVATE,
    MS_REC,
    mount,
    prctl,
    setns,
    umount2,
    unshare,
)
from wharfie.spi.errors import InvalidArgument

CLONE_NEWPID = 0x20000000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class PlainEngine(Engine):
    pid = 0
    go = -1
    failure = -1
    made = -1

    def create(self, rootfs: Path, streams: Streams) -> int:
        if self.options.get("refuse"):
            raise InvalidArgument(self.options["refuse"])
        if self.options.get("hang"):
            time.sleep(100)
        kinds = {namespace["type"] for namespace in self.spec.get("linux", {}).get("namespaces", ())}
        wait, self.go = os.pipe()
        self.failure, report = os.pipe()
        ready, self.made = os.pipe()
        own = os.open("/proc/self/ns/pid", os.O_RDONLY)
        if "pid" in kinds:
            unshare(CLONE_NEWPID)
        self.pid = os.fork()
        if self.pid == 0:
            _child(lambda: self._init(rootfs, streams, "network" in kinds, wait), report)
        setns(own, CLONE_NEWPID)
        for fd in (own, wait, report, self.made):
            os.close(fd)
        os.read(ready, 1)
        os.close(ready)
        return self.pid

    def keep(self) -> Sequence[int]:
        return (self.go, self.failure)

    def adopt(self, pid: int, kept: Sequence[int]) -> None:
        self.pid = pid
        self.go, self.failure = kept

    def _init(self, rootfs: Path, streams: Streams, network: bool, wait: int) -> None:
        os.close(self.go)
        os.setsid()
        unshare(CLONE_NEWNS | (CLONE_NEWNET if network else 0))
        mount("none", "/", "none", MS_REC | MS_PRIVATE)
        _take_streams(streams)
        os.chdir(rootfs)
        _libc.pivot_root(b".", b".")
        umount2(".", MNT_DETACH)
        os.chdir("/")
        if network:
            _loopback_up()
        os.write(self.made, b"x")
        if self.options.get("ends early"):
            os._exit(9)
        if not os.read(wait, 1):
            os._exit(0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _execute(self.spec["process"])

    def start(self) -> None:
        os.write(self.go, b"x")
        os.close(self.go)
        with open(self.failure, "rb") as failure:
            text = failure.read().decode()
        if text:
            raise InvalidArgument(text)

    def exec(self, process: Mapping[str, Any], streams: Streams) -> int:
        failure, report = os.pipe()
        spaces = [os.open(f"/proc/{self.pid}/ns/{kind}", os.O_RDONLY) for kind in ("net", "mnt")]

        def run() -> None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.setsid()
            _take_streams(streams)
            for space in spaces:
                setns(space, 0)
            _execute(process)

        pid = os.fork()
        if pid == 0:
            _child(run, report)
        for fd in (report, *spaces):
            os.close(fd)
        with open(failure, "rb") as stream:
            text = stream.read().decode()
        if text:
            os.waitpid(pid, 0)
            raise InvalidArgument(text)
        return pid

    def signal_all(self, signal: int) -> None:
        try:
            os.killpg(self.pid, signal)
        except ProcessLookupError:
            pass

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def update(self, resources: Mapping[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    def stats(self) -> Mapping[str, Any]:
        return {"pids": {"current": 1}}

    def pids(self) -> Sequence[int]:
        return [self.pid]

    def oom_fd(self) -> int:
        return -1

    def oom_killed(self) -> bool:
        return bool(self.options.get("oom"))

    def delete(self) -> None:
        if mark := self.options.get("deleted"):
            with open(mark, "a") as file:
                file.write(self.id)


def _child(run: Any, report: int) -> None:
    try:
        os.set_inheritable(report, False)
        run()
    except OSError as error:
        os.write(report, f'exec: "{error.filename}": {error.strerror.lower()}'.encode())
    except BaseException as error:
        os.write(report, repr(error).encode())
    finally:
        os._exit(1)


def _take_streams(streams: Streams) -> None:
    if streams.console >= 0:
        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        if streams.size is not None:
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *streams.size, 0, 0))
        sender = socket.socket(fileno=os.dup(streams.console))
        sender.sendmsg([b"tty"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [master]))])
        fds = [slave] * 3
    else:
        fds = [streams.stdin, streams.stdout, streams.stderr]
    for number, fd in enumerate(fds):
        os.dup2(fd, number)


def _execute(process: Mapping[str, Any]) -> None:
    for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    user = process["user"]
    os.setgroups(user.get("additionalGids", ()))
    os.setgid(user["gid"])
    os.setuid(user["uid"])
    os.execve(process["args"][0], process["args"], dict(entry.split("=", 1) for entry in process.get("env", ())))


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, b"lo".ljust(16, b"\0") + b"\x49\0" + bytes(22))  # SIOCSIFFLAGS, IFF_UP
