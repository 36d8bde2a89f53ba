"""The pluggy plugins: loaded one at a time under guard, called implementation by implementation.

pluggy's own ways are not enough for a daemon: its loading stops at the first bad import, its call loop at the first
exception, a misspelt hook passes in silence, and a coroutine would never be awaited.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pluggy

from wharfie.plugins.failure import describe
from wharfie.plugins.feed import Feed
from wharfie.plugins.inventory import HOOK, Entry, Finder, Inventory, core_version
from wharfie.plugins.loader import choose, import_object
from wharfie.plugins.settings import DriverSettings, validate_plugin
from wharfie.plugins.states import DriverState, Refusal, State
from wharfie.plugins.supervisor import Supervisor
from wharfie.spi.driver import ContainerFacts, Deadline, Driver, Problem
from wharfie.spi.errors import Conflict, Forbidden, Unavailable, WharfieError
from wharfie.spi.hooks import PROJECT, Adjustment, Denial, Event, HookSpecs, Repository

_LOG = logging.getLogger(__name__)
_WORKERS = 4
_IMPORT = Deadline(total=30)
_DEADLINES: Mapping[str, Deadline] = {
    "adjust_container": Deadline(total=5),
    "configure": Deadline(total=10),
    "admit_image": Deadline(total=60),  # it may ask a registry
    "find_driver": Deadline(total=5),
    "known_drivers": Deadline(total=2),
    "doctor_checks": Deadline(total=5),
}


@dataclass(slots=True)
class _Plugin:
    entry: Entry
    supervisor: Supervisor
    found: object
    feed: Feed | None = None
    refusal: Refusal | None = None  # of its settings; it is asked nothing until they are corrected


class Hooks:
    """All hook plugins. They are loaded by `load` or at the first question; events before that reach nobody."""

    def __init__(self, inventory: Inventory, settings: DriverSettings) -> None:
        self._inventory = inventory
        self._settings = settings
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(HookSpecs)
        self._plugins: dict[str, _Plugin] = {}
        self._refusals: dict[str, tuple[Entry, Refusal]] = {}
        self._loading: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Load every plugin that is installed and not disabled. May be repeated: it happens once. Raises nothing that a
        plugin does; what became of each is in `states`."""
        if self._loading is None:
            self._loading = asyncio.get_running_loop().create_task(self._load_all())
        await asyncio.shield(self._loading)

    async def reconfigure(self, plugins: Mapping[str, Mapping[str, Any]]) -> None:
        """Other settings hold from now on. Raises nothing that a plugin does; what became of each is in `states`."""
        await self.load()
        before = self._settings.plugins
        self._settings = replace(self._settings, plugins=plugins)
        for name, plugin in self._plugins.items():
            if before.get(name) != plugins.get(name):
                await self._configure(plugin)

    def on_event(self, event: Event) -> None:
        """Hand an event to every plugin that wants it; never blocks."""
        for plugin in self._plugins.values():
            if plugin.feed is not None:
                plugin.feed.offer(event)

    async def adjust_container(self, container: ContainerFacts, spec: Mapping[str, Any]) -> Adjustment:
        """What all plugins add to a container, in one.

        Errors: Conflict (two plugins add the same name), Unavailable (a required plugin is missing or failed).
        """
        await self._require()
        env: dict[str, str] = {}
        annotations: dict[str, str] = {}
        mounts: list[Mapping[str, Any]] = []
        givers: dict[str, str] = {}
        for plugin, answer in await self._ask("adjust_container", {"container": container, "spec": spec}, Adjustment):
            names = [f"env {name}" for name in answer.env] + [f"annotation {name}" for name in answer.annotations]
            names += [f"mount {mount.get('destination')}" for mount in answer.mounts]
            for name in names:
                if (other := givers.setdefault(name, plugin.entry.title)) != plugin.entry.title:
                    raise Conflict(
                        f"{other} and {plugin.entry.title} both set {name} of the container; "
                        'put one of them into "disabled-plugins" of daemon.json'
                    )
            env.update(answer.env)
            annotations.update(answer.annotations)
            mounts.extend(answer.mounts)
        return Adjustment(env=env, annotations=annotations, mounts=tuple(mounts))

    async def admit_image(
        self, reference: str, digest: str, manifest: bytes, index: str = "", repository: Repository | None = None
    ) -> None:
        """Raises Forbidden when a plugin denies the image, Unavailable when a required plugin is missing or failed."""
        await self._require()
        arguments = {
            "reference": reference,
            "digest": digest,
            "manifest": manifest,
            "index": index,
            "repository": repository,
        }
        for plugin, answer in await self._ask("admit_image", arguments, Denial):
            raise Forbidden(f"the use of image {reference} is denied by {plugin.entry.title}: {answer.reason}")

    async def find_driver(self, kind: str, name: str) -> tuple[Entry, type[Driver[Any]]] | None:
        """A driver that exists only at run time, and who brought it."""
        section = self._settings.drivers.get(f"{kind}.{name}", {})
        arguments = {"kind": kind, "name": name, "settings": section}
        for plugin, found in await self._ask("find_driver", arguments, type, first=True):
            brought = plugin.entry
            return Entry(
                kind=kind,
                name=name,
                value=f"{found.__module__}:{found.__qualname__}",
                distribution=brought.distribution,
                version=brought.version,
                finder=Finder(plugin=brought.name, settings=self._settings.plugins.get(brought.name), section=section),
            ), found
        return None

    async def known_drivers(self, kind: str) -> Sequence[str]:
        """Names that `find_driver` would answer for now."""
        sections = self._settings.drivers.items()
        configured = {
            name: own for (of, _, name), own in ((key.partition("."), own) for key, own in sections) if of == kind
        }
        answers = await self._ask("known_drivers", {"kind": kind, "configured": configured}, Sequence)
        return sorted({name for _, names in answers for name in names if isinstance(name, str)})

    async def doctor_checks(self) -> Sequence[Problem]:
        """Problems that plugins see on the host."""
        return [problem for _, problems in await self._ask("doctor_checks", {}, Sequence) for problem in problems]

    def deliveries(self) -> Sequence[tuple[str, int, int]]:
        """Of each plugin that hears events: its name, how many it never got, and how many it failed on."""
        feeds = [(name, plugin.feed) for name, plugin in self._plugins.items()]
        return [(name, feed.dropped, feed.failed) for name, feed in sorted(feeds) if feed is not None]

    def states(self) -> Sequence[DriverState]:
        """A row for each plugin, and for each required one that is not there."""
        rows = []
        for (kind, name), entries in self._inventory.entries().items():
            if kind == HOOK:
                rows.append(self._state(name, entries[0]))
        missing = sorted(self._required - {row.name for row in rows})
        rows += [
            DriverState(
                kind=HOOK,
                name=name,
                distribution="",
                version="",
                state=State.ABSENT,
                cause=_not_there(name),
                remedy=_REMEDY,
            )
            for name in missing
        ]
        return rows

    def close(self) -> None:
        """End the threads of all plugins."""
        for plugin in self._plugins.values():
            if plugin.feed is not None:
                plugin.feed.close()
            plugin.supervisor.close()

    def _state(self, name: str, entry: Entry) -> DriverState:
        state, cause, remedy = State.INSTALLED, "", ""
        if name in self._refusals:
            _, refusal = self._refusals[name]
            state, cause, remedy = refusal.state, refusal.cause, refusal.remedy
        elif name in self._plugins:
            circuit = self._plugins[name].supervisor.circuit
            state, cause = (State.FAILING, circuit.cause) if circuit.open else (State.OPEN, "")
            if (refused := self._plugins[name].refusal) is not None:
                state, cause, remedy = refused.state, refused.cause, refused.remedy
        return DriverState(
            kind=HOOK,
            name=name,
            distribution=entry.distribution,
            version=entry.version,
            state=state,
            cause=cause,
            remedy=remedy,
        )

    # Loading

    async def _load_all(self) -> None:
        for (kind, name), entries in sorted(self._inventory.entries().items()):
            if kind != HOOK:
                continue
            try:
                await self._load_one(choose(HOOK, name, entries, self._settings.disabled, core_version()))
            except Refusal as refusal:
                self._refusals[name] = (entries[0], refusal)
                refusal.log(_LOG)

    async def _load_one(self, entry: Entry) -> None:
        supervisor = Supervisor(entry, _WORKERS)

        def work() -> object:
            try:
                found = import_object(entry)
                self._register(entry, found)
            except Refusal as refusal:
                return refusal
            return found

        try:
            found = await supervisor.run("import", work, _IMPORT)
        except WharfieError as error:
            found = Refusal(State.BROKEN, error.message, _remedy(entry))
        if isinstance(found, Refusal):
            supervisor.close()
            raise found
        plugin = _Plugin(entry, supervisor, found)
        await self._configure(plugin)
        for implementation in self._manager.hook.on_event.get_hookimpls():
            if implementation.plugin_name == entry.name:
                plugin.feed = Feed(entry.title, _deliver(implementation))
        self._plugins[entry.name] = plugin

    async def _configure(self, plugin: _Plugin) -> None:
        """Hand a plugin its part of daemon.json. Settings that are wrong are its state until they are corrected."""
        name = plugin.entry.name
        own = self._settings.plugins.get(name)
        takers = [one for one in self._manager.hook.configure.get_hookimpls() if one.plugin_name == name]

        def work() -> Refusal | None:
            try:
                settings = None if own is None else validate_plugin(plugin.entry, plugin.found, own)
            except Refusal as refusal:
                return refusal
            for one in takers:
                _bound(one, {"settings": settings})()
            return None

        try:
            plugin.refusal = await plugin.supervisor.run("configure", work, _DEADLINES["configure"], always=True)
        except WharfieError as error:
            plugin.refusal = Refusal(State.MISCONFIGURED, error.message, _remedy(plugin.entry))
        if plugin.refusal is not None:
            plugin.refusal.log(_LOG)

    def _register(self, entry: Entry, found: object) -> None:
        """In a worker: register one plugin, and take it back out if anything is wrong with it."""
        if inspect.isclass(found):
            raise _broken(entry, "is a class; its entry point must name a module or an instance")
        try:
            self._manager.register(found, entry.name)
            self._manager.check_pending()
            callers = self._manager.get_hookcallers(found) or []
            implementations = [one for caller in callers for one in caller.get_hookimpls() if one.plugin is found]
            if not implementations:
                raise _broken(entry, "has no function that is marked with wharfie.spi.hooks.hookimpl")
            for one in implementations:
                if inspect.iscoroutinefunction(one.function) or inspect.isgeneratorfunction(one.function):
                    raise _broken(
                        entry, f"has {one.function.__name__} as a coroutine or generator; hooks are plain functions"
                    )
        except BaseException as error:
            if self._manager.has_plugin(entry.name):
                self._manager.unregister(name=entry.name)
            if isinstance(error, Refusal):
                raise
            raise _broken(entry, f"does not fit the hooks: {describe(error)}") from error

    # Calling

    @property
    def _required(self) -> frozenset[str]:
        """Who gives a plugin settings relies on it."""
        return self._settings.required | self._settings.plugins.keys()

    async def _require(self) -> None:
        await self.load()
        for name in sorted(self._required):
            refusal = self._refusals[name][1] if name in self._refusals else None
            if name in self._plugins:
                refusal = self._plugins[name].refusal
            if refusal is not None:
                raise Unavailable(f"{refusal.cause}, and daemon.json requires it. {refusal.remedy}")
            if name not in self._plugins:
                raise Unavailable(f"{_not_there(name)}. {_REMEDY}")

    async def _ask(
        self, hook: str, arguments: Mapping[str, Any], answer: type[Any], *, first: bool = False
    ) -> Sequence[tuple[_Plugin, Any]]:
        """Answers of type `answer`, plugin by plugin in pluggy's order. A failure is logged and skipped, unless the plugin
        is required: then it is raised."""
        await self.load()
        answers: list[tuple[_Plugin, Any]] = []
        for implementation in reversed(getattr(self._manager.hook, hook).get_hookimpls()):
            plugin = self._plugins[implementation.plugin_name]
            if plugin.refusal is not None:  # said when its settings were read; `_require` refuses what relies on it
                continue
            try:
                found = await plugin.supervisor.run(hook, _bound(implementation, arguments), _DEADLINES[hook])
                if found is not None and not isinstance(found, answer):
                    raise Unavailable(
                        f"{plugin.entry.title}: {hook} returned {type(found).__name__}, not {answer.__name__}"
                    )
            except WharfieError as error:
                if plugin.entry.name in self._required:
                    raise Unavailable(f"{error.message}; daemon.json requires this plugin") from error
                _LOG.error("%s is skipped: %s", plugin.entry.title, error.message)
                continue
            if found is not None:
                answers.append((plugin, found))
                if first:
                    break
        return answers


