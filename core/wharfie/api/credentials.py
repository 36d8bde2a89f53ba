"""`X-Registry-Auth`: what a client says to a registry, as base64url of JSON."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from fastapi import Depends, Header
from pydantic import BaseModel, ConfigDict, ValidationError

from wharfie.spi.errors import InvalidArgument
from wharfie.spi.registry import Credentials

HEADER_LIMIT = 64 * 1024


class AuthConfig(BaseModel):
    """Docker Engine API, definition AuthConfig. Names are matched in the spelling that clients send."""

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", ""), populate_by_name=True, extra="ignore")

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    server_address: str = ""
    identity_token: str = ""
    registry_token: str = ""


def decode(header: str) -> Credentials | None:
    """Credentials from the header; None when it is absent or says nothing. Errors: InvalidArgument."""
    if not header:
        return None
    if len(header) > HEADER_LIMIT:
        raise InvalidArgument(f"invalid X-Registry-Auth header: longer than {HEADER_LIMIT} bytes")
    try:
        # Clients differ in the alphabet and in the padding.
        raw = base64.b64decode(header.translate(_TO_STANDARD) + "=" * (-len(header) % 4), validate=True)
        config = AuthConfig.model_validate_json(raw)
    except (binascii.Error, ValidationError):
        raise InvalidArgument("invalid X-Registry-Auth header: it must be base64url of a JSON object") from None
    credentials = as_credentials(config)
    return None if credentials == Credentials() else credentials


_TO_STANDARD = str.maketrans("-_", "+/")


def as_credentials(config: AuthConfig) -> Credentials:
    """`auth` is the older form of user and password: base64 of USER:PASSWORD."""
    username, password = config.username, config.password
    if config.auth and not username:
        try:
            username, _, password = base64.b64decode(config.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidArgument("invalid X-Registry-Auth header: auth must be base64 of USER:PASSWORD") from None
    return Credentials(
        username=username,
        password=password,
        identity_token=config.identity_token,
        registry_token=config.registry_token,
    )


async def _credentials(x_registry_auth: Annotated[str, Header()] = "") -> Credentials | None:
    return decode(x_registry_auth)


RegistryAuth = Annotated[Credentials | None, Depends(_credentials)]
