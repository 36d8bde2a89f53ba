"""The bounded buffer of log sinks: in order, never waiting long, counting what is lost."""

from __future__ import annotations

import fcntl
import os
import threading

import pytest

from wharfie.spi.outflow import Outflow


class PipeOutflow(Outflow):
    def __init__(self, fd, **options):
        super().__init__(**options)
        self.fd = fd

    def send(self, message):
        return os.write(self.fd, message)

    def fileno(self):
        return self.fd


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def read_all(fd):
    os.set_blocking(fd, False)
    data = b""
    try:
        while chunk := os.read(fd, 65536):
            data += chunk
    except BlockingIOError:
        pass
    return data


def test_messages_arrive_in_order(pipe):
    reader, writer = pipe
    outflow = PipeOutflow(writer)
    for number in range(100):
        outflow.put(b"%d\n" % number)
    outflow.flush()
    assert read_all(reader) == b"".join(b"%d\n" % number for number in range(100))


def test_what_the_buffer_cannot_hold_is_dropped_and_counted(pipe):
    reader, writer = pipe
    outflow = PipeOutflow(writer, limit=10_000, patience=0)
    lost = 0
    for number in range(100):
        try:
            outflow.put(b"%04d" % number * 250)
        except OSError:
            lost += 1
        outflow.flush()
    assert lost == outflow.dropped > 80
    got = read_all(reader)
    while outflow.pending:
        outflow.flush()
        got += read_all(reader)
    assert len(got) == (100 - lost) * 1000
    assert got == b"".join(b"%04d" % number * 250 for number in range(100 - lost))


def test_a_slow_destination_loses_nothing(pipe):
    reader, writer = pipe
    outflow = PipeOutflow(writer, limit=8192, patience=10)
    got = []

    def consume():
        while chunk := os.read(reader, 100):
            got.append(chunk)
            if sum(map(len, got)) >= 100_000:
                return

    thread = threading.Thread(target=consume)
    thread.start()
    for number in range(100):
        outflow.put(b"%04d" % number * 250)
        outflow.flush()
    outflow.finish()
    thread.join()
    assert b"".join(got) == b"".join(b"%04d" % number * 250 for number in range(100))
    assert outflow.dropped == 0


def test_a_stuck_destination_is_waited_for_once(pipe, monkeypatch):
    _, writer = pipe
    outflow = PipeOutflow(writer, limit=8192, patience=5)
    waits = []
    monkeypatch.setattr(outflow, "_writable", lambda seconds: waits.append(seconds) or False)
    for _ in range(50):
        try:
            outflow.put(b"x" * 1000)
        except OSError:
            pass
        outflow.flush()
    assert waits.count(5) == 1
    with pytest.raises(OSError, match="dropped at the end"):
        outflow.finish()


def test_a_destination_that_is_gone_keeps_the_messages(pipe):
    reader, writer = pipe
    outflow = PipeOutflow(-1)
    outflow.put(b"a")
    outflow.flush()
    outflow.fd = writer
    outflow.put(b"b")
    outflow.flush()
    assert read_all(reader) == b"ab"


def test_a_message_larger_than_the_buffer_is_taken_alone(pipe):
    reader, writer = pipe
    outflow = PipeOutflow(writer, limit=10)
    outflow.put(b"y" * 100)
    outflow.flush()
    assert read_all(reader) == b"y" * 100
