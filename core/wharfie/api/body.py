"""JSON bodies: read once with a cap on bytes and depth, decoded once, validated strictly.

The decoded document stays with the request, so that what an authorization driver judges is what the handler gets.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from wharfie.spi.errors import InvalidArgument

LIMIT = 4 * 1024 * 1024
"""Bytes of a JSON body. (The decoder itself refuses more than 200 levels.)"""

M = TypeVar("M", bound=BaseModel)

_LONG_NUMBER = re.compile(rb"\d{19}")
_INT64 = range(-(2**63), 2**63)

# The decoder's complaints, in the words of the daemon that clients know.
_COMPLAINTS = (
    ("EOF while parsing", "unexpected EOF"),
    ("trailing characters", "unexpected content after JSON"),
    ("recursion limit exceeded", "exceeded max depth"),
    ("key must be a string", "invalid character{} looking for beginning of object key string"),
    ("trailing comma", "invalid character{} looking for beginning of value"),
    ("expected value", "invalid character{} looking for beginning of value"),
    ("expected ident", "invalid character{} in literal"),
    ("expected `:`", "invalid character{} after object key"),
    ("expected `,` or `}`", "invalid character{} after object key:value pair"),
    ("expected `,` or `]`", "invalid character{} after array element"),
    ("invalid number", "invalid character{} in numeric literal"),
    ("control character", "invalid character in string literal"),
)
_POSITION = re.compile(r" at line (\d+) column (\d+)$")

# pydantic's names of what was expected, in the words of JSON.
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "an array",
    "tuple_type": "an array of two numbers",
    "dict_type": "an object",
    "model_type": "an object",
}


async def read(request: Request) -> bytes:
    """The whole body. Errors: InvalidArgument when it is larger than LIMIT."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > LIMIT:
        raise _too_large()
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LIMIT:
            raise _too_large()
    return bytes(body)


def _too_large() -> InvalidArgument:
    return InvalidArgument(f"http: request body too large: a JSON body may have {LIMIT} bytes")


async def document(request: Request) -> Any:
    """The body's JSON document, None for an empty body. The same object each time it is asked for."""
    if not hasattr(request.state, "document"):
        request.state.document = _decode(request, await read(request))
    return request.state.document


def _decode(request: Request, body: bytes) -> Any:
    if not body:
        return None
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise InvalidArgument(f"unsupported Content-Type header ({content_type}): must be 'application/json'")
    try:
        decoded = from_json(body)
    except ValueError as error:
        raise InvalidArgument(f"invalid JSON: {_complaint(str(error), body)}") from None
    if _LONG_NUMBER.search(body):
        _check_numbers(decoded)
    return decoded


def _complaint(text: str, body: bytes) -> str:
    position = _POSITION.search(text)
    for start, words in _COMPLAINTS:
        if text.startswith(start):
            return words.replace("{}", _character(body, int(position[1]), int(position[2])) if position else "")
    return text


def _character(body: bytes, line: int, column: int) -> str:
    lines = body.split(b"\n", line)
    found = lines[line - 1][column - 1 : column] if len(lines) >= line else b""
    return f" '{chr(found[0])}'" if found and 0x20 < found[0] < 0x7F else ""


def _check_numbers(value: Any) -> None:
    """Docker's numbers have 64 bits; Python's would go on."""
    if isinstance(value, dict):
        for item in value.values():
            _check_numbers(item)
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item)
    elif isinstance(value, int) and value not in _INT64:
        raise InvalidArgument(f"invalid JSON: cannot unmarshal number {value} into a field of type int64")


async def parsed(request: Request, model: type[M], *, required: bool = True) -> M:
    """The body as a model. An empty body is an error unless it is not `required`. Errors: InvalidArgument."""
    found = await document(request)
    if found is None:
        if required:
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        found = {}
    try:
        # Through JSON again: pydantic's strict rules for JSON are those of the wire. Only the API's own names count: a
        # field that also answered to our name for it would slip past whoever judges the document.
        return model.model_validate_json(to_json(found), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise InvalidArgument(f"invalid JSON: {_fault(error)}") from None


def _fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in fault["loc"]) or "the body"
    expected = _EXPECTED.get(fault["type"])
    if expected is None:
        return f"{where}: {fault['msg']}"
    return f"cannot unmarshal {_kind(fault['input'])} into field {where}: expected {expected}"


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return {"str": "string", "list": "array", "dict": "object"}.get(type(value).__name__, "value")
