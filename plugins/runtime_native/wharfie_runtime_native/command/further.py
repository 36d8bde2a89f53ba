"""exec: further processes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from typing import Any

from wharfie.spi.errors import Conflict, DriverError, InvalidArgument, Unsupported
from wharfie_runtime_native.command import fields
from wharfie_runtime_native.command.containers import record_of, status_of
from wharfie_runtime_native.command.engine import Kept
from wharfie_runtime_native.command.session import Session
from wharfie_runtime_native.command.streams import (
    STREAM_OPTIONS,
    check_console,
    open_streams,
    preserved,
    with_listen_fds,
    write_pid,
)
from wharfie_runtime_native.command.words import Command, Given, Option
from wharfie_runtime_native.execution import Execution


class _Entered(Kept, Execution):
    """A container that gets a further process."""


def _exec(session: Session, given: Given) -> int:
    """Run a further process in a container; with its exit code."""
    name, *args = given.words
    preserve = preserved(given)
    with session.store.find(name) as folder:
        record = record_of(folder)
        status = status_of(folder, record)
        if status == "paused" and not given.has("ignore-paused"):
            raise Conflict("cannot exec in a paused container (use --ignore-paused to override)")
        if status not in ("running", "paused", "created"):
            raise Conflict(f"cannot exec in a stopped container: {name} is {status}")
        container = _Entered.find(session, folder, record)
        container.manner = container.manner._replace(preserve=preserve)
        file = given.text("process")
        wanted = _from_file(file, args) if file else _from_flags(container.spec.get("process") or {}, args, given)
        return _run(container, with_listen_fds(wanted), given)


def _run(container: _Entered, process: Mapping[str, Any], given: Given) -> int:
    detached, console_socket, pid_file = given.has("detach"), given.text("console-socket"), given.text("pid-file")
    check_console(terminal=bool(process.get("terminal")), detached=detached, console_socket=console_socket)
    if detached:
        with open_streams(process, console_socket) as streams:
            pid = container.exec(process, streams)
        try:
            write_pid(pid_file, pid)
        except DriverError:
            os.kill(pid, signal.SIGKILL)  # nobody would know of it
            raise
        return 0
    from wharfie_runtime_native.command.foreground import Foreground

    with Foreground(process) as front:
        pid = container.exec(process, front.streams)
        write_pid(pid_file, pid)
        return front.wait(pid)


exec_command = Command(
    _exec,
    ("ID", "[COMMAND...]"),
    (
        Option(("p", "process"), "JSON file of the process to run.", "FILE"),
        Option(("d", "detach"), "Do not wait for its end."),
        Option(("t", "tty"), "Give it a terminal."),
        Option(("cwd",), "Working directory in the container.", "FOLDER"),
        Option(("e", "env"), "May be repeated.", "NAME=VALUE"),
        Option(("u", "user"), "Whom it runs as, in numbers.", "UID[:GID]"),
        Option(("g", "additional-gids"), "May be repeated.", "GID"),
        Option(("c", "cap"), "Capability to add; may be repeated.", "NAME"),
        Option(("no-new-privs",), "Set no_new_privs."),
        Option(("apparmor",), "AppArmor profile: refused.", "NAME"),
        Option(("process-label",), "SELinux label: refused.", "LABEL"),
        Option(("ignore-paused",), "Also in a paused container."),
        *STREAM_OPTIONS,
    ),
)


def _from_file(file: str, args: list[str]) -> dict[str, Any]:
    """Errors: InvalidArgument."""
    if args:
        raise InvalidArgument("give either --process or a command")
    try:
        with open(file, "rb") as text:
            process = json.loads(text.read())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"cannot read the process from {file}: {error}") from error
    if not isinstance(process, dict):
        raise InvalidArgument(f"{file} has no JSON object")
    fields.check(process, fields.PROCESS, "process")
    return process


def _from_flags(base: Any, args: list[str], given: Given) -> dict[str, Any]:
    """The container's own process with what the flags change. Errors: InvalidArgument, Unsupported."""
    if not args:
        raise InvalidArgument("process args cannot be empty: give a command, or --process")
    if given.text("process-label"):
        raise Unsupported("the native runtime applies no SELinux labels: --process-label cannot be done")
    env = [*(base.get("env") or ()), *given.all("env")]
    process = {**base, "args": args, "terminal": given.has("tty"), "env": env}
    user = dict(base.get("user") or {})
    if whom := given.text("user"):
        uid, _, gid = whom.partition(":")
        if not uid.isdigit() or (gid and not gid.isdigit()):
            raise InvalidArgument(f'--user "{whom}" is not UID[:GID] in numbers')
        user.update(uid=int(uid), **({"gid": int(gid)} if gid else {}))
    if groups := given.numbers("additional-gids"):
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *groups]
    process["user"] = user
    if cwd := given.text("cwd"):
        process["cwd"] = cwd
    if given.has("no-new-privs"):
        process["noNewPrivileges"] = True
    if profile := given.text("apparmor"):
        process["apparmorProfile"] = profile
    if names := given.all("cap"):
        process["capabilities"] = _with_capabilities(base.get("capabilities") or {}, names)
    return process


def _with_capabilities(sets: Any, names: list[str]) -> dict[str, list[str]]:
    """As runc does: more of the bounding, effective and permitted ones; ambient ones only where inheritable ones are."""
    grown = {kind: list(found) for kind, found in sets.items()}
    for kind in ("bounding", "effective", "permitted"):
        grown[kind] = [*grown.get(kind, ()), *(name for name in names if name not in grown.get(kind, ()))]
    return grown
