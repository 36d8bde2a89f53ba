"""A driver class whose methods are calls into another process. To the supervisor it is a driver like any other."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from wharfie.plugins.contract import methods
from wharfie.plugins.remote.border import Ready
from wharfie.spi.driver import Driver

D = TypeVar("D", bound=Driver[Any])

Ask = Callable[[str, Sequence[Any], Mapping[str, Any]], Any]
"""Method name, positional and named arguments → result."""


def proxy(contract: type[D], name: str, ready: Ready, ask: Ask) -> D:
    """An instance of `contract` that asks `ask` for everything. Its class has what the driver's class declares."""
    declared: dict[str, Any] = {"name": name, "spi": ready.spi, "__init__": lambda self: None}
    if ready.sink:
        declared["sink"] = ready.sink
    declared.update(_forwards(contract, ask))
    made: Callable[[], D] = types.new_class(
        f"Remote{contract.__name__}", (contract,), exec_body=lambda body: body.update(declared)
    )
    return made()


def _forwards(contract: type[Driver[Any]], ask: Ask) -> Mapping[str, Any]:
    def forward(method: str) -> Callable[..., Any]:
        return lambda _, *args, **kwargs: ask(method, args, kwargs)

    return {name: forward(name) for name in methods(contract)}
