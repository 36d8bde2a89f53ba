"""What `docker volume create --opt` may say to this driver. Names and rules: Docker's documentation of `volume create`."""

from __future__ import annotations

from wharfie.spi import sizes
from wharfie.spi.driver import Strings
from wharfie.spi.errors import InvalidArgument

KNOWN = frozenset(("type", "o", "device", "size"))
_REQUIRED = {"device": ("type",), "type": ("device",), "o": ("device", "type")}


def validate(options: Strings) -> None:
    """Errors: InvalidArgument naming the option; the core says for which volume."""
    for option in options:
        if option not in KNOWN:
            raise InvalidArgument(f'invalid option: "{option}"')
    if "size" in options:
        try:
            sizes.parse(options["size"])
        except ValueError as error:
            raise InvalidArgument(f'invalid option: "size": {error}') from None
        if needs_mount(options):
            raise InvalidArgument(
                'quota size requested for a file system that is mounted: "size" limits a folder; a file system '
                "has its own limit, which for tmpfs is `o=size=…`"
            )
    for option, needed in _REQUIRED.items():
        for other in needed:
            if option in options and other not in options:
                raise InvalidArgument(f'missing required option: "{other}" (needed by "{option}")')


def needs_mount(options: Strings) -> bool:
    """Whether the volume is a file system of its own rather than a folder."""
    return bool(options.get("device") or options.get("type"))
