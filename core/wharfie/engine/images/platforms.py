"""Platforms: "os/architecture/variant" in OCI's words, and which of several fits (containerd's rules, `platforms`)."""

from __future__ import annotations

import json
import platform as host
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wharfie.spi.errors import InvalidArgument

_ALIASES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("x86_64", ""): ("amd64", ""),
    ("x86-64", ""): ("amd64", ""),
    ("amd64", "v1"): ("amd64", ""),
    ("aarch64", ""): ("arm64", "v8"),
    ("arm64", ""): ("arm64", "v8"),
    ("arm64", "8"): ("arm64", "v8"),
    ("aarch64", "v8"): ("arm64", "v8"),
    ("i386", ""): ("386", ""),
    ("i686", ""): ("386", ""),
    ("armhf", ""): ("arm", "v7"),
    ("armv7l", ""): ("arm", "v7"),
    ("armel", ""): ("arm", "v6"),
    ("armv6l", ""): ("arm", "v6"),
    ("arm", ""): ("arm", "v7"),
    ("arm", "7"): ("arm", "v7"),
    ("arm", "6"): ("arm", "v6"),
    ("arm", "5"): ("arm", "v5"),
}
_ARCHITECTURES = frozenset({"386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"}) | {
    name for name, _ in _ALIASES
}
_PART = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Platform:
    """`variant` is empty where the architecture has none."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Platform:
        """From a descriptor's or configuration's fields, made comparable."""
        os, architecture, variant = (str(document.get(key) or "") for key in ("os", "architecture", "variant"))
        return cls(
            os.lower(), *_ALIASES.get((architecture.lower(), variant.lower()), (architecture.lower(), variant.lower()))
        )

    def accepts(self) -> Iterator[Platform]:
        """What runs here, best first."""
        yield self
        if self.architecture == "arm" and self.variant[1:].isdigit():
            for version in range(int(self.variant[1:]) - 1, 4, -1):
                yield Platform(self.os, "arm", f"v{version}")
        elif self.architecture == "arm64":
            yield from Platform(self.os, "arm", "v8").accepts()
        elif self.architecture == "amd64":
            if self.variant:
                yield Platform(self.os, "amd64")
            yield Platform(self.os, "386")


def local() -> Platform:
    """The host's."""
    return Platform.of({"os": "linux", "architecture": host.machine()})


def decode(text: str) -> Platform | None:
    """The parameter of requests about images that are here: a JSON object (definition OCIPlatform), or what `parse` takes;
    None for none. Errors: InvalidArgument."""
    if not text:
        return None
    if not text.lstrip().startswith("{"):
        return parse(text)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"failed to parse platform: {error}") from None
    if not document.get("os") or not document.get("architecture"):
        if not document.get("os") and not document.get("architecture") and document:
            raise InvalidArgument("optional platform fields provided, but OS and Architecture are missing")
        raise InvalidArgument("both OS and Architecture must be provided")
    return Platform.of(document)


def parse(text: str) -> Platform:
    """The `platform` parameter: "os[/architecture[/variant]]" or an architecture alone; empty for the host's.

    Errors: InvalidArgument.
    """
    if not text:
        return local()
    parts = text.split("/")
    if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidArgument(f'"{text}": invalid platform: want os[/architecture[/variant]], for example linux/arm64')
    if len(parts) == 1:
        here = local()
        if parts[0].lower() == here.os:
            return here
        if parts[0].lower() not in _ARCHITECTURES:
            raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')
        return Platform.of({"os": here.os, "architecture": parts[0]})
    return Platform.of(dict(zip(("os", "architecture", "variant"), parts, strict=False)))
