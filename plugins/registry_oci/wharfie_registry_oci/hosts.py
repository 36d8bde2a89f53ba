"""hosts.toml: where the images of a server are asked for first, in containerd's words (docs/hosts.md there).

server = "https://registry.example"

[host."https://mirror.example"]
  capabilities = ["pull", "resolve"]
  ca = "/etc/certs/mirror.crt"
  client = [["/etc/certs/us.cert", "/etc/certs/us.key"]]
  skip_verify = false
  override_path = false
  [host."https://mirror.example".header]
    x-team = "blue"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wharfie.spi.distribution import HUB
from wharfie.spi.errors import InvalidArgument

ALL = frozenset({"pull", "resolve", "push"})
FILE = "hosts.toml"


@dataclass(frozen=True, slots=True)
class Host:
    """One address, in the file's order. `client`: pairs of certificate and key; the key may be in the same file."""

    url: str
    capabilities: frozenset[str] = ALL
    authorities: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path | None], ...] = ()
    skip_verify: bool = False
    override_path: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hosts:
    """A file. `server`: the last to be asked; with an empty `url` the server itself, as it is reached without a file."""

    mirrors: tuple[Host, ...]
    server: Host


def read(certificates: Path, server: str) -> Hosts | None:
    """What is written down for a server; None without a file. Errors: InvalidArgument (the file cannot be used)."""
    for folder in _folders(server):
        path = certificates / folder / FILE
        try:
            document = tomllib.loads(path.read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"{path} cannot be used: {error}") from error
        return _hosts(path, document)
    return None


def _folders(server: str) -> list[str]:
    name = "docker.io" if server == HUB else server
    host, colon, port = name.rpartition(":")
    return [*([f"{host}_{port}_"] if colon else []), name, "_default"]


def _hosts(path: Path, document: Mapping[str, Any]) -> Hosts:
    tables = document.get("host", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise InvalidArgument(f'{path} cannot be used: write [host."https://…"] tables')
    mirrors = tuple(_host(path, url, table) for url, table in tables.items())
    own = {key: value for key, value in document.items() if key not in ("server", "host")}
    if named := document.get("server"):
        return Hosts(mirrors, _host(path, named, own))
    return Hosts(mirrors, replace(_host(path, "https://the-server", own), url=""))


def _host(path: Path, url: Any, table: Mapping[str, Any]) -> Host:
    def wrong(key: str, want: str) -> InvalidArgument:
        return InvalidArgument(f"{path} cannot be used: {key} of {url}: want {want}")

    if not isinstance(url, str):
        raise InvalidArgument(f"{path} cannot be used: {url!r} is not an address")
    address = url if "://" in url else f"https://{url}"
    if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
        raise InvalidArgument(f"{path} cannot be used: {url!r} is not an address")
    capabilities = table.get("capabilities", sorted(ALL))
    if not isinstance(capabilities, list) or not set(capabilities) <= ALL:
        raise wrong("capabilities", 'a list of "pull", "resolve" and "push"')
    headers = table.get("header", {})
    if not isinstance(headers, dict):
        raise wrong("header", "a table of texts")
    files = table.get("ca", [])
    files = [files] if isinstance(files, str) else files
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise wrong("ca", "a path or a list of paths")
    pairs = table.get("client", [])
    pairs = [pairs] if isinstance(pairs, str) else pairs
    if not isinstance(pairs, list):
        raise wrong("client", "a path or a list of pairs of paths")
    return Host(
        url=address.rstrip("/"),
        capabilities=frozenset(capabilities),
        authorities=tuple(path.parent / file for file in files),
        client=tuple(_pair(path, pair) for pair in pairs),
        skip_verify=table.get("skip_verify") is True,
        override_path=table.get("override_path") is True,
        headers={str(key): _text(value) for key, value in headers.items()},
    )


def _pair(path: Path, pair: Any) -> tuple[Path, Path | None]:
    match pair:
        case str() | [str()]:
            return path.parent / (pair if isinstance(pair, str) else pair[0]), None
        case [str() as certificate, str() as key]:
            return path.parent / certificate, path.parent / key
    raise InvalidArgument(f"{path} cannot be used: client: {pair!r} is not a pair of paths")


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
