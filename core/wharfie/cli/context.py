"""What commands share: the client, messages, and loops over names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

import click

from wharfie.client import ApiError, Client


class Context:
    """One run of the command line."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """Made on first use, so that help needs no engine."""
        if self._client is None:
            self._client = Client(self._host)
        return self._client


pass_context = click.make_pass_decorator(Context)


def each(names: Iterable[str], act: Callable[[str], str | None], *, absent_is_fine: bool = False) -> int:
    """Do `act` for every name and print what it says, else the name. An error is shown and the rest goes on; the exit code
    is 1 then, unless it was about something that is not there and `absent_is_fine` (as with --force)."""
    failed = False
    for name in names:
        try:
            said = act(name)
        except ApiError as error:
            print(f"Error response from daemon: {error.message}", file=sys.stderr)
            failed |= not (absent_is_fine and error.status == 404)
        else:
            print(said if said is not None else name, flush=True)
    return int(failed)


def pairs(values: Iterable[str]) -> dict[str, str]:
    """`key=value` options; without a value it is empty."""
    return {key: value for key, _, value in (item.partition("=") for item in values)}


def filters(values: Iterable[str]) -> dict[str, list[str]] | None:
    """`--filter key=value` as the API takes it. Errors: click.BadParameter."""
    found: dict[str, list[str]] = {}
    for item in values:
        key, separator, value = item.partition("=")
        if not separator:
            raise click.BadParameter(f"invalid filter {item!r}: write key=value", param_hint="--filter")
        found.setdefault(key.strip().lower(), []).append(value.strip())
    return found or None
