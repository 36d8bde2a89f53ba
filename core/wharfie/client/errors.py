"""What can go wrong between a client and its daemon.

ClientError
├─ ApiError       the daemon answered with an error
└─ Unreachable    there is no daemon, or it went away in the middle of an answer
"""

from __future__ import annotations


class ClientError(Exception):
    """Base of all errors of this package."""


class ApiError(ClientError):
    """An answer with a status of 400 or more. `message` is the daemon's own; `status` is 0 for an error that came inside
    of a stream whose status had been sent already."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Unreachable(ClientError):
    """Nobody answers at the address, or not in HTTP."""
