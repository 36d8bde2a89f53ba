"""The one table that turns an error into an answer: a status and `{"message": …}`."""

from __future__ import annotations

from wharfie.spi.errors import (
    Cancelled,
    Conflict,
    DataLoss,
    DriverError,
    Forbidden,
    InvalidArgument,
    NotFound,
    OutOfSpace,
    Unauthorized,
    Unavailable,
    Unsupported,
    WharfieError,
    from_os_error,
)

STATUS: dict[type[WharfieError], int] = {
    InvalidArgument: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Cancelled: 499,  # nobody is there to read it
    DataLoss: 500,
    DriverError: 500,
    OutOfSpace: 500,
    WharfieError: 500,
    Unsupported: 501,
    Unavailable: 503,
}


class PageNotFound(NotFound):
    """No such path, or not with this method: Docker answers 404 to both, without the API's headers."""

    def __init__(self) -> None:
        super().__init__("page not found")


def status_of(error: WharfieError) -> int:
    """The HTTP status of an error: that of its nearest class in the table."""
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    return 500


def as_answer(error: BaseException) -> tuple[int, str]:
    """Status and message for anything that a handler raised. What is not of the house is a 500 that says its kind."""
    if isinstance(error, OSError):
        error = from_os_error(error)
    if isinstance(error, WharfieError):
        return status_of(error), error.message
    return 500, f"internal error: {type(error).__name__}: {error}"
