"""The shim: the process beside one container, from its making until it is deleted.

It is one thread and one loop. It owns the container's streams, log, exit status, execs and attached clients, and lives on
without a daemon: a daemon connects to `shim.sock` in the container's folder (`folder`) and is told the state.
"""

from __future__ import annotations

import base64
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wharfie.shim import folder, maker
from wharfie.shim.checkpoints import Checkpoints
from wharfie.shim.children import collect
from wharfie.shim.control import LATER, Control, Request, is_gone, open_listener
from wharfie.shim.engine import Engine
from wharfie.shim.execs import Execs
from wharfie.shim.log_lines import LogLines
from wharfie.shim.loop import READ, Loop
from wharfie.shim.protocol import Message
from wharfie.shim.resolver import Resolver
from wharfie.shim.session import Session
from wharfie.shim.system import PR_SET_CHILD_SUBREAPER, prctl, set_handler, set_name
from wharfie.shim.waiters import Waiters
from wharfie.spi.errors import Conflict

ANSWER_WAITERS = 10.0
"""Seconds that the daemon has for deleting a container that has ended; then its waiting clients are answered."""
LOOK_AGAIN = 60.0
"""Seconds after which an ended container's shim looks again whether a daemon could still reach it."""
OOM_SETTLES = 0.2
"""Seconds from the word on memory to the look at the count of kills: version 1 of control groups counts a moment after it
tells, and version 2 tells of every reclaim."""


def serve(path: str, connection: int) -> None:
    """The shim's whole life: returns when the container was deleted and its last client has read everything.

    `path`: the container's folder. `connection`: of the daemon that wants the container. Errors: those of the making; then
    nothing is left.
    """
    daemon = socket.socket(fileno=connection)
    if is_gone(daemon):  # killed since; the folder may be somebody else's by now
        return
    set_name("wharfie-shim")
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        # Another daemon that comes meanwhile waits at the listener until the container is made.
        listener = open_listener(path)
        folder.write(f"{path}/{folder.SHIM_PID}", os.getpid())
        request = folder.read(f"{path}/{folder.REQUEST}")
        log = maker.open_log(request)
        made = maker.make_apart(request, path)
    except BaseException:
        folder.remove(path)
        daemon.detach()
        raise
    Shim(path, request, log, made, listener).run(daemon)


