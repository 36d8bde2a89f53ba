"""create, start, run."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from wharfie.shim.cgroups import path_of
from wharfie.shim.engine import Streams
from wharfie.spi.errors import Conflict, NotFound
from wharfie_runtime_native import gate
from wharfie_runtime_native.command.bundle import read_config, root_of
from wharfie_runtime_native.command.containers import record_of, status_of
from wharfie_runtime_native.command.engine import CommandEngine, found
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.store import Folder, Record
from wharfie_runtime_native.command.streams import (
    check_console,
    open_streams,
    preserved,
    stream_options,
    with_listen_fds,
    write_pid,
)
from wharfie_runtime_native.manner import Manner


def _making_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--no-new-keyring", is_flag=True, help="Keep the caller's session keyring."),
        click.option("--no-pivot", is_flag=True, help="Move the root instead of pivot_root(2), for an initramfs."),
        click.option(
            "-b",
            "--bundle",
            type=click.Path(path_type=Path),
            default=Path(),
            help="The bundle's folder; else the working directory.",
        ),
    ):
        command = option(command)
    return stream_options(command)


@click.command("create")
@_making_options
@click.argument("id")
@click.pass_obj
def create_command(
    session: Session,
    id: str,
    bundle: Path,
    console_socket: Path | None,
    pid_file: Path | None,
    preserve_fds: int,
    no_pivot: bool,
    no_new_keyring: bool,
) -> None:
    """Make a container up to the moment before its program is executed."""
    preserve = preserved(preserve_fds)
    config = read_config(bundle)
    process = config.get("process") or {}
    check_console(terminal=bool(process.get("terminal")), detached=True, console_socket=console_socket)
    manner = Manner(outlive=True, pivot=not no_pivot, keyring=not no_new_keyring, preserve=preserve)
    with open_streams(process, console_socket) as streams, _made(session, id, bundle, config, manner, streams) as engine:
        write_pid(pid_file, engine.record.pid)
    session.log.debug(f"{id} is created, with pid {engine.record.pid}")


@click.command("start")
@click.argument("id")
@click.pass_obj
def start_command(session: Session, id: str) -> None:
    """Execute a created container's program."""
    with session.store.locked(id) as folder:
        record = record_of(folder)
        status = status_of(folder, record, locked=True)
        if status == "stopped":
            raise Conflict(f"cannot start a container that has stopped: {id}")
        if status != "created":
            raise Conflict(f"cannot start an already running container: {id} is {status}")
        found(session, folder, record).begin()
    session.log.debug(f"{id} is started")


@click.command("run")
@click.option("-d", "--detach", is_flag=True, help="Do not wait for its end.")
@click.option("--keep", is_flag=True, help="Do not delete it at its end.")
@_making_options
@click.argument("id")
@click.pass_obj
def run_command(
    session: Session,
    id: str,
    bundle: Path,
    detach: bool,
    keep: bool,
    console_socket: Path | None,
    pid_file: Path | None,
    preserve_fds: int,
    no_pivot: bool,
    no_new_keyring: bool,
) -> int:
    """Make a container, start it, wait for its end and delete it; with its exit code."""
    preserve = preserved(preserve_fds)
    config = read_config(bundle)
    process = config.get("process") or {}
    terminal = bool(process.get("terminal"))
    check_console(terminal=terminal, detached=detach, console_socket=console_socket)
    manner = Manner(outlive=True, pivot=not no_pivot, keyring=not no_new_keyring, preserve=preserve)
    if detach:
        with (
            open_streams(process, console_socket) as streams,
            _made(session, id, bundle, config, manner, streams) as engine,
        ):
            write_pid(pid_file, engine.record.pid)
            engine.begin()
        return 0
    from wharfie_runtime_native.command.foreground import Foreground

    with Foreground(process) as front:
        with _made(session, id, bundle, config, manner, front.streams) as engine:
            write_pid(pid_file, engine.record.pid)
            engine.begin()
        code = front.wait(engine.record.pid)
    if not keep:
        with suppress(NotFound), session.store.locked(id) as folder:  # somebody else may have been quicker
            found(session, folder, record_of(folder)).end()
            folder.remove()
    return code


@contextmanager
def _made(
    session: Session, id: str, bundle: Path, config: Mapping[str, Any], manner: Manner, streams: Streams
) -> Iterator[CommandEngine]:
    """A container that is made, under its lock. When anything fails in here, nothing of it stays."""
    bundle = bundle.resolve()
    root = root_of(bundle, config)
    linux = config.get("linux") or {}
    config = {
        **config,
        "process": with_listen_fds(config.get("process") or {}),
        # Without a word on it, a group of its own right below the root, as runc's: there is no parent to clean up.
        "linux": {**linux, "cgroupsPath": linux.get("cgroupsPath") or f"/{id}"},
    }
    record = Record(
        id=id,
        version=str(config["ociVersion"]),
        bundle=str(bundle),
        rootfs=str(root),
        cgroup=path_of(config, id),
        created=_now(),
        owner=os.geteuid(),
        keyring=manner.keyring,
    )
    folder = session.store.reserve(id)
    try:
        engine = None
        try:
            folder.keep_config(config)
            folder.keep(record)
            engine = _create(session, folder, record, config, manner, root, streams)
            yield engine
        except BaseException:
            if engine is not None:
                engine.end()
            folder.remove()
            raise
    finally:
        folder.close()


def _create(
    session: Session,
    folder: Folder,
    record: Record,
    config: Mapping[str, Any],
    manner: Manner,
    root: Path,
    streams: Streams,
) -> CommandEngine:

    listener = gate.listen(folder.fd)
    try:
        manner = dataclasses.replace(manner, gate=listener, lock=folder.fd)
        engine = CommandEngine(session, folder, record, config, manner)
        engine.create(root, streams)
        return engine
    finally:
        os.close(listener)  # now the first process has it alone


def _now() -> str:
    now = time.time_ns()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now // 1_000_000_000))}.{now % 1_000_000_000:09d}Z"
