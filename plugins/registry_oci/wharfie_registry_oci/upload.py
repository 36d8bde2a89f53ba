"""A blob on its way to a registry (distribution-spec, "Pushing blobs"): mounted, or sent in one stream that is continued
where the connection broke."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from urllib.parse import urlencode, urljoin, urlsplit

import httpx

from wharfie.spi.call import progress
from wharfie.spi.distribution import unavailable
from wharfie.spi.driver import FileDescriptor
from wharfie.spi.errors import DataLoss, Forbidden, NotFound, Unauthorized, Unavailable, WharfieError
from wharfie.spi.registry import Credentials, Descriptor, Reference
from wharfie_registry_oci.endpoints import Endpoints
from wharfie_registry_oci.failures import NoAnswer
from wharfie_registry_oci.http import Body
from wharfie_registry_oci.requests import Requests, pushing

_PIECE = 1 << 18
_CONTINUED = 3
"""How often a stream is continued; after that the core begins again."""
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_NOTHING = {"Content-Length": "0"}


class Upload:
    """One blob for one repository."""

    def __init__(
        self, requests: Requests, endpoints: Endpoints, ref: Reference, blob: Descriptor, auth: Credentials | None
    ) -> None:
        self._requests = requests
        self._endpoints = endpoints
        self._ref = ref
        self._blob = blob
        self._auth = auth
        self._location = ""  # where the upload goes on

    def run(self, data: FileDescriptor, mount_from: str) -> bool:
        """Whether the blob was mounted. Errors: Unavailable, Unauthorized, Forbidden, DataLoss (`data` is too short)."""
        self._location = self._begin(mount_from)
        if not self._location:
            return True
        try:
            if self._blob.size:
                self._send(data)
            mark = "&" if urlsplit(self._location).query else "?"
            done = self._location + mark + urlencode({"digest": self._blob.digest})
            query = pushing(self._ref, "PUT", done, 201, 204, headers=_NOTHING)
            with self._requests.answer(self._ref, query, self._auth):
                return False
        except NoAnswer:
            raise
        except NotFound as error:
            raise self._forgotten() from error
        except WharfieError:
            self._abandon()
            raise

    def _forgotten(self) -> Unavailable:
        """Debian's registry does so when a stream broke; the core begins anew."""
        return unavailable(f"the registry {self._ref.server} forgot the upload of {self._blob.digest}")

    def _begin(self, mount_from: str) -> str:
        """The address to send to; empty when the blob was mounted."""
        path = f"/v2/{self._ref.repository}/blobs/uploads/"
        if mount_from:
            mount = f"{path}?{urlencode({'mount': self._blob.digest, 'from': mount_from})}"
            query = pushing(self._ref, "POST", mount, 201, 202, headers=_NOTHING, mount_from=mount_from)
            try:
                with self._requests.answer(self._ref, query, self._auth) as response:
                    return "" if response.status_code == 201 else self._next(response)
            except (Forbidden, NotFound, Unauthorized):
                pass  # the other repository is not ours to read: the blob is sent
        query = pushing(self._ref, "POST", path, 202, headers=_NOTHING)
        with self._requests.answer(self._ref, query, self._auth) as response:
            return self._next(response)

    def _next(self, response: httpx.Response) -> str:
        """Where the upload goes on."""
        location: str = response.headers.get("Location", "")
        address: str = urljoin(str(response.request.url), location)
        if not location or not self._endpoints.allows(address):
            raise unavailable(f"the registry {self._ref.server} names no usable address for an upload: {location!r}")
        return address

    def _abandon(self) -> None:
        """Nobody goes on with this upload: what the registry has of it takes room, perhaps the very room that it lacks."""
        query = pushing(self._ref, "DELETE", self._location, 200, 202, 204, 404)
        with contextlib.suppress(WharfieError), self._requests.answer(self._ref, query, self._auth):
            pass

    def _send(self, data: FileDescriptor) -> None:
        """The whole blob."""
        at = 0
        for attempt in range(_CONTINUED + 1):
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(self._blob.size - at)}
            if at:
                headers["Content-Range"] = f"{at}-{self._blob.size - 1}"
            query = pushing(self._ref, "PATCH", self._location, 202, 204, headers=headers, body=self._body(data, at))
            try:
                with self._requests.answer(self._ref, query, self._auth) as response:
                    at, self._location = self._got(response, self._blob.size), self._next(response)
            except Unavailable:
                if attempt == _CONTINUED:
                    raise
                at, self._location = self._status()
            if at == self._blob.size:
                return
        raise unavailable(
            f"the registry {self._ref.server} does not take blob {self._blob.digest}: it has {at} bytes of it"
        )

    def _status(self) -> tuple[int, str]:
        """How much the registry has of an upload that broke, and where it goes on. Errors: NotFound, Unavailable."""
        query = pushing(self._ref, "GET", self._location, 204)
        with self._requests.answer(self._ref, query, self._auth) as response:
            return self._got(response, 0), self._next(response)

    def _got(self, response: httpx.Response, otherwise: int) -> int:
        """Bytes that the registry says it has. "0-0" is also what it says of an upload without a byte."""
        match = _RANGE.fullmatch(response.headers.get("Range", ""))
        if match is None or (match[1] == "0" and self._blob.size == 1):
            return otherwise
        return min(int(match[1]) + 1, self._blob.size) if match[1] != "0" else 0

    def _body(self, data: FileDescriptor, at: int) -> Body:
        def pieces() -> Iterator[bytes]:
            os.lseek(data, at, os.SEEK_SET)
            left = self._blob.size - at
            while left:
                progress()
                piece = os.read(data, min(_PIECE, left))
                if not piece:
                    raise DataLoss(f"blob {self._blob.digest} ends {left} bytes too early")
                left -= len(piece)
                yield piece

        return Body(pieces)
