"""`docker rmi` and `docker image prune`: what may be removed, in what order, and what is said about it.

The rules are Docker's. A name is removed first, the image itself only when no other name is left. Conflicts are hard (a
child image, a running container) or soft (a stopped container, other repositories), and force overrides the soft ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from wharfie.engine.filters import Filters, boolean, check, labels_match, moment
from wharfie.engine.identity import parse_rfc3339
from wharfie.engine.images import reference
from wharfie.engine.images.assemble import Assembler
from wharfie.engine.images.catalog import Meaning
from wharfie.engine.images.platforms import Platform
from wharfie.engine.images.reference import Name, short
from wharfie.engine.model.container import Container
from wharfie.engine.model.image import Image
from wharfie.spi.errors import Conflict

Said = list[dict[str, str]]
Tell = Callable[[str, Image], None]
"""Emits an event of an image, by action."""

_PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})


class Remover:
    """Removal of names and images. `containers_using` gives the containers of an image id."""

    def __init__(self, assembler: Assembler, containers_using: Callable[[str], Sequence[Container]], tell: Tell) -> None:
        self._assembler = assembler
        self._catalog = assembler.catalog
        self._containers_using = containers_using
        self._tell = tell

    async def remove(self, ref: str, *, force: bool, prune: bool, platforms: Sequence[Platform] = ()) -> Said:
        """`DELETE /images/{name}`. `prune`: parents without a name go too. `platforms`: only the images for these.

        Errors: NotFound, Conflict.
        """
        said: Said = []
        async with self._catalog.lock:
            if not platforms:
                said += await self._remove(ref, force=force, prune=prune)
            for image in [self._catalog.find(ref, platform, exact=True) for platform in platforms]:
                said += await self._remove_one(ref, image, force=force, prune=prune)
        await self._assembler.write_index()
        return said

    async def _remove_one(self, ref: str, image: Image, *, force: bool, prune: bool) -> Said:
        """One of several images with the same name; the others keep it."""
        meaning = None if _is_id_prefix(image.id, ref) else self._catalog.meaning(reference.parse(ref).stored)
        if meaning is None or not meaning.others:
            return await self._remove(ref, force=force, prune=prune)
        self._check(image, force=force, ignore_names=True)
        said: Said = []
        shared = [name for name in self._catalog.names_of(image.id) if self._shares(name, meaning)]
        await self._catalog.release(image, shared)
        if not self._catalog.names_of(image.id):
            await self._delete(image.id, said, force=force, prune=prune, quiet=False)
        return said

    def _shares(self, name: Name, meaning: Meaning) -> bool:
        other = self._catalog.meaning(name)
        return other is not None and other.index == meaning.index

    async def _remove(self, ref: str, *, force: bool, prune: bool) -> Said:
        image = self._catalog.find(ref)
        names = self._catalog.names_of(image.id)
        said: Said = []
        others: tuple[str, ...] = ()
        if not _is_id_prefix(image.id, ref):
            meaning = self._catalog.meaning(reference.parse(ref).stored)
            others = meaning.others if meaning is not None else ()
            users = [user for key in (image.id, *others) for user in self._containers_using(key)]
            if not force and _is_single(names) and users:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{ref}" (must force) - '
                    f"container {users[0].short_id} is using its referenced image {short(users[0].image_id)}"
                )
            removed = reference.parse(ref).stored
            await self._untag(image, [removed, *_orphaned_digests(removed, names)], said)
            if self._catalog.names_of(image.id):
                return said
            quiet = True
        else:
            if _is_single(names):
                self._check(image, force=force, ignore_names=True)
                await self._untag(image, [name for name in names if not self._is_shared(name)], said)
                await self._catalog.release(image, [name for name in names if self._is_shared(name)])
            quiet = False
        for key in (image.id, *others):
            if key in self._catalog.images and not (key in others and self._catalog.names_of(key)):
                await self._delete(key, said, force=force, prune=prune, quiet=quiet)
        return said

    def _is_shared(self, name: Name) -> bool:
        """Do images for other platforms have this name too?"""
        meaning = self._catalog.meaning(name)
        return meaning is not None and bool(meaning.others)

    async def prune(self, filters: Filters) -> tuple[Said, int]:
        """Images that nobody uses: those without a tag, or with `dangling=false` all. Gives the bytes set free too.

        Errors: InvalidArgument (a filter).
        """
        check(filters, _PRUNE_FILTERS)
        dangling = boolean(filters, "dangling", default=True)
        limits = [moment(text, time.time_ns()) for text in filters.get("until", ())]
        sizes = {layer.chain_id: layer.size for image in self._catalog.images.values() for layer in image.stack}
        said: Said = []
        for image in list(self._catalog.images.values()):
            if image.id not in self._catalog.images:
                continue  # it went with another that had its name, or as a parent
            names = self._catalog.names_of(image.id)
            if (not names or dangling) and self._catalog.children(image.id):
                continue
            if not labels_match(filters, image.config.labels) or any(
                parse_rfc3339(image.created) > limit for limit in limits
            ):
                continue
            if dangling and any(not name.digest for name in names):
                continue
            for ref in [name.canonical for name in names] or [image.id]:
                async with self._catalog.lock:
                    try:
                        said += await self._remove(ref, force=False, prune=True)
                    except Conflict:
                        break
        await self._assembler.write_index()
        return said, sum(sizes.get(row.get("Deleted", ""), 0) for row in said)

    async def release(self) -> None:
        """A container is gone: layers of images that were removed before their containers go with the last of these."""
        async with self._catalog.lock:
            for image in list(self._catalog.withdrawn.values()):
                if not self._containers_using(image.id):
                    await self._catalog.remove(image, withdraw=False)
                    await self._assembler.remove_layers(self._catalog.garbage([image]).chains)

    async def _untag(self, image: Image, names: Sequence[Name], said: Said) -> None:
        await self._catalog.untag(names)
        for name in names:
            said.append({"Untagged": name.familiar})
            self._tell("untag", image)

    async def _delete(self, image_id: str, said: Said, *, force: bool, prune: bool, quiet: bool) -> None:
        image = self._catalog.images[image_id]
        try:
            self._check(image, force=force)
        except _InUse as conflict:
            if quiet and (conflict.used or not self._is_dangling(image)):
                return
            raise Conflict(conflict.message) from None
        users = self._containers_using(image_id)
        for name in [name for name in self._catalog.names_of(image_id) if not self._is_shared(name)]:
            said.append({"Untagged": name.familiar})
            self._tell("untag", image)
        await self._catalog.remove(image, withdraw=bool(users))
        self._tell("delete", image)
        said.append({"Deleted": image_id})
        garbage = self._catalog.garbage([image])
        said.extend({"Deleted": layer} for layer in garbage.chains)
        await self._assembler.remove_layers(garbage.chains)
        await self._assembler.remove_blobs(garbage.blobs)
        if prune and image.parent in self._catalog.images and not self._catalog.names_of(image.parent):
            await self._delete(image.parent, said, force=False, prune=True, quiet=True)

    def _is_dangling(self, image: Image) -> bool:
        return not self._catalog.names_of(image.id) and not self._catalog.children(image.id)

    def _check(self, image: Image, *, force: bool, ignore_names: bool = False) -> None:
        users = self._containers_using(image.id)
        if self._catalog.children(image.id):
            raise _InUse(image, "image has dependent child images", hard=True)
        for container in users:
            if container.state.running:
                reason = f"image is being used by running container {container.short_id}"
                raise _InUse(image, reason, hard=True, used=True)
        if force:
            return
        if not ignore_names and self._catalog.names_of(image.id):
            raise _InUse(image, "image is referenced in multiple repositories")
        if users:
            raise _InUse(image, f"image is being used by stopped container {users[0].short_id}", used=True)


class _InUse(Conflict):
    """Why an image cannot be deleted. `used`: by a container."""

    def __init__(self, image: Image, reason: str, *, hard: bool = False, used: bool = False) -> None:
        remedy = "cannot be forced" if hard else "must be forced"
        super().__init__(f"conflict: unable to delete {short(image.id)} ({remedy}) - {reason}")
        self.used = used


def _is_id_prefix(image_id: str, ref: str) -> bool:
    return image_id.startswith(ref) or image_id.removeprefix("sha256:").startswith(ref)


def _is_single(names: Sequence[Name]) -> bool:
    """One repository and at most one tag. An image without a name is not."""
    if len(names) <= 1:
        return len(names) == 1
    tags = [name for name in names if not name.digest]
    by_digest = {name.repository for name in names if name.digest}
    if len(tags) > 1:
        return False
    return by_digest == {(tags or names)[0].repository}


def _orphaned_digests(removed: Name, names: Sequence[Name]) -> list[Name]:
    """The digests of a repository that lose their last tag with `removed`."""
    if removed.digest:
        return []
    same = [name for name in names if name.repository == removed.repository and name != removed]
    return [] if any(not name.digest for name in same) else same
