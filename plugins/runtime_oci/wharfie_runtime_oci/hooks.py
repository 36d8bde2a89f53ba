"""Drivers for the names in daemon.json's `runtimes`: they exist because a program is named there, not by entry points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wharfie.spi.driver import Driver
from wharfie.spi.hooks import hookimpl
from wharfie.spi.runtime import RuntimeDriver
from wharfie_runtime_oci.driver import OciRuntime


@hookimpl
def find_driver(kind: str, name: str, settings: Mapping[str, Any]) -> type[Driver[Any]] | None:
    """A driver of this name, when its settings name a program."""
    if kind != RuntimeDriver.kind or "path" not in settings:
        return None
    found: type[Driver[Any]] = type("NamedDriver", (OciRuntime,), {"name": name, "__module__": __name__})
    return found


@hookimpl
def known_drivers(kind: str, configured: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    """The names whose settings name a program."""
    return [name for name, settings in configured.items() if kind == RuntimeDriver.kind and "path" in settings]
