"""checkpoint, restore."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from wharfie.spi.errors import Conflict
from wharfie_runtime_native import pids
from wharfie_runtime_native.cgroups.base import Cgroup
from wharfie_runtime_native.checkpointing import Checkpointing
from wharfie_runtime_native.command import making
from wharfie_runtime_native.command.containers import record_of, status_of
from wharfie_runtime_native.command.engine import Kept
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.streams import open_streams, write_pid
from wharfie_runtime_native.command.words import Command, Given, Option
from wharfie_runtime_native.forks import end_child

_OPTIONS: Final = (
    Option(("image-path",), "The checkpoint's folder, ./checkpoint if not said.", "FOLDER"),
    Option(("work-path",), "Folder for criu's log; else that of the checkpoint, or one that is thrown away.", "FOLDER"),
    Option(("tcp-established",), "Connections too."),
    Option(("ext-unix-sk",), "Sockets too whose other end is outside."),
    Option(("shell-job",), "For runc's callers; without effect, as a terminal is refused."),
    Option(("file-locks",), "For runc's callers; without effect, as they are always part of it."),
    Option(("manage-cgroups-mode",), "For runc's callers; without effect: groups are made anew.", "MODE"),
    Option(("empty-ns",), "For runc's callers; without effect: the network is the new container's.", "TYPE"),
)
_TO_CRIU: Final = ("tcp-established", "ext-unix-sk")


def _criu_options(given: Given) -> list[str]:
    return [f"--{name}" for name in _TO_CRIU if given.has(name)]


def _folder(given: Given) -> Path:
    return Path(given.text("image-path", "checkpoint")).absolute()


def _checkpoint(session: Session, given: Given) -> None:
    """Write a container's processes with their memory to a folder, and delete it."""
    from wharfie_runtime_native.checkpoints import dump

    [name] = given.words
    with session.store.locked(name) as folder:
        record = record_of(folder)
        status = status_of(folder, record, locked=True)
        if status not in ("running", "paused"):
            raise Conflict(f"cannot checkpoint a container that is not running: {name} is {status}")
        container = _Written.find(session, folder, record)
        images = _folder(given)
        images.mkdir(mode=0o700, parents=True, exist_ok=True)
        if status == "running":
            container.pause()
        done = False
        try:
            work = Path(given.text("work-path", str(images))).absolute()
            pipes = {int(number): inode for number, inode in record.pipes.items()}
            dump.write(container.spec, record.pid, container.cgroup, images, pipes, _criu_options(given), work)
            done = True
        finally:
            if status == "running" and (not done or given.has("leave-running")):
                container.resume()
        if not given.has("leave-running"):
            container.end()
            folder.remove()
    session.log.debug(f"{name} is written to {images}")


checkpoint_command = Command(
    _checkpoint, options=(Option(("leave-running",), "Let it run on, and do not delete it."), *_OPTIONS)
)


class _Written(Kept, Checkpointing):
    """A container of which a checkpoint is written."""

    @property
    def cgroup(self) -> Cgroup:
        return self._cgroup


class _Restored(making.New, Checkpointing):
    """A container that is made and then gets the processes of a checkpoint."""

    work: Path

    def _work(self) -> Path:
        return self.work

    def bring_back(self, images: Path) -> None:
        """Errors: as of `Engine.restored`; then the container is to be ended."""
        child = self.restore(str(images))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        waiting = self._pid
        pid = self.restored(str(images), code)
        self.record = self.record._replace(pid=pid, pid_start=pids.started(pid))
        self._folder.keep(self.record)
        self._folder.remove_gate()
        end_child(waiting)


def _restore(session: Session, given: Given) -> int:
    """Make a container in which the processes of a checkpoint go on; wait for its end and delete it."""
    detached = given.has("detach")
    order = making.order_of(given, detached=detached)
    images = _folder(given)
    with tempfile.TemporaryDirectory(prefix="wharfie-runtime-") as scratch:
        work = Path(given.text("work-path", scratch)).absolute()
        if detached:
            with (
                open_streams(order.process, order.console_socket) as streams,
                making.made(session, order, streams, _Restored) as container,
            ):
                _bring_back(container, given, images, work, order.pid_file)
            return 0
        from wharfie_runtime_native.command.foreground import Foreground

        with Foreground(order.process) as front:
            with making.made(session, order, front.streams, _Restored) as container:
                _bring_back(container, given, images, work, order.pid_file)
            code = front.wait(container.record.pid)
    making.remove_ended(session, order.id)
    return code


def _bring_back(container: _Restored, given: Given, images: Path, work: Path, pid_file: str) -> None:
    container.work = work
    container.restore_options = _criu_options(given) or ("--tcp-close",)
    container.bring_back(images)
    write_pid(pid_file, container.record.pid)


restore_command = Command(
    _restore,
    options=(
        Option(("d", "detach"), "Do not wait for its end."),
        Option(("no-subreaper",), "For runc's callers; without effect."),
        *_OPTIONS,
        *making.OPTIONS,
    ),
)
