"""`docker save`: one tar that is both an OCI image layout and what every `docker load` reads (manifest.json).

Layers go out as they came, so a pulled image keeps its manifest, and saving compresses nothing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from wharfie.engine.images import documents, reference
from wharfie.engine.images.assemble import Assembler
from wharfie.engine.images.catalog import blobs_of, name_annotations
from wharfie.engine.images.platforms import Platform
from wharfie.engine.images.reference import Name
from wharfie.engine.model.image import Image
from wharfie.spi.errors import DataLoss, NotFound
from wharfie.spi.registry import Descriptor
from wharfie.spi.tarformat import BLOCK, FOLDER, Entry, header, trailer

_CHUNK = 1 << 20


@dataclass(slots=True)
class _Chosen:
    """An image to save, with the names that were asked for. `others`: those for other platforms that `index` lists."""

    image: Image
    names: list[Name] = field(default_factory=list)
    others: tuple[Image, ...] = ()
    index: Descriptor | None = None

    @property
    def blobs(self) -> list[str]:
        own = [blob for image in (self.image, *self.others) for blob in blobs_of(image)]
        return [*own, self.index.digest] if self.index is not None else own


class Saver:
    """Writes archives; any number of them in parallel."""

    def __init__(self, assembler: Assembler) -> None:
        self._assembler = assembler
        self._catalog = assembler.catalog
        self._content = assembler.content

    def choose(self, refs: Sequence[str], platform: Platform | None = None) -> list[_Chosen]:
        """What the names mean: a name without a tag means all tags of its repository; without a platform an image for all
        that are here. Errors: NotFound (also: not for this platform), InvalidArgument."""
        chosen: dict[tuple[str, str], _Chosen] = {}
        for ref in refs:
            for image, name in self._meant(ref):
                if platform is not None:
                    image = self._catalog.find(name.familiar if name is not None else ref, platform)
                made = _Chosen(image) if platform is not None else self._whole(image, name)
                entry = chosen.setdefault((image.id, made.index.digest if made.index is not None else ""), made)
                if name is not None and name not in entry.names:
                    entry.names.append(name)
        return list(chosen.values())

    def _whole(self, image: Image, name: Name | None) -> _Chosen:
        meaning = self._catalog.meaning(name) if name is not None else None
        if meaning is None or meaning.index is None or not meaning.others:
            return _Chosen(image)
        return _Chosen(image, others=tuple(self._catalog.images[key] for key in meaning.others), index=meaning.index)

    def _meant(self, ref: str) -> list[tuple[Image, Name | None]]:
        if reference.image_id(ref) is not None:
            return [(self._catalog.find(ref), None)]
        name = reference.parse(ref)
        if name.name_only:
            own = sorted(each for each in self._catalog.names if each.tag and each.repository == name.repository)
            if own:
                return [(self._catalog.images[self._catalog.names[each]], each) for each in own]
        elif name.stored in self._catalog.names:
            return [(self._catalog.find(ref), None if name.digest else name.stored)]
        try:
            return [(self._catalog.find(ref), None)]
        except NotFound:
            raise NotFound(f"reference does not exist: No such image: {name.with_default_tag().familiar}") from None

    async def stream(self, chosen: Sequence[_Chosen]) -> AsyncIterator[bytes]:
        """The archive in pieces."""
        blobs = sorted({blob for entry in chosen for blob in entry.blobs})
        with self._catalog.pin(blobs):
            yield header(Entry(path=b"blobs/", kind=FOLDER, mode=0o755)) + header(
                Entry(path=b"blobs/sha256/", kind=FOLDER, mode=0o755)
            )
            for blob in blobs:
                async for piece in self.member(_path(blob), blob):
                    yield piece
            yield b"".join(_file(name, data) for name, data in _documents(chosen)) + trailer()

    async def member(self, name: str, blob: str) -> AsyncIterator[bytes]:
        """A blob as a file of an archive, in pieces. Errors: DataLoss."""
        size = await self._assembler.run(self._content.size, blob)
        if size is None:
            raise DataLoss(f"blob {blob} is missing: pull or load its image again")
        yield header(Entry(path=name.encode(), size=size))
        descriptor = await self._assembler.run(os.open, self._content.path(blob), os.O_RDONLY | os.O_CLOEXEC)
        try:
            at = 0
            while at < size:
                piece = await self._assembler.run(os.pread, descriptor, min(_CHUNK, size - at), at)
                if not piece:
                    raise DataLoss(f"blob {blob} is cut off: pull or load its image again")
                at += len(piece)
                yield piece
        finally:
            os.close(descriptor)
        yield bytes(-size % BLOCK)


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _file(name: str, data: bytes) -> bytes:
    return header(Entry(path=name.encode(), size=len(data))) + data + bytes(-len(data) % BLOCK)


def _documents(chosen: Sequence[_Chosen]) -> list[tuple[str, bytes]]:
    index: list[dict[str, Any]] = []
    manifest: list[dict[str, Any]] = []
    repositories: dict[str, dict[str, str]] = {}
    for entry in chosen:
        image = entry.image
        base = {"mediaType": image.manifest_type, "digest": image.manifest, "size": image.manifest_size}
        if entry.index is not None:
            base = documents.write_descriptor(entry.index)
        index += [{**base, "annotations": name_annotations(name)} for name in entry.names] or [base]
        manifest.append(
            {
                "Config": _path(image.id),
                "RepoTags": [name.familiar for name in entry.names] or None,
                "Layers": [_path(layer.blob) for layer in image.stack],
                "LayerSources": {
                    layer.diff_id: {"mediaType": layer.media_type, "size": layer.blob_size, "digest": layer.blob}
                    for layer in image.stack
                },
            }
        )
        for name in entry.names:
            top = image.stack[-1].blob if image.stack else image.id
            repositories.setdefault(name.familiar_repository, {})[name.tag] = top.removeprefix("sha256:")
    layout = {"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": index}
    files = [
        ("index.json", documents.dump(layout)),
        ("manifest.json", documents.dump(manifest)),
        ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
    ]
    return [*files, ("repositories", documents.dump(repositories))] if repositories else files
