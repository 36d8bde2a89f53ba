"""Looks at registries that change nothing here: `/distribution` and `docker search`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wharfie.engine.filters import Filters, boolean, check
from wharfie.engine.images import documents, pipes
from wharfie.engine.images.download import Source
from wharfie.engine.images.platforms import Platform
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.errors import InvalidArgument
from wharfie.spi.registry import Credentials, Descriptor, RegistryDriver, SearchResult

_FILTERS = frozenset({"is-official", "is-automated", "stars"})
_LIMITS = (1, 100)
_DEFAULT_LIMIT = 25


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a registry has under a name."""

    descriptor: Descriptor
    platforms: tuple[Platform, ...]


async def look_at(source: Source) -> Distribution:
    """The manifest or index, and the platforms that it is for. Errors: NotFound, Unauthorized, InvalidArgument."""
    manifest = await source.driver.call(RegistryDriver.resolve, source.reference, source.credentials)
    found = documents.digest_of(manifest.data)
    if source.reference.digest and found != source.reference.digest:
        raise InvalidArgument(f"manifest verification failed for digest {source.reference.digest}")
    document = documents.read_object(manifest.data, "the manifest")
    descriptor = Descriptor(media_type=manifest.media_type, digest=found, size=len(manifest.data))
    if documents.is_index(document, manifest.media_type):
        platforms = [entry.platform for entry in documents.read_index(document) if entry.platform is not None]
    else:
        platforms = [await _platform(source, documents.read_manifest(document).config)]
    return Distribution(descriptor, tuple(platforms))


async def _platform(source: Source, config: Descriptor) -> Platform:
    descriptor = os.memfd_create("config")
    ours = os.dup(descriptor)
    try:
        fetch = source.driver.call(
            RegistryDriver.fetch, source.reference, config, descriptor, offset=0, auth=source.credentials
        )
        await pipes.lend(descriptor, fetch, end=lambda: None)
        data = os.pread(ours, config.size, 0)
    finally:
        os.close(ours)
    if documents.digest_of(data) != config.digest:
        raise InvalidArgument(f"image config verification failed for digest {config.digest}")
    return documents.read_config(data).platform


async def search(
    driver: Supervised[RegistryDriver], server: str, term: str, limit: int, filters: Filters, auth: Credentials | None
) -> Sequence[SearchResult]:
    """What the server's index finds. Errors: InvalidArgument (a filter, the limit), Unavailable."""
    check(filters, _FILTERS)
    limit = limit or _DEFAULT_LIMIT
    if not _LIMITS[0] <= limit <= _LIMITS[1]:
        raise InvalidArgument(f"limit {limit} is outside the range of [{_LIMITS[0]}, {_LIMITS[1]}]")
    wanted: list[Callable[[SearchResult], bool]] = []
    if "is-official" in filters:
        official = boolean(filters, "is-official", default=False)
        wanted.append(lambda row: row.official == official)
    if "is-automated" in filters:
        automated = boolean(filters, "is-automated", default=False)
        wanted.append(lambda row: row.automated == automated)
    if "stars" in filters:
        least = max(_stars(text) for text in filters["stars"])
        wanted.append(lambda row: row.stars >= least)
    found = await driver.call(RegistryDriver.search, server, term, limit, auth)
    return [row for row in found if all(fits(row) for fits in wanted)]


def _stars(text: str) -> int:
    if not text.isdecimal():
        raise InvalidArgument(f"invalid filter 'stars={text}'")
    return int(text)
