"""The socket at which a container without a shim waits for its start."""

from __future__ import annotations

import os
import threading

import pytest
from wharfie_runtime_native import channel, gate


@pytest.fixture
def address(tmp_path):
    deep = tmp_path / ("x" * 120)  # longer than a socket's address can be
    deep.mkdir()
    fd = os.open(deep, os.O_PATH)
    yield f"/proc/self/fd/{fd}/start"
    os.close(fd)


def test_nobody_waits(address):
    assert not gate.is_waiting(address)
    with pytest.raises(FileNotFoundError):
        gate.knock(address)


def test_looking_is_not_the_word_to_go(address):
    listener = gate.listen(address)
    callers = []
    waiter = threading.Thread(target=lambda: callers.append(gate.wait(listener)))
    waiter.start()
    for _ in range(3):
        assert gate.is_waiting(address)
    assert waiter.is_alive()
    connection = gate.knock(address)
    os.write(connection, b"g")
    waiter.join(10)
    channel.send(callers[0], word="here")
    assert channel.receive(connection) == {"word": "here"}
    callers[0].close()
    assert channel.receive(connection) is None
    os.close(connection)
    os.close(listener)
    assert not gate.is_waiting(address)
    with pytest.raises(ConnectionRefusedError):
        gate.knock(address)
