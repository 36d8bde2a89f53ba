"""The init of `docker run --init`: reaps, passes signals on, and ends as its child does.

It is the forked interpreter itself, so nothing has to be brought into the container: not dumpable, with the
container's own user, capabilities and filter, executing nothing. What it does is what tini does.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import Final, NoReturn

from wharfie.shim.children import collect
from wharfie_runtime_native import channel, process
from wharfie_runtime_native.constants import PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_PDEATHSIG
from wharfie_runtime_native.manner import Manner
from wharfie_runtime_native.process import ProcessSpec
from wharfie_runtime_native.syscalls import close_range, prctl, prctl_name

_NAME: Final = "docker-init"
# Signals that mean this process itself, and cannot be somebody's message to the container.
_OWN: Final = frozenset(
    (signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS)
)
_TERMINAL: Final = frozenset((signal.SIGTTIN, signal.SIGTTOU))


def run(end: socket.socket, spec: ProcessSpec, program: str, manner: Manner) -> NoReturn:
    """Fork the program and stay until it ends."""
    prctl_name(PR_SET_NAME, _NAME)
    wanted = signal.valid_signals() - _OWN - _TERMINAL - {signal.SIGKILL, signal.SIGSTOP}
    for number in _TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    child = os.fork()
    if child == 0:
        try:
            _become_leader()
            process.close_others(manner.preserve)
            process.seal(spec, end)
            process.execute(spec, program)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the shim has to hear of it
            channel.fail(end, error)
        finally:
            os._exit(1)
    close_range(3, 0xFFFFFFFF, 0)
    process.seal(spec, end)
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_PDEATHSIG, 0 if manner.outlive else signal.SIGKILL)
    os._exit(_serve(child, wanted))


def _become_leader() -> None:
    """A process group of the program's own, in the terminal's foreground where there is one."""
    os.setpgid(0, 0)
    if os.isatty(0):
        os.tcsetpgrp(0, os.getpid())  # from the background, which would stop it with SIGTTOU were that not ignored
    for number in _TERMINAL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _serve(child: int, wanted: set[signal.Signals]) -> int:
    """Wait for signals; the exit status of the program in a shell's terms."""
    while True:
        received = signal.sigwaitinfo(wanted)
        if received.si_signo != signal.SIGCHLD:
            try:
                os.kill(child, received.si_signo)
            except ProcessLookupError:
                pass
            continue
        if child in (ended := dict(collect())):
            return ended[child]
