"""The command tree, and how every failure becomes one line and an exit code.

A command is named here with its one line of help, so that `wharfie --help` and each start import only the module that is
asked for. Commands of other distributions are entry points of the group `wharfie.cli`, listed without an import.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Mapping

import click

from wharfie.cli.context import Context
from wharfie.client.errors import ApiError, ClientError

BAD_FLAG = 125
INTERRUPTED = 130
ENTRY_POINTS = "wharfie.cli"

COMMANDS: Mapping[str, tuple[str, str]] = {
    "run": ("wharfie.cli.run:run", "Create a container from an image and run a command in it"),
    "create": ("wharfie.cli.run:create", "Create a container, to be started later"),
    "exec": ("wharfie.cli.exec:exec_", "Run a command in a running container"),
    "ps": ("wharfie.cli.containers:ps", "List containers"),
    "start": ("wharfie.cli.containers:start", "Start stopped containers"),
    "stop": ("wharfie.cli.containers:stop", "Stop running containers"),
    "restart": ("wharfie.cli.containers:restart", "Restart containers"),
    "kill": ("wharfie.cli.containers:kill", "Send a signal to running containers"),
    "rm": ("wharfie.cli.containers:rm", "Remove containers"),
    "logs": ("wharfie.cli.logs:logs", "Show a container's output"),
    "images": ("wharfie.cli.images:images", "List images"),
    "pull": ("wharfie.cli.images:pull", "Download an image from a registry"),
    "load": ("wharfie.cli.images:load", "Load images from a tar archive"),
    "tag": ("wharfie.cli.images:tag", "Give an image a further name"),
    "rmi": ("wharfie.cli.images:rmi", "Remove images"),
    "artifact": ("wharfie.cli.artifacts:artifact", "Push, pull and list files that are no image at registries"),
    "content": ("wharfie.cli.content:content", "Look at the blobs of images, and mend damaged ones"),
    "inspect": ("wharfie.cli.system:inspect", "Show everything about containers, images, networks, volumes"),
    "events": ("wharfie.cli.system:events", "Show what happens in the engine, as it happens"),
    "info": ("wharfie.cli.system:info", "Show facts about the engine and its drivers"),
    "version": ("wharfie.cli.system:version", "Show the versions of client and engine"),
    "volume": ("wharfie.cli.volumes:volume", "Manage volumes"),
    "network": ("wharfie.cli.networks:network", "Manage networks"),
    "plugin": ("wharfie.cli.plugins:plugin", "Show drivers and plugins"),
}


class LazyGroup(click.Group):
    """Commands by name; each is imported when it is run or when its own help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(_foreign())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = COMMANDS[cmd_name][0] if cmd_name in COMMANDS else _foreign().get(cmd_name, "")
        if not target:
            return None
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise click.ClickException(
                f"the command {cmd_name!r} of {target} is not a click command; its plugin is at fault"
            )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])
        if foreign := _foreign():
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, target.partition(":")[0]) for name, target in sorted(foreign.items())])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["--help"], "max_content_width": 110},
    epilog="`wharfie COMMAND --help` explains a command with an example. Start the engine with `wharfied`, as root.",
)
@click.option("-H", "--host", metavar="ADDRESS", help="The engine: unix:///PATH or tcp://HOST:PORT (else DOCKER_HOST).")
@click.version_option(package_name="wharfie", prog_name="wharfie")
@click.pass_context
def app(ctx: click.Context, host: str | None) -> None:
    """Run containers with Wharfie. Commands, flags and output are those of the docker command line.

    \b
    Example:
      wharfie run -d --name web -p 8080:80 nginx
      wharfie ps
      wharfie logs -f web
    """
    ctx.obj = Context(host or "")


def run() -> int:
    """Run the command line of this process; its exit code."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `wharfie logs … | head` ends quietly
    try:
        result = app.main(standalone_mode=False)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        return INTERRUPTED
    except click.UsageError as error:
        error.show()
        if isinstance(error, click.MissingParameter):
            return 1
        return BAD_FLAG if isinstance(error, click.NoSuchOption | click.BadOptionUsage | click.BadParameter) else 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ApiError as error:
        return _fail(f"Error response from daemon: {error.message}")
    except ClientError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # a command line shows people a sentence, never a traceback
        if os.environ.get("WHARFIE_DEBUG"):
            raise
        return _fail(f"wharfie: {type(error).__name__}: {error} (WHARFIE_DEBUG=1 shows where)")
    return result if isinstance(result, int) else 0


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def _foreign() -> dict[str, str]:
    """Commands of other distributions: name → module:attribute."""
    from importlib.metadata import entry_points  # only when the built-in table has no answer

    return {entry.name: entry.value for entry in entry_points(group=ENTRY_POINTS) if entry.name not in COMMANDS}
