"""Hooks: what any number of plugins may take part in. If nobody answers, nothing is wrong.

A plugin is a module or object named by an entry point in the group `wharfie.plugins`; its functions are marked with
`hookimpl` and may take any subset of a hook's arguments. All hooks are synchronous. A plugin that fails is logged with
its name and skipped, unless daemon.json relies on it: `required-plugins` names it, or `plugins` has settings for it. Then
its failure refuses the operation.

A plugin takes settings when it has an attribute `settings`, `package.module:Model` of a pydantic model, as drivers have.
They are its part of `plugins` in daemon.json, and `configure` gets them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pluggy

from wharfie.spi.driver import ContainerFacts, Driver, Problem
from wharfie.spi.registry import Descriptor, Manifest

PROJECT = "wharfie"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event of the engine (Docker's `GET /events`)."""

    type: str  # "container", "image", "network", "volume", "daemon"
    action: str
    actor: str
    attributes: Mapping[str, str]
    time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """Additions to a container that is about to be made. Two plugins that set the same name are a conflict."""

    env: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mapping[str, Any], ...] = ()  # OCI runtime-spec, config.md "Mounts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Why an image may not be used."""

    reason: str


class Repository(ABC):
    """The repository that an image is being pulled from: what else is there, asked for through its registry driver with the
    credentials of whoever pulls. What it gives is verified. Methods block, and are called from the hook's own thread only.

    Errors of all methods: NotFound, Unauthorized, Forbidden, Unavailable, InvalidArgument (not what its digest says).
    """

    @abstractmethod
    def manifest(self, tag_or_digest: str) -> Manifest:
        """The manifest or index with this tag or digest."""

    @abstractmethod
    def blob(self, blob: Descriptor) -> bytes:
        """A blob of at most MANIFEST_LIMIT bytes."""

    def referrers(self, digest: str) -> Sequence[Descriptor]:
        """Manifests that refer to the one with this digest, with their `artifact_type`; where the registry has no such API,
        those that the tag in its place lists. What they say of themselves is not verified."""
        return ()


class HookSpecs:
    """All hooks. One sentence each."""

    @hookspec
    def configure(self, settings: Any) -> None:
        """This plugin's part of daemon.json, an instance of the model that its attribute `settings` names, or None without
        one: called before every other hook, and again when SIGHUP has changed it."""

    @hookspec
    def on_event(self, event: Event) -> None:
        """Something happened; called after the fact, in order, from a thread of the plugin's own."""

    @hookspec
    def adjust_container(self, container: ContainerFacts, spec: Mapping[str, Any]) -> Adjustment | None:
        """A container is about to be made from the OCI configuration `spec`; add to it."""
        return None

    @hookspec
    def admit_image(
        self, reference: str, digest: str, manifest: bytes, index: str, repository: Repository | None
    ) -> Denial | None:
        """An image's manifest is known and verified; deny its use. `index`: the digest of the index that led to it, empty
        without one; `repository`: where it is pulled from, None for one that is loaded, imported or committed."""
        return None

    @hookspec(firstresult=True)
    def find_driver(self, kind: str, name: str, settings: Mapping[str, Any]) -> type[Driver[Any]] | None:
        """A driver that exists only at run time, asked for when no entry point has this name; `settings` is its part of
        daemon.json (for a runtime also what `runtimes` says), which its model will be given."""
        return None

    @hookspec
    def known_drivers(self, kind: str, configured: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
        """Names that `find_driver` would answer for now; `configured` are the kind's settings in daemon.json by name."""
        return ()

    @hookspec
    def doctor_checks(self) -> Sequence[Problem]:
        """Problems that this plugin sees on the host."""
        return ()
