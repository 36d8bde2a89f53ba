"""Looks at registries that change nothing here: `/distribution`, `docker search`, what hook plugins ask for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from wharfie.engine import digits
from wharfie.engine.filters import Filters, boolean, check
from wharfie.engine.images import documents, pipes
from wharfie.engine.images.download import Source
from wharfie.engine.images.platforms import Platform
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.errors import InvalidArgument, NotFound, Unavailable, Unsupported, WharfieError
from wharfie.spi.hooks import Repository
from wharfie.spi.registry import (
    MANIFEST_LIMIT,
    Credentials,
    Descriptor,
    Manifest,
    Reference,
    RegistryDriver,
    SearchResult,
)

T = TypeVar("T")

_FILTERS = frozenset({"is-official", "is-automated", "stars"})
_LIMITS = (1, 100)
_DEFAULT_LIMIT = 25
LOOK_SECONDS = 50.0
"""What a registry gets for all that plugins ask about one image: less than their hook's own deadline, so that a slow one is
an answer of theirs and never their failure."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a registry has under a name."""

    descriptor: Descriptor
    platforms: tuple[Platform, ...]


@contextlib.contextmanager
def dockers_words() -> Iterator[None]:
    """A registry that cannot be reached is a plain failure (500) with its own words, as dockerd answers."""
    try:
        yield
    except Unavailable as error:
        raise WharfieError(error.details.get("text", error.message), details=error.details) from error


async def look_at(source: Source) -> Distribution:
    """The manifest or index, and the platforms that it is for. Errors: NotFound, Unauthorized, InvalidArgument."""
    manifest = await manifest_of(source, source.reference)
    document = documents.read_object(manifest.data, "the manifest")
    descriptor = Descriptor(media_type=manifest.media_type, digest=manifest.digest, size=len(manifest.data))
    if documents.is_index(document, manifest.media_type):
        platforms = [entry.platform for entry in documents.read_index(document) if entry.platform is not None]
    else:
        config = await small_blob(source, documents.read_manifest(document).config)
        platforms = [documents.read_config(config).platform]
    return Distribution(descriptor, tuple(platforms))


async def manifest_of(source: Source, reference: Reference) -> Manifest:
    """A manifest or index, verified. Errors: InvalidArgument (another one than was asked for), the driver's."""
    manifest = await source.driver.call(RegistryDriver.resolve, reference, source.credentials)
    if documents.digest_of(manifest.data) != (reference.digest or manifest.digest):
        raise InvalidArgument(f"manifest verification failed for digest {reference.digest or manifest.digest}")
    if len(manifest.data) > MANIFEST_LIMIT:
        raise InvalidArgument(f"the manifest has {len(manifest.data)} bytes; the limit is {MANIFEST_LIMIT}")
    return manifest


async def small_blob(source: Source, blob: Descriptor) -> bytes:
    """A blob of at most MANIFEST_LIMIT bytes, verified. Errors: InvalidArgument, the driver's."""
    if blob.size > MANIFEST_LIMIT:
        raise InvalidArgument(f"blob {blob.digest} has {blob.size} bytes; the limit is {MANIFEST_LIMIT}")
    descriptor = os.memfd_create("blob")
    ours = os.dup(descriptor)
    try:
        fetch = source.driver.call(
            RegistryDriver.fetch, source.reference, blob, descriptor, offset=0, auth=source.credentials
        )
        await pipes.lend(descriptor, fetch, end=lambda: None)
        data = os.pread(ours, blob.size, 0)
    finally:
        os.close(ours)
    if documents.digest_of(data) != blob.digest:
        raise InvalidArgument(f"blob verification failed for digest {blob.digest}")
    return data


async def referrers(source: Source, subject: Descriptor) -> Sequence[Descriptor]:
    """What refers to a manifest: by the registry's API, or by the tag that takes its place. Errors: the driver's."""
    try:
        return await source.driver.call(RegistryDriver.referrers, source.reference, subject, source.credentials)
    except Unsupported:
        return await listed_referrers(source, subject)


async def listed_referrers(source: Source, subject: Descriptor) -> list[Descriptor]:
    """What the tag lists (OCI distribution-spec, "Referrers Tag Schema"). Errors: InvalidArgument (it is no index)."""
    tag = referrers_tag(subject)
    try:
        manifest = await manifest_of(source, replace(source.reference, tag=tag, digest=""))
    except NotFound:
        return []
    document = documents.read_object(manifest.data, "the list of referrers")
    if not documents.is_index(document, manifest.media_type):
        raise InvalidArgument(f"the tag {tag}, where referrers are listed, is no index")
    return [entry.descriptor for entry in documents.read_index(document)]


def referrers_tag(subject: Descriptor) -> str:
    return subject.digest.replace(":", "-")


class SourceRepository(Repository):
    """What hook plugins may see of a source. Made in the event loop's thread, used in theirs."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._end = time.monotonic() + LOOK_SECONDS

    def manifest(self, tag_or_digest: str) -> Manifest:
        by_digest = ":" in tag_or_digest
        tag, digest = ("", tag_or_digest) if by_digest else (tag_or_digest, "")
        return self._wait(manifest_of(self._source, replace(self._source.reference, tag=tag, digest=digest)))

    def blob(self, blob: Descriptor) -> bytes:
        return self._wait(small_blob(self._source, blob))

    def referrers(self, digest: str) -> Sequence[Descriptor]:
        return self._wait(referrers(self._source, Descriptor(media_type=documents.OCI_MANIFEST, digest=digest, size=0)))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        asked = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return asked.result(max(0.0, self._end - time.monotonic()))
        except TimeoutError:
            asked.cancel()
            server = self._source.reference.server
            raise Unavailable(f"the registry {server} takes too long to say what is beside the image") from None


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
    stars = digits.number(text)
    if stars is None:
        raise InvalidArgument(f"invalid filter 'stars={text}'")
    return stars
