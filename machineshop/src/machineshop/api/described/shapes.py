"""Parts of answers that several routes share."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta

T = TypeVar("T")

Time = Annotated[str, Meta(description="ISO 8601, in UTC.", extra_json_schema={"format": "date-time"})]
Object = Annotated[dict[str, Any], Meta(description="Any JSON object.")]
Id = Annotated[str, Meta(description="An id, as it was given.")]


class ErrorFields(msgspec.Struct):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    """The field that is wrong."""
    code: str
    """For programs."""


class Error(ErrorFields):
    """An error: its fields under `error`, and beside it for older clients."""

    error: ErrorFields


class Listed(msgspec.Struct, Generic[T]):
    """A list."""

    object: Literal["list"]
    data: list[T]


class Empty(msgspec.Struct):
    """Nothing to say."""


def shown(name: str, about: str, parts: Sequence[type[msgspec.Struct]], changed: Mapping[str, Any]) -> Any:
    """A type with the fields of several, all of which are there, some of them of another type."""
    fields: list[Any] = [
        (field.name, changed.get(field.name, field.type), *([field.default] if field.default is UNSET else []))
        for part in parts
        for field in msgspec.structs.fields(part)
    ]
    return msgspec.defstruct(name, fields, namespace={"__doc__": about}, kw_only=True, module=__name__)
