"""Kernel parameters of a container: only those that a namespace of its own keeps from the host (sysctl(8))."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from wharfie.spi.errors import InvalidArgument
from wharfie_runtime_native.errors import reason
from wharfie_runtime_native.namespaces import Namespaces

_IPC: Final = frozenset(f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni"))
_IPC_MORE: Final = frozenset(("kernel.shm_rmid_forced",))
_UTS: Final = frozenset(("kernel.hostname", "kernel.domainname"))


def parse(sysctls: Mapping[str, str], namespaces: Namespaces) -> dict[str, str]:
    """`linux.sysctl` by path below /proc/sys.

    Errors: InvalidArgument (a parameter that would change the host, as runc says it).
    """
    return {_path(name, namespaces): str(value) for name, value in sysctls.items()}


def _path(name: str, namespaces: Namespaces) -> str:
    # Both separators are in use; in the slash form a dot belongs to a name ("net/ipv4/conf/eth0.1/…").
    slash, dot = name.find("/"), name.find(".")
    dotted = name if slash < 0 or 0 <= dot < slash else name.translate(str.maketrans("./", "/."))
    if dotted in _IPC or dotted in _IPC_MORE or dotted.startswith("fs.mqueue."):
        allowed, space = namespaces.own("ipc"), "ipc"
    elif dotted.startswith("net."):
        allowed, space = namespaces.own("network"), "network"
    elif dotted in _UTS:
        allowed, space = namespaces.own("uts"), "uts"
    else:
        raise InvalidArgument(f'sysctl "{name}" is not in a separate kernel namespace')
    if not allowed:
        raise InvalidArgument(f'sysctl "{name}" is not allowed without a {space} namespace of the container\'s own')
    path = dotted.translate(str.maketrans("./", "/."))
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidArgument(f'sysctl "{name}" is not a name')
    return path


def write(sysctls: Mapping[str, str]) -> None:
    """Write them through the host's /proc, which shows each process the values of its own namespaces.

    Errors: InvalidArgument with the kernel's word.
    """
    for path, value in sysctls.items():
        try:
            fd = os.open(f"/proc/sys/{path}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)
        except OSError as error:
            name = path.translate(str.maketrans("./", "/."))
            raise InvalidArgument(f'failed to write "{value}" to sysctl {name}: {reason(error)}') from error
