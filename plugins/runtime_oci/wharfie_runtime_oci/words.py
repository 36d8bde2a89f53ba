"""A binary's error texts, brought to the form that `wharfie.spi.runtime` asks for.

Docker's clients and its exit codes 126 and 127 know runc's texts for a program that cannot be executed; other binaries say
the same in words of their own. All else is passed on as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wharfie.spi.errors import Conflict, InvalidArgument, WharfieError

_NOT_FOUND: Final = "no such file or directory"
# What a text contains, in small letters → the reason in runc's words. The first that fits counts.
_REASONS: Final[Sequence[tuple[tuple[str, ...], str]]] = (
    (("executable file", "not found"), _NOT_FOUND),  # crun
    (("error finding executable", _NOT_FOUND), _NOT_FOUND),  # runsc
    (("open executable", "permission denied"), "permission denied"),  # crun
    (("open executable", "operation not permitted"), "permission denied"),  # crun, of a folder
    (("creating process: failed to load", _NOT_FOUND), _NOT_FOUND),  # runsc
    (("in sandbox: failed to load", _NOT_FOUND), _NOT_FOUND),  # runsc, of an exec
    (("failed to load", "permission denied"), "permission denied"),  # runsc
    (("is not a regular file",), "is a directory"),  # crun
    (("exec format error",), "exec format error"),
)
_RUNC: Final = 'exec: "'
# The container is not, or no longer, in the state that the command needs.
_CONFLICTS: Final = (
    "already exists",
    "not running",
    "has stopped",
    "stopped container",
    "stopped state",
    "is not in created state",
    "not in `created` state",
    "cannot exec",
)


def explain(text: str, program: str) -> WharfieError:
    """The error for the caller of `create`, `start` and `exec`. `program`: the first word of the command."""
    if _RUNC in text:
        return InvalidArgument(text[text.index(_RUNC) :])
    small = text.lower()
    for parts, reason in _REASONS:
        if all(part in small for part in parts):
            if reason == _NOT_FOUND and "/" not in program:
                reason = "executable file not found in $PATH"
            return InvalidArgument(f'exec: "{program}": {reason}')
    if any(part in small for part in _CONFLICTS):
        return Conflict(text)
    return InvalidArgument(text)
