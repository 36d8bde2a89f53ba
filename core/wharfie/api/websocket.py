"""Attaching over a WebSocket (RFC 6455): frames on the client's side, a plain stream on the container's.

Docker's daemon never multiplexes here: stdout and stderr come as binary messages in one stream.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
import struct
from collections.abc import Iterable

from starlette.requests import Request

from wharfie.api.hijack import connection, upgrade_of
from wharfie.spi.errors import InvalidArgument

_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = "13"
_PIECE = 1 << 16
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FINAL, _MASKED = 0x80, 0x80
_CONTROL_LIMIT = 125
_NORMAL, _PROTOCOL_ERROR = 1000, 1002

_BRIDGES: set[asyncio.Task[None]] = set()


class _Broken(Exception):
    """The client does not keep to the protocol, or went away."""


async def take_websocket(request: Request, common: Iterable[tuple[bytes, bytes]]) -> socket.socket:
    """Take the connection over; the other end of what is returned speaks for the client, without frames.

    Errors: InvalidArgument (no WebSocket handshake), Cancelled.
    """
    key = request.headers.get("sec-websocket-key", "")
    if upgrade_of(request).lower() != "websocket" or request.headers.get("sec-websocket-version") != _VERSION or not key:
        raise InvalidArgument("not a websocket handshake: want Upgrade: websocket, version 13, and a key")
    accept = base64.b64encode(hashlib.sha1(f"{key}{_MAGIC}".encode(), usedforsecurity=False).digest())
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    lines.append(b"Sec-WebSocket-Accept: " + accept)
    lines += [name.title() + b": " + value for name, value in common]
    client, early = await connection(request).take(b"\r\n".join([*lines, b"", b""]))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    task = asyncio.get_running_loop().create_task(_bridge(client, early, ours))
    _BRIDGES.add(task)
    task.add_done_callback(_BRIDGES.discard)
    return theirs


async def _bridge(client: socket.socket, early: bytes, stream: socket.socket) -> None:
    with client, stream:
        writing = asyncio.Lock()
        loop = asyncio.get_running_loop()
        tasks = {loop.create_task(_in(client, early, stream, writing)), loop.create_task(_out(client, stream, writing))}
        try:
            # Whoever ends first ends both: the output is over, or the client is gone.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _out(client: socket.socket, stream: socket.socket, writing: asyncio.Lock) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(stream, _PIECE):
            await _send(client, _BINARY, data, writing)
        await _send(client, _CLOSE, struct.pack(">H", _NORMAL), writing)


async def _in(client: socket.socket, early: bytes, stream: socket.socket, writing: asyncio.Lock) -> None:
    reader = _Frames(client, early)
    try:
        while True:
            opcode, size, mask = await reader.head()
            if opcode in (_CONTINUATION, _TEXT, _BINARY):
                await _pass_on(reader, size, mask, stream)
                continue
            payload = _unmasked(await reader.exactly(size), mask, 0)
            if opcode == _CLOSE:
                await _send(client, _CLOSE, payload[:2], writing)
                return
            if opcode == _PING:
                await _send(client, _PONG, payload, writing)
            elif opcode != _PONG:
                raise _Broken
    except _Broken:
        with contextlib.suppress(OSError):
            await _send(client, _CLOSE, struct.pack(">H", _PROTOCOL_ERROR), writing)
    except OSError:
        return


async def _pass_on(reader: _Frames, size: int, mask: bytes, stream: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    done = 0
    while done < size:
        piece = await reader.some(min(size - done, _PIECE))
        with contextlib.suppress(BrokenPipeError):  # the container takes no input
            await loop.sock_sendall(stream, _unmasked(piece, mask, done))
        done += len(piece)


class _Frames:
    """What the client sends."""

    def __init__(self, client: socket.socket, early: bytes) -> None:
        self._client = client
        self._ahead = early

    async def head(self) -> tuple[int, int, bytes]:
        """Opcode, bytes of payload, mask. Errors: _Broken, OSError."""
        first, second = await self.exactly(2)
        opcode, size = first & 0x0F, second & 0x7F
        if first & 0x70 or not second & _MASKED or (opcode >= _CLOSE and (size > _CONTROL_LIMIT or not first & _FINAL)):
            raise _Broken
        if size > _CONTROL_LIMIT:
            size = int.from_bytes(await self.exactly(2 if size == _CONTROL_LIMIT + 1 else 8))
        return opcode, size, await self.exactly(4)

    async def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += await self.some(count - len(data))
        return data

    async def some(self, limit: int) -> bytes:
        if not self._ahead:
            self._ahead = await asyncio.get_running_loop().sock_recv(self._client, _PIECE)
            if not self._ahead:
                raise ConnectionResetError
        data, self._ahead = self._ahead[:limit], self._ahead[limit:]
        return data


def _unmasked(data: bytes, mask: bytes, offset: int) -> bytes:
    """`data` began `offset` bytes after the beginning of its payload."""
    turned = mask[offset % 4 :] + mask[: offset % 4]
    pattern = (turned * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(pattern)).to_bytes(len(data))


async def _send(client: socket.socket, opcode: int, payload: bytes, writing: asyncio.Lock) -> None:
    size = len(payload)
    if size <= _CONTROL_LIMIT:
        head = struct.pack(">BB", _FINAL | opcode, size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", _FINAL | opcode, _CONTROL_LIMIT + 1, size)
    else:
        head = struct.pack(">BBQ", _FINAL | opcode, _CONTROL_LIMIT + 2, size)
    async with writing:
        await asyncio.get_running_loop().sock_sendall(client, head + payload)
