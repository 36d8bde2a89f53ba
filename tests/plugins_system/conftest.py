"""A `Drivers` over hostile distributions, in a folder of its own, forgotten after each test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.strangers.hostile import STRANGERS, Stranger, install
from wharfie.engine.host import host_facts
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.settings import DriverSettings

FAST = {"deadlines": {"get": 0.2, "remove": 0.2, "open": 0.2, "mount": 5}, "workers": 2}


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """All hostile drivers are installed; the folder is on sys.path."""
    target = tmp_path / "site"
    install(target)
    monkeypatch.syspath_prepend(str(target))
    yield target
    gate = sys.modules.get("hostile_drivers.gate")
    if gate is not None:
        gate.GATE.set()
    for name in [name for name in sys.modules if name.startswith("hostile_drivers")]:
        del sys.modules[name]
    os.environ.pop("HOSTILE_MUST_NOT_LOAD", None)


@pytest.fixture
def drivers(hostile: Path, tmp_path: Path) -> Callable[..., Drivers]:
    """A maker of `Drivers`: `drivers({"volume.good": {...}}, disabled=[...], required=[...])`."""

    def make(settings: Mapping[str, Mapping[str, Any]] | None = None, disabled: Any = (), required: Any = ()) -> Drivers:
        return Drivers(
            DriverSettings(drivers=settings or {}, disabled=frozenset(disabled), required=frozenset(required)),
            state=tmp_path / "state",
            run=tmp_path / "run",
            instance="00000a5e",
            host=host_facts(),
        )

    return make


@pytest.fixture
def stranger() -> Callable[[str], Stranger]:
    """The row of the hostile set with this name."""
    return lambda name: next(one for one in STRANGERS if one.name == name)
