"""The remote twin: a driver in a process of its own, as with `"isolate": true`, behind the same contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wharfie.kit.drivers import Candidate
from wharfie.kit.rules import NotTried
from wharfie.plugins.contract import CONTRACTS
from wharfie.plugins.remote.border import Ready
from wharfie.plugins.remote.process import DriverProcess
from wharfie.plugins.remote.proxy import proxy
from wharfie.plugins.settings import WORKERS
from wharfie.spi.driver import Context, Driver


def isolated_driver(candidate: Candidate, context: Context) -> Driver[Any]:
    """The candidate in a process that ends with its close, and begins again with a call after that."""
    if candidate.entry is None:
        raise NotTried("only an installed driver, named KIND.NAME, can run in a process of its own")
    entry, settings = candidate.entry, candidate.settings
    contract = CONTRACTS[entry.kind]
    running: list[DriverProcess] = []

    def started() -> Ready:
        running.append(DriverProcess(entry, contract, context, settings, WORKERS, lambda _: None))
        return running[0].start()

    def ask(method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if not running:
            started()
        try:
            return running[0].call(method, args, kwargs)
        finally:
            if method == "close":
                running.pop().end()

    return proxy(contract, entry.name, started(), ask)
