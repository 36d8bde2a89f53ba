"""Image names as people write them.

    busybox                    → docker.io/library/busybox:latest
    localhost:5000/a/b:1       → localhost:5000/a/b:1
    x@sha256:…                 → docker.io/library/x@sha256:…

Grammar and messages: distribution/reference, as Docker's daemon uses it. A name has a *familiar* form, the shortest that
means the same, which every answer uses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from wharfie.spi.errors import InvalidArgument
from wharfie.spi.registry import Reference

DEFAULT_DOMAIN = "docker.io"
DEFAULT_SERVER = "registry-1.docker.io"
DEFAULT_TAG = "latest"
INDEX_SERVER = "index.docker.io"
_OFFICIAL = "library/"
_NAME_LIMIT = 255

_ALNUM = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?:{_ALNUM}(?:\.{_ALNUM})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[\w][\w.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?P<domain>{_DOMAIN})/(?P<path>{_PATH})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?", re.ASCII
)
_HEX_ID = re.compile(r"[a-f0-9]{64}")
_SHA256 = re.compile(r"sha256:[a-f0-9]{64}")


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A whole reference: `domain` and `path` always, `tag` and `digest` as far as they were given."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """The name without tag and digest, in full."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        bare = self.path.removeprefix(_OFFICIAL)
        return bare if "/" not in bare else self.path

    @property
    def familiar(self) -> str:
        return self.familiar_repository + self._suffix

    @property
    def canonical(self) -> str:
        """The whole reference in full: the key of a stored name."""
        return self.repository + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def name_only(self) -> bool:
        return not self.tag and not self.digest

    def with_default_tag(self) -> Name:
        return replace(self, tag=DEFAULT_TAG) if self.name_only else self

    def with_tag(self, tag: str) -> Name:
        """Errors: InvalidArgument."""
        if re.fullmatch(_TAG, tag, re.ASCII) is None:
            raise InvalidArgument("invalid tag format")
        return Name(self.domain, self.path, tag)

    def with_digest(self, digest: str) -> Name:
        return Name(self.domain, self.path, "", digest)

    @property
    def stored(self) -> Name:
        """The key of the catalog: by digest if there is one, else by tag."""
        return replace(self, tag="") if self.digest else self.with_default_tag()

    def on_server(self) -> Reference:
        """What a registry driver is asked for."""
        server = DEFAULT_SERVER if self.domain == DEFAULT_DOMAIN else self.domain
        return Reference(server=server, repository=self.path, tag="" if self.digest else self.tag, digest=self.digest)


def parse(text: str) -> Name:
    """A name, completed with the default domain but not with a tag. Errors: InvalidArgument with Docker's words."""
    if _HEX_ID.fullmatch(text):
        raise InvalidArgument(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, rest = _split_domain(text)
    bare = rest.partition(":")[0]
    if bare.lower() != bare:
        raise InvalidArgument(f"invalid reference format: repository name ({bare}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{rest}")
    if match is None:
        raise InvalidArgument("invalid reference format")
    name = Name(match["domain"], match["path"], match["tag"] or "", match["digest"] or "")
    if len(name.path) > _NAME_LIMIT:
        raise InvalidArgument(f"repository name must not be more than {_NAME_LIMIT} characters")
    if name.digest:
        check_digest(name.digest)
    return name


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    named = slash and (any(mark in first for mark in ".:") or first == "localhost" or first.lower() != first)
    domain, path = (first, rest) if named else (DEFAULT_DOMAIN, text)
    if domain == INDEX_SERVER:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def parse_pair(repository: str, tag: str) -> Name:
    """The API's pair of parameters; `tag` may be a digest, and replaces what the repository says."""
    name = parse(repository)
    if not tag:
        return name
    if ":" in tag:
        return name.with_digest(check_digest(tag))
    return name if name.digest else name.with_tag(tag)


def image_id(text: str) -> str | None:
    """The full id that `text` is, with or without its algorithm; None when it is something else."""
    if _HEX_ID.fullmatch(text):
        return f"sha256:{text}"
    return text if _SHA256.fullmatch(text) else None


def is_digest(text: object) -> bool:
    """Whether a document's value is a digest that may be used (and be part of a file's name)."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


def check_digest(text: str) -> str:
    """Errors: InvalidArgument."""
    algorithm, _, value = text.partition(":")
    if algorithm != "sha256":
        raise InvalidArgument("unsupported digest algorithm")
    if len(value) != 64:
        raise InvalidArgument("invalid checksum digest length")
    if not is_digest(text):
        raise InvalidArgument("invalid checksum digest format")
    return text


def short(digest: str) -> str:
    """Twelve hex digits, as tables and progress lines show an id."""
    return digest.removeprefix("sha256:")[:12]
