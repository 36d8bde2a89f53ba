"""Every error of the house, and what it means to the caller.

    WharfieError                  500  the root; catch it to catch all that follows
    ├─ DriverError                500  a driver failed in a way it did not name
    ├─ InvalidArgument            400  the message names the option or field
    ├─ Unauthorized               401  a registry refused the credentials
    ├─ Forbidden                  403  policy, permission, a predefined object
    ├─ NotFound                   404
    ├─ Conflict                   409  exists already, in use, overlaps, wrong state
    ├─ Unsupported                501  an optional ability that this driver lacks
    ├─ Unavailable                503  not now: a peer is down, the circuit is open, all workers are lost
    │  └─ DeadlineExceeded        503  the outcome is unknown: reconcile before trying again
    ├─ OutOfSpace                 500  ENOSPC, EDQUOT, a pool without a free address
    ├─ DataLoss                   500  what is stored is not what was written
    └─ Cancelled                  —    the client went away

The numbers are Docker's HTTP statuses; the one table that turns an error into an answer is `wharfie.api.errors`.
A message says what failed, on what, why, and what to do about it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping


class WharfieError(Exception):
    """Base of all errors that the engine and its drivers raise on purpose.

    `details` are plain strings; they cross the process border of an isolated driver with the message.
    """

    def __init__(self, message: str, *, details: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, str] = dict(details or {})


class DriverError(WharfieError):
    """A driver failed without naming the reason: anything it raises that is not in this module."""


class InvalidArgument(WharfieError):
    """The request cannot be right, whatever the state of the engine."""


class Unauthorized(WharfieError):
    """Credentials are missing or were refused."""


class Forbidden(WharfieError):
    """The request is understood and not allowed."""


class NotFound(WharfieError):
    """The named object does not exist."""


class Conflict(WharfieError):
    """The request does not fit the present state: the name is taken, the object is in use or in another state."""


class Unsupported(WharfieError):
    """An optional ability that this driver or this host lacks."""


class Unavailable(WharfieError):
    """Not now; the same request may succeed later. `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float | None = None, details: Mapping[str, str] | None = None) -> None:
        super().__init__(message, details=details)
        self.retry_after = retry_after


class DeadlineExceeded(Unavailable):
    """A call took longer than its deadline. Whether it will still take effect is unknown."""


class OutOfSpace(WharfieError):
    """A file system, quota or pool is full."""


class DataLoss(WharfieError):
    """Stored data is damaged; the object is unusable until it is fetched or made again."""


class Cancelled(WharfieError):
    """The caller is gone; nobody waits for the result."""


_BY_ERRNO: Mapping[int, type[WharfieError]] = {
    errno.ENOSPC: OutOfSpace,
    errno.EDQUOT: OutOfSpace,
    errno.EACCES: Forbidden,
    errno.EPERM: Forbidden,
}


def from_os_error(error: OSError) -> WharfieError:
    """The house's error for a failed system call: full disks and missing permissions have a name, the rest is 500."""
    kind = _BY_ERRNO.get(error.errno or 0, DriverError)
    return kind(_told(error), details={"errno": errno.errorcode.get(error.errno or 0, str(error.errno))})


def _told(error: OSError) -> str:
    """As Go programs and therefore Docker's users know it: the file, and the kernel's word in small letters."""
    reason = error.strerror or str(error)
    if reason == os.strerror(error.errno or 0):
        reason = reason.lower()
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)]
    return ": ".join([*([" ".join(names)] if names else []), reason])
