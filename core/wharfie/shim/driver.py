"""A whole runtime driver from an engine: `ShimRuntime`, which a runtime plugin derives from.

    class NativeDriver(ShimRuntime):
        name = "native"
        spi = "1.0"
        engine = "wharfie_runtime_native.engine:NativeEngine"

The daemon's half: it has shims forked by the zygote, asks them over their sockets, and passes on what they report. All
that it knows of a container is in the container's folder, `<run>/<id>/` (see `folder`), or in the shim's memory.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from wharfie.shim.connection import Connection, Hub, connect, encode_bytes, wait
from wharfie.shim.folder import EXIT, REQUEST, SHIM_PID, STATE, read, remove, write
from wharfie.shim.launch import CLEAN, SERVE, Zygote
from wharfie.shim.protocol import VERSION, Broken, Message, Reader
from wharfie.shim.run_folder import hide_mounts, unhide_mounts
from wharfie.spi.driver import Context, Problem
from wharfie.spi.errors import Conflict, DeadlineExceeded, InvalidArgument, NotFound, Unavailable, WharfieError
from wharfie.spi.runtime import (
    AttachRequest,
    ContainerState,
    Detached,
    ExecExited,
    Exit,
    Exited,
    ExitReply,
    Io,
    Lost,
    OutOfMemory,
    Preparation,
    Process,
    RuntimeCapability,
    RuntimeDriver,
)
from wharfie.spi.storage import Mount

UNKNOWN_EXIT = 137
"""The code of a container whose shim was killed: it was ended by SIGKILL with it."""
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
# Seconds; each a little less than the contract's deadline, so that the error names what did not answer.
_HELLO = 6.0
_SLOW = 22.0
_QUICK = 4.5


class ShimRuntime(RuntimeDriver):
    """RuntimeDriver with a shim for each container. Derived classes name the engine, and may give it options."""

    engine: ClassVar[str]
    """`package.module:Class` of an Engine. Its module is imported by the shim's bare interpreter."""

    def __init__(self, context: Context, settings: Any) -> None:
        super().__init__(context, settings)
        self.context = context
        self._lock = threading.Lock()
        self._shims: dict[str, Connection] = {}
        self._zygote = Zygote(self.engine.partition(":")[0], context.run)
        self._hub = Hub(context.log, self._on_event, self._on_end)

    def engine_options(self) -> Mapping[str, Any]:
        """What the engine is constructed with, as JSON can carry it."""
        return {}

    def capabilities(self) -> frozenset[RuntimeCapability]:
        return frozenset(RuntimeCapability) - {RuntimeCapability.CHECKPOINT}

    def check(self) -> Sequence[Problem]:
        if os.geteuid() != 0:
            return (Problem(what="the daemon does not run as root", fix="start it as root"),)
        return ()

    # Life

    def open(self) -> None:
        run = self.context.run
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        hide_mounts(run)
        self._hub.start()
        for folder in self._folders():
            self._connect(folder)
        end = time.monotonic() + _HELLO
        for shim in self._all():
            try:
                wait(shim.hello, max(0.0, end - time.monotonic()), f"shim of container {shim.id}")
            except WharfieError as error:
                self.context.log.warning("%s", error)

    def close(self) -> None:
        self._hub.stop()
        self._zygote.end()
        with self._lock:
            self._shims.clear()
        if not self._folders():
            unhide_mounts(self.context.run)

    # Containers

    def create(self, id: str, bundle: Path, rootfs: tuple[Mount, ...], io: Io, preparation: Preparation) -> Process:
        if not _ID.fullmatch(id):
            raise InvalidArgument(f"container id {id!r}: letters, digits, '_', '.' and '-' are allowed, at most 128")
        folder = self.context.run / id
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            raise Conflict(f"container {id} exists already") from None
        request = {
            "version": VERSION,
            "id": id,
            "bundle": str(bundle),
            "engine": self.engine,
            "options": dict(self.engine_options()),
            "rootfs": [asdict(mount) for mount in rootfs],
            "io": asdict(io),
            "preparation": asdict(preparation),
        }
        shim: Connection | None = None
        try:
            write(folder / REQUEST, request)
            modules = [io.log.sink.partition(":")[0]] if io.log else []
            shim = self._fork(id, folder, modules)
            pid = int(shim.hello.result()["pid"])
            shim.end_expected = False
            if shim.ended:
                raise Unavailable(f"the shim of container {id} was killed")
        except BaseException:
            if shim is not None:
                self._discard(shim)
            if (folder / SHIM_PID).exists():  # a shim that was killed could not clear up
                self._clean(folder)
            remove(folder)
            raise
        return Process(pid=pid, netns=Path(f"/proc/{pid}/ns/net"))

    def start(self, id: str) -> None:
        self._get(id).call("start", _SLOW)

    def exec(self, id: str, exec_id: str, process: Mapping[str, Any], io: Io, *, user: str = "") -> None:
        self._get(id).call("exec", _SLOW, exec_id=exec_id, process=process, io=asdict(io), user=user)

    def exec_start(self, id: str, exec_id: str) -> Process:
        pid = int(self._get(id).call("exec_start", _SLOW, exec_id=exec_id)["pid"])
        return Process(pid=pid, netns=Path(f"/proc/{pid}/ns/net"))

    def exec_delete(self, id: str, exec_id: str) -> None:
        with contextlib.suppress(NotFound):
            self._get(id).call("exec_delete", _QUICK, exec_id=exec_id)

    def signal(self, id: str, signal: int, *, exec_id: str = "", everyone: bool = False) -> None:
        self._get(id).call("signal", _QUICK, signal=int(signal), exec_id=exec_id, everyone=everyone)

    def attach(self, id: str, exec_id: str, client: socket.socket, request: AttachRequest) -> None:
        wanted = {**asdict(request), "initial": encode_bytes(request.initial)}
        self._get(id).call("attach", _QUICK, [client.fileno()], exec_id=exec_id, attach=wanted)

    def notify_exit(self, id: str, client: socket.socket, reply: ExitReply) -> None:
        before, after = encode_bytes(reply.before), encode_bytes(reply.after)
        self._get(id).call("notify_exit", _QUICK, [client.fileno()], before=before, after=after)

    def close_stdin(self, id: str, exec_id: str) -> None:
        self._get(id).call("close_stdin", _QUICK, exec_id=exec_id)

    def resize(self, id: str, exec_id: str, rows: int, columns: int) -> None:
        self._get(id).call("resize", _QUICK, exec_id=exec_id, rows=rows, columns=columns)

    def pause(self, id: str) -> None:
        self._get(id).call("pause", _QUICK * 2)

    def resume(self, id: str) -> None:
        self._get(id).call("resume", _QUICK * 2)

    def update(self, id: str, resources: Mapping[str, Any]) -> None:
        self._get(id).call("update", _QUICK * 2, resources=resources)

    def stats(self, id: str) -> Mapping[str, Any]:
        return cast(Mapping[str, Any], self._get(id).call("stats", _QUICK))

    def pids(self, id: str) -> Sequence[int]:
        return tuple(self._get(id).call("pids", _QUICK))

    def state(self, id: str) -> ContainerState:
        shim = self._find(id)
        if shim is not None:
            try:
                return _state(id, shim.call("state", _QUICK))
            except Unavailable:  # killed, or stopped by somebody: the folder knows
                pass
        return self._recorded_state(id)

    def containers(self) -> Sequence[ContainerState]:
        answers: dict[str, Future[Any]] = {shim.id: shim.begin("state") for shim in self._all()}
        end = time.monotonic() + _QUICK
        states = []
        for folder in self._folders():
            name = folder.name
            answer = answers.get(name)
            try:
                try:
                    state = wait(answer, max(0.0, end - time.monotonic()), f"shim of container {name}") if answer else None
                except Unavailable:
                    state = None
                states.append(self._recorded_state(name) if state is None else _state(name, state))
            except NotFound:  # deleted meanwhile
                pass
        return states

    def delete(self, id: str, *, force: bool = False) -> None:
        shim = self._find(id)
        if shim is not None:
            shim.end_expected = True
            try:
                shim.call("delete", _SLOW, force=force)
            except Unavailable:
                if not shim.ended:
                    shim.end_expected = False
                    raise
            except BaseException:
                shim.end_expected = False
                raise
            self._remove(shim)
        folder = self.context.run / id
        if _ID.fullmatch(id) and folder.exists():
            if (folder / REQUEST).exists():
                self._clean(folder)
            remove(folder)

    # Shims

    def _fork(self, id: str, folder: Path, modules: Sequence[str]) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._zygote.submit(SERVE, folder, modules, theirs)
            except BaseException:
                ours.close()
                raise
        shim = Connection(id, ours)
        shim.end_expected = True
        self._add(shim)
        try:
            wait(shim.hello, _SLOW, f"shim of container {id}: create")
        except BaseException as error:
            self._discard(shim)
            if isinstance(error, DeadlineExceeded):
                self._zygote.end()  # it may hang in an import; the next container gets a new one
            raise
        return shim

    def _connect(self, folder: Path) -> bool:
        """Connect to the shim of an earlier daemon; False when there is none."""
        try:
            sock = connect(folder)
        except OSError as error:
            self.context.log.warning("shim of container %s cannot be reached: %s", folder.name, error)
            return False
        if sock is None:
            return False
        self._add(Connection(folder.name, sock))
        return True

    def _clean(self, folder: Path) -> None:
        """The shim was killed: have another one remove what its engine had made."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._zygote.submit(CLEAN, folder, (), theirs)
            ours.settimeout(_SLOW)
            try:
                ours.recv(1, socket.MSG_PEEK)
                errors = [message["error"]["message"] for message, _ in Reader(ours).read() if "error" in message]
            except (TimeoutError, Broken):
                errors = ["its remains could not be removed"]
            for error in errors:
                self.context.log.error("container %s, whose shim died: %s", folder.name, error)

    def _discard(self, shim: Connection) -> None:
        """End a shim that has no container, or whose container nobody waits for any more."""
        shim.end_expected = True
        self._remove(shim)
        shim.hang_up()
        _kill(self.context.run / shim.id)

    def _add(self, shim: Connection) -> None:
        with self._lock:
            self._shims[shim.id] = shim
        self._hub.add(shim)

    def _remove(self, shim: Connection) -> None:
        with self._lock:
            if self._shims.get(shim.id) is shim:
                del self._shims[shim.id]

    def _find(self, id: str) -> Connection | None:
        with self._lock:
            return self._shims.get(id)

    def _get(self, id: str) -> Connection:
        shim = self._find(id)
        if shim is not None:
            return shim
        if _ID.fullmatch(id) and (self.context.run / id / REQUEST).exists():
            raise Conflict(f"container {id} is not running: its shim is gone")
        raise NotFound(f"no such container: {id}")

    def _all(self) -> list[Connection]:
        with self._lock:
            return list(self._shims.values())

    def _folders(self) -> list[Path]:
        found = (path.parent for path in self.context.run.glob(f"*/{REQUEST}"))
        return sorted(folder for folder in found if _ID.fullmatch(folder.name))

    def _recorded_state(self, id: str) -> ContainerState:
        """What the folder of a container says whose shim does not answer. Errors: NotFound."""
        folder = self.context.run / id
        if not _ID.fullmatch(id) or not (folder / REQUEST).exists():
            raise NotFound(f"no such container: {id}")
        if self._find(id) is not None:
            state = read(folder / STATE) or {"status": "created", "pid": 0}
            return _state(id, {**state, "exit": read(folder / EXIT)})
        return _state(id, {"status": "stopped", "pid": 0, "exit": read(folder / EXIT) or _unknown_exit(folder)})

    # Reader thread

    def _on_event(self, shim: Connection, message: Message) -> None:
        make = _EVENTS.get(message["event"])
        if message["event"] == "Exited":
            shim.exit_seen = True
        if make is not None:
            self.context.emit(make(shim.id, message))

    def _on_end(self, shim: Connection) -> None:
        self._remove(shim)
        if shim.end_expected:
            return
        if self._connect(self.context.run / shim.id) or shim.exit_seen:  # it was only the connection that broke
            return
        known = read(self.context.run / shim.id / EXIT)
        if known is not None:
            self.context.emit(Exited(id=shim.id, exit=_exit(known)))
        else:
            self.context.log.error("the shim of container %s was killed, and the container with it", shim.id)
            self.context.emit(Lost(id=shim.id))


_EVENTS: Mapping[str, Callable[[str, Message], Any]] = {
    "Exited": lambda name, message: Exited(id=name, exit=_exit(message["exit"])),
    "ExecExited": lambda name, message: ExecExited(id=name, exec_id=message["exec_id"], exit=_exit(message["exit"])),
    "OutOfMemory": lambda name, message: OutOfMemory(id=name),
    "Detached": lambda name, message: Detached(id=name, exec_id=message["exec_id"], label=message["label"]),
}


def _exit(message: Mapping[str, Any]) -> Exit:
    return Exit(code=message["code"], at_ns=message["at_ns"], out_of_memory=bool(message.get("out_of_memory")))


def _state(id: str, message: Mapping[str, Any]) -> ContainerState:
    end = _exit(message["exit"]) if message.get("exit") else None
    status = "created" if message["status"] == "creating" else message["status"]
    return ContainerState(
        id=id,
        status=cast(Literal["created", "running", "paused", "stopped"], "stopped" if end else status),
        pid=0 if end else message["pid"],
        exit=end,
        out_of_memory=bool(message.get("out_of_memory") or (end and end.out_of_memory)),
    )


def _unknown_exit(folder: Path) -> Mapping[str, Any]:
    try:
        at_ns = (folder / STATE).stat().st_mtime_ns
    except OSError:
        at_ns = folder.stat().st_mtime_ns
    return {"code": UNKNOWN_EXIT, "at_ns": at_ns}


def _kill(folder: Path) -> None:
    """SIGKILL for the shim of a folder, if there is one, unless its pid is another process's by now."""
    pid = read(folder / SHIM_PID)
    if not isinstance(pid, int):
        return
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if read(folder / SHIM_PID) == pid and Path(f"/proc/{pid}/comm").read_text().strip() == "wharfie-shim":
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except (OSError, ProcessLookupError):
        pass
    finally:
        os.close(fd)
