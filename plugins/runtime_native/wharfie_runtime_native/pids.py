"""Processes by pid and start time, so that a number that was given to somebody else is never taken for the one meant."""

from __future__ import annotations

import os
import select
import signal as signals


def started(pid: int) -> int:
    """When a process started, in clock ticks since boot (/proc/PID/stat); 0 when it is not there, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def is_alive(pid: int, start: int) -> bool:
    return pid > 0 and started(pid) == start != 0


def open_pidfd(pid: int, start: int) -> int:
    """A descriptor of exactly this process, or -1 when it has ended."""
    try:
        fd = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError):
        return -1
    if is_alive(pid, start):
        return fd
    os.close(fd)
    return -1


def send(pid: int, start: int, signal: int) -> bool:
    """Send a signal; False when the process has ended."""
    if pid <= 0 or (fd := open_pidfd(pid, start)) < 0:
        return False
    try:
        signals.pidfd_send_signal(fd, signal)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def await_end(pid: int, start: int, seconds: float) -> bool:
    """Wait for a process that need not be a child; whether it has ended."""
    fd = open_pidfd(pid, start) if pid > 0 else -1
    if fd < 0:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)
