"""The conformance kit: puts a driver through its whole contract, without a daemon.

    from wharfie.kit import VolumeContract

    class TestAcme(VolumeContract):
        driver = "volume.acme"          # or a function: Context → Driver

or, for a driver that is installed, `pytest --wharfie-driver volume.acme`.

Each kind has a module with its rules, data with stable ids; `contract` has those of all kinds. Every rule runs in a process
of its own (`room`), with root in namespaces of its own. Nothing is imported before it is asked for: pytest loads
this package in every environment that has the core.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wharfie.kit.authz import AuthzContract
    from wharfie.kit.ipam import IpamContract
    from wharfie.kit.log import LogContract
    from wharfie.kit.network import NetworkContract
    from wharfie.kit.registry import RegistryContract
    from wharfie.kit.runtime import RuntimeContract
    from wharfie.kit.storage import StorageContract
    from wharfie.kit.volume import VolumeContract

__all__ = [
    "AuthzContract",
    "IpamContract",
    "LogContract",
    "NetworkContract",
    "RegistryContract",
    "RuntimeContract",
    "StorageContract",
    "VolumeContract",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{name.removesuffix('Contract').lower()}"), name)
