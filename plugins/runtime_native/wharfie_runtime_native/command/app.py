"""The command line itself: global flags, commands by name, errors in one line."""

from __future__ import annotations

import importlib
import sys
from typing import Final

from wharfie.spi.errors import Unsupported, WharfieError
from wharfie_runtime_native import errors
from wharfie_runtime_native.command.session import DEFAULT_ROOT, Session
from wharfie_runtime_native.command.store import Store
from wharfie_runtime_native.command.words import HELP, Command, Misuse, Option, check_count, describe, sort

_COMMANDS: Final = {
    "checkpoint": "checkpointing",
    "create": "making",
    "delete": "control",
    "events": "events",
    "exec": "further",
    "features": "looking",
    "kill": "killing",
    "list": "looking",
    "pause": "control",
    "ps": "looking",
    "restore": "checkpointing",
    "resume": "control",
    "run": "making",
    "spec": "specification",
    "start": "starting",
    "state": "looking",
    "update": "updating",
}
"""Command → the module that has it, as `<command>_command`."""

_OPTIONS: Final = (
    Option(("root",), f"Where state is kept, {DEFAULT_ROOT} if not said.", "FOLDER"),
    Option(("log",), "File for the log; else it goes to stderr.", "FILE"),
    Option(("log-format",), "What a line of it looks like.", "FORMAT", ("text", "json")),
    Option(("debug",), "Log what is done."),
    Option(("systemd-cgroup",), "Let systemd make control groups: refused."),
    Option(("v", "version"), "Print versions."),
    HELP,
)

_EXEC_FAILED: Final = 255  # runc's, so that it is no exit code of the program's


def command_of(name: str) -> Command:
    """Loads the command's module. Errors: Misuse (there is none of this name)."""
    if name not in _COMMANDS:
        raise Misuse(f'No such command "{name}"')
    module = importlib.import_module(f"wharfie_runtime_native.command.{_COMMANDS[name]}")
    command: Command = getattr(module, f"{name}_command")
    return command


def run(arguments: list[str] | None = None) -> int:
    """The exit code: the program's own for `run` and `exec`, 0, or 1 (`exec` itself: 255) after one line of what failed."""
    session = Session()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        return _run(session, words or ["--help"])
    except Exception as error:  # noqa: BLE001  # whatever it is, the caller is told in one line
        session.log.error(_prefix(session.command, error) + _describe(error))
        return _EXEC_FAILED if session.command == "exec" else 1
    except KeyboardInterrupt:
        return 130


def _run(session: Session, words: list[str]) -> int:
    given = sort(words, _OPTIONS, trailing=True)
    if given.has("help"):
        print(_overview())
        return 0
    if given.has("version"):
        print(_versions())
        return 0
    session.store = Store(given.text("root", DEFAULT_ROOT))
    session.log.path, session.log.verbose = given.text("log"), given.has("debug")
    session.log.json = given.text("log-format") == "json"
    if given.has("systemd-cgroup"):
        raise Unsupported(
            "systemd cgroup flag passed, but systemd support for managing cgroups is not available: "
            "use the cgroupfs manager (podman --cgroup-manager=cgroupfs; containerd: SystemdCgroup = false)"
        )
    if not given.words:
        raise Misuse("Missing command")
    name, *rest = given.words
    command = command_of(name)
    session.command = name
    options = (*command.options, HELP)
    given = sort(rest, options, trailing=command.trailing)
    if given.has("help"):
        usage = " ".join([name, "[OPTIONS]", *command.arguments])
        print(describe(usage, command.run.__doc__ or "", options))
        return 0
    check_count(given, command)
    return command.run(session, given) or 0


def _overview() -> str:
    lines = [f"  {name:10} {(command_of(name).run.__doc__ or '').splitlines()[0]}" for name in _COMMANDS]
    text = "Run containers from OCI bundles (runtime-spec 1.2), by system calls.\n\nCommands:\n" + "\n".join(lines)
    return describe("[OPTIONS] COMMAND [ARGUMENTS]", text, _OPTIONS)


def _versions() -> str:
    from importlib.metadata import version

    from wharfie_runtime_native.features import OCI_VERSION

    return f"wharfie-runtime version {version('wharfie-runtime-native')}\nspec: {OCI_VERSION}"


def _describe(error: BaseException) -> str:
    if isinstance(error, WharfieError):
        return error.message
    return errors.described(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def _prefix(command: str, error: BaseException) -> str:
    if isinstance(error, Misuse) or command not in ("create", "run", "exec"):
        return ""
    return "exec failed: " if command == "exec" else f"wharfie-runtime {command} failed: "
