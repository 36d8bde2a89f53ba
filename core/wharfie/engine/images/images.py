"""The front of this package: what the API and the other parts of the engine do with images."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from wharfie.engine.events import Events
from wharfie.engine.filters import Filters
from wharfie.engine.images import listing, platforms, reference, remote
from wharfie.engine.images.artifacts import Artifacts
from wharfie.engine.images.assemble import UNPACKS, Assembler
from wharfie.engine.images.catalog import Catalog, Meaning, blobs_of
from wharfie.engine.images.commit import Commit, Committer
from wharfie.engine.images.download import Downloader, Source
from wharfie.engine.images.importing import Importer
from wharfie.engine.images.load import Loader
from wharfie.engine.images.mirror import Mirror
from wharfie.engine.images.progress import Progress
from wharfie.engine.images.pull import Puller
from wharfie.engine.images.push import Pusher
from wharfie.engine.images.reference import Name
from wharfie.engine.images.remote import Distribution
from wharfie.engine.images.removal import Remover, Said
from wharfie.engine.images.save import Saver
from wharfie.engine.images.upkeep import Blob, Findings, Upkeep
from wharfie.engine.images.variants import Variants
from wharfie.engine.model.container import Container
from wharfie.engine.model.image import HistoryItem, Image
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.errors import InvalidArgument, NotFound, WharfieError
from wharfie.spi.hooks import Event
from wharfie.spi.registry import Credentials, LoginResult, RegistryDriver, SearchResult
from wharfie.spi.storage import StorageDriver
from wharfie.store.content import ContentStore, Spool
from wharfie.store.metadata import Metadata

_LOG = logging.getLogger(__name__)
_SPARE_THREADS = 8
"""Beside those that downloads, uploads and unpacking keep busy: short looks at the disk."""


class Images:
    """All images. Construct, `open`, use in the event loop's thread, `close`."""

    def __init__(
        self,
        metadata: Metadata,
        content: ContentStore,
        drivers: Drivers,
        events: Events,
        *,
        storage_driver: str,
        registry_drivers: Mapping[str, str],
        default_registry: str,
        max_concurrent_downloads: int,
        max_download_attempts: int,
        max_concurrent_uploads: int,
        containers_using: Callable[[str], Sequence[Container]],
    ) -> None:
        """`registry_drivers`: driver's name by host[:port]; `default_registry` for all others."""
        self._content = content
        self._drivers = drivers
        self._events = events
        self._storage_driver = storage_driver
        self._registry_drivers = registry_drivers
        self._default_registry = default_registry
        self._catalog = Catalog(metadata)
        self._containers_using = containers_using
        threads = max(max_concurrent_downloads, max_concurrent_uploads) + UNPACKS + _SPARE_THREADS
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="images")
        self._assembler = Assembler(self._catalog, content, drivers, self._executor, storage_driver=storage_driver)
        self._downloader = Downloader(
            content, self._executor, concurrent=max_concurrent_downloads, attempts=max_download_attempts
        )
        self._puller = Puller(self._assembler, self._downloader)
        self._pusher = Pusher(self._assembler, self._executor, concurrent=max_concurrent_uploads)
        self._upkeep = Upkeep(self._assembler, self._downloader, self._source)
        self._loader = Loader(self._assembler)
        self._importer = Importer(self._assembler, self._executor)
        self._committer = Committer(self._assembler, self._executor)
        self._saver = Saver(self._assembler)
        self.mirror = Mirror(self._assembler)
        self.variants = Variants(self._assembler, containers_using)
        self.artifacts = Artifacts(self._assembler, self._downloader, self._pusher, self._saver, self._source)
        self._releases: set[asyncio.Task[None]] = set()
        events.observe(self._on_event)
        self._remover = Remover(self._assembler, containers_using, self._tell)

    async def open(self) -> None:
        """Load the records and bring the store in line with them: damaged images are put aside, and blobs that nobody
        needs, of a pull that was killed, are kept for a while.

        An image whose layers the storage driver lost cannot be used; it is left out with a message in the log, and
        pulling or loading it again brings it back.
        """
        await self._assembler.run(self._content.open)
        self._catalog.load()
        await self._put_aside_damaged()
        for image in [image for image in self._catalog.withdrawn.values() if not self._containers_using(image.id)]:
            await self._catalog.remove(image, withdraw=False)
        wanted = self._catalog.wanted_blobs()
        await self._assembler.set_aside(sorted(await self._assembler.run(self._content.digests) - wanted))
        await self._assembler.write_index()

    async def _put_aside_damaged(self) -> None:
        if not self._catalog.images:
            return
        try:
            storage = await self._drivers.get(StorageDriver, self._storage_driver)
            there = {layer.name for layer in await storage.call(StorageDriver.layers)}
        except WharfieError as error:
            _LOG.error("the layers of images could not be checked: %s", error.message)
            return
        for image in list(self._catalog.images.values()):
            lost = [chain for chain in image.chain_ids if chain not in there]
            gone = [blob for blob in blobs_of(image) if await self._assembler.run(self._content.size, blob) is None]
            if lost or gone:
                _LOG.error(
                    "image %s (%s) is damaged and left out: missing are %s. Pull or load it again",
                    image.id,
                    ", ".join(image.repo_tags) or "no name",
                    ", ".join([*lost, *gone]),
                )
                self._catalog.put_aside(image.id)

    async def close(self) -> None:
        """End the threads. Nothing may be under way."""
        await asyncio.gather(*self._releases, return_exceptions=True)
        self._executor.shutdown(wait=False, cancel_futures=True)

    # Reading

    def get(self, ref: str, platform: str = "") -> Image:
        """By name, id or prefix of an id; with `platform` the image for it.

        Errors: NotFound ("No such image: REF", or none for the platform), InvalidArgument (not a name, not a platform).
        """
        return self._catalog.find(ref, platforms.decode(platform))

    def list(self, *, all: bool, filters: Filters) -> list[Image]:
        """The newest first; `all`: intermediate ones too. With a `reference` filter an image shows only the names that
        match. Errors: InvalidArgument (a filter), NotFound (`before`, `since`)."""
        return listing.select(self._catalog, everything=all, filters=filters)

    def history(self, ref: str, platform: str = "") -> Sequence[HistoryItem]:
        """How it was made, the newest step first. Errors: NotFound, InvalidArgument (the platform)."""
        return listing.history(self._catalog, self.get(ref, platform))

    def wanted_layers(self) -> frozenset[str]:
        """For `StorageDriver.reconcile`: every layer that images need, also removed ones that containers stand on."""
        return self._catalog.wanted_layers()

    def shared_sizes(self, images: Sequence[Image]) -> Mapping[str, int]:
        """Bytes of each image's layers that other images have too, by id."""
        users = Counter(chain for image in self._catalog.images.values() for chain in {*image.chain_ids})
        return {image.id: sum(layer.size for layer in image.stack if users[layer.chain_id] > 1) for image in images}

    def layers_size(self) -> int:
        """Bytes of all layers on the disk, each counted once (`docker system df`)."""
        images = (*self._catalog.images.values(), *self._catalog.withdrawn.values())
        sizes = {layer.chain_id: layer.size for image in images for layer in image.stack}
        return sum(sizes.values())

    # Registries

    async def pull(self, name: str, tag: str, *, platform: str, auth: Credentials | None, progress: Progress) -> None:
        """`docker pull`. Without tag and digest: all tags of the repository. `progress` is called in the event loop.

        An error before the first call of `progress` is an answer of its own; later ones belong into the stream.
        Errors: InvalidArgument, NotFound, Unauthorized, Forbidden, WharfieError (the registry cannot be reached).
        """
        wanted = reference.parse_pair(name, tag)
        here = platforms.parse(platform)
        driver = await self._registry(wanted.domain)
        with remote.dockers_words():
            names = [wanted]
            if wanted.name_only:
                found = await driver.call(RegistryDriver.tags, wanted.on_server(), auth)
                names = [wanted.with_tag(text) for text in found]
            for each in names:
                image = await self._puller.pull(Source(driver, each.on_server(), auth), each, here, progress)
                self._emit("pull", each.familiar, image, each.familiar_repository)
                self._warn_of_platform(each, image, platform, progress)

    def _warn_of_platform(self, name: Name, image: Image, wanted: str, progress: Progress) -> None:
        own = platforms.parse("/".join(part for part in (image.os, image.architecture, image.variant) if part))
        if wanted and own not in platforms.parse(wanted).accepts():
            text = f"its platform ({own}) does not match the specified platform ({platforms.parse(wanted)})"
            progress({"status": f"WARNING: image with reference {name.familiar} was found but {text}"})

    async def push(self, name: str, tag: str, *, auth: Credentials | None, progress: Progress, platform: str = "") -> None:
        """`docker push`. Without a tag: all tags of the repository; without `platform`: the images for all platforms that
        the name means. `progress` is called in the event loop.

        Errors: NotFound, InvalidArgument, Unauthorized, Forbidden, WharfieError (the registry cannot be reached).
        """
        wanted = reference.parse_pair(name, tag)
        if wanted.digest:
            raise InvalidArgument("cannot push a digest reference")
        chosen = platforms.decode(platform)
        progress({"status": f"The push refers to repository [{wanted.repository}]"})
        names = [wanted] if wanted.tag else [each for each in sorted(self._catalog.names) if each.tag]
        names = [each for each in names if each.repository == wanted.repository and each in self._catalog.names]
        if not names:
            raise NotFound(f"An image does not exist locally with the tag: {wanted.familiar_repository}")
        driver = await self._registry(wanted.domain)
        with remote.dockers_words():
            for each in names:
                image = self._catalog.find(each.familiar, chosen)
                target = Source(driver, each.on_server(), auth)
                if chosen is not None:
                    await self._pusher.push(target, each, image, progress)
                else:
                    await self._pusher.push_all(target, each, progress)
                self._emit("push", each.familiar, image, each.familiar_repository)

    async def distribution(self, name: str, auth: Credentials | None) -> Distribution:
        """What a registry has under a name. Errors: NotFound, Unauthorized, InvalidArgument, WharfieError."""
        wanted = reference.parse(name).with_default_tag()
        with remote.dockers_words():
            return await remote.look_at(await self._source(wanted, auth))

    async def search(self, term: str, limit: int, filters: Filters, auth: Credentials | None) -> Sequence[SearchResult]:
        """`docker search`, on Docker Hub or on the server that `term` names. Errors: InvalidArgument, WharfieError."""
        first, slash, rest = term.partition("/")
        elsewhere = bool(slash) and (any(mark in first for mark in ".:") or first == "localhost")
        server, words = (first, rest) if elsewhere else (reference.INDEX_SERVER, term)
        if not words:
            raise InvalidArgument("the search term is missing")
        with remote.dockers_words():
            return await remote.search(await self._registry(server), server, words, limit, filters, auth)

    async def login(self, auth: Mapping[str, Any]) -> LoginResult:
        """`POST /auth`. Errors: Unauthorized, WharfieError (the registry cannot be reached)."""
        server = _server(str(auth.get("serveraddress") or ""))
        driver = await self._registry(server)
        credentials = Credentials(
            username=str(auth.get("username") or ""),
            password=str(auth.get("password") or ""),
            identity_token=str(auth.get("identitytoken") or ""),
        )
        with remote.dockers_words():
            return await driver.call(RegistryDriver.login, server, credentials)

    async def _source(self, name: Name, auth: Credentials | None) -> Source:
        return Source(await self._registry(name.domain), name.on_server(), auth)

    async def _registry(self, domain: str) -> Supervised[RegistryDriver]:
        return await self._drivers.get(RegistryDriver, self._registry_drivers.get(domain, self._default_registry))

    # The content store

    async def blobs(self) -> Sequence[Blob]:
        """What is in the content store."""
        return await self._upkeep.list()

    async def verify(self, progress: Progress) -> Findings:
        """Read all of it; what is damaged is said by `progress`, and given."""
        return await self._upkeep.verify(progress)

    async def repair(self, auth: Credentials | None, progress: Progress) -> Findings:
        """The same, and fetch what is damaged from where its image came from."""
        return await self._upkeep.repair(auth, progress)

    # Archives

    async def load(self, body: AsyncIterator[bytes], *, quiet: bool, progress: Progress, platform: str = "") -> None:
        """`docker load`. Errors: InvalidArgument (no such archive, damaged), NotFound (platform), OutOfSpace."""
        async with self._assembler.making_room():
            loaded = await self._loader.load(body, platform=platform, quiet=quiet, progress=progress)
        for image in loaded:
            self._tell("load", image)

    async def import_(
        self,
        body: AsyncIterator[bytes],
        *,
        repository: str,
        tag: str,
        message: str,
        changes: Sequence[str],
        platform: str,
        progress: Progress,
    ) -> str:
        """`docker import`. Says the new image's id by `progress`, and gives it. Errors: InvalidArgument, OutOfSpace."""
        names = [_taggable(repository, tag)] if repository else []
        async with self._assembler.making_room():
            image = await self._importer.import_(body, names=names, message=message, changes=changes, platform=platform)
        progress({"status": image.id})
        self._tell("import", image)
        return image.id

    async def save(self, names: Sequence[str], platform: str = "") -> AsyncIterator[bytes]:
        """`docker save`: a tar in pieces, made while it is read; without `platform` of the images for all platforms that
        the names mean. Errors, at once: NotFound, InvalidArgument."""
        chosen = self._saver.choose(names, platforms.decode(platform))
        for entry in chosen:
            self._tell("save", entry.image)
        return self._saver.stream(chosen)

    # Containers

    async def layer_of(self, commit: Commit) -> Spool:
        """The container's changes, to be given to `commit` and discarded. Errors: the storage driver's, OutOfSpace."""
        async with self._assembler.making_room():
            return await self._committer.layer(commit)

    async def commit(self, commit: Commit, layer: Spool, repository: str, tag: str) -> Image:
        """An image of a container's changes; with a name if there is one. Errors: InvalidArgument, OutOfSpace."""
        names = [_taggable(repository, tag)] if repository else []
        async with self._assembler.making_room():
            image = await self._committer.commit(commit, layer, names)
        for name in names:
            self._emit("tag", image.id, image, name.familiar)
        return image

    # Names and removal

    async def tag(self, ref: str, repository: str, tag: str) -> None:
        """Give an image one more name, taking it from another image if need be. Errors: NotFound, InvalidArgument."""
        image = self._catalog.find(ref)
        name = _taggable(repository, tag)
        async with self._catalog.lock:
            source = None if reference.image_id(ref) else self._catalog.meaning(reference.parse(ref).stored)
            meaning = source or Meaning(image.id)
            image = self._catalog.find(meaning.image)
            await self._catalog.add(image, [name], meaning.index, meaning.others)
        await self._assembler.write_index()
        self._emit("tag", image.id, image, name.familiar)

    async def remove(self, ref: str, *, force: bool, prune: bool, platforms_only: Sequence[str] = ()) -> Said:
        """`docker rmi`: [{"Untagged": name}, {"Deleted": id}, …]. `platforms_only`: only the images for these.

        Errors: NotFound, Conflict with Docker's words, InvalidArgument (a platform).
        """
        wanted = [platform for text in platforms_only if (platform := platforms.decode(text)) is not None]
        return await self._remover.remove(ref, force=force, prune=prune, platforms=wanted)

    async def prune(self, filters: Filters) -> tuple[Said, int]:
        """`docker image prune`: what went, and the bytes set free. Errors: InvalidArgument (a filter)."""
        removed, space = await self._remover.prune(filters)
        await self._assembler.run(self._content.bound_leftovers, 0)
        self._events.emit("image", "prune", "", {"reclaimed": str(space)})
        return removed, space

    # Events

    def _on_event(self, event: Event) -> None:
        """Layers of an image that was removed by force go with its last container."""
        if (event.type, event.action) == ("container", "destroy") and self._catalog.withdrawn:
            task = asyncio.get_running_loop().create_task(self._remover.release())
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    def _tell(self, action: str, image: Image) -> None:
        self._emit(action, image.id, image, image.id)

    def _emit(self, action: str, actor: str, image: Image, name: str) -> None:
        self._events.emit("image", action, actor, {**image.config.labels, "name": name})


def _taggable(repository: str, tag: str) -> Name:
    """Errors: InvalidArgument."""
    name = reference.parse_pair(repository, tag).with_default_tag()
    if name.digest:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    return name


def _server(address: str) -> str:
    """host[:port] of what the CLI calls the server's address: "https://index.docker.io/v1/", "registry:5000"."""
    bare = address.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if bare in ("", reference.DEFAULT_DOMAIN, "index.docker.io"):
        return reference.DEFAULT_SERVER
    return bare
