"""`wharfie-runtime`: the native runtime as an OCI runtime of its own, with runc's command line.

The same modules make the same containers as under the daemon; what differs is that nobody stays. `create` ends with the
container's first process waiting at a socket in its state folder (`wharfie_runtime_native.gate`), whose parent then is
whoever called: conmon, containerd's shim. `app` is the command line, `store` the state folders, `engine` the driver's
engine as it is used here; the commands are in the other modules, each loaded when it is asked for, because every container
costs the start of an interpreter or two.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Final, NoReturn

from wharfie.shim.sealed import run_sealed

_MAKERS: Final = frozenset(("create", "exec", "run"))
"""Commands whose process becomes one in a container, where what it runs from can be got hold of."""


def main() -> NoReturn:
    """The console script. Collecting garbage and taking the interpreter apart would be a tenth of its time, for nothing:
    the process ends, and its memory with it."""
    run_sealed(_MAKERS)
    gc.disable()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by the caller, hooks and containers would leave no exit status

    from wharfie_runtime_native.command.app import run

    code = run()
    sys.stdout.flush()
    os._exit(code)
