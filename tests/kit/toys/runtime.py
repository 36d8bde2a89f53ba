"""A runtime driver that keeps every rule: our native one under another name. Wrong ones override a method of it."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

from wharfie_runtime_native.driver import NativeDriver

from wharfie.shim.system import mount
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, Unsupported, WharfieError
from wharfie.spi.runtime import AttachRequest, ExecExited, Exited, Io, Preparation, Process


class Toy(NativeDriver):
    name = "toy"

    # here
