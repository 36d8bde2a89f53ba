"""`docker import`: the tar of a root file system becomes an image of one layer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor

from wharfie.engine.identity import rfc3339
from wharfie.engine.images import changes as instructions
from wharfie.engine.images import documents, platforms
from wharfie.engine.images.archive import pour
from wharfie.engine.images.assemble import Assembler
from wharfie.engine.images.reference import Name
from wharfie.engine.images.unpack import Wanted
from wharfie.engine.model.config import Config
from wharfie.engine.model.image import Image, ImageLayer


class Importer:
    """Imports one archive at a time; any number of them in parallel."""

    def __init__(self, assembler: Assembler, executor: Executor) -> None:
        self._assembler = assembler
        self._content = assembler.content
        self._executor = executor

    async def import_(
        self, body: AsyncIterator[bytes], *, names: Sequence[Name], message: str, changes: Sequence[str], platform: str
    ) -> Image:
        """Errors: InvalidArgument (a change, the platform, not a tar), OutOfSpace."""
        config = instructions.apply(Config(), changes)
        target = platforms.parse(platform)
        spool = await self._assembler.run(self._content.spool)
        try:
            await pour(body, spool, self._executor)
            diff_id = await self._assembler.run(spool.digest)
            size = spool.size
            now = rfc3339()
            document = {
                "architecture": target.architecture,
                **({"variant": target.variant} if target.variant else {}),
                "comment": message,
                "config": config.dump(),
                "created": now,
                "history": [{"created": now, "comment": message}],
                "os": target.os,
                "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            }
            data = documents.dump(document)
            key = documents.digest_of(data)
            async with self._assembler.building([diff_id], [key, diff_id]):
                if await self._assembler.run(self._content.size, diff_id) is None:
                    await self._assembler.run(spool.commit, diff_id)
                await self._assembler.run(self._content.put, data)
                unpacked = await self._assembler.unpack(Wanted(diff_id, diff_id, diff_id, None), lambda _: None)
                layer = ImageLayer(
                    diff_id=diff_id,
                    chain_id=diff_id,
                    size=unpacked,
                    blob=diff_id,
                    blob_size=size,
                    media_type=documents.OCI_LAYER,
                )
                return await self._assembler.record(key, documents.read_config(data), [layer], manifest=None, names=names)
        finally:
            spool.discard()
