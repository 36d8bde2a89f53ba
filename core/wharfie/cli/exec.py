"""`wharfie exec`."""

from __future__ import annotations

import time
from typing import Any

import click

from wharfie.cli.attach import Attachment
from wharfie.cli.context import Context, pass_context
from wharfie.cli.run import failure, resize
from wharfie.client import Client, ClientError


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("-d", "--detach", is_flag=True, help="Run in the background.")
@click.option("--detach-keys", default="", help="Keys that let go of the command (ctrl-p,ctrl-q).")
@click.option("-i", "--interactive", is_flag=True, help="Keep stdin open.")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal.")
@click.option("-e", "--env", multiple=True, help="Set a variable: NAME=VALUE.")
@click.option("-u", "--user", default="", help="Who it runs as: NAME or UID, with :GROUP.")
@click.option("-w", "--workdir", default="", help="Working directory.")
@click.option("--privileged", is_flag=True, help="Give the command all rights over the host.")
@click.argument("container")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@pass_context
def exec_(context: Context, /, container: str, command: tuple[str, ...], **flags: Any) -> int:
    """Run COMMAND in a running CONTAINER; the exit code is the command's.

    \b
    Examples:
      wharfie exec web cat /etc/hosts
      wharfie exec -it web sh
    """
    client = context.client
    detach, tty, stdin = flags["detach"], flags["tty"], flags["interactive"] and not flags["detach"]
    body = {
        "AttachStdin": stdin,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Tty": tty,
        "DetachKeys": flags["detach_keys"],
        "Env": list(flags["env"]),
        "User": flags["user"],
        "WorkingDir": flags["workdir"],
        "Privileged": flags["privileged"],
        "Cmd": list(command),
    }
    identity = client.post(f"/containers/{container}/exec", body)["Id"]
    start = {"Detach": detach, "Tty": tty}
    try:
        if detach:
            client.post(f"/exec/{identity}/start", start)
            return 0
        stream = client.hijack(f"/exec/{identity}/start", body=start)
        attachment = Attachment(stream, tty=tty, stdin=stdin, detach_keys=flags["detach_keys"])
        attachment.run(
            lambda number: None,
            lambda rows, columns: resize(client, f"/exec/{identity}", rows, columns),
            forward=False,
        )
        stream.close()
    except ClientError as error:
        return failure(error)
    if attachment.detached:
        return 0
    return _exit_code(client, identity)


def _exit_code(client: Client, identity: str) -> int:
    """The streams may end a moment before the engine hears of the end, and a program may close them on its own."""
    pause = 0.002
    while (found := client.get(f"/exec/{identity}/json")).get("Running"):
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
    return int(found["ExitCode"] or 0)
