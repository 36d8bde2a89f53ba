"""Network drivers `host` and `null`: the two that make no interface."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Sequence
from typing import ClassVar

from wharfie.shim.netns import within
from wharfie.spi.driver import Fault
from wharfie.spi.errors import Forbidden, NotFound
from wharfie.spi.network import Attachment, Endpoint, Joined, Network, NetworkCapability, NetworkDriver, Sandbox

# include/uapi/linux: sockios.h, if.h
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1


class HostDriver(NetworkDriver):
    """Containers share the host's network namespace: nothing to make, nothing to take away."""

    name: ClassVar[str] = "host"
    spi: ClassVar[str] = "1.0"

    def plan(self, draft: Network) -> Network:
        return _only_one(draft, self.name)

    def create_network(self, network: Network) -> None:
        """The host's network is there."""

    def delete_network(self, network: Network) -> None:
        """The host's network stays."""

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Attachment:
        return Attachment(interface="", mac="")

    def leave(self, network: Network, joined: Joined) -> None:
        """Nothing was made."""

    def reconcile(self, networks: Sequence[Network], joined: Sequence[Joined]) -> Sequence[Fault]:
        return ()


class NullDriver(NetworkDriver):
    """Containers get a sandbox of their own in which only the loopback interface is up."""

    name: ClassVar[str] = "null"
    spi: ClassVar[str] = "1.0"

    def capabilities(self) -> frozenset[NetworkCapability]:
        return frozenset({NetworkCapability.NAMESPACE})

    def plan(self, draft: Network) -> Network:
        return _only_one(draft, self.name)

    def create_network(self, network: Network) -> None:
        """There is nothing outside the sandboxes."""

    def delete_network(self, network: Network) -> None:
        """There is nothing outside the sandboxes."""

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Attachment:
        try:
            within(sandbox.path, _loopback_up)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise NotFound(
                f"network namespace {sandbox.path} of container {endpoint.container.name} is gone: its process has ended"
            ) from error
        return Attachment(interface="", mac="")

    def leave(self, network: Network, joined: Joined) -> None:
        """Loopback is the sandbox's own and ends with it."""

    def reconcile(self, networks: Sequence[Network], joined: Sequence[Joined]) -> Sequence[Fault]:
        return ()


def _only_one(draft: Network, name: str) -> Network:
    """The predefined network as it is; any other is refused in Docker's words."""
    if not draft.default:
        raise Forbidden(f'only one instance of "{name}" network is allowed')
    return draft


def _loopback_up() -> None:
    """netdevice(7): 16 bytes of name, 2 of flags, padding."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        request = struct.pack("16sH22x", b"lo", 0)
        (flags,) = struct.unpack_from("16xH", fcntl.ioctl(control, SIOCGIFFLAGS, request))
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))
