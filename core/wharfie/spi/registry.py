"""Registries: where images come from and go to.

The model
    A *reference* names a repository on a server with a tag or a digest. It resolves to a *manifest*, a document whose
    *descriptors* (media type, digest, size) name the blobs (OCI image-spec and distribution-spec). The core owns
    parallelism, the content store, progress and retries; it verifies digest and size of every byte, because a driver or a
    server may lie. A driver moves bytes.
"""

from __future__ import annotations

import enum
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from wharfie.spi.driver import Driver, FileDescriptor, Strings, deadline
from wharfie.spi.errors import Unsupported

MANIFEST_LIMIT = 4 * 1024 * 1024
"""No manifest is larger (OCI distribution-spec, "Pushing Manifests")."""


class RegistryCapability(enum.StrEnum):
    """What a registry driver may offer beyond the contract."""

    PUSH = "push"
    CATALOG = "catalog"
    REFERRERS = "referrers"
    SEARCH = "search"
    CROSS_MOUNT = "cross-mount"
    RANGES = "ranges"  # fetch honours `offset`


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """`server` is host[:port] ("registry-1.docker.io" for Docker Hub), `repository` the path on it. Exactly one of
    `tag` and `digest` is used; with both the digest counts."""

    server: str
    repository: str
    tag: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What the client sent for this server (`X-Registry-Auth`). Never sent to another host."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """OCI image-spec, descriptor.md. Two that name the same content are equal, whatever is said about it."""

    media_type: str
    digest: str
    size: int
    urls: tuple[str, ...] = ()
    artifact_type: str = field(default="", compare=False)
    annotations: Strings = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A manifest or index exactly as the server sent it; `digest` is the sha256 of `data`."""

    media_type: str
    digest: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginResult:
    """`identity_token` is empty for servers that take the password each time."""

    status: str
    identity_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """One repository that a server's search found."""

    name: str
    description: str = ""
    stars: int = 0
    official: bool = False
    automated: bool = False


class RegistryDriver(Driver[RegistryCapability]):
    """A client of image servers. Errors of all methods: NotFound, Unauthorized, Forbidden, Unavailable, DriverError."""

    kind: ClassVar[str] = "registry"

    @abstractmethod
    @deadline(60)
    def resolve(self, ref: Reference, auth: Credentials | None) -> Manifest:
        """Fetch the manifest or index that `ref` names. Refuses one over MANIFEST_LIMIT. May be repeated.

        NotFound's message is Docker's: `manifest for REPO:TAG not found: manifest unknown: …`.
        """

    @abstractmethod
    @deadline(None, idle=60)
    def fetch(
        self, ref: Reference, blob: Descriptor, out: FileDescriptor, *, offset: int, auth: Credentials | None
    ) -> None:
        """Write the blob's bytes from `offset` on to `out`, never more than `blob.size - offset`. May be repeated.

        Calls `wharfie.spi.call.progress` for each piece. Unavailable: the connection broke; what was written counts.
        """

    @deadline(30)
    def login(self, server: str, auth: Credentials) -> LoginResult:
        """Try credentials (`POST /auth`). Errors: Unauthorized."""
        raise Unsupported(f'registry driver "{self.name}" cannot log in')

    @deadline(30)
    def exists(self, ref: Reference, blob: Descriptor, auth: Credentials | None) -> bool:
        """Whether the server has the blob in this repository (PUSH)."""
        raise Unsupported(f'registry driver "{self.name}" cannot push')

    @deadline(None, idle=60)
    def push_blob(
        self, ref: Reference, blob: Descriptor, data: FileDescriptor, *, mount_from: str, auth: Credentials | None
    ) -> bool:
        """Have the blob in `ref`'s repository (PUSH); whether it was mounted there. May be repeated.

        `mount_from` names a repository on the same server that may have it: where the server can, it is mounted from there
        and `data` is not touched (CROSS_MOUNT). Else `data` is sent: a file that is read from its beginning with read(2),
        so that its offset says how much was sent. Calls `wharfie.spi.call.progress` for each piece.
        Unavailable: the connection broke.
        """
        raise Unsupported(f'registry driver "{self.name}" cannot push')

    @deadline(60)
    def push_manifest(self, ref: Reference, manifest: Manifest, auth: Credentials | None) -> Descriptor:
        """Send a manifest under `ref`'s tag or digest (PUSH). May be repeated."""
        raise Unsupported(f'registry driver "{self.name}" cannot push')

    @deadline(60)
    def tags(self, ref: Reference, auth: Credentials | None) -> Sequence[str]:
        """Tags of the repository (CATALOG)."""
        raise Unsupported(f'registry driver "{self.name}" cannot list tags')

    @deadline(60)
    def referrers(self, ref: Reference, subject: Descriptor, auth: Credentials | None) -> Sequence[Descriptor]:
        """Manifests whose subject is `subject`, with `artifact_type` and `annotations` as the server says them (REFERRERS).

        Unsupported: the server has no such API. The core then looks at the tag that takes its place (OCI distribution-spec,
        "Unavailable Referrers API").
        """
        raise Unsupported(f'registry driver "{self.name}" cannot list referrers')

    @deadline(60)
    def search(self, server: str, term: str, limit: int, auth: Credentials | None) -> Sequence[SearchResult]:
        """Repositories on the server that match `term`, at most `limit` (SEARCH)."""
        raise Unsupported(f'registry driver "{self.name}" cannot search')

    @deadline(2)
    def describe_server(self, server: str) -> Strings:
        """How this driver would reach the server (scheme, mirrors), for `docker info` and messages."""
        return {}
