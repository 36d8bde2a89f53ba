"""One syslog message: RFC 3164, RFC 5424, and the form for a server on the same host. In the shim: standard library only.

What is in the fields is what Docker Engine puts there: the tag is the name of the application (and RFC 5424's message id),
the process id is the logger's.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

FACILITIES: Mapping[str, int] = {
    name: number
    for number, name in enumerate(
        ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp")
    )
} | {f"local{number}": 16 + number for number in range(8)}
"""RFC 5424, section 6.2.1, by the names of syslog(3)."""

SEVERITIES: Mapping[str, int] = {"stdout": 6, "stderr": 3}  # informational, error

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Form = Callable[[int, int, str, bytes], bytes]
"""(priority, time in nanoseconds, tag, line) → message."""


def local(priority: int, time_ns: int, tag: str, line: bytes) -> bytes:
    """What a server on the same host expects: it knows the host's name."""
    return f"<{priority}>{_stamp(time_ns)} {tag}[{os.getpid()}]: ".encode() + line


def rfc3164(priority: int, time_ns: int, tag: str, line: bytes) -> bytes:
    """RFC 3164, section 4.1."""
    return f"<{priority}>{_stamp(time_ns)} {socket.gethostname()} {tag}[{os.getpid()}]: ".encode() + line


def rfc5424(priority: int, time_ns: int, tag: str, line: bytes) -> bytes:
    """RFC 5424, section 6, with whole seconds."""
    return _rfc5424(priority, _rfc3339(time_ns, ""), tag, line)


def rfc5424micro(priority: int, time_ns: int, tag: str, line: bytes) -> bytes:
    """The same with microseconds."""
    return _rfc5424(priority, _rfc3339(time_ns, f".{time_ns % 1_000_000_000 // 1000:06d}"), tag, line)


FORMS: Mapping[str, Form] = {"": local, "rfc3164": rfc3164, "rfc5424": rfc5424, "rfc5424micro": rfc5424micro}


def _rfc5424(priority: int, stamp: str, tag: str, line: bytes) -> bytes:
    head = f"<{priority}>1 {stamp} {socket.gethostname()} {tag[:48]} {os.getpid()} {tag[:32]} - "
    return head.encode() + line


def _stamp(time_ns: int) -> str:
    """RFC 3164's TIMESTAMP: local time, the day padded with a blank."""
    when = time.localtime(time_ns // 1_000_000_000)
    return f"{_MONTHS[when.tm_mon - 1]} {when.tm_mday:2d} {when.tm_hour:02d}:{when.tm_min:02d}:{when.tm_sec:02d}"


def _rfc3339(time_ns: int, fraction: str) -> str:
    when = time.localtime(time_ns // 1_000_000_000)
    sign, minutes = ("-" if when.tm_gmtoff < 0 else "+"), abs(when.tm_gmtoff) // 60
    zone = "Z" if not when.tm_gmtoff else f"{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", when) + fraction + zone
