"""`wharfie images`, `pull`, `load`, `tag`, `rmi`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import click

from wharfie.cli import units
from wharfie.cli.context import Context, each, filters, pass_context
from wharfie.cli.pull import full_name, pull_image, show_lines, split_tag
from wharfie.cli.table import format_option, show

_COLUMNS = {"Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "CreatedSince": "CREATED", "Size": "SIZE"}
_NONE = "<none>"
_BLOCK = 1024 * 1024


@click.command()
@click.option("-a", "--all", "all_", is_flag=True, help="Intermediate ones too.")
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@click.option("--digests", is_flag=True, help="With digests.")
@click.option("-f", "--filter", "filter_", multiple=True, help="KEY=VALUE: dangling, label, reference, …")
@format_option
@click.argument("reference", default="")
@pass_context
def images(
    context: Context,
    /,
    all_: bool,
    quiet: bool,
    no_trunc: bool,
    digests: bool,
    filter_: tuple[str, ...],
    template: str,
    reference: str,
) -> None:
    """List images, or those that REFERENCE names.

    \b
    Examples:
      wharfie images
      wharfie images -q --filter dangling=true
    """
    wanted = (*filter_, f"reference={reference}") if reference else filter_
    found = context.client.get("/images/json", {"all": all_, "filters": filters(wanted), "digests": digests})
    rows = [row for image in found for row in _rows(image, no_trunc)]
    if quiet:
        for row in rows:
            print(row["ID"])
        return
    columns = dict(_COLUMNS)
    if digests:
        columns = {"Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST"} | columns
    show(rows, columns, template)


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Print the name only.")
@click.option("--platform", default="", help="OS/ARCH[/VARIANT].")
@click.argument("image")
@pass_context
def pull(context: Context, /, quiet: bool, platform: str, image: str) -> None:
    """Download an image from a registry.

    \b
    Examples:
      wharfie pull nginx
      wharfie pull registry.example:5000/team/app:1.2
    """
    tagged = "@" in image or ":" in image.rpartition("/")[2]
    if not tagged and not quiet:
        print("Using default tag: latest")
    pull_image(context.client, image, platform=platform, quiet=quiet, out=sys.stdout)
    print(full_name(image))


@click.command()
@click.option(
    "-i", "--input", "input_", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Read this file."
)
@click.option("-q", "--quiet", is_flag=True, help="Without progress.")
@click.option("--platform", default="", help="Only this OS/ARCH[/VARIANT].")
@pass_context
def load(context: Context, /, input_: Path | None, quiet: bool, platform: str) -> None:
    """Load images from a tar archive, as `docker save` and OCI tools write them; from stdin without --input.

    \b
    Example:
      wharfie load -i app.tar
    """
    if input_ is None and sys.stdin.isatty():
        raise click.ClickException("requested load from stdin, but stdin is empty: use -i FILE, or a pipe")
    with open(input_, "rb") if input_ is not None else sys.stdin.buffer as archive:
        messages = context.client.messages(
            "POST",
            "/images/load",
            {"quiet": quiet, "platform": platform},
            body=_blocks(archive),
            headers={"Content-Type": "application/x-tar"},
        )
        show_lines(messages, sys.stdout)


@click.command()
@click.argument("source")
@click.argument("target")
@pass_context
def tag(context: Context, /, source: str, target: str) -> None:
    """Give SOURCE the further name TARGET.

    \b
    Example:
      wharfie tag app:latest registry.example:5000/team/app:1.2
    """
    name, label = split_tag(target)
    context.client.post(f"/images/{source}/tag", query={"repo": name, "tag": label})


@click.command()
@click.option("-f", "--force", is_flag=True, help="Although a stopped container uses it.")
@click.option("--no-prune", is_flag=True, help="Keep its untagged parents.")
@click.option("--platform", "platform", multiple=True, help="Only the image for this OS/ARCH[/VARIANT].")
@click.argument("images", nargs=-1, required=True)
@pass_context
def rmi(context: Context, /, force: bool, no_prune: bool, platform: tuple[str, ...], images: tuple[str, ...]) -> int:
    """Remove images: their names, and what nothing else uses.

    \b
    Example:
      wharfie rmi app:1.1
    """

    def remove(name: str) -> str:
        done = context.client.delete(f"/images/{name}", {"force": force, "noprune": no_prune, "platforms": platform})
        return "\n".join(f"{action}: {what}" for entry in done or () for action, what in entry.items())

    return each(images, remove)


def _rows(image: Mapping[str, Any], no_trunc: bool) -> Iterator[dict[str, Any]]:
    identity = image["Id"] if no_trunc else image["Id"].removeprefix("sha256:")[:12]
    row = {
        "ID": identity,
        "CreatedSince": units.ago(image["Created"]) if image["Created"] > 0 else "N/A",
        "CreatedAt": image["Created"],
        "Size": units.human_size(image["Size"]),
        "Containers": image.get("Containers", -1),
    }
    by_name = dict(digest.partition("@")[::2] for digest in image.get("RepoDigests") or [])
    tags = [name for name in image.get("RepoTags") or [] if name != f"{_NONE}:{_NONE}"]
    for name in tags:
        repository, _, label = name.rpartition(":")
        yield {"Repository": repository, "Tag": label, "Digest": by_name.get(repository, _NONE), **row}
    if not tags:
        repository = next(iter(by_name), _NONE)
        yield {"Repository": repository, "Tag": _NONE, "Digest": by_name.get(repository, _NONE), **row}


def _blocks(archive: IO[bytes]) -> Iterator[bytes]:
    while block := archive.read(_BLOCK):
        yield block
