"""Hearing of it when somebody else changes the host's nftables: a flush, a reload, a rule of the operator's.

The kernel tells every transaction to whoever listens (NFNLGRP_NFTABLES), with the thread that made it. So whatever reload
it was, of firewalld, of nftables.service or by hand, it is heard; and our own changes are told apart. What takes from our
table is looked at in the moment that it is heard, for without its rules containers' addresses are open to the outside; and
so is what takes from firewalld's, which forgets our bridges when it reloads.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

# include/uapi/linux: netlink.h, netfilter/nfnetlink.h, netfilter/nf_tables.h
_NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NFNLGRP_NFTABLES = 7
_NFTABLES = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEW_GENERATION = _NFTABLES | 15  # NFT_MSG_NEWGEN: the end of a transaction
_DELETIONS = frozenset(_NFTABLES | kind for kind in (2, 5, 8, 11, 14))  # NFT_MSG_DELTABLE, CHAIN, RULE, SET, SETELEM
_TABLE_NAME = 1  # NFTA_TABLE_NAME, and the same number in the messages of chains, rules, sets and elements
_GENERATION_THREAD = 2  # NFTA_GEN_PROC_PID
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # nlattr
_FAMILY_HEADER = 4  # nfgenmsg
_QUIET = 0.2
"""Seconds without a change after which other tables are looked at: who flushes often goes on to fill."""
_ROOM = 4 << 20
"""Bytes for what the kernel tells: the end of a table with thousands of elements takes an eighth of that."""
_SO_RCVBUFFORCE = 33


class RulesetWatch:
    """A thread that calls `changed` when others have changed the ruleset: at once after they took something from certain
    tables, some time after they did anything else."""

    def __init__(self, tables: Iterable[str], changed: Callable[[], None]) -> None:
        """Listens in the network namespace of the calling thread. `tables`: the names of these. Errors: OSError."""
        self._tables = frozenset(table.encode() + b"\0" for table in tables)
        self._changed = changed
        self._lessened = False  # something was taken from such a table by the transaction that is being told
        self._end, self._ended = socket.socketpair()
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
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
            urgent = False
            if ready:
                heard, urgent = self._heard()
                foreign = heard or foreign
            if urgent or (foreign and not ready):
                foreign = urgent  # who flushed may go on
                self._changed()

    def _heard(self) -> tuple[bool, bool]:
        """Whether a transaction among those that have arrived is not ours; whether such a one took from our tables."""
        foreign = urgent = False
        while True:
            try:
                data = self._socket.recv(1 << 20)
            except BlockingIOError:
                return foreign, urgent
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                foreign = urgent = True  # more was told than there was room for
                continue
            for kind, body in _messages(data):
                if kind in _DELETIONS:
                    self._lessened = self._lessened or _attribute(body, _TABLE_NAME) in self._tables
                elif kind == _NEW_GENERATION:
                    thread = int.from_bytes(_attribute(body, _GENERATION_THREAD), "big")
                    if thread and not _is_ours(thread):
                        foreign, urgent = True, urgent or self._lessened
                    self._lessened = False


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and attributes of each message."""
    place = 0
    while place + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, place)
        if length < _HEADER.size:
            return
        yield kind, data[place + _HEADER.size + _FAMILY_HEADER : place + length]
        place += (length + 3) & ~3


def _attribute(attributes: bytes, wanted: int) -> bytes:
    """Its value; empty when it is not there."""
    place = 0
    while place + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, place)
        if length < _ATTRIBUTE.size:
            return b""
        if kind & 0x3FFF == wanted:
            return attributes[place + _ATTRIBUTE.size : place + length]
        place += (length + 3) & ~3
    return b""


def _is_ours(thread: int) -> bool:
    """A thread of ours that has ended meanwhile counts as a stranger's: that costs a look for nothing."""
    return Path(f"/proc/{os.getpid()}/task/{thread}").exists()
