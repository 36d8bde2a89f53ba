"""The test module of `pytest --wharfie-driver KIND.NAME`: one class, made from the option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wharfie import kit
from wharfie.plugins.contract import CONTRACTS


def choose(driver: str, settings: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Make the class that pytest is going to find here. Raises ValueError: what was asked for cannot be."""
    kind, dot, name = driver.partition(".")
    if kind not in CONTRACTS or not dot or not name:
        raise ValueError(f"must be KIND.NAME; kinds are {', '.join(CONTRACTS)}")
    contract = getattr(kit, f"{kind.capitalize()}Contract")
    for parameter in parameters:
        if not hasattr(contract, parameter):
            raise ValueError(f"{contract.__name__} has no parameter {parameter!r}")
    title = "Test" + "".join(part.capitalize() for part in f"{kind}.{name}".replace("-", ".").split("."))
    own = {**parameters, "driver": driver, "settings": settings, "__module__": __name__, "__doc__": contract.__doc__}
    globals()[title] = type(title, (contract,), own)
