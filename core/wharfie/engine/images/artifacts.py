"""Artifacts: files at a registry that are no image, and what refers to an image (OCI image-spec, manifest.md "Guidelines
for Artifact Usage"; distribution-spec, "Listing Referrers").

An artifact is a manifest whose layers are files, or folders (see `folders`). With a *subject* it refers to another
manifest, and the registry lists it as one of its referrers. A registry without that API has a tag `sha256-HEX` in its
place, an index that whoever pushes keeps up. Nothing of an artifact stays here.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wharfie.engine.identity import rfc3339
from wharfie.engine.images import documents, folders, reference, remote
from wharfie.engine.images.archive import Archive, take_apart
from wharfie.engine.images.assemble import Assembler
from wharfie.engine.images.download import Downloader, Source
from wharfie.engine.images.progress import LayerLine, Progress
from wharfie.engine.images.push import Pusher
from wharfie.engine.images.reference import Name, short
from wharfie.engine.images.save import Saver
from wharfie.engine.images.upkeep import FindSource
from wharfie.spi.errors import InvalidArgument, Unsupported
from wharfie.spi.registry import Credentials, Descriptor, Manifest, RegistryDriver
from wharfie.spi.tarformat import trailer

TITLE = "org.opencontainers.image.title"
"""The annotation of a layer that has the file's name."""
_CREATED = "org.opencontainers.image.created"
_EMPTY = Descriptor(media_type="application/vnd.oci.empty.v1+json", digest=documents.digest_of(b"{}"), size=2)
_UNKNOWN = "application/vnd.unknown.artifact.v1"
_FILE = documents.OCI_LAYER
"""The type of files for which none is given, as oras has it."""
_FILES_LIMIT = 1000
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][\w!#$&^.+-]{0,126}/[A-Za-z0-9][\w!#$&^.+-]{0,126}", re.ASCII)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRequest:
    """What to make of the files. `media_types`: by file name. `folders`: files that are a folder's compressed tar, with the
    digest of the tar. `attach`: to the manifest that the name means."""

    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    media_types: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    attach: bool = False


class Artifacts:
    """Pushes, pulls and lists artifacts; any number at a time."""

    def __init__(
        self, assembler: Assembler, downloader: Downloader, pusher: Pusher, saver: Saver, source_of: FindSource
    ) -> None:
        self._assembler = assembler
        self._catalog = assembler.catalog
        self._content = assembler.content
        self._downloader = downloader
        self._pusher = pusher
        self._saver = saver
        self._source_of = source_of
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # of the tag that lists referrers

    async def push(
        self,
        text: str,
        body: AsyncIterator[bytes],
        request: ArtifactRequest,
        auth: Credentials | None,
        progress: Progress,
    ) -> Descriptor:
        """Send the files of a tar as an artifact: under the tag that `text` has, or attached to what it names.

        Errors: InvalidArgument (no tar, no file, a type), NotFound (what it is attached to), the registry's.
        """
        name = reference.parse(text).with_default_tag()
        _check(request)
        if name.digest and not request.attach:
            raise InvalidArgument(f"{text}: an artifact is pushed under a tag; to refer to that digest, attach it")
        with remote.dockers_words():
            return await self._push(await self._source_of(name, auth), name, body, request, progress)

    async def _push(
        self, target: Source, name: Name, body: AsyncIterator[bytes], request: ArtifactRequest, progress: Progress
    ) -> Descriptor:
        subject = await self._subject(target) if request.attach else None
        archive = await self._assembler.run(Archive, self._content)
        try:
            await take_apart(body, archive)
            layers = await self._files(target, name, archive, request, progress)
        finally:
            await self._assembler.run(archive.discard)
        await self._document(target, name, _EMPTY, b"{}", progress)
        data = _manifest(request, layers or [_EMPTY], subject)
        made = Manifest(media_type=documents.OCI_MANIFEST, digest=documents.digest_of(data), data=data)
        place = replace(target.reference, tag="", digest=made.digest) if subject is not None else target.reference
        await target.driver.call(RegistryDriver.push_manifest, place, made, target.credentials)
        pushed = Descriptor(
            media_type=made.media_type,
            digest=made.digest,
            size=len(data),
            artifact_type=request.artifact_type or _UNKNOWN,
            annotations=documents.read_object(data, "the manifest")["annotations"],
        )
        if subject is not None:
            await self._list_as_referrer(target, subject, pushed)
        return pushed

    async def pull(self, text: str, auth: Credentials | None) -> tuple[str, AsyncIterator[bytes]]:
        """The manifest's digest, and the files as a tar in pieces.

        Errors: NotFound, InvalidArgument (it has no files, a file has no proper name), the registry's.
        """
        name = reference.parse(text).with_default_tag()
        source = await self._source_of(name, auth)
        with remote.dockers_words():
            manifest = await remote.manifest_of(source, source.reference)
        files = _files_of(documents.read_object(manifest.data, "the manifest"), text)
        return manifest.digest, self._stream(source, files)

    async def referrers(self, text: str, artifact_type: str, auth: Credentials | None) -> Sequence[Descriptor]:
        """What refers to the manifest that a name means, of one type or of all. Errors: NotFound, the registry's."""
        source = await self._source_of(reference.parse(text).with_default_tag(), auth)
        with remote.dockers_words():
            found = await remote.referrers(source, await self._subject(source))
        return [each for each in found if artifact_type in ("", each.artifact_type)]

    async def _subject(self, source: Source) -> Descriptor:
        manifest = await remote.manifest_of(source, source.reference)
        return Descriptor(media_type=manifest.media_type, digest=manifest.digest, size=len(manifest.data))

    # Pushing

    async def _files(
        self, target: Source, name: Name, archive: Archive, request: ArtifactRequest, progress: Progress
    ) -> list[Descriptor]:
        if len(archive.files) > _FILES_LIMIT:
            raise InvalidArgument(f"an artifact has at most {_FILES_LIMIT} files, not {len(archive.files)}")
        if not archive.files and not request.artifact_type:
            raise InvalidArgument("an artifact without files needs an artifact type")
        return [await self._file(target, name, archive, file, request, progress) for file in archive.files]

    async def _file(
        self, target: Source, name: Name, archive: Archive, file: str, request: ArtifactRequest, progress: Progress
    ) -> Descriptor:
        digest = await self._assembler.run(archive.digest, file)
        if not folders.is_proper(file):
            raise InvalidArgument(f"{file!r} is no name for a file of an artifact")
        annotations = {TITLE: file}
        if file in request.folders:
            annotations |= {folders.DIGEST: request.folders[file], folders.UNPACK: "true"}
        kind = request.media_types.get(file, _FILE + "+gzip" if file in request.folders else _FILE)
        blob = Descriptor(media_type=kind, digest=digest, size=archive.size(file), annotations=annotations)
        path = await self._assembler.run(archive.path, file)
        await self._pusher.send_blob(target, name, blob, path, LayerLine(progress, short(digest)))
        return blob

    async def _document(self, target: Source, name: Name, blob: Descriptor, data: bytes, progress: Progress) -> None:
        spool = await self._assembler.run(self._content.spool)
        try:
            await self._assembler.run(spool.write, data)
            await self._pusher.send_blob(target, name, blob, spool.path, LayerLine(progress, short(blob.digest)))
        finally:
            spool.discard()

    # Referrers

    async def _list_as_referrer(self, target: Source, subject: Descriptor, pushed: Descriptor) -> None:
        """A registry with the API has seen it; for the others the tag is written anew."""
        try:
            await target.driver.call(RegistryDriver.referrers, target.reference, subject, target.credentials)
        except Unsupported:
            async with self._turns[f"{target.reference.server}/{target.reference.repository}"]:
                listed = await remote.listed_referrers(target, subject)
                rows = [each for each in listed if each.digest != pushed.digest]
                data = documents.dump(
                    {
                        "schemaVersion": 2,
                        "mediaType": documents.OCI_INDEX,
                        "manifests": [_row(each) for each in [*rows, pushed]],
                    }
                )
                index = Manifest(media_type=documents.OCI_INDEX, digest=documents.digest_of(data), data=data)
                place = replace(target.reference, tag=remote.referrers_tag(subject), digest="")
                await target.driver.call(RegistryDriver.push_manifest, place, index, target.credentials)

    # Pulling

    async def _stream(self, source: Source, files: Mapping[str, Descriptor]) -> AsyncIterator[bytes]:
        blobs = [blob.digest for blob in files.values()]
        try:
            with self._catalog.pin(blobs):
                for blob in files.values():
                    await self._downloader.fetch(source, blob, lambda step: None)
                for name, blob in files.items():
                    async for piece in self._file_or_folder(name, blob):
                        yield piece
                yield trailer()
        finally:
            async with self._catalog.lock:
                wanted = self._catalog.wanted_blobs()
                await self._assembler.remove_blobs([blob for blob in blobs if blob not in wanted])

    def _file_or_folder(self, name: str, blob: Descriptor) -> AsyncIterator[bytes]:
        if blob.annotations.get(folders.UNPACK) != "true":
            return self._saver.member(name, blob.digest)
        return folders.entries(name, self._content.path(blob.digest), blob.annotations.get(folders.DIGEST, ""))


def _check(request: ArtifactRequest) -> None:
    for kind in (request.artifact_type, *request.media_types.values()):
        if kind and _MEDIA_TYPE.fullmatch(kind) is None:
            raise InvalidArgument(f"{kind!r} is not a media type: want one like application/vnd.example.sbom.v1+json")
    for folder, digest in request.folders.items():
        if _DIGEST.fullmatch(digest) is None:
            raise InvalidArgument(f"{digest!r} is not the digest of the tar of the folder {folder!r}")
    if request.attach and not request.artifact_type:
        raise InvalidArgument("what is attached needs an artifact type, so that it can be found")


def _manifest(request: ArtifactRequest, layers: Sequence[Descriptor], subject: Descriptor | None) -> bytes:
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": documents.OCI_MANIFEST,
        "artifactType": request.artifact_type or _UNKNOWN,
        "config": documents.write_descriptor(_EMPTY),
        "layers": [_row(layer) for layer in layers],
    }
    if subject is not None:
        document["subject"] = documents.write_descriptor(subject)
    created = rfc3339().partition(".")[0].removesuffix("Z") + "Z"
    document["annotations"] = {_CREATED: created, **request.annotations}
    return documents.dump(document)


def _row(descriptor: Descriptor) -> dict[str, Any]:
    row = documents.write_descriptor(descriptor)
    if descriptor.artifact_type:
        row["artifactType"] = descriptor.artifact_type
    if descriptor.annotations:
        row["annotations"] = dict(descriptor.annotations)
    return row


def _files_of(document: Mapping[str, Any], text: str) -> dict[str, Descriptor]:
    listed = document.get("layers")
    if not isinstance(listed, list) or len(listed) > _FILES_LIMIT:
        raise InvalidArgument(f"{text} is no artifact: its manifest has no layers, or more than {_FILES_LIMIT}")
    files: dict[str, Descriptor] = {}
    for entry in listed:
        blob = documents.read_descriptor(entry, "a file of the artifact")
        title = blob.annotations.get(TITLE)
        if title is None:
            continue  # not a file for people
        if not folders.is_proper(title):
            raise InvalidArgument(f"{text} has a file with the name {title!r}, which leads out of a folder")
        files[title] = blob
    if not files:
        raise InvalidArgument(f"{text} has no files: no layer of its manifest has the annotation {TITLE}")
    return files
