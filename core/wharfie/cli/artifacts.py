"""`wharfie artifact …`: files at registries that are no image (Wharfie's own commands, in the manner of oras)."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import click

from wharfie.cli import folders, units
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
    """Push files as an artifact. A file may have a media type, FILE:TYPE. A folder goes as one file, a compressed tar, and
    becomes a folder again when it is pulled.

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
        with tarfile.open(fileobj=archive) as tar, contextlib.closing(folders.Target(output)) as target:
            for entry in tar:
                target.write(entry, tar.extractfile(entry) if entry.isreg() else None)
                if entry.isreg():
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
    for name in {name for _, name, _ in named if [other for _, other, _ in named].count(name) > 1}:
        raise click.ClickException(f"there are several files with the name {name}: change into a folder above them")
    types = {name: kind for _, name, kind in named if kind}
    query = {
        "name": reference,
        "artifact-type": artifact_type,
        "annotations": json.dumps(pairs(annotation)),
        "media-types": json.dumps(types),
        "attach": attach,
    }
    made: dict[str, Any] = {}
    packed: dict[str, str] = {}

    def steps(messages: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for message in messages:
            if "aux" in message:
                made.update(message["aux"])
            else:
                yield message

    with _archive([(path, name) for path, name, _ in named], packed) as archive:
        query["folders"] = json.dumps(packed)
        messages = context.client.messages(
            "POST",
            "/wharfie/artifacts",
            query,
            body=iter(lambda: archive.read(_BLOCK), b""),
            headers={"Content-Type": "application/x-tar", **credentials(split_tag(reference)[0])},
        )
        show_lines(steps(messages), sys.stdout)
    return made


def _named(text: str) -> tuple[Path, str, str]:
    """A file, its name in the artifact, its media type. A name that leads out of a folder is shortened to its last part."""
    file, _, kind = text.rpartition(":") if ":" in text and not Path(text).exists() else (text, "", "")
    path = Path(file)
    if not path.is_file() and not path.is_dir():
        raise click.ClickException(f"{file}: there is no such file or folder")
    normal = os.path.normpath(file)
    within = not path.is_absolute() and normal != "." and normal.partition("/")[0] != ".."
    name = normal if within else path.name if path.name not in ("", "..") else path.resolve().name
    if not name or not name.isprintable():
        raise click.ClickException(f"{file}: {name!r} is no name for a file of an artifact")
    return path, name, kind


@contextlib.contextmanager
def _archive(files: list[tuple[Path, str]], packed: dict[str, str]) -> Iterator[IO[bytes]]:
    """A tar of the files. `packed` learns the folders, with the digests of their tars."""
    with tempfile.TemporaryFile() as archive:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, name in files:
                if not path.is_dir():
                    tar.add(path.resolve(), arcname=name, recursive=False)
                    continue
                with tempfile.TemporaryFile() as file:
                    packed[name] = folders.pack(path, name, file)
                    entry = tarfile.TarInfo(name)
                    entry.size = file.tell()
                    file.seek(0)
                    tar.addfile(entry, file)
        archive.seek(0)
        yield archive
