"""Errors that cross from a container's process back to the shim, and how the kernel's words become ours."""

from __future__ import annotations

import json
import os
from typing import Final

from wharfie.spi.errors import (
    Conflict,
    DriverError,
    Forbidden,
    InvalidArgument,
    NotFound,
    OutOfSpace,
    Unsupported,
    WharfieError,
)

_KINDS: Final[dict[str, type[WharfieError]]] = {
    kind.__name__: kind for kind in (Conflict, DriverError, Forbidden, InvalidArgument, NotFound, OutOfSpace, Unsupported)
}


def reason(error: OSError) -> str:
    """The kernel's word for an error, as Go programs and therefore Docker's users know it: "permission denied"."""
    return os.strerror(error.errno or 0).lower()


def described(error: OSError) -> str:
    """What failed and why, without Python's "[Errno n]". Where a call has no name of a file, the function that made it is
    told: "invalid argument" alone helps nobody."""
    if error.filename is not None:
        return f"{error.filename}: {reason(error)}"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{error.strerror}" if trace is None else f"{trace.tb_frame.f_code.co_name}: {error.strerror}"


def encode(error: BaseException) -> bytes:
    """An error as a message from a child process."""
    if isinstance(error, WharfieError):
        kind, message = type(error).__name__, error.message
    elif isinstance(error, OSError):
        kind, message = "DriverError", described(error)
    else:
        kind, message = "DriverError", f"{type(error).__name__}: {error}"
    return json.dumps({"error": kind, "message": message}).encode()


def decode(kind: str, message: str) -> WharfieError:
    """The error that a child process sent."""
    return _KINDS.get(kind, DriverError)(message)
