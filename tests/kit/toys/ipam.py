"""An IPAM driver that keeps every rule: our default one under another name. Wrong ones override a method of it."""

from __future__ import annotations

import threading
from dataclasses import replace
from ipaddress import ip_interface

from wharfie_ipam_default.driver import PoolsDriver
from wharfie_ipam_default.settings import IpamSettings

from wharfie.spi.driver import Fault
from wharfie.spi.errors import Conflict, DriverError, Forbidden, InvalidArgument, NotFound, OutOfSpace
from wharfie.spi.ipam import AddressLease


class Toy(PoolsDriver):
    name = "toy"

    def __init__(self, context, settings):
        super().__init__(context, IpamSettings())

    # here
