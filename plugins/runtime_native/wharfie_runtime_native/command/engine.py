"""The engine as the command line uses it: the same one, told that nobody stays."""

from __future__ import annotations

import dataclasses
import signal as signals
import socket
from collections.abc import Mapping
from typing import Any

from wharfie.spi.errors import Conflict
from wharfie_runtime_native import channel, gate, pids
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.store import Folder, Record
from wharfie_runtime_native.engine import CACHE_OPTION, NativeEngine
from wharfie_runtime_native.manner import Manner


class CommandEngine(NativeEngine):
    """One container whose state is in a folder."""

    def __init__(self, session: Session, folder: Folder, record: Record, spec: Mapping[str, Any], manner: Manner) -> None:
        super().__init__(record.id, record.bundle, spec, {CACHE_OPTION: str(session.store.cache)})
        self.manner = manner
        self.record = record
        self._session = session
        self._folder = folder

    def warn(self, message: str) -> None:
        self._session.log.warning(message)

    def _note_group(self) -> None:
        self.record = dataclasses.replace(self.record, grouped=True)
        self._folder.keep(self.record)

    def _hand_over(self, ours: socket.socket, pid: int) -> int:
        """Record the container, then let its first process outlive this one."""
        self.record = dataclasses.replace(self.record, pid=pid, pid_start=pids.started(pid))
        self._folder.keep(self.record)
        ours.send(b"r")
        channel.receive(ours)
        ours.close()
        return -1

    def begin(self) -> None:
        """`start` of a container that this or another call of the command line has made. Errors: Conflict, and execve's."""
        try:
            connection = gate.knock(self._folder.fd)
        except OSError:
            raise Conflict(f"cannot start a container that has stopped: {self.id}") from None
        self.adopt(self.record.pid, (connection,))
        self.start()

    def end(self) -> None:
        """Kill everything, and be rid of the control group."""
        pids.send(self.record.pid, self.record.pid_start, signals.SIGKILL)
        if self.record.grouped:
            self.delete()
        else:
            self._cgroup.remove_empty()


def found(session: Session, folder: Folder, record: Record) -> CommandEngine:
    """The engine of a container that was made before."""
    engine = CommandEngine(session, folder, record, folder.config(), Manner(outlive=True, keyring=record.keyring))
    engine.adopt(record.pid, (-1,))
    return engine
