"""The process that shims are forked from.

It is a bare interpreter that has imported all that a shim needs and nothing else, so that a fork is a shim within about a
millisecond, sharing nearly all of its memory. The daemon has threads and never forks itself. It ends when its socket does.

A job is one datagram, JSON with one descriptor (the daemon's connection to the shim):
    {"job": "serve", "folder": …, "modules": […]}     look after the container of that folder
    {"job": "clean", "folder": …, "modules": […]}     its shim was killed: remove what the engine may have left
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from wharfie.shim import maker, process
from wharfie.shim.folder import REQUEST
from wharfie.shim.protocol import error_to_message, send
from wharfie.shim.system import PR_SET_DUMPABLE, prctl, set_name
from wharfie.spi.errors import DriverError

_JOB_LIMIT = 64 * 1024


def main(channel_fd: int, modules: list[str]) -> None:
    """`channel_fd`: a SOCK_SEQPACKET socket. `modules`: what else to import before the first job."""
    set_name("wharfie-zygote")
    # Nothing of an engine's memory or descriptors is for a container's eyes, not even in the moment before execve.
    prctl(PR_SET_DUMPABLE, 0)
    os.chdir("/")
    os.umask(0o022)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the shims
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for module in modules:
        _load(module, ())
    _close_all_but(channel_fd)
    gc.collect()
    gc.freeze()
    channel = socket.socket(fileno=channel_fd)
    channel.set_inheritable(False)
    while True:
        data, fds, _, _ = socket.recv_fds(channel, _JOB_LIMIT, 1, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return
        with socket.socket(fileno=fds[0]) as connection:
            try:
                _accept(json.loads(data), channel, connection)
            except Exception as error:  # noqa: BLE001  # the answer to whoever wanted the shim; the next job is another's
                _refuse(connection, error)


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


def _accept(job: dict[str, Any], channel: socket.socket, connection: socket.socket) -> None:
    for module, folder in job["modules"]:
        _load(module, (folder,))
    if os.fork() == 0:
        _become_shim(job, channel, connection)


def _load(module: str, folders: tuple[str, ...]) -> None:
    """Import in the zygote, so that all shims share it and none imports after a container's files were touched."""
    if module in sys.modules:
        return
    sys.path += [folder for folder in folders if folder not in sys.path]
    try:
        importlib.import_module(module)
    except Exception as error:
        raise DriverError(
            f"{module}: cannot be imported by a shim's bare interpreter: {type(error).__name__}: {error}"
        ) from error
    gc.freeze()


def _become_shim(job: dict[str, Any], channel: socket.socket, connection: socket.socket) -> None:
    status = 1
    try:
        channel.close()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        folder = Path(job["folder"])
        if job["job"] == "clean":
            _clean(folder, connection)
        else:
            process.Shim(folder).run(connection)
        status = 0
    except Exception as error:  # noqa: BLE001  # nothing may return into the zygote's loop
        _refuse(connection, error)
    finally:
        os._exit(status)


def _clean(folder: Path, connection: socket.socket) -> None:
    request = json.loads((folder / REQUEST).read_bytes())
    maker.make_engine(request, maker.read_spec(request)).delete()
    send(connection, {"reply": 0, "result": None})


def _refuse(connection: socket.socket, error: Exception) -> None:
    details = {"traceback": "".join(traceback.format_exception(error))}
    message = error_to_message(error)
    message["details"] = {**message["details"], **details}
    try:
        send(connection, {"reply": 0, "error": message})
    except OSError:
        pass
