"""What `plugin ls` says about a driver, and why."""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass

from wharfie.spi.errors import Forbidden, NotFound, Unavailable, WharfieError


class State(enum.StrEnum):
    """Where a driver is on its way, or what stopped it."""

    INSTALLED = "installed"  # seen in the metadata, not needed yet
    LOADED = "loaded"  # imported and being opened
    OPEN = "open"
    ABSENT = "absent"
    DUPLICATE = "duplicate"
    INCOMPATIBLE = "incompatible"
    BROKEN = "broken"  # cannot be imported or constructed, or is not what its entry point says
    MISCONFIGURED = "misconfigured"
    UNFIT = "unfit"  # its own check says that it cannot serve on this host
    FAILED = "failed"  # `open` failed
    FAILING = "failing"  # its circuit is open
    DISABLED = "disabled"


_ERRORS: dict[State, type[WharfieError]] = {State.ABSENT: NotFound, State.DISABLED: Forbidden}


class Refusal(Exception):
    """A driver cannot be used. `cause` names what was found, `remedy` the next step; both are shown by `plugin ls`."""

    def __init__(self, state: State, cause: str, remedy: str) -> None:
        super().__init__(cause)
        self.state = state
        self.cause = cause
        self.remedy = remedy

    def log(self, logger: logging.Logger) -> None:
        """Write it to the daemon's log, with the traceback of what foreign code raised during its import."""
        # The traceback of an error of the house is in the log already, under its call's id.
        origin = None if isinstance(self.__cause__, WharfieError) else self.__cause__
        level = logging.INFO if self.state is State.DISABLED else logging.ERROR
        logger.log(level, "%s. %s", self.cause, self.remedy, exc_info=origin)

    def error(self) -> WharfieError:
        """The one error that the caller gets. 404 for a name that nobody offers, 403 when disabled, otherwise 503."""
        return _ERRORS.get(self.state, Unavailable)(f"{self.cause}. {self.remedy}", details={"state": self.state.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverState:
    """A row of `plugin ls`. `kind` is "hook" for a plugin of the group `wharfie.plugins`."""

    kind: str
    name: str
    distribution: str
    version: str
    state: State
    cause: str = ""
    remedy: str = ""
