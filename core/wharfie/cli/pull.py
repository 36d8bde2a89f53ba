"""Pulling with progress: bars on a terminal, a line for each step otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Any

from wharfie.cli.logins import stored
from wharfie.client import Client

HUB = "docker.io"


def pull_image(client: Client, image: str, *, platform: str, quiet: bool, out: IO[str]) -> None:
    """Errors: ClientError."""
    name, tag = split_tag(image)
    query = {"fromImage": name, "tag": tag, "platform": platform}
    messages = client.messages("POST", "/images/create", query, headers=credentials(name))
    if quiet:
        for _ in messages:
            pass
    elif out.isatty():
        _show_bars(messages, out)
    else:
        show_lines(messages, out)


def show_lines(messages: Iterable[Mapping[str, Any]], out: IO[str]) -> None:
    """A line for each step; what only counts bytes is left out."""
    for message in messages:
        if "stream" in message:
            out.write(message["stream"])
        elif message.get("status") and not message.get("progressDetail"):
            prefix = f"{message['id']}: " if message.get("id") else ""
            print(f"{prefix}{message['status']}", file=out)
        out.flush()


def _show_bars(messages: Iterable[Mapping[str, Any]], out: IO[str]) -> None:
    from rich.console import Console  # 40 ms that only a terminal needs
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

    columns = (TextColumn("{task.fields[layer]}"), TextColumn("{task.description:<18}"), BarColumn(), DownloadColumn())
    console = Console(file=out, highlight=False)
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}
        for message in messages:
            layer, status = message.get("id", ""), message.get("status", "")
            detail = message.get("progressDetail") or {}
            if not layer or (not detail and layer not in tasks and status.startswith("Pulling from")):
                console.print(f"{layer}: {status}" if layer else status or message.get("stream", ""), markup=False)
                continue
            if layer not in tasks:
                tasks[layer] = progress.add_task(status, total=None, layer=layer)
            done = status in ("Pull complete", "Already exists", "Download complete")
            total = detail.get("total") or None
            if done and not detail:
                known = progress.tasks[progress.task_ids.index(tasks[layer])].total or 1
                progress.update(tasks[layer], description=status, total=known, completed=known)
            else:
                progress.update(tasks[layer], description=status, total=total, completed=detail.get("current", 0))


def split_tag(image: str) -> tuple[str, str]:
    """Name and tag or digest, as `/images/create` takes them; `latest` when there is none."""
    name, separator, digest = image.partition("@")
    if separator:
        return name, digest
    head, slash, last = image.rpartition("/")
    last, _, tag = last.partition(":")
    return head + slash + last, tag or "latest"


def full_name(image: str) -> str:
    """docker.io/library/busybox:latest for "busybox"."""
    name, tag = split_tag(image)
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"{HUB}/library/{name}"
    elif "." not in first and ":" not in first and first != "localhost":
        name = f"{HUB}/{name}"
    return f"{name}@{tag}" if "@" in image else f"{name}:{tag}"


def credentials(name: str) -> dict[str, str]:
    """The header for what `docker login` stored for the name's registry, or none."""
    return stored(full_name(name).partition("/")[0])
