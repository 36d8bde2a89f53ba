"""Networks as Linux bridges, made with the `ip` command.

A network is a bridge that carries the gateway's address; an endpoint is a veth pair with one end in the bridge and the
other in the container. Names are built from the daemon's instance and the object's id, so nothing has to be remembered,
and what is ours can be told from the rest.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from wharfie.spi.driver import Context, Fault, Problem
from wharfie.spi.errors import DriverError, InvalidArgument, NotFound, WharfieError
from wharfie.spi.ipam import Address
from wharfie.spi.network import Attachment, Endpoint, Joined, Network, NetworkCapability, NetworkDriver, Sandbox


class AcmeNetworks(NetworkDriver):
    name = "acmenet"
    spi = "1.0"

    def __init__(self, context: Context, settings: None) -> None:
        # A name of an interface has 15 characters: 2 + 5 + 8.
        self._bridges = f"ab{context.instance[:5]}"
        self._cables = f"av{context.instance[:5]}"

    def capabilities(self) -> frozenset[NetworkCapability]:
        return frozenset({NetworkCapability.NAMESPACE, NetworkCapability.MULTIPLE, NetworkCapability.ADDRESSES})

    def check(self) -> Sequence[Problem]:
        packages = {"ip": "iproute2", "nsenter": "util-linux"}
        return [
            Problem(what=f"the command {command} is missing", fix=f"apt-get install {package}")
            for command, package in packages.items()
            if shutil.which(command) is None
        ]

    def plan(self, draft: Network) -> Network:
        for option in draft.options:
            raise InvalidArgument(f'network driver "acmenet" has no option {option!r}')
        return draft

    def create_network(self, network: Network) -> None:
        bridge = self._bridge(network)
        if bridge not in _links():
            _ip("link", "add", bridge, "type", "bridge")
        for pool in network.pools:
            if pool.gateway is not None:
                _ip("address", "replace", f"{pool.gateway}/{pool.subnet.prefixlen}", "dev", bridge)
        _ip("link", "set", bridge, "up")

    def delete_network(self, network: Network) -> None:
        _delete(self._bridge(network))

    def join(self, network: Network, endpoint: Endpoint, sandbox: Sandbox) -> Attachment:
        if not sandbox.path.exists():
            raise NotFound(f"the network namespace {sandbox.path} is gone")
        cable, inside = self._cable(endpoint), endpoint.interface
        try:
            if cable not in _links():
                mac = ("address", endpoint.mac) if endpoint.mac else ()
                peer = ("peer", "name", inside, *mac, "netns", str(sandbox.path))
                _ip("link", "add", cable, "master", self._bridge(network), "type", "veth", *peer)
            for address in endpoint.addresses:
                _ip("address", "replace", str(address), "dev", inside, within=sandbox.path)
            _ip("link", "set", inside, "up", within=sandbox.path)
            _ip("link", "set", cable, "up")
            gateways = {4: _gateway(network, 4), 6: _gateway(network, 6)}
            for version, wanted in ((4, endpoint.default_route4), (6, endpoint.default_route6)):
                gateway = gateways[version]
                if wanted and gateway is not None:
                    _ip(
                        f"-{version}",
                        "route",
                        "replace",
                        "default",
                        "via",
                        str(gateway),
                        "dev",
                        inside,
                        within=sandbox.path,
                    )
                else:
                    _ip(f"-{version}", "route", "flush", "default", "dev", inside, within=sandbox.path)
            [link] = json.loads(_ip("-json", "link", "show", "dev", inside, within=sandbox.path))
        except BaseException:
            _delete(cable)  # and with it the other end
            raise
        found = {"interface": inside, "mac": link["address"]}
        return Attachment(**found, addresses=endpoint.addresses, gateway4=gateways[4], gateway6=gateways[6])

    def leave(self, network: Network, joined: Joined) -> None:
        _delete(self._cable(joined.endpoint))

    def reconcile(self, networks: Sequence[Network], joined: Sequence[Joined]) -> Sequence[Fault]:
        wanted = {self._bridge(network) for network in networks} | {self._cable(one.endpoint) for one in joined}
        for link in _links():
            if link.startswith((self._bridges, self._cables)) and link not in wanted:
                _delete(link)
        faults = []
        for network in networks:
            try:
                self.create_network(network)
            except WharfieError as error:
                faults.append(Fault(object=network.id, reason=error.message))
        by_id = {network.id: network for network in networks}
        for one in joined:
            try:
                if one.sandbox is not None:
                    self.join(by_id[one.endpoint.network_id], one.endpoint, one.sandbox)
            except WharfieError as error:
                faults.append(Fault(object=one.endpoint.id, reason=error.message))
        return faults

    def _bridge(self, network: Network) -> str:
        return self._bridges + network.id[:8]

    def _cable(self, endpoint: Endpoint) -> str:
        return self._cables + endpoint.id[:8]


def _gateway(network: Network, version: int) -> Address | None:
    return next((pool.gateway for pool in network.pools if pool.gateway and pool.gateway.version == version), None)


def _links() -> frozenset[str]:
    return frozenset(link["ifname"] for link in json.loads(_ip("-json", "link", "show")))


def _delete(link: str) -> None:
    try:
        if link in _links():
            _ip("link", "delete", link)
    except DriverError:
        if link in _links():  # else it went with its other end
            raise


def _ip(*words: str, within: Path | None = None) -> str:
    """Run `ip`, in the namespace `within`."""
    command = ["ip", *words] if within is None else ["nsenter", f"--net={within}", "ip", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DriverError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
