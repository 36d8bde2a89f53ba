"""TLS: client certificates, and connections that are taken over with either side half-closed."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from wharfie.api.server import Server
from wharfie.api.tls import server_context


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    new_key = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-batch"]
    openssl(folder, *new_key, "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("server", "client"):
        openssl(folder, *new_key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl(
            folder,
            *("x509", "-req", "-days", "2", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-extfile", "ext", "-out", f"{name}.pem"),
        )
    return folder


@pytest.fixture
def secure(certificates: Path, served) -> Iterator[SimpleNamespace]:
    """The test's engine behind TLS with client certificates, on loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    context = server_context(
        str(certificates / "server.pem"), str(certificates / "server.key"), str(certificates / "ca.pem")
    )
    server = Server(served._answer, tls=[(listener, context)])
    port = listener.getsockname()[1]
    thread = threading.Thread(target=lambda: uvloop.run(server.serve([])))
    thread.start()
    client = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    client.load_cert_chain(str(certificates / "client.pem"), str(certificates / "client.key"))
    stranger = ssl.create_default_context(cafile=str(certificates / "ca.pem"))

    def open_raw() -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=10)

    def connect(context: ssl.SSLContext = client) -> ssl.SSLSocket:
        raw = open_raw()
        try:
            return context.wrap_socket(raw, server_hostname="localhost")
        except BaseException:
            raw.close()
            raise

    yield SimpleNamespace(connect=connect, raw=open_raw, trusted=client, stranger=stranger, served=served)
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def test_a_request(secure, api_tools):
    with secure.connect() as client:
        client.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        status, _, body = api_tools.read_answer(client)
    assert status == 200
    assert b"ApiVersion" in body


def test_a_client_without_a_certificate_is_refused(secure):
    with pytest.raises((ssl.SSLError, ConnectionError)), secure.connect(secure.stranger) as client:
        client.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        if not client.recv(1000):
            raise ConnectionError
    assert secure.served.ask("GET", "/_ping")[0] == 200


def test_the_end_of_stdin_leaves_output_open(secure, api_tools):
    with secure.raw() as raw:
        client = Client(raw, secure.trusted)
        client.sendall(
            b"POST /containers/box/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly"
        )
        status, _, rest = api_tools.read_head(client)
        assert status == 101
        client.half_close()
        data = rest + api_tools.read_all(client)
    assert data.endswith(b"end after 5")


class Client:
    """TLS whose two directions end by themselves, as in Go; an SSLSocket reads while it says that no more will come."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext) -> None:
        self._raw = raw
        self._came, self._goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._came, self._goes, server_hostname="localhost")
        self._until_done(self._tls.do_handshake)

    def sendall(self, data: bytes) -> None:
        self._tls.write(data)
        self._raw.sendall(self._goes.read())

    def recv(self, size: int) -> bytes:
        with contextlib.suppress(ssl.SSLZeroReturnError):
            return self._until_done(lambda: self._tls.read(size))
        return b""

    def half_close(self) -> None:
        """close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._raw.sendall(self._goes.read())

    def _until_done(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                self._raw.sendall(self._goes.read())
                self._came.write(self._raw.recv(65536))
            else:
                self._raw.sendall(self._goes.read())
                return done


def test_the_user_is_the_certificates_name(secure, api_tools, serve):
    asked = []
    serve(authorization_plugins=("judge",))

    def judge(request):
        asked.append(request)
        return SimpleNamespace(allow=True, reason="")

    secure.served.engine.drivers.judges = {"judge": judge}
    with secure.connect() as client:
        client.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert api_tools.read_answer(client)[0] == 200
    assert (asked[0].user, asked[0].authentication, len(asked[0].peer_certificates)) == ("client", "TLS", 1)


def test_much_both_ways(secure, api_tools):
    sent = b"x" * 3_000_000
    with secure.connect() as client:
        client.sendall(b"POST /containers/box/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        status, _, data = api_tools.read_head(client)
        assert status == 200
        sender = threading.Thread(target=client.sendall, args=(sent,))
        sender.start()
        while data.count(b"x") < len(sent):
            data += client.recv(1 << 20)
        sender.join()
    assert data.count(b"x") == len(sent)


def test_a_client_that_talks_no_tls_is_dropped(secure):
    with secure.connect() as good, socket.create_connection(good.getpeername(), timeout=10) as bad:
        bad.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while bad.recv(1000):
            pass
