"""The files that the engine keeps for a container: hosts, hostname, resolv.conf, and the table its names are answered from.

They are written before a start and again, in place (they are bind mounts), when a running container joins or leaves a
network.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wharfie.engine.containers import links
from wharfie.engine.containers.catalog import Catalog
from wharfie.engine.containers.modes import CONTAINER
from wharfie.engine.model.container import Container, NetworkRecord
from wharfie.engine.networks.files import (
    EMBEDDED_SERVER,
    ResolvConf,
    external_servers,
    extra_hosts,
    hosts_text,
    read_resolv_conf,
    resolv_conf_text,
)
from wharfie.engine.networks.names import Names
from wharfie.engine.networks.networks import Networks
from wharfie.engine.settings import EngineSettings
from wharfie.spi.network import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    settings: EngineSettings
    catalog: Catalog
    networks: Networks
    names: Names

    def write(self, container: Container, endpoints: Iterable[Endpoint], *, resolver: bool) -> Path | None:
        """Write all files. `resolver`: the runtime can answer names; then the path of the resolver file, which may have no
        network yet: a container on the default network may be connected to others later."""
        folder = self.catalog.folder(container)
        folder.mkdir(mode=0o710, parents=True, exist_ok=True)
        (folder / "hostname").write_text(container.config.hostname + "\n")
        mode = container.host_config.network_mode
        if mode.startswith(CONTAINER):
            _borrow(folder, self.catalog.folder(self.catalog.get(mode.removeprefix(CONTAINER))))
            return None
        if mode == "host":
            self._write_of_host(container, folder)
            return None
        return self._write_own(container, folder, list(endpoints), resolver=resolver and mode != "none")

    def refresh(self, container: Container) -> None:
        """The container has joined or left a network."""
        endpoints = [entry.joined.endpoint for entry in container.joined]
        served = self.names.resolver(container.id).exists()
        self._write_own(container, self.catalog.folder(container), endpoints, resolver=served)

    def tell_linked(self, container: Container) -> None:
        """The container has an address: those that link to it learn it."""
        for other in self.catalog:
            if other.state.running and links.leads_to(other, container):
                self.refresh(other)

    def forget(self, container: Container) -> None:
        """No names are answered for it any more. The other files stay with the container, for inspect."""
        self.names.forget(container.id)

    def _write_own(self, container: Container, folder: Path, endpoints: list[Endpoint], *, resolver: bool) -> Path | None:
        hc = container.host_config
        own = [(str(interface.ip), _own_names(container)) for e in endpoints for interface in e.addresses]
        extra = [*extra_hosts(hc, self._host_gateway()), *links.hosts_lines(container, self.catalog.get)]
        (folder / "hosts").write_text(hosts_text(extra, own))
        host = read_resolv_conf()
        servers = external_servers(host, hc.dns or self.settings.dns)
        search = tuple(hc.dns_search or self.settings.dns_search or host.search)
        options = tuple(hc.dns_options or self.settings.dns_options or host.options)
        records = [self.networks.get(endpoint.network_id) for endpoint in endpoints]
        named = [record for record in records if _has_names(record)]
        conf = ResolvConf(servers=servers, search=search, options=options)
        behind: tuple[str, ...] = ()
        if named and resolver:
            if not any(option.startswith("ndots:") for option in options):
                options = (*options, "ndots:0")
            conf, behind = ResolvConf(servers=(EMBEDDED_SERVER,), search=search, options=options), servers
        (folder / "resolv.conf").write_text(resolv_conf_text(conf, behind))
        if not resolver:
            return None
        forward = any(not record.internal for record in records)
        return self.names.configure(
            container.id, [record.id for record in named], servers, search, forward, links.names(container)
        )

    def _write_of_host(self, container: Container, folder: Path) -> None:
        """The host's own files, with what was asked for this container in its place."""
        _borrow(folder, Path("/etc"))
        hc = container.host_config
        with (folder / "hosts").open("a") as hosts:
            hosts.writelines(f"{address}\t{name}\n" for address, name in extra_hosts(hc, self._host_gateway()))
        if hc.dns or hc.dns_search or hc.dns_options:
            host = read_resolv_conf()
            conf = ResolvConf(
                servers=tuple(hc.dns or host.servers),
                search=tuple(hc.dns_search or host.search),
                options=tuple(hc.dns_options or host.options),
            )
            (folder / "resolv.conf").write_text(resolv_conf_text(conf))

    def _host_gateway(self) -> str:
        if self.settings.host_gateway_ips:
            return self.settings.host_gateway_ips[0]
        for record in self.networks.all():
            if record.predefined and record.name == "bridge" and record.pools:
                return record.pools[0].gateway
        return ""


def _borrow(folder: Path, other: Path) -> None:
    """The files of whoever owns the network namespace."""
    for name in ("hosts", "resolv.conf"):
        try:
            shutil.copyfile(other / name, folder / name)
        except OSError:
            (folder / name).write_text("")


def _has_names(record: NetworkRecord) -> bool:
    """Names are answered on user-defined networks with addresses."""
    return bool(record.pools) and not record.predefined


def _own_names(container: Container) -> str:
    config = container.config
    whole = f"{config.hostname}.{config.domainname}" if config.domainname else config.hostname
    short, dot, _ = whole.partition(".")
    return f"{whole} {short}" if dot else whole
