"""What a process is made with besides its bundle: streams, console, descriptors, the pid file."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from wharfie.shim.engine import Streams
from wharfie.spi.errors import DriverError, InvalidArgument
from wharfie_runtime_native.command.words import Given, Option

STREAM_OPTIONS: Final = (
    Option(("console-socket",), "Unix socket that is sent the terminal's master.", "PATH"),
    Option(("pid-file",), "File for the process's pid.", "FILE"),
    Option(("preserve-fds",), "How many descriptors from 3 on to hand on.", "N"),
)


def preserved(given: Given) -> int:
    """`--preserve-fds`, and those that a socket-activated caller was given (sd_listen_fds(3)). Called before anything is
    opened. Errors: InvalidArgument (a descriptor that is not there)."""
    count = (given.number("preserve-fds") or 0) + int(os.environ.get("LISTEN_FDS") or 0)
    for fd in range(3, 3 + count):
        try:
            os.fstat(fd)
        except OSError:
            raise InvalidArgument(f"please check that preserved file descriptor {fd} is open: {count} are to be") from None
    return count


def with_listen_fds(process: Mapping[str, Any]) -> Mapping[str, Any]:
    """The environment of a process to which a socket-activated caller's descriptors go on."""
    given = os.environ.get("LISTEN_FDS")
    if not given:
        return process
    return {**process, "env": [*(process.get("env") or ()), f"LISTEN_FDS={given}", "LISTEN_PID=1"]}


def pipes_of(streams: Streams) -> dict[str, int]:
    """What a checkpoint knows the caller's pipes by."""
    found = {}
    for number, fd in enumerate((streams.stdin, streams.stdout, streams.stderr)):
        if fd >= 0 and stat.S_ISFIFO((status := os.fstat(fd)).st_mode):
            found[str(number)] = status.st_ino
    return found


def check_console(*, terminal: bool, detached: bool, console_socket: str) -> None:
    """Errors: InvalidArgument, as runc states them."""
    if terminal and detached and not console_socket:
        raise InvalidArgument("cannot allocate tty if wharfie-runtime will detach without setting console socket")
    if console_socket and not (terminal and detached):
        raise InvalidArgument("cannot use console socket if wharfie-runtime will not detach or allocate tty")


@contextmanager
def open_streams(process: Mapping[str, Any], console_socket: str) -> Iterator[Streams]:
    """The caller's own streams, or a terminal whose master goes to `console_socket`."""
    if not process.get("terminal") or not console_socket:
        yield Streams(stdin=0, stdout=1, stderr=2)
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
        try:
            console.connect(console_socket)
        except OSError as error:
            raise InvalidArgument(f"cannot connect to console socket {console_socket}: {error.strerror}") from error
        yield Streams(console=console.fileno())


def write_pid(file: str, pid: int) -> None:
    """Whole or not at all, since somebody may be watching for it. Errors: DriverError."""
    if not file:
        return
    folder, name = os.path.split(file)
    temporary = os.path.join(folder, f".{name}")
    try:
        with open(temporary, "w", encoding="ascii") as text:
            text.write(str(pid))
        os.replace(temporary, file)
    except OSError as error:
        raise DriverError(f"cannot write pid file {file}: {error.strerror}") from error
