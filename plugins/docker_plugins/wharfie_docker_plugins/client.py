"""The protocol: `POST /<Subsystem>.<Method>` with JSON, an answer with JSON or `{"Err": "…"}`, 404 for "not known here"."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from typing import Any

from wharfie.spi.errors import DriverError, Unavailable, Unsupported
from wharfie_docker_plugins.places import BadPlace, Place, Tls, find

MEDIA_TYPE = "application/vnd.docker.plugins.v1+json"
"""A header that never changed: new abilities came as methods and fields that may be absent."""

CONNECT_SECONDS = 1.0
ACTIVATION_SECONDS = 3.0
_ANSWER_LIMIT = 16 * 1024 * 1024

Document = Mapping[str, Any]


class MethodAbsent(Unsupported):
    """The plugin does not know this method: the ability that it stands for is absent."""


class Refused(DriverError):
    """The plugin answered with an error. `reason`: its own words."""

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(f"{method}: {reason}")
        self.reason = reason


class Plugin:
    """One legacy plugin, known by its name: it may move to another socket while the daemon runs. Thread-safe."""

    def __init__(self, name: str) -> None:
        self.name = name

    def place(self) -> Place:
        """Where it listens now. Errors: Unavailable."""
        try:
            place = find(self.name)
        except BadPlace as error:
            raise Unavailable(f'plugin "{self.name}": {error}') from error
        if place is None:
            raise Unavailable(f'plugin "{self.name}" is gone: there is no socket, .spec or .json file of it any more')
        return place

    def call(self, method: str, document: Document | None = None, *, seconds: float) -> Document:
        """Ask, and wait at most `seconds` for each piece of the answer.

        Errors: MethodAbsent, Refused (the plugin says no), Unavailable (nobody answers), DriverError (no JSON).
        """
        place = self.place()
        with _Connection(place) as connection:
            answer = _exchange(connection, place, method, document, seconds)
            try:
                body = answer.read(_ANSWER_LIMIT)
            except (OSError, http.client.HTTPException) as error:
                raise _silent(place, method, error) from error
        return _decoded(method, answer.status, body)

    def stream(self, method: str, document: Document, *, seconds: float) -> tuple[http.client.HTTPResponse, socket.socket]:
        """Ask for an answer without an end; its body is the caller's to read. The socket is a second handle of
        the connection, the caller's to shut down and close."""
        place = self.place()
        connection = _Connection(place)
        try:
            answer = _exchange(connection, place, method, document, seconds)
            if answer.status != 200:
                _decoded(method, answer.status, answer.read(_ANSWER_LIMIT))
            assert connection.sock is not None
            raw = socket.socket(fileno=os.dup(connection.sock.fileno()))
            return answer, raw
        except BaseException:
            connection.close()
            raise


class Handshakes:
    """What each plugin implements, by `/Plugin.Activate`: asked once for each socket or file. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Place, tuple[int, int], frozenset[str]]] = {}
        self._lock = threading.Lock()

    def implements(self, place: Place) -> frozenset[str]:
        """Errors: Unavailable, DriverError."""
        with self._lock:
            known = self._known.get(place.name)
        if known is not None and known[:2] == (place, place.version):
            return known[2]
        answer = Plugin(place.name).call("Plugin.Activate", seconds=ACTIVATION_SECONDS)
        found = answer.get("Implements")
        subsystems = frozenset(map(str, found)) if isinstance(found, list) else frozenset()
        with self._lock:
            self._known[place.name] = (place, place.version, subsystems)
        return subsystems

    def known(self, subsystem: str) -> list[str]:
        """Names of plugins that have said that they implement this, and are still there. Connects to nothing."""
        with self._lock:
            candidates = [name for name, known in self._known.items() if subsystem in known[2]]
        return [name for name in candidates if _is_there(name)]


def _is_there(name: str) -> bool:
    try:
        return find(name) is not None
    except BadPlace:
        return False


class _Connection(http.client.HTTPConnection):
    """One connection to a plugin, over whatever it listens on."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.host or "plugin", place.port or None, timeout=CONNECT_SECONDS)
        self._place = place

    def connect(self) -> None:
        place = self._place
        if place.socket:
            self.sock = _unix(place.socket)
            return
        plain = socket.create_connection((place.host, place.port), CONNECT_SECONDS)
        if place.tls is None:
            self.sock = plain
            return
        try:
            self.sock = _context(place.tls).wrap_socket(plain, server_hostname=place.host)
        except BaseException:
            plain.close()
            raise

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unix(path: str) -> socket.socket:
    """A socket whose queue is full says "try again" (EAGAIN): that is done for as long as a connection may take."""
    end = time.monotonic() + CONNECT_SECONDS
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(CONNECT_SECONDS)
        try:
            connection.connect(path)
        except OSError as error:
            connection.close()
            if not isinstance(error, BlockingIOError) or time.monotonic() > end:
                raise
            time.sleep(0.005)
        else:
            return connection


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca or None)
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key or None)
    return context


def _exchange(
    connection: _Connection, place: Place, method: str, document: Document | None, seconds: float
) -> http.client.HTTPResponse:
    body = b"" if document is None else json.dumps(document).encode()
    try:
        connection.connect()
        connection.sock.settimeout(seconds)
        connection.request("POST", f"/{method}", body, {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE})
        return connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise _silent(place, method, error) from error


def _silent(place: Place, method: str, error: Exception) -> Unavailable:
    return Unavailable(f'plugin "{place.name}" at {place} does not answer {method}: {error or type(error).__name__}')


def _decoded(method: str, status: int, body: bytes) -> Document:
    if status == 404:
        raise MethodAbsent(f"the plugin does not know {method}")
    try:
        document = json.loads(body) if body.strip() else {}
    except ValueError:
        document = None
    if status != 200:
        reason = document.get("Err") if isinstance(document, Mapping) else None
        raise Refused(method, str(reason or body[:500].decode(errors="replace").strip() or f"HTTP status {status}"))
    if not isinstance(document, Mapping):
        raise DriverError(f"{method}: the plugin answered something that is no JSON object: {body[:80]!r}")
    if document.get("Err"):
        raise Refused(method, str(document["Err"]))
    return document
