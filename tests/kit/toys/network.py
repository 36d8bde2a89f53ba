"""A network driver that keeps every rule: our bridge under another name. Wrong ones override a method of it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import replace
from ipaddress import ip_address

from wharfie_net_bridge.driver import BridgeDriver
from wharfie_net_bridge.settings import BridgeSettings

from wharfie.shim.netns import within
from wharfie.spi.driver import Fault
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, WharfieError

PARAMETERS = {"bad_option": {"com.docker.network.driver.mtu": "wide"}}


def ip(*words, path=None):
    """The command `ip`, in the network namespace `path`."""
    run = lambda: subprocess.run(["ip", *words], check=False, capture_output=True)  # noqa: E731
    return within(path, run) if path else run()


class Toy(BridgeDriver):
    name = "toy"

    def __init__(self, context, settings):
        super().__init__(context, BridgeSettings())

    # here
