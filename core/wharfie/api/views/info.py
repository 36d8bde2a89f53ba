"""The engine about itself: `GET /info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wharfie.api import versions
from wharfie.api.versions import Version

_GONE = {"BridgeNfIptables": False, "BridgeNfIp6tables": False, "KernelMemoryTCP": False}
"""This engine uses none of these."""


def info_view(info: Mapping[str, Any], version: Version) -> dict[str, Any]:
    """Definition SystemInfo, with the fields that older versions had."""
    return dict(info) if version >= versions.NO_BRIDGE_NETFILTER else {**_GONE, **info}
