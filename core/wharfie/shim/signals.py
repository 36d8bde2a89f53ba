"""Signals as a program expects them when it starts: none ignored, none blocked."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_NR_RT_SIGACTION: Final = {"x86_64": 13, "aarch64": 134}[os.uname().machine]
_SIGSET_BYTES: Final = 8


class SigAction(ctypes.Structure):
    # The kernel's own form (asm/signal.h), not libc's; all zero is the default action.
    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("restorer", ctypes.c_void_p),
        ("mask", ctypes.c_uint64),
    )


def set_action(number: int, action: SigAction) -> None:
    """rt_sigaction(2) itself, also for 32 and 33, which glibc keeps to itself and its own sigaction refuses."""
    size = ctypes.c_size_t(_SIGSET_BYTES)
    if _libc.syscall(ctypes.c_long(_NR_RT_SIGACTION), number, ctypes.byref(action), None, size) < 0:
        raise OSError(ctypes.get_errno(), f"rt_sigaction: {os.strerror(ctypes.get_errno())}", str(number))


def status_mask(name: str) -> int:
    """A mask of bits of this process: "SigIgn", "CapPrm" … of /proc/self/status (proc(5)). On the host's side only."""
    fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(fd, 8192)
    finally:
        os.close(fd)
    _, found, rest = text.partition(f"\n{name}:".encode())
    return int(rest.split(None, 1)[0], 16) if found else 0


def default_signals() -> None:
    """Before execve: what this process ignores or blocks (Python ignores SIGPIPE) would be inherited over it; handlers are
    not. A daemon that make started has even signals 32 and 33 ignored."""
    signal.set_wakeup_fd(-1)
    ignored = status_mask("SigIgn")
    for number in range(1, signal.NSIG):
        if ignored >> (number - 1) & 1:
            set_action(number, SigAction())
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
