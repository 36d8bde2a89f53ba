"""A checkpoint of the shim's container that is being written, or being brought back to life; one at a time.

The engine does the work in a child, so that clients are served meanwhile. What is written lies in a folder beside the
wanted one until it is whole, and the container stands still until it is decided what becomes of it: a daemon that died
meanwhile gets neither a checkpoint nor an end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

from wharfie.shim.control import Request
from wharfie.shim.engine import Engine
from wharfie.spi.errors import Cancelled, Conflict, NotFound

PART = ".part-"
"""Before the name of a folder that is not whole: no checkpoint's name begins with a dot."""


class Checkpoints:
    """Of one container."""

    __slots__ = ("_child", "_done", "_engine", "_note_failure", "_strangers")

    def __init__(self, engine: Callable[[], Engine], note_failure: Callable[[], None]) -> None:
        self._engine = engine
        self._note_failure = note_failure
        self._child = 0
        self._done: Callable[[int], None] | None = None
        self._strangers: dict[int, int] = {}
        """Other children that have ended meanwhile: a restored process may be among them."""

    def check_idle(self) -> None:
        """Errors: Conflict."""
        if self._child:
            raise Conflict("a checkpoint of the container is being written or restored: wait until it is done")

    def write(self, request: Request, pipes: Mapping[int, int], *, frozen: bool, end: Callable[[], None]) -> None:
        """Answers `request` later. `pipes`: as `Engine.checkpoint` takes them. `frozen`: the container stands still
        already, and does so afterwards. `end`: kills it.

        Errors: Conflict (the folder exists, one is under way), the engine's, OSError.
        """
        self.check_idle()
        engine = self._engine()
        folder = request.message["folder"]
        part = part_of(folder)
        if os.path.lexists(folder):
            raise Conflict(f"{folder} exists already")
        discard(part)
        if not frozen:
            engine.pause()
        try:
            os.mkdir(part, 0o700)  # noqa: PTH102  # here and below: a path object would cost each shim its memory
            child = engine.checkpoint(part, pipes)
        except BaseException:
            self._drop(part, engine, frozen=frozen)
            raise

        def done(code: int) -> None:
            try:
                engine.checkpointed(part, code)
                if request.abandoned:
                    raise Cancelled(f"checkpoint {folder}: nobody waits for it any more")
                os.rename(part, folder)  # noqa: PTH104
            except Exception as error:  # noqa: BLE001  # the answer to whoever asked
                self._drop(part, engine, frozen=frozen)
                request.fail(error)
                return
            if not request.message["leave_running"]:
                end()
            elif not frozen:
                self._thaw(engine)
            request.reply()

        self._child, self._done = child, done

    def _drop(self, part: str, engine: Engine, *, frozen: bool) -> None:
        """There will be no checkpoint: the container goes on."""
        if not frozen:
            self._thaw(engine)
        try:
            discard(part)
        except OSError:
            self._note_failure()

    def _thaw(self, engine: Engine) -> None:
        try:
            engine.resume()
        except Exception:  # noqa: BLE001  # its group may have gone with its last process
            self._note_failure()

    def read(self, request: Request, go_on: Callable[[int, int | None], None], give_up: Callable[[], None]) -> None:
        """Answers `request` later. `go_on`: called with the new first process, and its exit code if it has ended already.
        `give_up`: called when there will be none.

        Errors: NotFound, the engine's.
        """
        self.check_idle()
        folder = request.message["folder"]
        if not os.path.isdir(folder):  # noqa: PTH112
            raise NotFound(f"there is no checkpoint {folder}")
        engine = self._engine()
        self._strangers.clear()
        child = engine.restore(folder)

        def done(code: int) -> None:
            pid = 0
            try:
                pid = engine.restored(folder, code)
                if request.abandoned:
                    raise Cancelled(f"checkpoint {folder}: nobody waits for it any more")
                go_on(pid, self._strangers.get(pid))
            except Exception as error:  # noqa: BLE001  # the answer to whoever asked
                if pid and pid not in self._strangers:
                    os.kill(pid, signal.SIGKILL)
                give_up()
                request.fail(error)
            else:
                request.reply({"pid": pid})

        self._child, self._done = child, done

    def ended(self, pid: int, code: int) -> bool:
        """A child of the shim has ended; whether it was the one that works for this."""
        if pid != self._child or self._done is None:
            if self._child:
                self._strangers[pid] = code
            return False
        done, self._done = self._done, None
        self._child = 0
        done(code)
        return True

    def cancel(self) -> None:
        """The container is to end: stop what is under way, whose request is answered as a failure. May be repeated."""
        if self._child:
            os.kill(self._child, signal.SIGKILL)


def part_of(folder: str) -> str:
    """Where a checkpoint is written that is to be `folder`."""
    parent, name = os.path.split(folder)
    return f"{parent}/{PART}{name}"


def discard(folder: str) -> None:
    """Remove a folder of files. May be repeated."""
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:
        return
    for name in names:
        os.unlink(f"{folder}/{name}")  # noqa: PTH108
    os.rmdir(folder)  # noqa: PTH106
