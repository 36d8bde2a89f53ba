"""The command line itself: global flags, commands by name, errors in one line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Final, Literal

import click

from wharfie.spi.errors import Unsupported, WharfieError
from wharfie_runtime_native import errors
from wharfie_runtime_native.command.session import DEFAULT_ROOT, Session
from wharfie_runtime_native.command.store import Store

_COMMANDS: Final = {
    "create": "making",
    "delete": "control",
    "events": "events",
    "exec": "further",
    "features": "looking",
    "kill": "control",
    "list": "looking",
    "pause": "control",
    "ps": "looking",
    "resume": "control",
    "run": "making",
    "spec": "specification",
    "start": "making",
    "state": "looking",
    "update": "updating",
}
"""Command → the module that has it, as `<command>_command`."""

_EXEC_FAILED: Final = 255  # runc's, so that it is no exit code of the program's


class Commands(click.Group):
    """Loads a command's module when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"wharfie_runtime_native.command.{_COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        from wharfie_runtime_native.features import OCI_VERSION

        click.echo(f"wharfie-runtime version {version('wharfie-runtime-native')}\nspec: {OCI_VERSION}")
        ctx.exit()


@click.group(cls=Commands, no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--root", type=click.Path(path_type=Path), default=DEFAULT_ROOT, show_default=True, help="Where state is kept."
)
@click.option("--log", type=click.Path(path_type=Path), help="File for the log; else it goes to stderr.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--debug", is_flag=True, help="Log what is done.")
@click.option("--systemd-cgroup", is_flag=True, help="Let systemd make control groups: refused.")
@click.option("-v", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print versions.")
@click.pass_obj
def cli(
    session: Session, root: Path, log: Path | None, log_format: Literal["text", "json"], debug: bool, systemd_cgroup: bool
) -> None:
    """Run containers from OCI bundles (runtime-spec 1.2), by system calls."""
    session.store = Store(root)
    session.log.path, session.log.format, session.log.verbose = log, log_format, debug
    if systemd_cgroup:
        raise Unsupported(
            "systemd cgroup flag passed, but systemd support for managing cgroups is not available: "
            "use the cgroupfs manager (podman --cgroup-manager=cgroupfs; containerd: SystemdCgroup = false)"
        )


def run(arguments: list[str] | None = None) -> int:
    """The exit code: the program's own for `run` and `exec`, 0, or 1 (`exec` itself: 255) after one line of what failed."""
    session = Session()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        result: Any = cli.main(words or ["--help"], prog_name="wharfie-runtime", standalone_mode=False, obj=session)
    except Exception as error:  # noqa: BLE001  # whatever it is, the caller is told in one line
        command = next((word for word in words if word in _COMMANDS), "")
        session.log.error(_prefix(command, error) + _describe(error))
        return _EXEC_FAILED if command == "exec" else 1
    except (KeyboardInterrupt, click.Abort):
        return 130
    return result if isinstance(result, int) else 0


def _describe(error: BaseException) -> str:
    if isinstance(error, WharfieError):
        return error.message
    if isinstance(error, click.ClickException):
        return error.format_message()
    return errors.described(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def _prefix(command: str, error: BaseException) -> str:
    if isinstance(error, click.ClickException) or command not in ("create", "run", "exec"):
        return ""
    return "exec failed: " if command == "exec" else f"wharfie-runtime {command} failed: "
