"""Where legacy plugins are: sockets, `.spec` and `.json` files in a few folders (Docker Engine's "plugin discovery").

Folders come from the environment variable WHARFIE_DOCKER_PLUGIN_DIRS, separated by colons, otherwise they are Docker's.
Sockets win over files, earlier folders over later ones; the file's name is the plugin's name.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

VARIABLE = "WHARFIE_DOCKER_PLUGIN_DIRS"
DEFAULT_FOLDERS = "/run/docker/plugins:/etc/docker/plugins:/usr/lib/docker/plugins"
_FILE_LIMIT = 64 * 1024


class BadPlace(Exception):
    """A plugin's file says something that cannot be understood. The message names the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How to reach a plugin by TLS; file names may be empty."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    insecure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one plugin listens. `socket` or `host` and `port`. `version` changes when its file does."""

    name: str
    socket: str = ""
    host: str = ""
    port: int = 0
    tls: Tls | None = None
    version: tuple[int, int] = field(default=(0, 0), compare=False)

    def __str__(self) -> str:
        return f"unix://{self.socket}" if self.socket else f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


def folders() -> list[Path]:
    """The folders in which plugins are looked for."""
    return [Path(text) for text in os.environ.get(VARIABLE, DEFAULT_FOLDERS).split(":") if text]


def find(name: str) -> Place | None:
    """Where the plugin of this name listens; None: there is none. Connects to nothing. Errors: BadPlace."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        return None
    for folder in folders():
        for path in (folder / f"{name}.sock", folder / name / f"{name}.sock"):
            facts = _stat(path)
            if facts is not None and stat.S_ISSOCK(facts.st_mode):
                return Place(name=name, socket=str(path), version=(facts.st_ino, facts.st_mtime_ns))
    for folder in folders():
        for suffix, read in ((".spec", _spec), (".json", _json)):
            path = folder / f"{name}{suffix}"
            facts = _stat(path)
            if facts is not None and stat.S_ISREG(facts.st_mode):
                return read(name, path, (facts.st_ino, facts.st_mtime_ns))
    return None


def names() -> Iterator[str]:
    """Names of all plugins that have a socket or a file, each once."""
    seen = set()
    for folder in folders():
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            continue
        for path in entries:
            name = path.stem if path.suffix in (".sock", ".spec", ".json") else path.name
            if name not in seen and (path.suffix or (path / f"{name}.sock").exists()):
                seen.add(name)
                yield name


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_FILE_LIMIT)
    except OSError as error:
        raise BadPlace(f"{path}: {error.strerror}") from error


def _spec(name: str, path: Path, version: tuple[int, int]) -> Place:
    return _place(name, path, _content(path).decode(errors="replace").strip(), None, version)


def _json(name: str, path: Path, version: tuple[int, int]) -> Place:
    try:
        document = json.loads(_content(path))
    except ValueError as error:
        raise BadPlace(f"{path} is no JSON: {error}") from None
    if not isinstance(document, Mapping) or not isinstance(document.get("Addr"), str):
        raise BadPlace(f'{path} has no "Addr"')
    return _place(name, path, document["Addr"], _tls(document.get("TLSConfig")), version)


def _tls(document: Any) -> Tls | None:
    if not isinstance(document, Mapping):
        return None
    return Tls(
        ca=str(document.get("CAFile") or ""),
        cert=str(document.get("CertFile") or ""),
        key=str(document.get("KeyFile") or ""),
        insecure=document.get("InsecureSkipVerify") is True,
    )


def _place(name: str, path: Path, address: str, tls: Tls | None, version: tuple[int, int]) -> Place:
    """`address`: unix:///path, or tcp://, http://, https:// with host and port."""
    try:
        url = urlsplit(address)
        port = url.port
    except ValueError as error:
        raise BadPlace(f"{path}: {address!r} is no address: {error}") from None
    if url.scheme == "unix" and (url.netloc + url.path).startswith("/"):
        return Place(name=name, socket=url.netloc + url.path, version=version)
    if url.scheme not in ("tcp", "http", "https") or not url.hostname:
        raise BadPlace(f"{path}: {address!r} is no address; use unix:///path, tcp://host:port or https://host:port")
    if url.scheme == "https" and tls is None:
        tls = Tls()
    return Place(name=name, host=url.hostname, port=port or (443 if tls else 80), tls=tls, version=version)
