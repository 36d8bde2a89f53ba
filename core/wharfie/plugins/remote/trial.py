"""Try a driver without using it: import, settings, construction and `check`, in a process that ends afterwards.

So `doctor` and `inspect` may look at any driver that is installed, also at one that ends or hangs its interpreter, and the
daemon imports nothing that it does not use.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wharfie.plugins.failure import describe
from wharfie.plugins.inventory import Entry
from wharfie.plugins.remote.process import DriverProcess
from wharfie.plugins.states import Refusal, State
from wharfie.spi.driver import Context, Driver, Problem
from wharfie.spi.errors import WharfieError

PATIENCE = 20.0
"""Seconds for all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What was seen. `refusal`: why it cannot even be made."""

    refusal: Refusal | None = None
    problems: Sequence[Problem] = ()
    spi: str = ""
    schema: Mapping[str, Any] | None = None


def try_out(entry: Entry, contract: type[Driver[Any]], context: Context, settings: Mapping[str, Any]) -> Trial:
    """Try one driver. Waits, at most `PATIENCE`; raises nothing of the driver's."""
    process = DriverProcess(entry, contract, context, settings, 1, lambda _: None)
    late = threading.Timer(PATIENCE, process.kill, (f"it took longer than {PATIENCE:g} s",))
    late.daemon = True
    late.start()
    try:
        ready = process.start()
        schema = process.schema()
        problems = process.call("check", (), {})
        return Trial(problems=problems, spi=ready.spi, schema=schema)
    except Refusal as refusal:
        return Trial(refusal=refusal)
    except Exception as error:  # noqa: BLE001  # what the driver's own code raised
        text = error.message if isinstance(error, WharfieError) else describe(error)
        return Trial(
            refusal=Refusal(
                State.FAILED, f"{entry.title}: check failed: {text}", f"Ask the authors of {entry.distribution}"
            )
        )
    finally:
        late.cancel()
        process.end()
