"""The client: JSON calls, streams of JSON messages, and hijacked connections."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from wharfie.client.address import connect, default_host
from wharfie.client.errors import ApiError
from wharfie.client.http import Body, Connection, Response

API_VERSION = "1.50"
"""The newest version of the API that this client knows; a daemon that knows less decides."""

Query = Mapping[str, Any]
"""True is sent as 1, False, None and "" are left out, mappings go as JSON, lists repeat the name."""


class Hijacked:
    """A connection that became a bare stream in both directions. `initial`: bytes that came with the answer's head."""

    def __init__(self, sock: socket.socket, initial: bytes, content_type: str) -> None:
        self.sock = sock
        self.initial = initial
        self.content_type = content_type

    def close(self) -> None:
        """May be repeated."""
        self.sock.close()


class Client:
    """Talks to one daemon. Not to be shared between threads."""

    def __init__(self, host: str = "") -> None:
        self.host = host or default_host()
        self._idle: Connection | None = None
        self._version = ""

    @property
    def version(self) -> str:
        """The API version that both sides know. Errors: Unreachable."""
        if not self._version:
            offered = self._request("HEAD", "/_ping").headers.get("api-version", API_VERSION)
            self._version = min(offered, API_VERSION, key=_number)
        return self._version

    def get(self, path: str, query: Query | None = None) -> Any:
        """The answer's JSON, or its text when it is none. Errors: ApiError, Unreachable."""
        return self._call("GET", path, query, None)

    def post(self, path: str, body: Any = None, query: Query | None = None) -> Any:
        """`body` is sent as JSON. Errors: ApiError, Unreachable."""
        return self._call("POST", path, query, body)

    def delete(self, path: str, query: Query | None = None) -> Any:
        """Errors: ApiError, Unreachable."""
        return self._call("DELETE", path, query, None)

    def open(
        self, method: str, path: str, query: Query | None = None, *, body: Body | None = None, headers: Query | None = None
    ) -> Response:
        """A call whose answer is read as it comes, on a connection of its own; the caller closes `response.connection`.

        Errors: ApiError, Unreachable.
        """
        connection = Connection(connect(self.host))
        try:
            response = connection.request(method, self._target(path, query), self._headers(headers), body)
            _raise_for_status(response)
        except BaseException:
            connection.close()
            raise
        return response

    def messages(
        self, method: str, path: str, query: Query | None = None, *, body: Body | None = None, headers: Query | None = None
    ) -> Iterator[dict[str, Any]]:
        """A stream of JSON objects. Errors: ApiError, also (status 0) when a message carries one; Unreachable."""
        response = self.open(method, path, query, body=body, headers=headers)
        try:
            for line in response.lines():
                message = json.loads(line)
                if "errorDetail" in message or "error" in message:
                    detail = message.get("errorDetail") or {}
                    raise ApiError(0, detail.get("message") or message.get("error", "unknown error"))
                yield message
        finally:
            response.connection.close()

    def hijack(self, path: str, query: Query | None = None, body: Any = None) -> Hijacked:
        """Turn a POST into a bare stream (Docker's `Upgrade: tcp`). Errors: ApiError, Unreachable."""
        headers = {"Connection": "Upgrade", "Upgrade": "tcp", "Content-Type": "application/json"}
        response = self.open("POST", path, query, body=json.dumps(body or {}).encode(), headers=headers)
        connection = response.connection
        return Hijacked(connection.sock, connection.take_buffer(), response.headers.get("content-type", ""))

    def close(self) -> None:
        """May be repeated."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def _call(self, method: str, path: str, query: Query | None, body: Any) -> Any:
        headers: Query | None = None
        data: bytes | None = None
        if body is not None:
            data = json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
        response = self._request(method, self._target(path, query), headers, data)
        _raise_for_status(response)
        text = response.read()
        if response.headers.get("content-type", "").startswith("application/json"):
            return json.loads(text) if text.strip() else None
        return text.decode("utf-8", "replace") or None

    def _request(self, method: str, target: str, headers: Query | None = None, body: bytes | None = None) -> Response:
        """An answer on the kept connection, which is kept again once the body is read at once by the caller."""
        connection, self._idle = self._idle, None
        # Looked at before rather than tried again after: a request that was sent may have been carried out.
        if connection is not None and connection.is_closed():
            connection.close()
            connection = None
        if connection is None:
            connection = Connection(connect(self.host))
        response = connection.request(method, target, self._headers(headers), body)
        if response.reusable:
            self._idle = connection
        return response

    def _target(self, path: str, query: Query | None) -> str:
        target = f"/v{self.version}{quote(path, safe='/:@+,=')}"
        pairs = [pair for name, value in (query or {}).items() for pair in _pairs(name, value)]
        return f"{target}?{urlencode(pairs)}" if pairs else target

    def _headers(self, more: Query | None) -> dict[str, str]:
        return {"Host": "wharfie", "User-Agent": "wharfie-client", **(more or {})}


def _raise_for_status(response: Response) -> None:
    if response.status < 400:
        return
    text = response.read().decode("utf-8", "replace").strip()
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text or f"the daemon answered with status {response.status} and no word"
    raise ApiError(response.status, message)


def _pairs(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if value is None or value is False or value == "":
        return
    if value is True:
        yield name, "1"
    elif isinstance(value, Mapping):
        yield name, json.dumps(value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield name, str(item)
    else:
        yield name, str(value)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
