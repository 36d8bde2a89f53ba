"""create, run."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, TypeVar

from wharfie.shim.cgroups import path_of
from wharfie.shim.engine import Streams
from wharfie.spi.errors import NotFound
from wharfie_runtime_native import channel, gate, pids
from wharfie_runtime_native.command.bundle import read_config, root_of
from wharfie_runtime_native.command.containers import record_of
from wharfie_runtime_native.command.engine import Kept
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.store import Record
from wharfie_runtime_native.command.streams import (
    STREAM_OPTIONS,
    check_console,
    open_streams,
    pipes_of,
    preserved,
    with_listen_fds,
    write_pid,
)
from wharfie_runtime_native.command.words import Command, Given, Option
from wharfie_runtime_native.creation import Creation
from wharfie_runtime_native.manner import Manner

OPTIONS: Final = (
    Option(("b", "bundle"), "The bundle's folder; else the working directory.", "FOLDER"),
    *STREAM_OPTIONS,
    Option(("no-pivot",), "Move the root instead of pivot_root(2), for an initramfs."),
    Option(("no-new-keyring",), "Keep the caller's session keyring."),
)


class Order(NamedTuple):
    """What `create` and `run` are told alike."""

    id: str
    bundle: str
    config: Mapping[str, Any]
    manner: Manner
    console_socket: str
    pid_file: str

    @property
    def process(self) -> Mapping[str, Any]:
        return self.config.get("process") or {}


def order_of(given: Given, *, detached: bool) -> Order:
    """Errors: InvalidArgument."""
    manner = Manner(
        outlive=True,
        pivot=not given.has("no-pivot"),
        keyring=not given.has("no-new-keyring"),
        preserve=preserved(given),
    )
    bundle = given.text("bundle")
    order = Order(given.words[0], bundle, read_config(bundle), manner, given.text("console-socket"), given.text("pid-file"))
    terminal = bool(order.process.get("terminal"))
    check_console(terminal=terminal, detached=detached, console_socket=order.console_socket)
    return order


def _create(session: Session, given: Given) -> None:
    """Make a container up to the moment before its program is executed."""
    order = order_of(given, detached=True)
    with open_streams(order.process, order.console_socket) as streams, made(session, order, streams, New) as container:
        write_pid(order.pid_file, container.record.pid)
    session.log.debug(f"{order.id} is created, with pid {container.record.pid}")


create_command = Command(_create, options=OPTIONS)


def _run(session: Session, given: Given) -> int:
    """Make a container, start it, wait for its end and delete it; with its exit code."""
    detached = given.has("detach")
    order = order_of(given, detached=detached)
    if detached:
        with open_streams(order.process, order.console_socket) as streams, made(session, order, streams, New) as container:
            write_pid(order.pid_file, container.record.pid)
            container.begin()
        return 0
    from wharfie_runtime_native.command.foreground import Foreground

    with Foreground(order.process) as front:
        with made(session, order, front.streams, New) as container:
            write_pid(order.pid_file, container.record.pid)
            container.begin()
        code = front.wait(container.record.pid)
    if not given.has("keep"):
        remove_ended(session, order.id)
    return code


def remove_ended(session: Session, id: str) -> None:
    with suppress(NotFound), session.store.locked(id) as folder:  # somebody else may have been quicker
        Kept.find(session, folder, record_of(folder)).end()
        folder.remove()


run_command = Command(
    _run,
    options=(
        Option(("d", "detach"), "Do not wait for its end."),
        Option(("keep",), "Do not delete it at its end."),
        *OPTIONS,
    ),
)


class New(Kept, Creation):
    """A container in the making: recorded step by step, so that a maker that is killed leaves what `delete` can clean."""

    def _note_group(self) -> None:
        self.record = self.record._replace(grouped=True)
        self._folder.keep(self.record)

    def _hand_over(self, ours: socket.socket, pid: int) -> int:
        """Record the container, then let its first process outlive this one."""
        self.record = self.record._replace(pid=pid, pid_start=pids.started(pid))
        self._folder.keep(self.record)
        ours.send(b"r")
        channel.receive(ours)
        ours.close()
        return -1


N = TypeVar("N", bound=New)


@contextmanager
def made(session: Session, order: Order, streams: Streams, kind: type[N]) -> Iterator[N]:
    """A container that is made, under its lock. When anything fails in here, nothing of it stays."""
    config = order.config
    root = root_of(order.bundle, config)
    linux = config.get("linux") or {}
    config = {
        **config,
        "process": with_listen_fds(order.process),
        # Without a word on it, a group of its own right below the root, as runc's: there is no parent to clean up.
        "linux": {**linux, "cgroupsPath": linux.get("cgroupsPath") or f"/{order.id}"},
    }
    record = Record(
        id=order.id,
        version=str(config["ociVersion"]),
        bundle=os.path.realpath(order.bundle),
        rootfs=root,
        cgroup=path_of(config, order.id),
        created=_now(),
        owner=os.geteuid(),
        keyring=order.manner.keyring,
        pipes=pipes_of(streams),
    )
    with session.store.reserve(order.id) as folder:
        container = None
        try:
            folder.keep_config(config)
            folder.keep(record)
            listener = gate.listen(folder.gate)
            try:
                manner = order.manner._replace(gate=listener, lock=folder.fd)
                new = kind(session, folder, record, config, manner)
                new.create(root, streams)  # which leaves nothing when it fails
            finally:
                os.close(listener)  # now the first process has it alone
            container = new
            yield container
        except BaseException:
            if container is not None:
                container.end()
            folder.remove()
            raise


def _now() -> str:
    now = time.time_ns()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now // 1_000_000_000))}.{now % 1_000_000_000:09d}Z"
