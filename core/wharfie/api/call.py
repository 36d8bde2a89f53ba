"""What every handler is given: the engine, and how this request wants its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from wharfie.api import body
from wharfie.api.body import M
from wharfie.api.versions import Version

if TYPE_CHECKING:
    from wharfie.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Call:
    """One request."""

    engine: Engine
    version: Version
    request: Request

    @property
    def common_headers(self) -> list[tuple[bytes, bytes]]:
        """The API's headers, for answers that are written by hand."""
        headers: list[tuple[bytes, bytes]] = self.request.app.state.common_headers
        return headers

    def since(self, version: Version, parameter: str) -> str:
        """A parameter that older versions do not have; empty for these."""
        return parameter if self.version >= version else ""

    async def body(self, model: type[M], *, required: bool = True) -> M:
        """The JSON body as a model. Errors: InvalidArgument."""
        return await body.parsed(self.request, model, required=required)

    async def document(self) -> Any:
        """The JSON body as it is; None without one. Errors: InvalidArgument."""
        return await body.document(self.request)


async def _call(request: Request) -> Call:
    return Call(request.app.state.engine, request.state.version, request)


Asked = Annotated[Call, Depends(_call)]
