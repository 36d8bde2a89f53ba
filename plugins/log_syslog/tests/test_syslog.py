"""The driver `syslog`: what arrives at a real server, by every transport, and what happens while there is none."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from wharfie_log_syslog import sink as sinks
from wharfie_log_syslog.driver import SyslogDriver
from wharfie_log_syslog.message import FORMS
from wharfie_log_syslog.sink import SyslogSink

from wharfie.spi.driver import ContainerFacts
from wharfie.spi.errors import InvalidArgument, Unsupported
from wharfie.spi.log import LogQuery

FACTS = ContainerFacts(id="0123456789abcdef" * 4, name="web", image="busybox:1", labels={"a": "b"})
TIME = 1_700_000_003_123_456_789
HOST = socket.gethostname()


def plan(**options):
    driver = SyslogDriver(SimpleNamespace(), None)
    return driver.plan(FACTS, {name.replace("_", "-"): value for name, value in options.items()})


def write(sink, *lines, stream="stdout"):
    for line in lines:
        sink.write(stream, memoryview(line), TIME, False)
    sink.flush()


@pytest.fixture
def datagrams(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        server.settimeout(5)
        yield server


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("", rb"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d 0123456789ab\[\d+\]: hello"),
        ("rfc3164", rb"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d HOST 0123456789ab\[\d+\]: hello"),
        ("rfc5424", rb"<30>1 2023-11-1\dT\d\d:\d\d:23(Z|[+-]\d\d:\d\d) HOST 0123456789ab \d+ 0123456789ab - hello"),
        (
            "rfc5424micro",
            rb"<30>1 2023-11-1\dT\d\d:\d\d:23\.123456(Z|[+-]\d\d:\d\d) HOST 0123456789ab \d+ 0123456789ab - hello",
        ),
    ],
)
def test_formats(datagrams, tmp_path, form, pattern):
    sink = SyslogSink(plan(syslog_address=f"unixgram://{tmp_path}/log", syslog_format=form))
    write(sink, b"hello\r\n")
    assert re.fullmatch(pattern.replace(b"HOST", re.escape(HOST.encode())), datagrams.recv(4096))
    sink.close()


def test_facility_severity_and_tag(datagrams, tmp_path):
    options = plan(syslog_address=f"unixgram://{tmp_path}/log", syslog_facility="local3", tag="{{.Name}}/{{.ImageName}} x")
    sink = SyslogSink(options)
    write(sink, b"out\n")
    write(sink, b"\xff\n", stream="stderr")
    first, second = datagrams.recv(4096), datagrams.recv(4096)
    assert first.startswith(b"<158>")  # local3 is 19, info is 6
    assert b" web/busybox:1_x[" in first
    assert second.startswith(b"<155>")
    assert second.endswith(b": \xff")
    sink.close()


def receive(listener, until, wrap=lambda connection: connection):
    """Accept one connection in a thread; what it says until `until` bytes or its end."""
    got = bytearray()

    def serve():
        connection, _ = listener.accept()
        connection.settimeout(10)
        with wrap(connection) as talk:
            while len(got) < until and (piece := talk.recv(65536)):
                got.extend(piece)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return got, thread


def test_udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        sink = SyslogSink(plan(syslog_address=f"udp://127.0.0.1:{server.getsockname()[1]}"))
        write(sink, b"one\n", b"two\n")
        assert server.recv(4096).endswith(b": one")
        assert server.recv(4096).endswith(b": two")
        sink.close()


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
def test_streams_end_each_message_with_a_line_end(scheme, tmp_path):
    family = socket.AF_INET if scheme == "tcp" else socket.AF_UNIX
    with socket.socket(family) as listener:
        listener.bind(("127.0.0.1", 0) if scheme == "tcp" else str(tmp_path / "s"))
        listener.listen()
        where = f"127.0.0.1:{listener.getsockname()[1]}" if scheme == "tcp" else f"{tmp_path}/s"
        got, thread = receive(listener, 1 << 20)
        sink = SyslogSink(plan(syslog_address=f"{scheme}://{where}"))
        write(sink, b"one\n", b"two\n")
        sink.close()
        thread.join(5)
        first, second = bytes(got).splitlines()
        assert first.endswith(b": one")
        assert second.endswith(b": two")


@pytest.fixture
def certificate(tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


def test_tls_counts_its_messages(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp+tls://localhost:{listener.getsockname()[1]}"
        got, thread = receive(listener, 1 << 20, lambda connection: context.wrap_socket(connection, server_side=True))
        options = {"syslog_address": address, "syslog_format": "rfc5424", "syslog_tls_ca_cert": str(certificate[0])}
        sink = SyslogSink(plan(**options))
        write(sink, b"one\n", b"two\n")
        sink.close()
        thread.join(5)
        size, _, rest = bytes(got).partition(b" ")
        assert rest[: int(size)].endswith(b" - one")
        size, _, rest = rest[int(size) :].partition(b" ")
        assert (len(rest), rest.endswith(b" - two")) == (int(size), True)


def test_a_server_that_nobody_signed_is_not_spoken_to(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse():
            with contextlib.suppress(OSError), context.wrap_socket(listener.accept()[0], server_side=True):
                pass

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(OSError, match="certificate"):
            SyslogSink(plan(syslog_address=f"tcp+tls://localhost:{listener.getsockname()[1]}"))
        thread.join(5)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "unix:///nowhere/log", "unixgram:///nowhere/log"])
def test_a_wrong_address_keeps_the_container_from_starting(address):
    with pytest.raises(OSError, match=re.escape(f"syslog server {address}: ")):
        SyslogSink(plan(syslog_address=address))


def test_a_server_that_does_not_read_freezes_nobody():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        sink = SyslogSink(plan(syslog_address=address, mode="non-blocking", max_buffer_size="64k"))
        connection, _ = listener.accept()
        lost = 0
        for _ in range(3000):
            try:
                write(sink, b"x" * 8000 + b"\n")
            except OSError:
                lost += 1
        assert lost > 500
        with pytest.raises(OSError, match="dropped at the end"):
            sink.close()
        connection.close()


def test_a_connection_that_was_lost_is_made_again_and_what_waited_is_sent(monkeypatch):
    monkeypatch.setattr(sinks, "_PAUSES", (0.05,))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        sink = SyslogSink(plan(syslog_address=f"tcp://127.0.0.1:{port}"))
        connection, _ = listener.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # RST
        connection.close()
    for number in range(5):
        write(sink, b"waiting %d\n" % number)
        time.sleep(0.02)
    with socket.create_server(("127.0.0.1", port)) as listener:
        got, thread = receive(listener, 1 << 20)
        deadline = time.monotonic() + 5
        while b"last" not in got and time.monotonic() < deadline:
            time.sleep(0.06)
            write(sink, b"last\n")
        sink.close()
        thread.join(5)
    assert b"waiting 4" in got


def test_a_restarted_local_server_is_found_again(tmp_path):
    path = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(str(path))
        sink = SyslogSink(plan(syslog_address=f"unixgram://{path}"))
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(str(path))
        second.settimeout(5)
        write(sink, b"again\n")
        assert second.recv(4096).endswith(b": again")
    sink.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"syslog-address": "http://x"}, 'unsupported scheme: "http"'),
        ({"syslog-address": "tcp://h:x"}, "syslog-address"),
        ({"syslog-address": "tcp://"}, "no host"),
        ({"syslog-address": "unix://x"}, "absolute"),
        ({"syslog-facility": "nobody"}, "invalid syslog facility"),
        ({"syslog-facility": "24"}, "invalid syslog facility"),
        ({"syslog-format": "rfc1"}, "Invalid syslog format"),
        ({"syslog-address": "tcp+tls://h", "syslog-tls-ca-cert": "/none"}, "no file /none"),
        ({"syslog-address": "tcp+tls://h", "syslog-tls-skip-verify": "maybe"}, "boolean"),
        ({"tag": "{{.Nothing}}"}, "tag"),
        ({"labels-regex": "("}, "labels-regex"),
        ({"max-size": "1m"}, "unknown log opt 'max-size' for syslog log driver"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(InvalidArgument) as caught:
        SyslogDriver(SimpleNamespace(), None).plan(FACTS, options)
    assert words in caught.value.message


def test_defaults():
    options = plan()
    assert (options["scheme"], options["facility"], options["tag"]) == ("", "3", FACTS.id[:12])
    assert plan(syslog_address="udp://h")["port"] == "514"
    assert plan(syslog_facility="7")["facility"] == "7"
    assert "\n" not in plan(tag="a\nb")["tag"]
    with pytest.raises(Unsupported):
        SyslogDriver(SimpleNamespace(), None).open_reader(FACTS, options, LogQuery())


def test_the_sink_needs_the_standard_library_only():
    code = (
        "import sys; import wharfie_log_syslog.sink; assert not {'pydantic', 'pluggy', 'ssl', 'logging'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"], check=True)


def test_times_are_of_this_zone(monkeypatch):
    for zone, stamp in (("UTC", b"2023-11-14T22:13:23Z"), ("Asia/Kolkata", b"2023-11-15T03:43:23+05:30")):
        monkeypatch.setitem(os.environ, "TZ", zone)
        time.tzset()
        try:
            assert stamp in FORMS["rfc5424"](30, TIME, "t", b"")
        finally:
            monkeypatch.undo()
            time.tzset()
