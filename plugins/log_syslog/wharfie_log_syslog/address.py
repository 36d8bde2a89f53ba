"""`syslog-address`, taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from wharfie.spi.errors import InvalidArgument

Scheme = Literal["", "unixgram", "unix", "udp", "tcp", "tcp+tls"]

DEFAULT_PORT = 514
"""Docker's, for all schemes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """`scheme` empty: the server of this host. `path` of unix sockets, `host` and `port` of the others."""

    scheme: Scheme = ""
    path: str = ""
    host: str = ""
    port: int = 0


def parse(text: str) -> Address:
    """Errors: InvalidArgument."""
    if not text:
        return Address()
    try:
        url = urlsplit(text)
        port = url.port or DEFAULT_PORT
    except ValueError as error:
        raise InvalidArgument(f"invalid value for syslog-address: {text}: {error}") from None
    if url.scheme == "unix" or url.scheme == "unixgram":
        path = url.netloc + url.path
        if not path.startswith("/"):
            raise InvalidArgument(f"invalid value for syslog-address: {text}: the path of a socket must be absolute")
        return Address(scheme="unix" if url.scheme == "unix" else "unixgram", path=path)
    for scheme in ("udp", "tcp", "tcp+tls"):
        if url.scheme == scheme:
            if not url.hostname:
                raise InvalidArgument(f"invalid value for syslog-address: {text}: there is no host in it")
            return Address(scheme=scheme, host=url.hostname, port=port)
    raise InvalidArgument(f'unsupported scheme: "{url.scheme}" (syslog-address: {text})')
