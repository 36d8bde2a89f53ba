"""Kernel settings of one interface: the endpoint option `com.docker.network.endpoint.sysctls`.

The user cannot know what the interface will be called, so its place in the name is held by IFNAME:
`net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from wharfie.shim.netns import within
from wharfie.spi.errors import InvalidArgument

OPTION = "com.docker.network.endpoint.sysctls"
_NAME = re.compile(r"net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.(?i:IFNAME)\.(\w+)")  # docker run --network writes it small

Setting = tuple[str, str]
"""The path below /proc/sys/net, with IFNAME in it, and the value."""


def parse(options: Mapping[str, str]) -> Sequence[Setting]:
    """Errors: InvalidArgument."""
    settings = []
    for text in filter(None, (word.strip() for word in options.get(OPTION, "").split(","))):
        name, separator, value = text.partition("=")
        match = _NAME.fullmatch(name)
        if match is None or not separator:
            raise InvalidArgument(
                f"invalid endpoint sysctl {text!r}: want net.FAMILY.conf.IFNAME.SETTING=VALUE, with IFNAME as it stands"
            )
        settings.append((f"{match[1]}/{match[2]}/IFNAME/{match[3]}", value))
    return settings


async def apply(settings: Sequence[Setting], namespace: Path, interface: str) -> None:
    """Errors: InvalidArgument (the kernel has no such setting or refuses the value)."""
    if settings:
        await asyncio.to_thread(within, namespace, lambda: _write(settings, interface))


def _write(settings: Sequence[Setting], interface: str) -> None:
    for path, value in settings:
        place = Path("/proc/sys/net") / path.replace("IFNAME", interface)
        try:
            place.write_text(value)
        except OSError as error:
            name = str(place.relative_to("/proc/sys")).replace("/", ".")
            raise InvalidArgument(f"endpoint sysctl {name}={value}: {error.strerror}") from error