def _bound(implementation: pluggy.HookImpl, arguments: Mapping[str, Any]) -> Any:
    """The call of one implementation with the subset of arguments that it takes."""
    return lambda: _normal(implementation.function(*(arguments[name] for name in implementation.argnames)))


def _normal(answer: Any) -> Any:
    """In the worker: an `Adjustment` with the types that it promises, so that it cannot fail in the engine."""
    if not isinstance(answer, Adjustment):
        return answer
    return Adjustment(
        env={str(name): str(value) for name, value in answer.env.items()},
        annotations={str(name): str(value) for name, value in answer.annotations.items()},
        mounts=tuple(dict(mount) for mount in answer.mounts),
    )


def _deliver(implementation: pluggy.HookImpl) -> Any:
    takes = bool(implementation.argnames)
    return lambda event: implementation.function(event) if takes else implementation.function()


_REMEDY = 'Install it, or take it out of "required-plugins" and "plugins"'


def _not_there(name: str) -> str:
    return f'plugin "{name}" is required by daemon.json and not installed'


def _broken(entry: Entry, what: str) -> Refusal:
    return Refusal(State.BROKEN, f"{entry.title} {what}", _remedy(entry))


def _remedy(entry: Entry) -> str:
    return f"Ask the authors of {entry.distribution}, or install another version of it"
