"""Versions of the API: a path may start with one, and answers differ a little between them."""

from __future__ import annotations

import re

from wharfie.spi.errors import InvalidArgument

Version = tuple[int, int]

NEWEST: Version = (1, 50)
OLDEST: Version = (1, 24)

ARCHIVES: Version = (1, 22)
"""Archives of images are served from here on: skopeo, podman and buildah speak this version for `docker-daemon:`, and these
two requests have not changed since."""
_ARCHIVES = frozenset({"/images/get", "/images/load"})

MULTIPLEXED: Version = (1, 42)
"""From here on framed streams have a content type of their own."""
GATEWAY_PRIORITY: Version = (1, 48)
"""From here on endpoints show GwPriority."""
ENABLE_IPV4: Version = (1, 47)
"""From here on networks show EnableIPv4."""
ANNOTATIONS_IN_LISTS: Version = (1, 46)
NO_NONE_TAGS: Version = (1, 43)
"""Before, an image without a name had the names <none>:<none> and <none>@<none>."""
NO_VIRTUAL_SIZE: Version = (1, 44)
"""Before, images showed VirtualSize too."""
NO_CONTAINER_OF_IMAGE: Version = (1, 45)
"""Before, an image showed the container that it was made from: Compose 1 reads Volumes there when it makes one anew."""
ANONYMOUS_PRUNE: Version = (1, 42)
"""From here on pruning volumes spares named ones."""

PLATFORM_OF_PUSH: Version = (1, 46)
MANIFESTS_IN_LISTS: Version = (1, 47)
MANIFESTS: Version = (1, 48)
"""From here on an image's inspection shows the manifests behind it, where that is asked for."""
PLATFORMS: Version = (1, 48)
"""From here on `platform` chooses an image's variant in history, load and save."""
PLATFORM_OF_INSPECT: Version = (1, 49)
PLATFORMS_OF_REMOVE: Version = (1, 50)
IMAGE_CONFIG: Version = (1, 50)
"""From here on an image's Config has no fields that only containers use."""

NO_BRIDGE_NETFILTER: Version = (1, 50)
"""Before, info told of the kernel's bridge-nf-call settings and of TCP memory limits."""

_PREFIX = re.compile(r"/v(\d{1,4})\.(\d{1,4})(?=/|$)")


def text(version: Version) -> str:
    """As the API writes it."""
    return f"{version[0]}.{version[1]}"


def split(path: str) -> tuple[Version, str]:
    """The version that a path asks for, and the path without it. A path without one means the newest.

    Errors: InvalidArgument with Docker's words when the version is not served.
    """
    match = _PREFIX.match(path)
    if match is None:
        return NEWEST, path
    version = (int(match[1]), int(match[2]))
    if ARCHIVES <= version < OLDEST and path[match.end() :] in _ARCHIVES:
        return OLDEST, path[match.end() :]
    if version < OLDEST:
        raise InvalidArgument(
            f"client version {text(version)} is too old. Minimum supported API version is {text(OLDEST)}, "
            "please upgrade your client to a newer version"
        )
    if version > NEWEST:
        raise InvalidArgument(f"client version {text(version)} is too new. Maximum supported API version is {text(NEWEST)}")
    return version, path[match.end() :]
