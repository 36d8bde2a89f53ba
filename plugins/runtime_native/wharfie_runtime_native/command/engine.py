"""Containers as the command line has them: the driver's own, with their state in a folder, and nobody who stays."""

from __future__ import annotations

import signal as signals
from collections.abc import Mapping
from typing import Any, Self

from wharfie.spi.errors import Conflict
from wharfie_runtime_native import gate, pids
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.store import Folder, Record
from wharfie_runtime_native.container import CACHE_OPTION, Container
from wharfie_runtime_native.manner import Manner


class Kept(Container):
    """One container whose state is in a folder."""

    def __init__(self, session: Session, folder: Folder, record: Record, spec: Mapping[str, Any], manner: Manner) -> None:
        super().__init__(record.id, record.bundle, spec, {CACHE_OPTION: session.store.cache})
        self.manner = manner
        self.record = record
        self._session = session
        self._folder = folder

    @classmethod
    def find(cls, session: Session, folder: Folder, record: Record) -> Self:
        """One that was made before."""
        kept = cls(session, folder, record, folder.config(), Manner(outlive=True, keyring=record.keyring))
        kept.adopt(record.pid, (-1,))
        return kept

    def warn(self, message: str) -> None:
        self._session.log.warning(message)

    def begin(self) -> None:
        """`start` of a container that this or another call of the command line has made. Errors: Conflict, and execve's."""
        try:
            connection = gate.knock(self._folder.gate)
        except OSError:
            raise Conflict(f"cannot start a container that has stopped: {self.id}") from None
        self.adopt(self.record.pid, (connection,))
        self.start()
        self._folder.remove_gate()

    def group(self, controller: str) -> str:
        """The folder of its group in the hierarchy that has this controller; "" where version 2 has them all in one."""
        found = self._cgroup.directories()
        return next((folder for names, folder in found.items() if controller in names.split(",")), "")

    def end(self) -> None:
        """Kill everything, and be rid of the control group."""
        pids.send(self.record.pid, self.record.pid_start, signals.SIGKILL)
        if self.record.grouped:
            self.delete()
        else:
            self._cgroup.remove_empty()
