"""A body that the daemon fetches itself (`docker import URL`)."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError
from urllib.parse import urlsplit

from wharfie.spi.errors import InvalidArgument, WharfieError

_CHUNK = 1 << 20
_SILENCE_SECONDS = 60
"""A server that sends nothing for so long is given up."""
_HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.HTTPDefaultErrorHandler,
)


async def fetch(address: str) -> tuple[str, AsyncIterator[bytes]]:
    """The whole address, and the body in pieces. Errors: InvalidArgument (no web address), WharfieError (no answer)."""
    url = address if "://" in address else f"http://{address}"
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise InvalidArgument(f'cannot import from "{address}": want "-" for the body, or an address of http or https')
    return url, _pieces(url, await asyncio.to_thread(_open, url))


def _open(url: str) -> HTTPResponse:
    opener = urllib.request.OpenerDirector()  # only these: the usual one would read files of this host, too
    for handler in _HANDLERS:
        opener.add_handler(handler())
    try:
        answer = opener.open(url, timeout=_SILENCE_SECONDS)
    except HTTPError as error:
        with error:
            raise WharfieError(f"Got HTTP status code >= 400: {error.code} {error.reason}: {url}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise WharfieError(f'Get "{url}": {error}') from error
    if not isinstance(answer, HTTPResponse):
        raise WharfieError(f'Get "{url}": a redirect leads to another protocol')
    return answer


async def _pieces(url: str, answer: HTTPResponse) -> AsyncIterator[bytes]:
    with answer:
        while True:
            try:
                piece = await asyncio.to_thread(answer.read, _CHUNK)
            except (OSError, HTTPException) as error:
                raise WharfieError(f'Get "{url}": {error}') from error
            if not piece:
                return
            yield piece
