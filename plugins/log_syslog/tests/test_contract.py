"""The contract of log drivers, with a server that takes everything."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from wharfie.kit import LogContract

PATH = Path(tempfile.gettempdir(), f"wharfie-syslog-{os.getpid()}.sock")


@pytest.fixture(scope="module", autouse=True)
def _server():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(PATH))
        server.settimeout(0.1)
        ending = threading.Event()
        reader = threading.Thread(target=_read, args=(server, ending))
        reader.start()
        yield
        ending.set()
        reader.join()
    PATH.unlink()


def _read(server, ending):
    while not ending.is_set():
        try:
            server.recv(65536)
        except TimeoutError:
            continue


class TestSyslog(LogContract):
    driver = "log.syslog"
    options = {"syslog-address": f"unixgram://{PATH}"}
