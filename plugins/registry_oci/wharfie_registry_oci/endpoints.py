"""How a server may be reached: over TLS, or plainly where that is allowed; with which certificates and mirrors."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from wharfie.spi.distribution import HUB
from wharfie_registry_oci import hosts
from wharfie_registry_oci.hosts import ALL, Host
from wharfie_registry_oci.settings import Settings


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`url`: scheme, host and what is in front of /v2. `trusted`: gets the user's credentials (a mirror does not).

    `capabilities`: what it is asked for. `override_path`: its address stands for /v2 itself.
    """

    url: str
    trusted: bool = True
    capabilities: frozenset[str] = ALL
    override_path: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def address(self, path: str) -> str:
        """Of a path of the protocol, or of a whole address."""
        if not path.startswith("/"):
            return path
        return self.url + (path.removeprefix("/v2") if self.override_path else path)


class Endpoints:
    """The rules of settings and of Docker for servers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._networks = [network for text in settings.insecure_registries if (network := _network(text)) is not None]
        self._names = {text.lower() for text in settings.insecure_registries if _network(text) is None}
        self._plain: dict[str, bool] = {}  # what an insecure server turned out to speak
        self._hosts: dict[str, Host] = {}  # what hosts.toml says of an address, by host
        self._written_plain: set[str] = set()  # hosts that it says to be reached without TLS

    def of(self, server: str) -> Sequence[Endpoint]:
        """In the order in which they are tried. Errors: InvalidArgument (its hosts.toml)."""
        mirrors = [Endpoint(url.rstrip("/"), trusted=False) for url in self._settings.registry_mirrors if server == HUB]
        written = hosts.read(self._settings.certificates, server)
        own = Host("")
        if written is not None:
            mirrors = [self._endpoint(host, trusted=urlsplit(host.url).netloc == server) for host in written.mirrors]
            own = written.server
        if own.url:
            return [*mirrors, self._endpoint(own, trusted=True)]
        self._hosts[server] = own
        return [*mirrors, *(self._endpoint(replace(own, url=url), trusted=True) for url in self._addresses(server))]

    def _addresses(self, server: str) -> Sequence[str]:
        """Where a server may be, in the order in which that is tried."""
        if not self.insecure(server) or self._authorities(server):  # who names an authority does not want plain HTTP
            return [f"https://{server}"]
        plain = self._plain.get(server)
        schemes = ["https", "http"] if plain is None else ["http"] if plain else ["https"]
        return [f"{scheme}://{server}" for scheme in schemes]

    def _endpoint(self, host: Host, *, trusted: bool) -> Endpoint:
        if urlsplit(host.url).scheme == "http":
            self._written_plain.add(urlsplit(host.url).netloc)
        self._hosts[urlsplit(host.url).netloc] = host
        return Endpoint(host.url, trusted, host.capabilities, host.override_path, host.headers)

    def answered(self, endpoint: Endpoint) -> None:
        """Remember which scheme an insecure server speaks."""
        if endpoint.trusted:
            self._plain[endpoint.host] = endpoint.url.startswith("http:")

    def forget(self, server: str) -> None:
        """It does not answer that way any more."""
        self._plain.pop(server, None)

    def insecure(self, host: str) -> bool:
        """Whether plain HTTP and unknown certificates are accepted: on loopback, and where the settings say so."""
        name = _name(host)
        if name == "localhost" or host.lower() in self._names or name in self._names:
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or any(address in network for network in self._networks)

    def allows(self, url: str) -> bool:
        """Whether a redirect or a token server may lead there."""
        parts = urlsplit(url)
        if parts.scheme == "https":
            return bool(parts.hostname)
        plain = self.insecure(parts.netloc) or parts.netloc in self._written_plain
        return parts.scheme == "http" and bool(parts.hostname) and plain

    def tls(self, host: str) -> ssl.SSLContext:
        """Errors: OSError, ssl.SSLError (a file of the server's folder is no certificate)."""
        context = ssl.create_default_context()
        if self.insecure(host):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        for path in self._authorities(host):
            context.load_verify_locations(cafile=path)
            context.check_hostname = True
            context.verify_mode = ssl.CERT_REQUIRED
        for path in _files(self._settings.certificates / host, ".cert"):
            context.load_cert_chain(path, path.with_suffix(".key"))
        written = self._hosts.get(host)
        if written is not None:
            for certificate, key in written.client:
                context.load_cert_chain(certificate, key)
            if written.skip_verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        return context

    def _authorities(self, host: str) -> Sequence[Path]:
        written = self._hosts.get(host)
        return [*_files(self._settings.certificates / host, ".crt"), *(written.authorities if written else ())]


def _files(folder: Path, suffix: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == suffix) if folder.is_dir() else []


def _name(host: str) -> str:
    """Without the port and the brackets of an IPv6 address."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None
