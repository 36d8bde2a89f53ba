"""`wharfie-runtime`: the native runtime as an OCI runtime of its own, with runc's command line.

The same modules make the same containers as under the daemon; what differs is that nobody stays. `create` ends with the
container's first process waiting at a socket in its state folder (`wharfie_runtime_native.gate`), whose parent then is
whoever called: conmon, containerd's shim. `app` is the command line with `words`, `store` the state folders, `engine` the
driver's container as it is used here; the commands are in the other modules.

Every container costs the start of an interpreter or six, so all of this is made to load little: each command's module when
it is asked for, and of the standard library only what is cheap (no dataclasses, no pathlib; `docs/runtime.md` has figures).
This file comes first, before a maker is begun anew from a sealed copy, and therefore imports next to nothing.
"""

from __future__ import annotations

import gc
import os
import sys

from wharfie.shim.sealed import run_sealed

_MAKERS = frozenset(("create", "exec", "run"))
"""Commands whose process becomes one in a container, where what it runs from can be got hold of."""


def main() -> None:
    """The script; does not return. Collecting garbage and taking the interpreter apart would be a tenth of its time, for
    nothing: the process ends, and its memory with it."""
    if not _MAKERS.isdisjoint(sys.argv[1:]):
        run_sealed(__name__, ("wharfie", "wharfie_runtime_native"))
    gc.disable()

    import signal

    from wharfie_runtime_native.command.app import run

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by the caller, hooks and containers would leave no exit status
    code = run()
    sys.stdout.flush()
    os._exit(code)
