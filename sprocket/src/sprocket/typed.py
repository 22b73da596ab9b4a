"""Typed inputs, read by pydantic. Imported where a worker has some, and nowhere else."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import pydantic
from pydantic.json_schema import PydanticJsonSchemaWarning

from .errors import ConfigError, InvalidInputError
from .signature import FREE_FORM, MISSING, Form, Parameter, Signature

MISTAKES_SHOWN = 5
"""Who has made more of them starts with these."""

INPUT_TEMPLATE = "#/components/schemas/{model}"
OUTPUT_TEMPLATE = "#/components/schemas/{model}-Output"
"""Where /openapi.json keeps the types that others refer to. One type may look different on its way in and out."""

NOT_THERE_YET = frozenset({"path_not_file", "path_not_directory", "path_exists"})
"""What pydantic finds wrong with a path to a file that has not been fetched yet."""


class TypedInputs:
    """Payloads as their author's types.

    A payload with files is looked at twice: before they are fetched, so that nothing is fetched in vain, and afterwards
    with their paths in it.

    Raises:
        ConfigError: pydantic does not know what to do with an annotation; the text names the method and says why.
    """

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._adapter = _adapter_for(signature)
        self._addresses = {name for name, schema in _properties(self.schema()).items() if _is_address(schema)}

    def check(self, payload: dict[str, Any]) -> None:
        """See `Inputs`. A file that has to exist need not do so yet."""
        try:
            self._adapter.validate_python(payload)
        except pydantic.ValidationError as error:
            mistakes = [mistake for mistake in error.errors(include_url=False) if not _is_about_a_file(mistake)]
            if mistakes:
                raise _invalid(mistakes, payload) from None

    def fetchable(self, payload: dict[str, Any]) -> dict[str, Any]:
        """See `Inputs`. What is annotated as an address (`pydantic.HttpUrl`) is wanted as one."""
        if not self._addresses:
            return payload
        return {name: value for name, value in payload.items() if name not in self._addresses}

    def bind(self, payload: dict[str, Any]) -> Any:
        """See `Inputs`."""
        try:
            bound = self._adapter.validate_python(payload)
        except pydantic.ValidationError as error:
            raise _invalid(error.errors(include_url=False), payload) from None
        return self._keywords(bound) if self._signature.form is Form.FIELDS else bound

    def call(self, predict: Callable[..., Any], bound: Any) -> Any:
        """See `Inputs`."""
        return predict(**bound) if self._signature.form is Form.FIELDS else predict(bound)

    def schema(self) -> Mapping[str, Any]:
        """See `Inputs`."""
        return _schema(self._adapter, INPUT_TEMPLATE)

    def _keywords(self, bound: Any) -> dict[str, Any]:
        """Give what predict is called with; what the payload leaves out is left to predict's own default."""
        keywords = {
            field.name: getattr(bound, _slot(index))
            for index, field in enumerate(self._signature.fields)
            if _slot(index) in bound.model_fields_set or isinstance(field.default, pydantic.fields.FieldInfo)
        }
        return {**keywords, **(bound.model_extra or {})}


def schema_of_outputs(annotation: Any) -> Mapping[str, Any]:
    """Give the JSON schema of what predict returns; that of any object where pydantic cannot say."""
    try:
        with _without_remarks():
            adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(annotation)
            return adapter.json_schema(mode="serialization", ref_template=OUTPUT_TEMPLATE)
    except (pydantic.errors.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation):
        return FREE_FORM


def _adapter_for(signature: Signature) -> pydantic.TypeAdapter[Any]:
    if signature.form is Form.OBJECT:
        return _adapter(signature.fields[0].annotation, signature.where)
    for field in signature.fields:
        _adapter(field.annotation, f"{signature.where}: the parameter {field.name!r}")
    return _adapter(_model_of(signature), signature.where)


def _adapter(annotation: Any, where: str) -> pydantic.TypeAdapter[Any]:
    try:
        with _without_remarks():
            adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(annotation)
            _schema(adapter, INPUT_TEMPLATE)  # Fails where something that the types refer to is not defined.
    except Exception as error:  # noqa: BLE001 - whatever it is, it is about the annotation
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(f"{where} has an annotation that cannot be used for reading JSON: {why}") from None
    return adapter


def _schema(adapter: pydantic.TypeAdapter[Any], template: str) -> Mapping[str, Any]:
    """Give the JSON schema; that of any object where a type has a validator of its own and JSON has no word for it."""
    try:
        with _without_remarks():
            return adapter.json_schema(ref_template=template)
    except pydantic.errors.PydanticInvalidForJsonSchema:
        return FREE_FORM


def _model_of(signature: Signature) -> type[pydantic.BaseModel]:
    """Make a model of predict's parameters.

    Its attributes have names of our own, and the parameters' names are aliases: a parameter may be called `copy`,
    `schema` or `_x`, and a model's attribute may not.
    """
    fields: Any = {_slot(index): _declared(field) for index, field in enumerate(signature.fields)}
    config = pydantic.ConfigDict(extra="forbid" if signature.more is MISSING else "allow", title=_title(signature))
    if signature.more not in (MISSING, Any):
        fields["__pydantic_extra__"] = (dict[str, signature.more], ...)  # type: ignore[name-defined]  # a type that is known at run time
    return pydantic.create_model(_title(signature), __config__=config, **fields)


def _declared(field: Parameter) -> tuple[Any, Any]:
    annotation = Annotated[field.annotation, pydantic.Field(alias=field.name)]  # type: ignore[name-defined]  # as above
    return (annotation, ... if field.default is MISSING else field.default)


def _slot(index: int) -> str:
    return f"p{index}"


def _title(signature: Signature) -> str:
    return signature.where.partition(".")[0] + "Input"


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Leave out what pydantic remarks on: a default that JSON cannot carry is no mistake."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PydanticJsonSchemaWarning)
        warnings.simplefilter("ignore", pydantic.warnings.PydanticDeprecatedSince20)
        yield


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in schema:
        schema = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    properties: Mapping[str, Any] = schema.get("properties", {})
    return properties


def _is_address(schema: Mapping[str, Any]) -> bool:
    return schema.get("format") == "uri" or any(_is_address(choice) for choice in schema.get("anyOf", ()))


def _is_about_a_file(mistake: Mapping[str, Any]) -> bool:
    return mistake["type"] in NOT_THERE_YET and "://" in str(mistake["input"])


def _invalid(mistakes: list[Any], payload: dict[str, Any]) -> InvalidInputError:
    places = [_place(mistake, payload) for mistake in mistakes]
    texts = [_text(mistake["msg"], place) for mistake, place in zip(mistakes, places, strict=True)]
    if len(texts) > MISTAKES_SHOWN:
        texts[MISTAKES_SHOWN:] = [f"and {len(texts) - MISTAKES_SHOWN} more"]
    return InvalidInputError("; ".join(texts), places[0])


def _place(mistake: Mapping[str, Any], payload: dict[str, Any]) -> tuple[str | int, ...]:
    """Say where in the payload a mistake is.

    Pydantic's own path also names which of several types it had tried there, which nobody can look up in the payload.
    """
    *inner, last = mistake["loc"] or (None,)
    path: list[str | int] = []
    value: Any = payload
    for part in [*inner, last]:
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and part in range(len(value))):
            value = value[part]
            path.append(part)
    if mistake["type"] == "missing" and last is not None:
        path.append(last)
    return tuple(path)


def _text(message: str, place: tuple[str | int, ...]) -> str:
    return f"{'.'.join(map(str, place))}: {message}" if place else message
