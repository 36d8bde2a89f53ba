"""File systems of other hosts, NFS and SMB: their servers' names, and servers that do not answer.

The kernel takes addresses, not names, and waits minutes for a server, or for ever, in a call that no thread can be got out
of. So names are looked up here, as Docker does, and mounts are made and undone by processes, which can be killed or left.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from wharfie.spi.call import current_call
from wharfie.spi.errors import Unavailable
from wharfie.spi.mount_points import is_mounted
from wharfie_volume_local import mount_call

TYPES: Final = ("nfs", "nfs4", "cifs", "smb3")
_SMB: Final = ("cifs", "smb3")
_PATIENCE: Final = 45.0
"""Seconds; less than the deadline of the contract, so that a server that is down has a clear error."""
_GRACE: Final = 10.0
"""Seconds for a server to take what has not been written when a mount goes."""
_STEP: Final = 0.05


def resolve(type: str, device: str, data: str) -> tuple[str, str]:
    """Device and options with an address for a name: the name in `addr=`, for SMB without one that in `//server/share`.

    Errors: Unavailable, in Docker's words.
    """
    options = data.split(",")
    for number, option in enumerate(options):
        name, _, host = option.partition("=")
        if name == "addr" and host:
            options[number] = f"addr={_address(host)}"
            return device, ",".join(options)
    if type in _SMB and device.startswith("//") and not any(option.startswith("ip=") for option in options):
        host, slash, share = device.removeprefix("//").partition("/")
        return f"//{_address(host)}{slash}{share}" if host else device, data
    return device, data


def mount(device: str, target: Path, type: str, flags: int, data: str) -> int:
    """mount(2) by a process of its own; 0 or the error's number, ETIMEDOUT for a server that does not answer in time or for
    whom nobody waits any more. After that nothing is mounted, and nothing will be."""
    request = {"device": device, "target": str(target), "type": type, "flags": flags, "data": data, "parent": os.getpid()}
    process = _begun(request)
    try:
        status = _status(process, time.monotonic() + _PATIENCE)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if status is None:
        unmount(target)  # it may have been killed when all was done
        return errno.ETIMEDOUT
    return status


def unmount(target: Path) -> None:
    """Take away what is mounted at `target`. What has not been written yet is written first, if the server takes it soon;
    otherwise the kernel goes on trying, after nobody sees the mount any more."""
    while is_mounted(target):
        process = _begun({"target": str(target)})
        if _status(process, time.monotonic() + _GRACE) is None:
            threading.Thread(target=process.wait, name="volume-local-unmount", daemon=True).start()
            if is_mounted(target):
                raise Unavailable(f"the mount at {target} does not go: its server does not answer")


def _begun(request: Mapping[str, object]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", mount_call.__file__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    with process.stdin as given:
        given.write(json.dumps(request).encode())
    return process


def _status(process: subprocess.Popen[bytes], due: float) -> int | None:
    """The exit status, None when time is up or nobody waits any more."""
    waiting = current_call()
    while time.monotonic() < due and not (waiting is not None and waiting.cancelled.is_set()):
        try:
            return process.wait(_STEP)
        except subprocess.TimeoutExpired:
            continue
    return None


def _address(host: str) -> str:
    """An address of `host`, of version 4 if it has one, as Docker prefers."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = "no such host" if isinstance(error, UnicodeError) or error.errno == socket.EAI_NONAME else error
        raise Unavailable(f"error resolving passed in network volume address: lookup {host}: {reason}") from None
    first = next((entry for entry in found if entry[0] == socket.AF_INET), found[0])
    return str(first[4][0])