class Shim:
    """One container that was made."""

    def __init__(
        self, path: str, request: maker.Request, log: LogLines | None, made: maker.Made, listener: socket.socket
    ) -> None:
        self._folder = path
        self._request = request
        self._log = log
        self._made = made
        self._pid = made.pid
        self._loop = Loop(self._note_failure)
        self._control = Control(self._loop, path, listener, self, self._describe, self._on_alone)
        self._waiters = Waiters(self._loop)
        self._made_engine: Engine | None = None
        self._session = Session(self._loop, request["io"], log, self._detached, self._stop_when_idle)
        self._execs = Execs(self._loop, self._emit, self._stop_when_idle, lambda: self._control.alone)
        self._checkpoints = Checkpoints(lambda: self._engine, self._note_failure)
        self._resolver: Resolver | None = None
        self._status = "created"
        self._exit: Message | None = None
        self._oom_kills = 0
        self._oom_look_due = False
        self._oom_fd = -1
        self._finished = False  # ended, and all output passed on
        self._deleted = False
        self._deletions: list[Request] = []

    def run(self, daemon: socket.socket) -> None:
        """Until the container was deleted."""
        made = self._made
        self._watch_children()
        self._session.begin(made.input, made.outputs)
        if made.oom >= 0:
            self._watch_memory(made.oom)
        for fd in made.resolver[:-1]:
            self._loop.watch(fd, READ, lambda events: self._serve_names())
        self._set_status("created")
        self._control.adopt(daemon)
        try:
            self._loop.run()
        except BaseException:
            self._control.note(traceback.format_exc())
            raise

    @property
    def _engine(self) -> Engine:
        """Made when it is first needed: a container that only runs needs it but for its start."""
        if self._made_engine is None:
            engine = maker.make_engine(self._request, maker.Configuration(self._request, self._made.user))
            engine.adopt(self._pid, self._made.engine)
            self._made_engine = engine
        return self._made_engine

    def _describe(self) -> Message:
        return {
            "id": self._request["id"],
            "shim": os.getpid(),
            "status": self._status,
            "pid": self._pid if self._exit is None else 0,
            "exit": self._exit,
            "out_of_memory": self._oom_kills > 0,
            "finished": self._finished,
            "log_failures": self._log.failures if self._log else 0,
            "log_failure": self._log.last_failure if self._log else "",
        }

    def _emit(self, event: Message) -> None:
        self._control.emit(event)

    def _detached(self, label: str) -> None:
        self._emit({"event": "Detached", "exec_id": "", "label": label})

    def _note_failure(self) -> None:
        self._control.note(traceback.format_exc())

    def _set_status(self, status: str) -> None:
        self._status = status
        self._record(folder.STATE, {"status": status, "pid": self._pid})

    def _record(self, name: str, content: Any) -> None:
        """Write what matters only when this shim is killed; a full disk or a missing folder must not stop it before."""
        try:
            folder.write(f"{self._folder}/{name}", content)
        except OSError:
            self._note_failure()

    # Requests; Control finds them by name

    def do_start(self, request: Request) -> None:
        self._check_unstarted()
        try:
            self._engine.start()
        except BaseException:
            self._kill_unstarted()
            raise
        self._set_status("running")

    def _check_unstarted(self) -> None:
        self._checkpoints.check_idle()
        if self._status != "created":
            raise Conflict(f"container {self._request['id']} cannot be started: it is {self._status}")

    def _kill_unstarted(self) -> None:
        """The program could not be executed. That is the answer to `start`, and no end of a container."""
        if self._exit is None:
            self._collect()
            self._end(127, silent=True)

    def _collect(self) -> None:
        """End what `create` left waiting."""
        try:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def _running(self) -> Engine:
        if self._exit is not None:
            raise Conflict(f"container {self._request['id']} is not running")
        return self._engine

    def do_checkpoint(self, request: Request) -> object:
        self._running()
        if self._status == "created":
            raise Conflict(f"container {self._request['id']} is not running")
        if running := self._execs.running:
            raise Conflict(
                f"container {self._request['id']} has {len(running)} processes of execs, which no checkpoint holds: end "
                "them first"
            )
        self._checkpoints.write(request, self._session.pipes, frozen=self._status == "paused", end=self._end_frozen)
        return LATER

    def _end_frozen(self) -> None:
        """SIGKILL goes first, so that a process that is let go does nothing more."""
        os.kill(self._pid, signal.SIGKILL)
        self._guarded(lambda engine: engine.resume())
        self._status = "running"

    def do_restore(self, request: Request) -> object:
        self._check_unstarted()
        self._checkpoints.read(request, self._go_on, self._kill_unstarted)
        return LATER

    def _go_on(self, pid: int, code: int | None) -> None:
        """A checkpoint's first process is the container's from now on; it may have ended with `code` since."""
        if self._exit is not None:
            raise Conflict(f"container {self._request['id']} ended before it was restored")
        self._collect()
        self._pid = pid
        self._set_status("running")
        if code is not None:
            self._end(code)

    def _find_session(self, request: Request) -> Session:
        exec_id = request.message["exec_id"]
        return self._execs.session(exec_id) if exec_id else self._session

    def do_exec(self, request: Request) -> None:
        self._running()
        message = request.message
        self._execs.prepare(message["exec_id"], message["process"], message["io"], message["user"])

    def do_exec_delete(self, request: Request) -> None:
        self._execs.delete(request.message["exec_id"])

    def do_exec_start(self, request: Request) -> Message:
        self._checkpoints.check_idle()
        pid = self._execs.start(request.message["exec_id"], self._running(), self._pid, self._made.user)
        return {"pid": pid}

    def do_signal(self, request: Request) -> None:
        message = request.message
        engine = self._running()
        if message["exec_id"]:
            self._execs.signal(message["exec_id"], message["signal"], engine)
        elif message["everyone"]:
            engine.signal_all(message["signal"])
        else:
            engine.signal(self._pid, message["signal"])
        if message["signal"] == signal.SIGKILL and not message["exec_id"]:
            self._checkpoints.cancel()  # what stands still for it would not die

    def do_attach(self, request: Request) -> None:
        wanted = request.message["attach"]
        session = self._find_session(request)
        connection = socket.socket(fileno=request.take_fd())
        try:
            session.attach(connection, wanted, base64.b64decode(wanted["initial"]))
        except BaseException:
            connection.close()
            raise

    def do_close_stdin(self, request: Request) -> None:
        self._find_session(request).close_stdin()

    def do_resize(self, request: Request) -> None:
        self._find_session(request).resize(request.message["rows"], request.message["columns"])

    def do_state(self, request: Request) -> Message:
        return self._describe()

    def do_update(self, request: Request) -> None:
        self._running().update(request.message["resources"])

    def do_stats(self, request: Request) -> Mapping[str, Any]:
        return self._running().stats()

    def do_pids(self, request: Request) -> list[int]:
        return list(self._running().pids())

    def do_notify_exit(self, request: Request) -> None:
        before, after = (base64.b64decode(request.message[key]) for key in ("before", "after"))
        self._waiters.add(socket.socket(fileno=request.take_fd()), before, after)

    def do_pause(self, request: Request) -> None:
        self._checkpoints.check_idle()
        if self._status == "paused":
            raise Conflict(f"container {self._request['id']} is already paused")
        self._running().pause()
        self._set_status("paused")

    def do_resume(self, request: Request) -> None:
        self._checkpoints.check_idle()
        if self._status != "paused":
            raise Conflict(f"container {self._request['id']} is not paused")
        self._running().resume()
        self._set_status("running")

    # Names

    def _serve_names(self) -> None:
        """The first question: it waits in its socket until the resolver, made only now, is told of it again."""
        self._resolver = Resolver(self._loop, Path(self._request["preparation"]["resolver"]), self._made.resolver)

    def _close_resolver(self) -> None:
        if self._resolver is not None:
            self._resolver.close()
            return
        for fd in self._made.resolver:
            self._loop.forget(fd)
            os.close(fd)

    # The end

    def _watch_children(self) -> None:
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        os.set_blocking(theirs, False)
        # Python's own C handler writes a byte; a handler there must be, for the kernel to send anything at all.
        set_handler(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        os.write(theirs, b"x")  # the container's process may have been killed already, when there was no handler yet
        self._loop.watch(ours, READ, lambda events: self._reap(ours))

    def _reap(self, wakeup: int) -> None:
        try:
            while os.read(wakeup, 4096):
                pass
        except BlockingIOError:
            pass
        for pid, code in collect():
            if pid == self._pid and self._exit is None:
                self._end(code)
            elif not self._checkpoints.ended(pid, code):
                self._execs.ended(pid, code)

    def _end(self, code: int, *, silent: bool = False) -> None:
        self._look_for_oom()
        self._exit = {"code": code, "at_ns": time.time_ns(), "out_of_memory": self._oom_kills > 0}
        self._record(folder.EXIT, self._exit)
        self._set_status("stopped")
        self._close_resolver()  # its sockets would keep the network namespace
        if not self._made.own_pids:
            self._guarded(lambda engine: engine.signal_all(signal.SIGKILL))
        self._execs.abandon_prepared()
        self._session.drain(lambda: self._finish(silent))

    def _finish(self, silent: bool) -> None:
        self._finished = True
        if self._log is not None:
            self._log.close()
        if not silent:
            self._control.emit({"event": "Exited", "exit": self._exit}, keep=False)
            if self._control.alone:
                self._answer_waiters()
                self._end_if_unreachable()
            else:
                self._loop.after(ANSWER_WAITERS, self._answer_waiters)
        if deletions := self._deletions:
            self._deletions = []
            try:
                self._remove()  # once for all who asked
            except Exception as error:  # noqa: BLE001  # the answer to whoever asked
                for request in deletions:
                    request.fail(error)
            else:
                for request in deletions:
                    request.reply()

    def _answer_waiters(self) -> None:
        if self._exit is not None:
            self._waiters.answer(self._exit["code"])

    def _on_alone(self) -> None:
        if self._finished:
            self._answer_waiters()
            self._end_if_unreachable()
        self._execs.abandon_prepared()
        self._execs.delete_ended()
        self._stop_when_idle()

    def _end_if_unreachable(self) -> None:
        """Somebody removed the folder: no daemon will ever come and ask for the deletion."""
        if self._deleted or not self._control.alone:
            return
        if os.path.exists(f"{self._folder}/{folder.SOCKET}"):  # noqa: PTH110  # as in `folder`
            self._loop.after(LOOK_AGAIN, self._end_if_unreachable)
        else:
            self._guarded(lambda engine: engine.delete())
            self._deleted = True
            self._stop_when_idle()

    def do_delete(self, request: Request) -> Any:
        if self._exit is None and not request.message["force"]:
            raise Conflict(
                f"container {self._request['id']} is {self._status}: stop it before removing it, or force the removal"
            )
        if self._finished:
            if not self._deleted:
                self._remove()
            return None
        self._deletions.append(request)
        self._checkpoints.cancel()
        if self._exit is None:
            if self._status == "paused":
                self._engine.resume()
            os.kill(self._pid, signal.SIGKILL)
        return LATER

    def _remove(self) -> None:
        if self._oom_fd >= 0:
            self._loop.forget(self._oom_fd)
        self._engine.delete()
        self._answer_waiters()
        self._deleted = True
        folder.remove(self._folder)
        self._stop_when_idle()

    def _stop_when_idle(self) -> None:
        """A deleted container's shim stays for clients that still read, and for the answer to be sent."""
        if self._deleted and self._session.idle and self._execs.idle:
            self._loop.after(0, self._stop)

    def _stop(self) -> None:
        self._control.close()
        self._loop.stop()

    # Memory

    def _watch_memory(self, fd: int) -> None:
        self._oom_fd = fd
        os.set_blocking(fd, False)
        self._loop.watch(fd, READ, lambda events: self._memory_event())

    def _memory_event(self) -> None:
        try:
            if not os.read(self._oom_fd, 4096):
                self._loop.forget(self._oom_fd)
        except BlockingIOError:
            return
        except OSError:
            self._loop.forget(self._oom_fd)
            return
        if not self._oom_look_due:
            self._oom_look_due = True
            self._loop.after(OOM_SETTLES, self._look_for_oom)

    def _look_for_oom(self) -> None:
        """Tell of kills since the last look, however many, once."""
        self._oom_look_due = False
        kills = self._guarded(lambda engine: engine.oom_kills()) or 0
        if kills > self._oom_kills:
            self._oom_kills = kills
            self._control.emit({"event": "OutOfMemory"}, keep=False)

    def _guarded(self, call: Callable[[Engine], Any]) -> Any:
        """A call that nobody asked for, so that nobody can be told of its failure."""
        try:
            return call(self._engine)
        except Exception:  # noqa: BLE001  # a defect of an engine must not end the container
            self._control.note(traceback.format_exc())
            return None
