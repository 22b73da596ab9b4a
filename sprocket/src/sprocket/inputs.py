"""From a job's payload to what predict is called with: checked, and as the types that its author asked for.

Where there are types, pydantic reads them. It is imported for such workers alone, because it takes its time and because
sprocket does not require it: it comes with `sprocket[typed]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .errors import ConfigError
from .signature import FREE_FORM, Form, Signature, is_object


class Inputs(Protocol):
    """What a model takes."""

    def check(self, payload: dict[str, Any]) -> None:
        """Look at a payload whose files have not been fetched yet.

        Raises:
            InvalidInputError: it does not fit.
        """

    def fetchable(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Give the part of the payload in which addresses stand for files."""

    def bind(self, payload: dict[str, Any]) -> Any:
        """Turn a payload, its files fetched, into what `call` passes on.

        Raises:
            InvalidInputError: it does not fit.
        """

    def call(self, predict: Callable[..., Any], bound: Any) -> Any:
        """Call predict with what `bind` gave."""

    def schema(self) -> Mapping[str, Any]:
        """Give the JSON schema of the payload."""


class PlainInputs:
    """The payload as it is."""

    def check(self, payload: dict[str, Any]) -> None:
        """See `Inputs`: everything fits."""

    def fetchable(self, payload: dict[str, Any]) -> dict[str, Any]:
        """See `Inputs`."""
        return payload

    def bind(self, payload: dict[str, Any]) -> Any:
        """See `Inputs`."""
        return payload

    def call(self, predict: Callable[..., Any], bound: Any) -> Any:
        """See `Inputs`."""
        return predict(bound)

    def schema(self) -> Mapping[str, Any]:
        """See `Inputs`."""
        return FREE_FORM


def inputs_of(signature: Signature) -> Inputs:
    """Choose how payloads are read.

    Raises:
        ConfigError: pydantic is needed and not there, or does not know what to do with an annotation.
    """
    if signature.form is Form.PLAIN:
        return PlainInputs()
    try:
        from .typed import TypedInputs  # noqa: PLC0415 - brings pydantic, which untyped workers do without
    except ImportError:
        raise ConfigError(
            f"{signature.where} has typed parameters, and reading them takes pydantic 2, which is not installed: "
            'add "sprocket[typed]" to the worker\'s dependencies, or take the payload as one dict: predict(self, args)'
        ) from None
    return TypedInputs(signature)


def output_schema(signature: Signature) -> Mapping[str, Any]:
    """Give the JSON schema of the outputs, as far as the annotation of the result says anything about them."""
    if not is_object(signature.returns):
        return FREE_FORM
    try:
        from .typed import schema_of_outputs  # noqa: PLC0415 - as above
    except ImportError:
        return FREE_FORM
    return schema_of_outputs(signature.returns)
