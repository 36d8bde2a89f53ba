"""`wharfie run` and `wharfie create`."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

from wharfie.cli.attach import Attachment
from wharfie.cli.context import Context, pass_context
from wharfie.cli.create_body import create_body
from wharfie.cli.create_options import create_options
from wharfie.client import ApiError, Client, ClientError
from wharfie.client.http import Response

FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
_SETTINGS = {"allow_interspersed_args": False, "ignore_unknown_options": False}
# The engine says only in words why a command did not start; Docker's own client reads them too.
_NOT_FOUND_TEXTS = ("executable file not found", "no such file or directory", "system cannot find the file specified")
_NOT_EXECUTABLE_TEXTS = ("permission denied", "is a directory")


@click.command(context_settings=_SETTINGS)
@click.option("-d", "--detach", is_flag=True, help="Run in the background and print the id.")
@click.option("--detach-keys", default="", help="Keys that let go of the container (ctrl-p,ctrl-q).")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on (without a terminal).")
@create_options
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_context
def run(
    context: Context,
    /,
    detach: bool,
    detach_keys: str,
    sig_proxy: bool,
    image: str,
    command: tuple[str, ...],
    **flags: Any,
) -> int:
    """Create a container from IMAGE and run COMMAND in it.

    \b
    Examples:
      wharfie run --rm busybox echo hi
      wharfie run -it --rm alpine sh
      wharfie run -d --name web -p 8080:80 -v data:/srv nginx

    The exit code is the command's; 125: the container could not be made, 126: the command cannot be
    executed, 127: there is no such command.
    """
    if detach and flags["rm"] and flags["restart"] not in ("", "no"):
        raise click.UsageError("--rm and --restart exclude each other: a container that is removed cannot start again")
    client = context.client
    try:
        identity = make(client, image, command, flags, detach=detach)
        if detach:
            client.post(f"/containers/{identity}/start")
            print(identity)
            return 0
    except ClientError as error:
        return failure(error)
    chosen = {stream.lower() for stream in flags["attach"]} or {"stdin", "stdout", "stderr"}
    streams = {stream: stream in chosen for stream in ("stdin", "stdout", "stderr")}
    streams["stdin"] &= flags["interactive"]
    return _attached(
        client, identity, streams, tty=flags["tty"], removed=flags["rm"], detach_keys=detach_keys, forward=sig_proxy
    )


@click.command(context_settings=_SETTINGS)
@create_options
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_context
def create(context: Context, /, image: str, command: tuple[str, ...], **flags: Any) -> int:
    """Create a container without starting it; prints its id.

    \b
    Example:
      wharfie create --name job alpine sleep 60
      wharfie start job
    """
    try:
        print(make(context.client, image, command, flags, detach=False))
    except ClientError as error:
        return failure(error, start=False)
    return 0


def make(client: Client, image: str, command: tuple[str, ...], flags: dict[str, Any], *, detach: bool) -> str:
    """Create the container, with a pull first where that is needed; its id. Errors: ClientError, click.BadParameter."""
    body = create_body(image, command, flags, detach=detach)
    query = {"name": flags["name"], "platform": flags["platform"]}
    if flags["pull"] == "always":
        _pull(client, image, flags)
    try:
        created = client.post("/containers/create", body, query)
    except ApiError as error:
        if error.status != 404 or "No such image" not in error.message or flags["pull"] == "never":
            raise
        print(f"Unable to find image '{_tagged(image)}' locally", file=sys.stderr)
        _pull(client, image, flags)
        created = client.post("/containers/create", body, query)
    for warning in created.get("Warnings") or ():
        print(f"WARNING: {warning}", file=sys.stderr)
    identity = str(created["Id"])
    if flags["cidfile"]:
        Path(flags["cidfile"]).write_text(identity)
    return identity


def failure(error: ClientError, *, start: bool = True) -> int:
    """Say why a container could not be made or started; Docker's exit code for it."""
    print(f"Error response from daemon: {error.message}" if isinstance(error, ApiError) else error, file=sys.stderr)
    message = str(error).lower()
    if start and isinstance(error, ApiError):
        if any(text in message for text in _NOT_FOUND_TEXTS):
            return NOT_FOUND
        if any(text in message for text in _NOT_EXECUTABLE_TEXTS):
            return NOT_EXECUTABLE
    return FAILED if start else 1


def exit_code(waiting: Response) -> int:
    """What a wait that was begun before says: the container's exit code. Errors: ClientError."""
    with_code = json.loads(waiting.read())
    waiting.connection.close()
    if error := (with_code.get("Error") or {}).get("Message"):
        print(f"Error waiting for container: {error}", file=sys.stderr)
        return FAILED
    return int(with_code["StatusCode"])


def start_attached(client: Client, name: str, *, stdin: bool, detach_keys: str) -> int:
    """Start an existing container with its streams here; its exit code."""
    try:
        found = client.get(f"/containers/{name}/json")
    except ClientError as error:
        return failure(error, start=False)
    config, host = found["Config"], found["HostConfig"]
    return _attached(
        client,
        found["Id"],
        {"stdin": stdin and config["OpenStdin"], "stdout": True, "stderr": True},
        tty=config["Tty"],
        removed=host["AutoRemove"],
        detach_keys=detach_keys,
        forward=True,
    )


def _attached(
    client: Client,
    identity: str,
    streams: dict[str, bool],
    *,
    tty: bool,
    removed: bool,
    detach_keys: str,
    forward: bool,
) -> int:
    """Attach and wait before the start, so that nothing is missed."""
    try:
        query = {"stream": True, "detachKeys": detach_keys, **streams}
        stream = client.hijack(f"/containers/{identity}/attach", query)
        condition = "removed" if removed else "next-exit"
        waiting = client.open("POST", f"/containers/{identity}/wait", {"condition": condition})
        client.post(f"/containers/{identity}/start")
        attachment = Attachment(stream, tty=tty, stdin=streams["stdin"], detach_keys=detach_keys)
        attachment.run(
            lambda number: kill(client, identity, number),
            lambda rows, columns: resize(client, f"/containers/{identity}", rows, columns),
            forward=forward and not tty,
        )
        stream.close()
        return 0 if attachment.detached else exit_code(waiting)
    except ClientError as error:
        return failure(error)


def kill(client: Client, identity: str, number: int) -> None:
    """Send a signal by its number. Errors: ClientError."""
    client.post(f"/containers/{identity}/kill", query={"signal": signal.Signals(number).name.removeprefix("SIG")})


def resize(client: Client, path: str, rows: int, columns: int) -> None:
    """Tell a terminal's size. Errors: ClientError."""
    client.post(f"{path}/resize", query={"h": str(rows), "w": str(columns)})


def _pull(client: Client, image: str, flags: dict[str, Any]) -> None:
    from wharfie.cli.pull import pull_image  # most runs need no pull

    pull_image(client, image, platform=flags["platform"], quiet=flags["quiet"], out=sys.stderr)


def _tagged(image: str) -> str:
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
