"""exec: further processes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import click

from wharfie.spi.errors import Conflict, DriverError, InvalidArgument, Unsupported
from wharfie_runtime_native.command.containers import record_of, status_of
from wharfie_runtime_native.command.engine import found
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.streams import (
    check_console,
    open_streams,
    preserved,
    stream_options,
    with_listen_fds,
    write_pid,
)


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-p", "--process", "process_file", type=click.Path(path_type=Path), help="JSON file of the process to run.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait for its end.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("--cwd", default="", help="Working directory in the container.")
@click.option("-e", "--env", multiple=True, help="NAME=value; may be repeated.")
@click.option("-u", "--user", default="", help="UID[:GID].")
@click.option("-g", "--additional-gids", type=int, multiple=True, help="May be repeated.")
@click.option("-c", "--cap", multiple=True, help="Capability to add; may be repeated.")
@click.option("--no-new-privs", is_flag=True, help="Set no_new_privs.")
@click.option("--apparmor", default="", help="AppArmor profile: refused.")
@click.option("--process-label", default="", help="SELinux label: refused.")
@click.option("--ignore-paused", is_flag=True, help="Also in a paused container.")
@stream_options
@click.argument("id")
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def exec_command(
    session: Session,
    /,
    id: str,
    args: tuple[str, ...],
    process_file: Path | None,
    detach: bool,
    console_socket: Path | None,
    pid_file: Path | None,
    preserve_fds: int,
    ignore_paused: bool,
    **flags: Any,
) -> int:
    """Run a further process in a container; with its exit code."""
    preserve = preserved(preserve_fds)
    folder = session.store.find(id)
    try:
        record = record_of(folder)
        status = status_of(folder, record)
        if status == "paused" and not ignore_paused:
            raise Conflict("cannot exec in a paused container (use --ignore-paused to override)")
        if status not in ("running", "paused", "created"):
            raise Conflict(f"cannot exec in a stopped container: {id} is {status}")
        engine = found(session, folder, record)
        engine.manner = dataclasses.replace(engine.manner, preserve=preserve)
        wanted = (
            _from_file(process_file, args) if process_file else _from_flags(engine.spec.get("process") or {}, args, flags)
        )
        process = with_listen_fds(wanted)
        check_console(terminal=bool(process.get("terminal")), detached=detach, console_socket=console_socket)
        if detach:
            with open_streams(process, console_socket) as streams:
                pid = engine.exec(process, streams)
            try:
                write_pid(pid_file, pid)
            except DriverError:
                os.kill(pid, signal.SIGKILL)  # nobody would know of it
                raise
            return 0
        from wharfie_runtime_native.command.foreground import Foreground

        with Foreground(process) as front:
            pid = engine.exec(process, front.streams)
            write_pid(pid_file, pid)
            return front.wait(pid)
    finally:
        folder.close()


def _from_file(file: Path, args: tuple[str, ...]) -> dict[str, Any]:
    """Errors: InvalidArgument."""
    if args:
        raise InvalidArgument("give either --process or a command")
    try:
        process = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"cannot read the process from {file}: {error}") from error
    if not isinstance(process, dict):
        raise InvalidArgument(f"{file} has no JSON object")
    return process


def _from_flags(base: Any, args: tuple[str, ...], flags: dict[str, Any]) -> dict[str, Any]:
    """The container's own process with what the flags change. Errors: InvalidArgument, Unsupported."""
    if not args:
        raise InvalidArgument("process args cannot be empty: give a command, or --process")
    if flags["process_label"]:
        raise Unsupported("the native runtime applies no SELinux labels: --process-label cannot be done")
    process = {**base, "args": list(args), "terminal": flags["tty"], "env": [*(base.get("env") or ()), *flags["env"]]}
    user = dict(base.get("user") or {})
    if flags["user"]:
        uid, _, gid = flags["user"].partition(":")
        if not uid.isdigit() or (gid and not gid.isdigit()):
            raise InvalidArgument(f'--user "{flags["user"]}" is not UID[:GID] in numbers')
        user.update(uid=int(uid), **({"gid": int(gid)} if gid else {}))
    if flags["additional_gids"]:
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *flags["additional_gids"]]
    process["user"] = user
    if flags["cwd"]:
        process["cwd"] = flags["cwd"]
    if flags["no_new_privs"]:
        process["noNewPrivileges"] = True
    if flags["apparmor"]:
        process["apparmorProfile"] = flags["apparmor"]
    if flags["cap"]:
        process["capabilities"] = _with_capabilities(base.get("capabilities") or {}, flags["cap"])
    return process


def _with_capabilities(sets: Any, names: tuple[str, ...]) -> dict[str, list[str]]:
    """As runc does: more of the bounding, effective and permitted ones; ambient ones only where inheritable ones are."""
    grown = {kind: list(found) for kind, found in sets.items()}
    for kind in ("bounding", "effective", "permitted"):
        grown[kind] = [*grown.get(kind, ()), *(name for name in names if name not in grown.get(kind, ()))]
    return grown
