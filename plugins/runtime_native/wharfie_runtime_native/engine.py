"""The `native` engine: the parent's side, in the shim (contract: `wharfie.shim.engine`)."""

from __future__ import annotations

import socket

from wharfie.shim.cgroups import warm
from wharfie.shim.engine import Engine
from wharfie_runtime_native import cgroups, channel
from wharfie_runtime_native.checkpointing import Checkpointing
from wharfie_runtime_native.container import CACHE_OPTION
from wharfie_runtime_native.creation import Creation
from wharfie_runtime_native.execution import Execution

__all__ = ["CACHE_OPTION", "NativeEngine"]


class NativeEngine(Creation, Execution, Checkpointing, Engine):
    """One container by system calls."""


def rehearse() -> None:
    """Start a container that is none (see `wharfie.shim.rehearsal`)."""
    ours, theirs = channel.pair()
    engine = NativeEngine("", "", {}, {})
    engine.adopt(0, (ours.detach(),))
    theirs.shutdown(socket.SHUT_WR)
    engine.start()
    theirs.close()


# Found out here, where the zygote imports this, so that no shim spends time or memory on it.
warm()
cgroups.warm()
