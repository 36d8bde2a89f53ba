"""`docker commit`: what a container changed becomes a layer on top of its image's."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from wharfie.engine.identity import rfc3339
from wharfie.engine.images import documents, platforms
from wharfie.engine.images.assemble import Assembler
from wharfie.engine.images.pipes import lend, pipe
from wharfie.engine.images.reference import Name
from wharfie.engine.images.unpack import Wanted
from wharfie.engine.model.config import Config
from wharfie.engine.model.image import Image, ImageHistory, ImageLayer
from wharfie.spi import tarformat
from wharfie.spi.errors import Cancelled, InvalidArgument
from wharfie.spi.tarformat import BLOCK, Reader
from wharfie.store.content import Spool

_EMPTY = documents.digest_of(bytes(2 * BLOCK))
"""The digest of an archive without entries: no layer is made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What an image is made from. `diff` writes the layer's tar to a descriptor; `left_out`: paths that are no change."""

    parent: Image | None
    config: Config
    author: str
    comment: str
    created_by: str
    container: str
    made_by: str
    diff: Callable[[int], Awaitable[None]]
    left_out: frozenset[bytes]


class Committer:
    def __init__(self, assembler: Assembler, executor: Executor) -> None:
        self._assembler = assembler
        self._content = assembler.content
        self._executor = executor

    async def layer(self, commit: Commit) -> Spool:
        """The layer's tar, as long as the container may be held for it. The caller discards it.

        Errors: those of `commit.diff`, OutOfSpace.
        """
        spool = await self._assembler.run(self._content.spool)
        try:
            reading, writing = pipe()
            filtering = self._executor.submit(_filter, reading, spool, commit.left_out)
            try:
                await lend(writing, _diff(commit, writing), end=lambda: None)
            except Cancelled:  # the reader has left, and knows why
                await self._assembler.run(filtering.result)
                raise
            await self._assembler.run(filtering.result)
        except BaseException:
            spool.discard()
            raise
        return spool

    async def commit(self, commit: Commit, spool: Spool, names: Sequence[Name]) -> Image:
        """The image, recorded. Errors: InvalidArgument (too many layers), OutOfSpace."""
        diff_id = await self._assembler.run(spool.digest)
        data = documents.dump(_document(commit, diff_id))
        key = documents.digest_of(data)
        config = documents.read_config(data)
        layers = list(commit.parent.stack) if commit.parent else []
        chains = documents.chain_ids(config.diff_ids)
        async with self._assembler.building(chains, [key, diff_id, *(layer.blob for layer in layers)]):
            await self._assembler.run(self._content.put, data)
            if diff_id != _EMPTY:
                layers.append(await self._layer(spool, diff_id, chains))
            parent = commit.parent.id if commit.parent else ""
            return await self._assembler.record(key, config, layers, manifest=None, names=names, parent=parent)

    async def _layer(self, spool: Spool, diff_id: str, chains: Sequence[str]) -> ImageLayer:
        size = spool.size
        if await self._assembler.run(self._content.size, diff_id) is None:
            await self._assembler.run(spool.commit, diff_id)
        below = chains[-2] if len(chains) > 1 else None
        unpacked = await self._assembler.unpack(Wanted(diff_id, diff_id, chains[-1], below), lambda _: None)
        return ImageLayer(
            diff_id=diff_id,
            chain_id=chains[-1],
            size=unpacked,
            blob=diff_id,
            blob_size=size,
            media_type=documents.OCI_LAYER,
        )


async def _diff(commit: Commit, writing: int) -> None:
    await commit.diff(writing)


def _filter(reading: int, spool: Spool, left_out: frozenset[bytes]) -> None:
    """Copy the layer without what is left out. Reads to the end, so that whoever writes can finish."""
    try:
        archive = Reader(reading)
        for entry in archive:
            if entry.path.strip(b"/") in left_out:
                continue
            if entry.sparse is not None:
                raise InvalidArgument(f"the storage driver wrote {entry.path!r} as a sparse file, which no layer has")
            spool.write(tarformat.header(entry))
            archive.copy(spool.descriptor, entry.size)
            spool.write(bytes(-entry.size % BLOCK))
        spool.write(tarformat.trailer())
    finally:
        os.close(reading)


def _document(commit: Commit, diff_id: str) -> dict[str, Any]:
    """The configuration document of the new image."""
    now = rfc3339()
    empty = diff_id == _EMPTY
    parent = commit.parent
    local = platforms.local()
    step = {"created": now, "author": commit.author, "created_by": commit.created_by, "comment": commit.comment}
    if empty:
        step["empty_layer"] = True  # type: ignore[assignment]  # the only field of history that is no text
    return {
        "architecture": parent.architecture if parent else local.architecture,
        **({"variant": parent.variant} if parent and parent.variant else {}),
        "author": commit.author,
        "comment": commit.comment,
        "config": commit.config.dump(),
        "container": commit.container,
        "created": now,
        "docker_version": commit.made_by,
        "history": [*(_step(entry) for entry in (parent.history if parent else ())), step],
        "os": parent.os if parent else local.os,
        "rootfs": {"type": "layers", "diff_ids": [*(parent.layers if parent else ()), *(() if empty else (diff_id,))]},
    }


def _step(entry: ImageHistory) -> dict[str, Any]:
    found = entry.model_dump()
    return {key: value for key, value in found.items() if value}
