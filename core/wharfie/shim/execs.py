"""Further processes in a container: prepared, executed, looked after until they end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wharfie.shim import safe_path, users
from wharfie.shim.ends import Ends
from wharfie.shim.engine import Engine
from wharfie.shim.loop import Loop
from wharfie.shim.protocol import Message
from wharfie.shim.session import Session
from wharfie.spi.errors import Conflict, NotFound

RECORD_LIMIT = 2.0  # seconds that a client's end waits for the daemon to record an exec's


@dataclass(slots=True)
class _Exec:
    """One that was prepared; `pid` is 0 until it is executed."""

    process: Mapping[str, Any]
    user: str
    session: Session
    pid: int = 0


class Execs:
    """The execs of one container, from `prepare` until they have ended and been reported."""

    def __init__(
        self, loop: Loop, emit: Callable[[Message], None], on_idle: Callable[[], None], alone: Callable[[], bool]
    ) -> None:
        """`alone`: whether no daemon is there that could record an end."""
        self._loop = loop
        self._emit = emit
        self._on_idle = on_idle
        self._alone = alone
        self._unrecorded: dict[str, Session] = {}  # ended, with clients that wait until the daemon has recorded it
        self._execs: dict[str, _Exec] = {}
        self._leaving: list[Session] = []  # ended, with clients that have not yet read everything

    @property
    def idle(self) -> bool:
        """No client of an exec is left."""
        return not self._leaving and not self._unrecorded

    @property
    def running(self) -> list[str]:
        """Those that are executed."""
        return [exec_id for exec_id, found in self._execs.items() if found.pid]

    def prepare(self, exec_id: str, process: Mapping[str, Any], io: Mapping[str, Any], user: str) -> None:
        """Errors: Conflict (the id exists)."""
        if exec_id in self._execs:
            raise Conflict(f"exec {exec_id} exists already")

        def detached(label: str) -> None:
            self._emit({"event": "Detached", "exec_id": exec_id, "label": label})

        session = Session(self._loop, {**io, "stdin_once": True}, None, detached, self._forget_idle)
        self._execs[exec_id] = _Exec(process, user, session)

    def start(self, exec_id: str, engine: Engine, container_pid: int, default_user: Mapping[str, Any]) -> int:
        """Execute; the pid. `default_user`: the container's own. After an error the exec is gone."""
        found = self._get(exec_id)
        if found.pid:
            raise Conflict(f"exec {exec_id} is running already")
        session = found.session
        try:
            process = _with_user(found.process, found.user, container_pid, default_user)
            ends = Ends(terminal=session.terminal, stdin=session.keep_stdin, size=session.size)
            try:
                found.pid = engine.exec({**process, "terminal": session.terminal}, ends.streams)
                ends.settle()
            except BaseException:
                ends.close()
                raise
            session.begin(ends.input, ends.outputs)
        except BaseException:
            del self._execs[exec_id]
            if found.pid:
                os.kill(found.pid, signal.SIGKILL)
            session.release()
            raise
        return found.pid

    def session(self, exec_id: str) -> Session:
        return self._get(exec_id).session

    def signal(self, exec_id: str, number: int, engine: Engine) -> None:
        found = self._get(exec_id)
        if not found.pid:
            raise Conflict(f"exec {exec_id} is not running")
        engine.signal(found.pid, number)

    def ended(self, pid: int, code: int) -> bool:
        """A child has ended; whether it was an exec's."""
        exec_id = next((key for key, found in self._execs.items() if found.pid == pid), None)
        if exec_id is None:
            return False
        at_ns = time.time_ns()
        session = self._execs.pop(exec_id).session
        self._unrecorded[exec_id] = session

        def drained() -> None:
            self._emit({"event": "ExecExited", "exec_id": exec_id, "exit": {"code": code, "at_ns": at_ns}})
            if self._alone():
                self.delete(exec_id)
            else:
                self._loop.after(RECORD_LIMIT, lambda: self.delete(exec_id))

        session.drain(drained, hold=True)
        return True

    def delete(self, exec_id: str) -> None:
        """The end was recorded: the clients' connections end. May be repeated."""
        session = self._unrecorded.pop(exec_id, None)
        if session is not None:
            self._leaving.append(session)
            session.finish()
            self._forget_idle()

    def delete_ended(self) -> None:
        """The daemon is gone: nobody will record what has ended."""
        for exec_id in tuple(self._unrecorded):
            self.delete(exec_id)

    def abandon_prepared(self) -> None:
        """The container has ended, or the daemon that would start them is gone: what was prepared will never run."""
        for exec_id, found in tuple(self._execs.items()):
            if not found.pid:
                del self._execs[exec_id]
                self._leaving.append(found.session)
                found.session.abandon()
        self._forget_idle()

    def _get(self, exec_id: str) -> _Exec:
        try:
            return self._execs[exec_id]
        except KeyError:
            raise NotFound(f"no such exec: {exec_id}") from None

    def _forget_idle(self) -> None:
        self._leaving = [session for session in self._leaving if not session.idle]
        self._on_idle()


def _with_user(process: Mapping[str, Any], user: str, container_pid: int, default: Mapping[str, Any]) -> dict[str, Any]:
    """`user` resolved in the container's root as it is now; without one, what the process says, or the container's own."""
    if not user:
        return {**process, "user": process.get("user") or default}
    root = safe_path.open_root(f"/proc/{container_pid}/root")
    try:
        return users.apply(process, users.resolve(root, user))
    finally:
        os.close(root)
