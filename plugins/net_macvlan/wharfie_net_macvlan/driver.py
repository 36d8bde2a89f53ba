"""Network driver `macvlan`."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar

from pyroute2 import NetlinkError

from wharfie.spi.driver import Context, Fault, Strings
from wharfie.spi.errors import Unavailable, WharfieError
from wharfie.spi.network import Attachment, Endpoint, Joined, Network, NetworkCapability, NetworkDriver, Sandbox
from wharfie_net_macvlan.endpoint import attach, detach
from wharfie_net_macvlan.options import MODE, PARENT, MacvlanOptions, parse
from wharfie_net_macvlan.parent import alias, ensure_parent, remove_unused
from wharfie_net_macvlan.settings import MacvlanSettings


class MacvlanDriver(NetworkDriver):
    """Endpoints are macvlan interfaces on a parent of the host."""

    name: ClassVar[str] = "macvlan"
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

    def plan(self, draft: Network) -> Network:
        options = self._options(draft)
        complete = {**draft.options, PARENT: options.parent, MODE: options.mode}
        return dataclasses.replace(draft, options=complete, needs_gateway=not (draft.internal or options.isolated))

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
                detach(joined.attachment, joined.sandbox.path, self._mark(joined.endpoint))

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

    def _options(self, network: Network) -> MacvlanOptions:
        return parse(network, self._default_parent)

    def _mark(self, endpoint: Endpoint) -> str:
        return f"{alias(self._instance, endpoint.network_id)}:{endpoint.id}"

    def _remove_unused(self) -> None:
        """Parents that were made for networks and that no network uses any more."""
        for name in remove_unused(self._instance, self._parents.values()):
            self._log.info("removed interface %s, the parent of a network that is gone", name)


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
