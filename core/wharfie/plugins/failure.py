"""Whatever foreign code raises, turned into one error of `wharfie.spi.errors` that says who failed, in what, and why.

An error that a driver raises on purpose for the caller (400, 401, 403, 404, 409, 501, OutOfSpace, DataLoss) keeps its
words: many of them are texts that Docker's clients know. A failure that names no such reason gets the driver's name and
distribution in front, and its traceback goes to the daemon's log under the call's id.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from wharfie.spi import errors
from wharfie.spi.errors import DriverError, Unavailable, Unsupported, WharfieError, from_os_error

_LOG = logging.getLogger(__name__)
_TAXONOMY = frozenset(
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, WharfieError)
)


def explain(error: BaseException, *, title: str, method: str, arguments: Sequence[Any], call: str) -> WharfieError:
    """The error for the caller. `title` names the driver, `call` is the id under which the log has the traceback."""
    if isinstance(error, WharfieError):
        return _named(error, title)
    if isinstance(error, NotImplementedError):
        return Unsupported(f"{title} does not offer {method}")
    _LOG.error("call %s: %s of %s failed", call, action(method, arguments), title, exc_info=error)
    prefix = f"{title}: {action(method, arguments)} failed"
    where = f"the daemon's log has the traceback under call {call}"
    if isinstance(error, OSError):
        mapped = from_os_error(error)
        return type(mapped)(f"{prefix}: {mapped.message} ({where})", details={**mapped.details, "call": call})
    return DriverError(f"{prefix}: {describe(error)} ({where})", details={"call": call})


def _named(error: WharfieError, title: str) -> WharfieError:
    """A driver's own error, as a class of the taxonomy: a subclass of the driver's own may be anything."""
    kind = next(parent for parent in type(error).__mro__ if parent in _TAXONOMY)
    message = getattr(error, "message", None)
    message = message if isinstance(message, str) else describe(error)
    details = getattr(error, "details", None)
    details = details if isinstance(details, dict) else {}
    if issubclass(kind, Unavailable):
        return kind(f"{title}: {message}", retry_after=getattr(error, "retry_after", None), details=details)
    if kind in (DriverError, WharfieError):
        return DriverError(f"{title}: {message}", details=details)
    return error if type(error) is kind and error.message is message else kind(message, details=details)


def describe(error: BaseException) -> str:
    """Class and text of an exception in one line, even of one whose `__str__` fails."""
    try:
        text = " ".join(str(error).split())
    except BaseException:  # noqa: BLE001  # foreign code again
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def action(method: str, arguments: Sequence[Any]) -> str:
    """The call in words: `mount of "data"`."""
    subject = subject_of(arguments)
    return f'{method} of "{subject}"' if subject else method


def subject_of(arguments: Sequence[Any]) -> str:
    """Name of the object that a call is about: its first argument, or that one's `name` or `id`."""
    if not arguments:
        return ""
    first = arguments[0]
    for value in (first, getattr(first, "name", None), getattr(first, "id", None)):
        if isinstance(value, str):
            return value
    return ""
