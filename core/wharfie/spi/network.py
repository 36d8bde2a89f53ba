"""Networks: how containers reach each other and the world.

The model
    A *network* is an isolated domain with one or more subnets. A container has a *sandbox*, its network namespace. An
    *endpoint* is a container's place in a network; *joining* gives the sandbox an interface there. *Publishing* makes
    an endpoint's ports reachable by the host's addresses.

The words
    plan            look at a draft of a network, refuse what is wrong, fill in defaults; touches nothing
    create_network  make its kernel objects (a bridge, …)
    join, leave     put an endpoint's interface into a sandbox and take it out again
    publish         program ports that the core has allocated and reserved
    reconcile       after a daemon start, a reboot, a flushed firewall: make the kernel agree with this

All that a driver must know later is in the `Attachment` it returned from `join`: the core stores it and hands it back in
`Joined`, so a driver needs no memory of its own. Names and DNS, /etc/hosts, host ports, aliases and the choice of the
endpoint that carries the default route are the core's.

An example
    plan(draft) → network;  create_network(network)
    join(network, endpoint, sandbox) → attachment;  publish(network, Joined(…, ports=…))
    unpublish(…);  leave(…);  delete_network(network)
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from wharfie.spi.driver import ContainerFacts, Driver, Fault, Strings, deadline
from wharfie.spi.errors import Unsupported
from wharfie.spi.ipam import Address, Interface, Subnet


class NetworkCapability(enum.StrEnum):
    """What a network driver may offer beyond the contract."""

    PUBLISH = "publish"  # can map host ports
    NAMESPACE = "namespace"  # containers get a sandbox of their own (absent: the host's, as for `host`)
    GLOBAL_DATA = "global-data"  # Docker's data scope
    GLOBAL_CONNECTIVITY = "global-connectivity"
    MULTIPLE = "multiple"  # several networks of this driver may exist (host, null: one)
    ADDRESSES = "addresses"  # its networks have subnets, so the core asks an IPAM driver (absent: host, null)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A subnet of a network. `gateway` is None while nobody chose one, and when the network has none."""

    subnet: Subnet
    gateway: Address | None = None
    ip_range: Subnet | None = None
    auxiliary: Strings = field(default_factory=dict)  # name → address that must not be handed out


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network as drivers see it. In a draft (`plan`) pools may still be empty."""

    id: str  # 64 hex digits
    name: str
    pools: tuple[Pool, ...] = ()
    internal: bool = False
    ipv4: bool = True
    ipv6: bool = False
    default: bool = False  # the daemon's predefined network of this driver
    options: Strings = field(default_factory=dict)
    labels: Strings = field(default_factory=dict)
    needs_gateway: bool = True  # filled in by `plan`: must the core reserve a gateway address? (Docker's GwAllocCheck)
    host_address: Address | None = None
    """Filled in by `plan`: the host's address for published ports that name none. 0.0.0.0: all addresses, those of IPv6
    too; None: the driver has no opinion."""
    direct: frozenset[int] = frozenset()
    """Filled in by `plan`: versions of IP in which published ports are reached at the container's own address, so that the
    core takes no port of the host for them (Docker's gateway mode `routed`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A container's network namespace. `path` can be opened for setns(2): /proc/PID/ns/net."""

    id: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A container's place in one network, before it is joined. The core chose everything in it."""

    id: str
    network_id: str
    container: ContainerFacts
    interface: str  # "eth0"
    mac: str  # "02:42:ac:11:00:02"; empty: the driver chooses
    addresses: tuple[Interface, ...]
    default_route4: bool = False  # this endpoint carries the container's default route
    default_route6: bool = False
    options: Strings = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """`via` None: on link."""

    destination: Subnet
    via: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """What `join` made. `data` is the driver's own memory of it (names of kernel objects, …)."""

    interface: str
    mac: str
    addresses: tuple[Interface, ...] = ()
    gateway4: Address | None = None
    gateway6: Address | None = None
    routes: tuple[Route, ...] = ()
    data: Strings = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A port to publish, complete: the core has allocated and reserved the host's side."""

    protocol: Literal["tcp", "udp", "sctp"]
    container_port: int
    host_address: Address  # 0.0.0.0 or :: for all
    host_port: int  # 0: none, the network is `direct` in this version of IP
    relayed: bool = False  # the core's proxy listens there too, so a driver without a firewall may leave it at that


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """An endpoint that is in its network: what the core remembers and hands back."""

    endpoint: Endpoint
    sandbox: Sandbox | None  # None: the namespace is gone already
    attachment: Attachment
    ports: tuple[Port, ...] = ()


class NetworkDriver(Driver[NetworkCapability]):
    """A maker of networks."""

    kind: ClassVar[str] = "network"

    @abstractmethod
    @deadline(5)
    def plan(self, draft: Network) -> Network:
        """Validate and complete the draft of a network; touches nothing, knows no other network.

        Unknown or bad options raise InvalidArgument naming the option. Defaults (bridge name, parent, MTU) are filled
        into `options`, so that the stored network is complete.
        """

    @abstractmethod
    @deadline(10)
    def create_network(self, network: Network) -> None:
        """Make the network's kernel objects. May be repeated.

        Errors: Conflict (a foreign object has the name), Forbidden (subnet in use on this host), Unavailable.
        """

    @abstractmethod
    @deadline(10)
    def delete_network(self, network: Network) -> None:
        """Remove what `create_network` made. Succeeds when it is not there."""

    @abstractmethod
    @deadline(10)
    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Attachment:
        """Put the endpoint's interface into the sandbox: up, with addresses, and default routes where the flags say so.

        Convergent: repeated for a joined endpoint with other default-route flags, it changes the routes. A failure leaves
        nothing in the sandbox. Errors: NotFound (the sandbox is gone), Conflict, InvalidArgument (an endpoint option).
        """

    @abstractmethod
    @deadline(10)
    def leave(self, network: Network, joined: Joined) -> None:
        """Take the endpoint out. Succeeds when it is out already, and when `joined.sandbox` is None or gone."""

    @deadline(10)
    def publish(self, network: Network, joined: Joined) -> None:
        """Make `joined.ports` reachable (PUBLISH). May be repeated. Errors: Conflict (the port is taken)."""
        raise Unsupported(f'network driver "{self.name}" cannot publish ports')

    @deadline(5)
    def unpublish(self, network: Network, joined: Joined) -> None:
        """End the publishing of `joined.ports` (PUBLISH). Succeeds when they are not published."""
        raise Unsupported(f'network driver "{self.name}" cannot publish ports')

    @deadline(5)
    def describe(self, network: Network, joined: Joined) -> Strings:
        """Rows for a verbose inspect of an endpoint."""
        return {}

    @abstractmethod
    @deadline(60)
    def reconcile(self, networks: Sequence[Network], joined: Sequence[Joined]) -> Sequence[Fault]:
        """Make the kernel agree: these networks, these endpoints with their ports, nothing else of this driver's own.

        May be repeated at any time. Objects of other daemons and of the operator are left alone.
        """
