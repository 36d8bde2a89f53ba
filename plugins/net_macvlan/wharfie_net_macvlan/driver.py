"""Network drivers `macvlan` and `ipvlan`."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar

from pyroute2 import NetlinkError

from wharfie.spi.driver import Context, Fault, Problem, Strings
from wharfie.spi.errors import Unavailable, WharfieError
from wharfie.spi.network import Attachment, Endpoint, Joined, Network, NetworkCapability, NetworkDriver, Sandbox
from wharfie_net_macvlan.endpoint import attach, detach
from wharfie_net_macvlan.options import Kind, ParentOptions, parse
from wharfie_net_macvlan.parent import alias, ensure_parent, makes, remove_unused
from wharfie_net_macvlan.settings import MacvlanSettings


class _ParentDriver(NetworkDriver):
    """Endpoints are interfaces on a parent of the host."""

    made: ClassVar[Kind]
    spi: ClassVar[str] = "1.0"
    settings: ClassVar[str] = "wharfie_net_macvlan.settings:MacvlanSettings"

    def __init__(self, context: Context, settings: MacvlanSettings) -> None:
        self._instance = context.instance
        self._log = context.log
        self._default_parent = settings.default_parent
        self._parents: dict[str, str] = {}  # network id → parent: networks may share one that was made
        self._lock = threading.Lock()

    def capabilities(self) -> frozenset[NetworkCapability]:
        return frozenset({NetworkCapability.NAMESPACE, NetworkCapability.MULTIPLE, NetworkCapability.ADDRESSES})

    def check(self) -> Sequence[Problem]:
        if makes(self.made):
            return ()
        return (Problem(what=f"this kernel has no {self.made} interfaces", fix=f"modprobe {self.made}"),)

    def plan(self, draft: Network) -> Network:
        options = self._options(draft)
        alone = draft.internal or options.isolated or options.routed
        return dataclasses.replace(draft, options={**draft.options, **options.shown}, needs_gateway=not alone)

    def create_network(self, network: Network) -> None:
        options = self._options(network)
        with self._lock, _named(f"network {network.name}"):
            ensure_parent(options, self._instance, network.id)
            self._parents[network.id] = options.parent

    def delete_network(self, network: Network) -> None:
        with self._lock, _named(f"network {network.name}"):
            self._parents.pop(network.id, None)
            self._remove_unused()

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Attachment:
        with _named(f"endpoint of container {endpoint.container.name} in network {network.name}"):
            return attach(network, self._options(network), endpoint, sandbox, self._mark(endpoint))

    def leave(self, network: Network, joined: Joined) -> None:
        if joined.sandbox is not None:
            with _named(f"endpoint of container {joined.endpoint.container.name} in network {network.name}"):
                detach(self.made, joined.attachment, joined.sandbox.path, self._mark(joined.endpoint))

    def describe(self, network: Network, joined: Joined) -> Strings:
        return dict(joined.attachment.data)

    def reconcile(self, networks: Sequence[Network], joined: Sequence[Joined]) -> Sequence[Fault]:
        faults: list[Fault] = []
        alive: dict[str, Network] = {}
        with self._lock:
            self._parents = {}
            for network in networks:
                with _collected(faults, network.id):
                    options = self._options(network)
                    self._parents[network.id] = options.parent
                    ensure_parent(options, self._instance, network.id)
                    alive[network.id] = network
            with _named("parents of networks that are gone"):
                self._remove_unused()
        for one in joined:
            network_of = alive.get(one.endpoint.network_id)
            if network_of is not None and one.sandbox is not None:
                with _collected(faults, one.endpoint.id):
                    attach(network_of, self._options(network_of), one.endpoint, one.sandbox, self._mark(one.endpoint))
        return faults

    def _options(self, network: Network) -> ParentOptions:
        return parse(network, self.made, self._default_parent)

    def _mark(self, endpoint: Endpoint) -> str:
        return f"{alias(self.made, self._instance, endpoint.network_id)}:{endpoint.id}"

    def _remove_unused(self) -> None:
        """Parents that were made for networks and that no network uses any more."""
        for name in remove_unused(self.made, self._instance, self._parents.values()):
            self._log.info("removed interface %s, the parent of a network that is gone", name)


class MacvlanDriver(_ParentDriver):
    """Endpoints with hardware addresses of their own."""

    name: ClassVar[str] = "macvlan"
    made: ClassVar[Kind] = "macvlan"


class IpvlanDriver(_ParentDriver):
    """Endpoints that share the parent's hardware address."""

    name: ClassVar[str] = "ipvlan"
    made: ClassVar[Kind] = "ipvlan"


@contextlib.contextmanager
def _named(subject: str) -> Iterator[None]:
    """An error of the kernel becomes one that says for what."""
    try:
        yield
    except (NetlinkError, OSError) as error:
        raise Unavailable(f"{subject}: the kernel refused: {error}") from error


@contextlib.contextmanager
def _collected(faults: list[Fault], subject: str) -> Iterator[None]:
    try:
        yield
    except (WharfieError, NetlinkError, OSError) as error:
        faults.append(Fault(object=subject, reason=str(error)))
