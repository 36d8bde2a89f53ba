"""`wharfie artifact …`: files at registries that are no image (Wharfie's own commands, in the manner of oras)."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

from wharfie.cli import units
from wharfie.cli.context import Context, pairs, pass_context
from wharfie.cli.pull import credentials, show_lines, split_tag
from wharfie.cli.table import format_option, show

_BLOCK = 1024 * 1024
_COLUMNS = {"Digest": "DIGEST", "ArtifactType": "ARTIFACT TYPE", "Size": "SIZE", "Annotations": "ANNOTATIONS"}
_annotation = click.option("-a", "--annotation", multiple=True, help="KEY=VALUE of the manifest.")


@click.group()
def artifact() -> None:
    """Push, pull, attach and list artifacts: files at a registry that are no image, such as signatures and SBOMs."""


@artifact.command()
@click.option("--artifact-type", default="", help="Media type of the whole.")
@_annotation
@click.argument("reference")
@click.argument("files", nargs=-1, required=True)
@pass_context
def push(
    context: Context, /, artifact_type: str, annotation: tuple[str, ...], reference: str, files: tuple[str, ...]
) -> None:
    """Push files as an artifact. A file may have a media type, FILE:TYPE.

    \b
    Example:
      wharfie artifact push registry.example:5000/team/docs:1 manual.pdf:application/pdf
    """
    print(f"Digest: {_push(context, reference, files, artifact_type, annotation, attach=False)['Digest']}")


@artifact.command()
@click.option("--artifact-type", required=True, help="Media type of the whole.")
@_annotation
@click.argument("image")
@click.argument("files", nargs=-1)
@pass_context
def attach(
    context: Context, /, artifact_type: str, annotation: tuple[str, ...], image: str, files: tuple[str, ...]
) -> None:
    """Push files as an artifact that refers to IMAGE, so that `artifact ls IMAGE` finds it.

    \b
    Example:
      wharfie artifact attach --artifact-type application/spdx+json registry.example:5000/team/app:1 sbom.json
    """
    print(f"Digest: {_push(context, image, files, artifact_type, annotation, attach=True)['Digest']}")


@artifact.command()
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Folder for the files."
)
@click.argument("reference")
@pass_context
def pull(context: Context, /, output: Path, reference: str) -> None:
    """Write the files of an artifact into a folder.

    \b
    Example:
      wharfie artifact pull -o docs registry.example:5000/team/docs:1
    """
    response = context.client.open(
        "GET", "/wharfie/artifacts/files", {"name": reference}, headers=credentials(split_tag(reference)[0])
    )
    with contextlib.closing(response.connection), tempfile.TemporaryFile() as archive:
        for block in response.blocks():
            archive.write(block)
        archive.seek(0)
        with tarfile.open(fileobj=archive) as tar:
            for entry in tar:
                tar.extract(entry, output, set_attrs=False, filter="data")
                print(f"Downloaded {units.human_size(entry.size)} {entry.name}")
    print(f"Digest: {response.headers.get('docker-content-digest', '')}")


@artifact.command("ls")
@click.option("--artifact-type", default="", help="Only this media type.")
@format_option
@click.argument("image")
@pass_context
def list_(context: Context, /, artifact_type: str, template: str, image: str) -> None:
    """List what refers to an image at its registry.

    \b
    Example:
      wharfie artifact ls registry.example:5000/team/app:1
    """
    response = context.client.open(
        "GET",
        "/wharfie/artifacts",
        {"name": image, "artifact-type": artifact_type},
        headers=credentials(split_tag(image)[0]),
    )
    with contextlib.closing(response.connection):
        rows = json.loads(response.read())
    if template == "table":
        rows = [
            row
            | {
                "Size": units.human_size(row["Size"]),
                "Annotations": ", ".join(f"{key}={value}" for key, value in row["Annotations"].items()),
            }
            for row in rows
        ]
    show(rows, _COLUMNS, template)


def _push(
    context: Context,
    reference: str,
    files: tuple[str, ...],
    artifact_type: str,
    annotation: tuple[str, ...],
    *,
    attach: bool,
) -> dict[str, Any]:
    named = [_named(file) for file in files]
    types = {name: kind for _, name, kind in named if kind}
    query = {
        "name": reference,
        "artifact-type": artifact_type,
        "annotations": json.dumps(pairs(annotation)),
        "media-types": json.dumps(types),
        "attach": attach,
    }
    with _archive([(path, name) for path, name, _ in named]) as archive:
        messages = list(
            context.client.messages(
                "POST",
                "/wharfie/artifacts",
                query,
                body=iter(lambda: archive.read(_BLOCK), b""),
                headers={"Content-Type": "application/x-tar", **credentials(split_tag(reference)[0])},
            )
        )
    show_lines((message for message in messages if "aux" not in message), sys.stdout)
    made: dict[str, Any] = next(message["aux"] for message in messages if "aux" in message)
    return made


def _named(text: str) -> tuple[Path, str, str]:
    """A file, its name in the artifact, its media type. A name that leads out of a folder is shortened to its last part."""
    file, _, kind = text.rpartition(":") if ":" in text and not Path(text).exists() else (text, "", "")
    path = Path(file)
    if not path.is_file():
        raise click.ClickException(f"{file}: there is no such file")
    normal = os.path.normpath(file)
    return path, path.name if path.is_absolute() or normal.startswith("..") else normal, kind


@contextlib.contextmanager
def _archive(files: list[tuple[Path, str]]) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, name in files:
                tar.add(path.resolve(), arcname=name, recursive=False)
        archive.seek(0)
        yield archive
