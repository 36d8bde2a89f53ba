"""Hearing of it when somebody else changes the host's nftables: a flush, a reload, a rule of the operator's.

The kernel tells every transaction to whoever listens (NFNLGRP_NFTABLES), with the thread that made it. So whatever reload
it was, of firewalld, of nftables.service or by hand, it is heard; and our own changes are told apart.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

_NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NFNLGRP_NFTABLES = 7
_NEW_GENERATION = (10 << 8) | 15  # NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN: the end of a transaction
_GENERATION_THREAD = 2  # NFTA_GEN_PROC_PID
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # nlattr
_FAMILY_HEADER = 4  # nfgenmsg
_QUIET = 0.2
"""Seconds without a change after which it is looked at: who flushes often goes on to fill."""


class RulesetWatch:
    """A thread that calls `changed` some time after others changed the ruleset."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """Listens in the network namespace of the calling thread. Errors: OSError."""
        self._changed = changed
        self._end, self._ended = socket.socketpair()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
        except OSError:
            self._close()
            raise
        self._thread = threading.Thread(target=self._run, name="nftables", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """May be repeated."""
        if self._thread.is_alive():
            self._end.send(b"!")  # closing it would not do while a forked process has a copy
            self._thread.join()
        self._close()

    def _close(self) -> None:
        for one in (self._socket, self._end, self._ended):
            one.close()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._ended, select.POLLIN)
        foreign = False
        while True:
            ready = [fd for fd, _ in poll.poll(_QUIET * 1000 if foreign else None)]
            if self._ended.fileno() in ready:
                return
            if ready:
                foreign = self._foreign() or foreign
            elif foreign:
                foreign = False
                self._changed()

    def _foreign(self) -> bool:
        """Whether a transaction among those that have arrived is not ours."""
        found = False
        while True:
            try:
                data = self._socket.recv(1 << 20)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True  # more was told than there was room for
                continue
            found = any(thread and not _is_ours(thread) for thread in _threads(data)) or found


def _threads(data: bytes) -> Iterator[int]:
    """The threads that made the transactions which these messages tell of."""
    place = 0
    while place + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, place)
        if length < _HEADER.size:
            return
        if kind == _NEW_GENERATION:
            yield _thread(data[place + _HEADER.size + _FAMILY_HEADER : place + length])
        place += (length + 3) & ~3


def _thread(attributes: bytes) -> int:
    place = 0
    while place + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, place)
        if length < _ATTRIBUTE.size:
            return 0
        if kind & 0x3FFF == _GENERATION_THREAD:
            return int.from_bytes(attributes[place + _ATTRIBUTE.size : place + length], "big")
        place += (length + 3) & ~3
    return 0


def _is_ours(thread: int) -> bool:
    """A thread of ours that has ended meanwhile counts as a stranger's: that costs a look for nothing."""
    return Path(f"/proc/{os.getpid()}/task/{thread}").exists()
