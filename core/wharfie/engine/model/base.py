"""The manners of all models: the Docker Engine API's field names outside, ours inside.

Docker's daemon decodes JSON leniently: unknown fields are ignored and null leaves a field at its zero value. Wrong types
are errors.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_pascal

NO_TIME = "0001-01-01T00:00:00Z"
"""Go's zero time: how the API writes "never"."""


def _pair(value: Any) -> Any:
    """JSON has no tuples; requests are validated strictly."""
    return tuple(value) if isinstance(value, list) else value


Size = Annotated[tuple[int, int], BeforeValidator(_pair)]
"""Of a terminal: rows, columns."""


class Model(BaseModel):
    """Base of all models. Serialise with `dump` to get the API's names."""

    model_config = ConfigDict(
        alias_generator=to_pascal, populate_by_name=True, extra="ignore", protected_namespaces=(), strict=False
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {key: value for key, value in data.items() if value is not None}
        return data

    def dump(self) -> dict[str, Any]:
        """This model as the API's JSON object."""
        return self.model_dump(by_alias=True)


class Sparse(Model):
    """A model whose fields Docker leaves out of its answers when they are empty."""

    @model_serializer(mode="wrap")
    def _omit_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = handler(self)
        return {key: value for key, value in document.items() if value}
