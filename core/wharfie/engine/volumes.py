"""Volumes: making, finding, counting and removing them (Docker Engine API, `/volumes`).

The core keeps the record of a volume (driver, labels, who uses it); its folder and options are the driver's. Volumes that
exist only in a driver (made by another host, or before) are shown by list and inspect too.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from wharfie.engine.events import Events
from wharfie.engine.filters import Filters, boolean, check, labels_match
from wharfie.engine.identity import check_volume_name
from wharfie.engine.model.container import Container, MountPoint, VolumeRecord
from wharfie.engine.settings import EngineSettings
from wharfie.plugins.drivers import Drivers
from wharfie.plugins.supervisor import Supervised
from wharfie.spi.errors import Conflict, InvalidArgument, NotFound, Unsupported, WharfieError
from wharfie.spi.volume import Volume, VolumeCapability, VolumeDriver
from wharfie.store.metadata import Metadata

log = logging.getLogger(__name__)

TABLE = "volumes"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_FILTERS = frozenset({"dangling", "driver", "label", "label!", "name"})
_PRUNE_FILTERS = frozenset({"all", "label", "label!"})


@dataclass(slots=True)
class Pruned:
    """What a prune removed: ids or names, and bytes."""

    deleted: list[str] = field(default_factory=list)
    space: int = 0


class Volumes:
    def __init__(
        self,
        settings: EngineSettings,
        metadata: Metadata,
        drivers: Drivers,
        events: Events,
        containers: Callable[[], Iterable[Container]],
    ) -> None:
        self._settings = settings
        self._metadata = metadata
        self._drivers = drivers
        self._events = events
        self._containers = containers
        self._records: dict[str, VolumeRecord] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._claims: dict[str, dict[str, Container]] = {}  # by name and id: of containers that are being made
        self._going: set[str] = set()  # on their way out

    async def open(self) -> None:
        for document in self._metadata.all(TABLE).values():
            record = VolumeRecord.model_validate_json(document)
            self._records[record.name] = record

    # ---- making

    async def create(
        self, name: str, driver: str, options: Mapping[str, str], labels: Mapping[str, str] | None
    ) -> VolumeRecord:
        """Make a volume, or return the one of this name and driver. An empty name makes an anonymous one.

        Errors: InvalidArgument (name, option), NotFound (driver), Conflict (exists with another driver).
        """
        anonymous = not name
        name = name or secrets.token_hex(32)
        check_volume_name(name)
        async with self._lock(name):
            record = self._records.get(name)
            if record is not None:
                if driver and record.driver != driver:
                    await self._driver(driver, f"create {name}: ")
                    raise Conflict(
                        f"create {name}: volume name must be unique: A volume named {name} already exists with the "
                        f"{record.driver} driver. Choose a different volume name."
                    )
                return record
            return await self._make(name, driver or self._settings.default_volume_driver, options, labels, anonymous)

    async def _make(
        self,
        name: str,
        driver_name: str,
        options: Mapping[str, str],
        labels: Mapping[str, str] | None,
        anonymous: bool,
    ) -> VolumeRecord:
        driver = await self._driver(driver_name, f"create {name}: ")
        all_labels = dict(labels) if labels is not None else None
        if anonymous:
            all_labels = {**(all_labels or {}), ANONYMOUS_LABEL: ""}
        try:
            volume = await driver.call(VolumeDriver.create, name, dict(options), all_labels or {})
        except InvalidArgument as error:
            raise InvalidArgument(f"create {name}: {error.message}") from error
        record = VolumeRecord(
            name=name,
            driver=driver_name,
            created=volume.created,
            options=dict(options) or None,
            labels=all_labels,
            anonymous=anonymous,
            mountpoint=str(volume.mountpoint or ""),
        )
        try:
            await self._metadata.put(TABLE, name, record.model_dump_json())
        except WharfieError:
            await driver.call(VolumeDriver.remove, name)
            raise
        self._records[name] = record
        self._events.emit("volume", "create", name, {"driver": driver_name})
        return record

    async def claim(
        self, mount: MountPoint, container: Container, options: Mapping[str, str], labels: Mapping[str, str] | None
    ) -> tuple[VolumeRecord, bool]:
        """The volume that a container which is being made has at `mount`, and whether it was made for it: the one of the
        mount's name, whatever its driver, otherwise a new one. Nobody can remove it until `release`.

        Errors: those of `create`.
        """
        record = self._records.get(mount.name) if mount.name not in self._going else None
        made = False
        if record is None:
            name = mount.name or secrets.token_hex(32)
            async with self._lock(name):
                record = self._records.get(name)
                made = record is None
                if record is None:
                    record = await self._make(name, mount.driver, options, labels, not mount.name)
        self._claims.setdefault(record.name, {})[container.id] = container
        return record, made

    def release(self, name: str, container: Container) -> None:
        """The container is recorded, or will never be. May be repeated."""
        claims = self._claims.get(name, {})
        claims.pop(container.id, None)
        if not claims:
            self._claims.pop(name, None)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    async def _driver(self, name: str, context: str) -> Supervised[VolumeDriver]:
        try:
            return await self._drivers.get(VolumeDriver, name)
        except NotFound as error:
            log.info("%s", error)
            raise NotFound(f'{context}error looking up volume plugin {name}: plugin "{name}" not found') from error

    # ---- finding

    async def get(self, name: str) -> VolumeRecord:
        """Errors: NotFound."""
        record = self._records.get(name)
        if record is None:
            record = await self._find_in_drivers(name)
        if record is None:
            raise NotFound(f"get {name}: no such volume")
        driver = await self._drivers.get(VolumeDriver, record.driver)
        volume = await driver.call(VolumeDriver.get, name)
        return record.model_copy(update={"mountpoint": str(volume.mountpoint or ""), "status": dict(volume.status) or None})

    def all(self) -> Sequence[VolumeRecord]:
        """The records of this daemon's volumes; asks no driver."""
        return tuple(self._records.values())

    async def _find_in_drivers(self, name: str) -> VolumeRecord | None:
        for driver_name, driver in self._drivers.loaded(VolumeDriver).items():
            try:
                volume = await driver.call(VolumeDriver.get, name)
            except WharfieError:
                continue
            return _foreign(volume, driver_name)
        return None

    async def matching(self, filters: Filters) -> tuple[list[VolumeRecord], list[str]]:
        """Volumes that pass the filters, and warnings about drivers that did not answer. Errors: InvalidArgument."""
        check(filters, _FILTERS)
        dangling = boolean(filters, "dangling", default=False) if "dangling" in filters else None
        records, warnings = await self._all()
        names = filters.get("name", ())
        drivers = filters.get("driver", ())
        found = [
            record
            for record in records
            if (not names or any(text in record.name for text in names))
            and (not drivers or record.driver in drivers)
            and labels_match(filters, record.labels or {})
            and (dangling is None or dangling == (self.references(record.name) == 0))
        ]
        return found, warnings

    async def _all(self) -> tuple[list[VolumeRecord], list[str]]:
        records = dict(self._records)
        warnings = []
        for driver_name, driver in self._drivers.loaded(VolumeDriver).items():
            try:
                volumes = await driver.call(VolumeDriver.volumes)
            except WharfieError as error:
                warnings.append(f'volume driver "{driver_name}" did not list its volumes: {error.message}')
                continue
            for volume in volumes:
                records.setdefault(volume.name, _foreign(volume, driver_name))
        return sorted(records.values(), key=lambda record: record.name), warnings

    def users(self, name: str) -> list[Container]:
        """Containers, running or not or still being made, that have the volume."""
        found = {
            container.id: container
            for container in self._containers()
            if any(mount.type == "volume" and mount.name == name for mount in container.mounts)
        }
        return list({**found, **self._claims.get(name, {})}.values())

    def references(self, name: str) -> int:
        return len(self.users(name))

    async def usage(self, record: VolumeRecord) -> int:
        """Bytes, -1 when the driver cannot tell."""
        try:
            driver = await self._drivers.get(VolumeDriver, record.driver)
            if VolumeCapability.USAGE not in driver.capabilities:
                return -1
            return (await driver.call(VolumeDriver.usage, record.name)).size
        except Unsupported:
            return -1
        except WharfieError as error:  # of one volume, which costs the others nothing
            log.warning("the size of volume %s is not known: %s", record.name, error)
            return -1

    # ---- removing

    async def remove(self, name: str, force: bool) -> None:
        """Errors: NotFound (not with force), Conflict (in use)."""
        async with self._lock(name):
            record = self._records.get(name) or await self._find_in_drivers(name)
            if record is None:
                if force:
                    return
                raise NotFound(f"get {name}: no such volume")
            users = self.users(name)
            if users:
                ids = ", ".join(container.id for container in users)
                raise Conflict(f"remove {name}: volume is in use - [{ids}]")
            self._going.add(name)
            try:
                driver = await self._drivers.get(VolumeDriver, record.driver)
                await driver.call(VolumeDriver.remove, name)
                await self._metadata.delete(TABLE, name)
                self._records.pop(name, None)
            finally:
                self._going.discard(name)
        self._events.emit("volume", "destroy", name, {"driver": record.driver})

    async def prune(self, filters: Filters) -> Pruned:
        """Remove unused anonymous volumes, with `all` named ones too."""
        check(filters, _PRUNE_FILTERS)
        everything = boolean(filters, "all", default=False)
        pruned = Pruned()
        for record in list(self._records.values()):
            if not (everything or record.anonymous) or not labels_match(filters, record.labels or {}):
                continue
            if self.users(record.name):
                continue
            try:
                size = await self.usage(record)
                await self.remove(record.name, force=False)
            except WharfieError as error:
                log.warning("volume %s is not pruned: %s", record.name, error)
                continue
            pruned.deleted.append(record.name)
            pruned.space += max(size, 0)
        self._events.emit("volume", "prune", "", {"reclaimed": str(pruned.space)})
        return pruned

    # ---- use

    async def mount(self, mount: MountPoint, container: Container) -> Path:
        """The volume's folder, mounted for this container. Errors: WharfieError with Docker's text."""
        driver = await self._drivers.get(VolumeDriver, mount.driver)
        try:
            path = await driver.call(VolumeDriver.mount, mount.name, container.id)
        except WharfieError as error:
            # Of no other kind: as 404 it would be taken for a missing image, and clients would pull.
            reason = error.message.removeprefix(f"{driver.title}: ")
            raise WharfieError(f"error while mounting volume '{mount.source}': {reason}", details=error.details) from error
        attributes = {
            "container": container.id,
            "destination": mount.destination,
            "driver": mount.driver,
            "propagation": mount.propagation,
            "read/write": str(mount.rw).lower(),
        }
        self._events.emit("volume", "mount", mount.name, attributes)
        return path

    @asynccontextmanager
    async def lent(self, name: str) -> AsyncIterator[Path]:
        """The volume's folder, for the engine itself; nobody removes the volume meanwhile. Errors: NotFound."""
        async with self._lock(name):
            record = await self.get(name)
            driver = await self._drivers.get(VolumeDriver, record.driver)
            user = f"engine-{secrets.token_hex(8)}"
            try:
                yield await driver.call(VolumeDriver.mount, name, user)
            finally:
                await driver.call(VolumeDriver.unmount, name, user)

    async def unmount(self, mount: MountPoint, container: Container) -> None:
        driver = await self._drivers.get(VolumeDriver, mount.driver)
        await driver.call(VolumeDriver.unmount, mount.name, container.id)
        self._events.emit("volume", "unmount", mount.name, {"container": container.id, "driver": mount.driver})

    async def reconcile(self, running: Iterable[Container], *, only: str = "") -> None:
        """After a start: tell each driver whose volumes we know (or `only` this one) which of them are mounted."""
        uses: dict[str, dict[str, set[str]]] = {record.driver: {} for record in self._records.values()}
        for container in running:
            for mount in container.mounts:
                if mount.type == "volume":
                    uses.setdefault(mount.driver, {}).setdefault(mount.name, set()).add(container.id)
        for name, mounts in uses.items():
            if only not in ("", name):
                continue
            try:
                driver = await self._drivers.get(VolumeDriver, name)
                wanted = {volume: frozenset(ids) for volume, ids in mounts.items()}
                for fault in await driver.call(VolumeDriver.reconcile, wanted):
                    log.error("volume %s: %s", fault.object, fault.reason)
            except WharfieError as error:
                log.error('volume driver "%s" cannot be brought up to date: %s', name, error)


def _foreign(volume: Volume, driver: str) -> VolumeRecord:
    return VolumeRecord(
        name=volume.name,
        driver=driver,
        created=volume.created,
        options=dict(volume.options) or None,
        mountpoint=str(volume.mountpoint or ""),
        status=dict(volume.status) or None,
    )
