"""mount(2) and its end, and nothing else: a part of the driver, and a program of its own for what may hang.

As a program it reads one request (JSON: what `call` or `detach` takes) from its input; its exit status is the kernel's
error number. So it needs nothing but the interpreter, and passwords stand on no command line.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_MNT_DETACH = 0x2  # include/linux/fs.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def call(device: str, target: str, type: str, flags: int, data: str) -> int:
    """mount(2); 0 or the error's number."""
    result = _libc.mount(os.fsencode(device), os.fsencode(target), type.encode(), flags, os.fsencode(data))
    return ctypes.get_errno() if result else 0


def detach(target: str) -> int:
    """umount2(2), also of what is in use; 0 or the error's number. The kernel may wait for the server before it returns."""
    result = _libc.umount2(os.fsencode(target), _MNT_DETACH)
    return ctypes.get_errno() if result else 0


def main() -> int:
    request = json.load(sys.stdin)
    if "type" not in request:
        return detach(**request)
    # A mount that comes after its driver's end would be nobody's.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != request.pop("parent"):
        return 1
    return call(**request)


if __name__ == "__main__":
    sys.exit(main())
