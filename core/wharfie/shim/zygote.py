"""The process that shims are forked from.

It is a bare interpreter that has imported all that a shim needs and nothing else, so that a fork is a shim within about a
millisecond, sharing nearly all of its memory. The daemon has threads and never forks itself. It ends when its socket does.

When it is ready it says so by one byte. A message to it is one datagram with one descriptor, the daemon's connection to
the shim:
    b"S" and a folder                      fork a shim for the container of that folder
    b"C" and a folder                      its shim was killed: remove what the engine may have left
    b"L" and JSON [[module, folder], …]    import these, found in those folders, for all shims to come
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from wharfie.shim import maker, pages, process
from wharfie.shim.folder import REQUEST, read
from wharfie.shim.protocol import failure_to_message, send
from wharfie.shim.rehearsal import ROUNDS, rehearse
from wharfie.shim.system import PR_SET_DUMPABLE, prctl, set_handler, set_name
from wharfie.spi.errors import DriverError

_READY = b"R"
_JOB_LIMIT = 64 * 1024
_ONE_FD = socket.CMSG_SPACE(4)
_SERVE, _LOAD = b"SL"
_DEFAULT = int(signal.SIG_DFL)


def main(channel_fd: int, run: str, modules: list[str]) -> None:
    """`channel_fd`: a SOCK_SEQPACKET socket. `run`: the folder of the containers' folders. `modules`: what else to import
    before the first job."""
    # Nothing of an engine's memory or descriptors is for a container's eyes, not even in the moment before execve.
    prctl(PR_SET_DUMPABLE, 0)
    os.chdir("/")
    os.umask(0o022)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the shims
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for module in modules:
        _load(module, ())
    with contextlib.suppress(Exception):  # no space, or whatever: shims that were not rehearsed are only larger
        rehearse(run)
    set_name("wharfie-zygote")
    gc.collect()  # what still holds a descriptor must not close somebody else's later
    _close_all_but(channel_fd)
    settled = False
    channel = socket.socket(fileno=channel_fd)
    channel.set_inheritable(False)
    channel.send(_READY)
    while True:
        # A page that is written to here is copied, and the copy that the last shim has becomes its own memory: this loop
        # touches as little as it can, and what a job says is read by the child.
        data, ancillary, _, _ = channel.recvmsg(_JOB_LIMIT, _ONE_FD, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return
        fd = int.from_bytes(ancillary[0][2][:4], sys.byteorder)
        if data[0] == _LOAD:
            _load_all(data, fd)
            settled = False
        else:
            if not settled:
                pages.settle()
                settled = True
            try:
                pid = os.fork()
            except OSError as error:
                _refuse(fd, error)
            else:
                if pid == 0:
                    channel.close()
                    _become_shim(data, fd)
        os.close(fd)


def _close_all_but(wanted: int) -> None:
    """Close the sealed interpreter's descriptor, and the daemon's streams: a shim outlives the daemon's terminal."""
    for fd in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if fd > 2 and fd != wanted:
            try:
                os.close(fd)
            except OSError:  # the listing's own, closed by now
                pass
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def _load_all(data: bytes, fd: int) -> None:
    try:
        for module, folder in json.loads(data[1:]):
            _load(module, (folder,))
    except Exception as error:  # noqa: BLE001  # the answer to whoever wanted the module; the next job is another's
        _refuse(fd, error)
    else:
        _answer(fd, {"reply": 0, "result": None})


def _load(module: str, folders: tuple[str, ...]) -> None:
    """Import in the zygote, so that all shims share it and none imports after a container's files were touched."""
    if module in sys.modules:
        return
    sys.path += [folder for folder in folders if folder not in sys.path]
    try:
        loaded = importlib.import_module(module)
        if hasattr(loaded, "rehearse"):
            for _ in range(ROUNDS):
                loaded.rehearse()
    except Exception as error:
        raise DriverError(
            f"{module}: cannot be imported by a shim's bare interpreter: {type(error).__name__}: {error}"
        ) from error


def _become_shim(data: bytes, fd: int) -> None:
    status = 1
    try:
        os.setsid()
        set_handler(signal.SIGCHLD, _DEFAULT)
        folder = data[1:].decode("utf-8", "surrogateescape")
        if data[0] == _SERVE:
            process.serve(folder, fd)
        else:
            _clean(folder)
            _answer(fd, {"reply": 0, "result": None})
        status = 0
    except Exception as error:  # noqa: BLE001  # nothing may return into the zygote's loop
        _refuse(fd, error)
    finally:
        os._exit(status)


def _clean(folder: str) -> None:
    request = read(f"{folder}/{REQUEST}")
    maker.make_engine(request, maker.read_spec(request)).delete()


def _refuse(fd: int, error: Exception) -> None:
    _answer(fd, {"reply": 0, "error": failure_to_message(error)})


def _answer(fd: int, message: dict[str, Any]) -> None:
    with socket.socket(fileno=os.dup(fd)) as connection:
        try:
            send(connection, message)
        except OSError:  # the daemon is gone, or the shim was
            pass
