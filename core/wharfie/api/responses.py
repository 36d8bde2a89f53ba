"""Answers that are not streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json
from starlette.responses import Response


class Json(Response):
    """A JSON answer as Docker's daemon writes it: compact, with a line end."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(content, status, headers)

    def render(self, content: Any) -> bytes:
        return to_json(content, inf_nan_mode="null") + b"\n"


class Rendered(Response):
    """A JSON answer whose text is there already."""

    media_type = "application/json"


class Empty(Response):
    """An answer without a body: 204, 201, 200 or 304."""

    def __init__(self, status: int = 204, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(None, status, headers)


def message(text: str, status: int) -> Json:
    """An error."""
    return Json({"message": text}, status)
