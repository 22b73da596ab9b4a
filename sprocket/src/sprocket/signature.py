"""How a worker's predict is called, read once from its signature: with the payload as it is, or with typed inputs.

Nothing here needs pydantic: a worker without annotations must run without it.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union

from .errors import ConfigError

MISSING = inspect.Parameter.empty
PLAIN_TYPES = (dict, Mapping, MutableMapping, Any, object)
LIST_TYPES = (list, Sequence)
FREE_FORM: Mapping[str, Any] = {"type": "object", "additionalProperties": True}
"""The JSON schema of an object that nobody has described."""
BINDABLE = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Form(enum.Enum):
    """What predict is called with."""

    PLAIN = "plain"
    """The payload, a dict that nobody has looked at: `predict(self, args)`, `predict(self, args: dict)`."""
    OBJECT = "object"
    """The payload as one object of the author's: `predict(self, args: MyInput)`."""
    FIELDS = "fields"
    """The payload's fields as keyword arguments: `predict(self, prompt: str, steps: int = 30)`."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of predict. `default` is MISSING where the payload must have it."""

    name: str
    annotation: Any
    default: Any


@dataclass(frozen=True)
class Signature:
    """How predict is called.

    Attributes:
        where: the method, for error texts: `Hello.predict`.
        form: what it is called with.
        fields: its parameters; exactly one for the form OBJECT, none for PLAIN.
        more: the annotation of `**more`; MISSING where it takes no fields beyond its parameters.
        returns: the annotation of its result; MISSING where there is none that can be read.
    """

    where: str
    form: Form
    fields: tuple[Parameter, ...] = ()
    more: Any = MISSING
    returns: Any = MISSING


def signature_of_predict(cls: type[Any]) -> Signature:
    """Read how a worker's `predict` wants its input.

    Raises:
        ConfigError: an annotation names something unknown, or a parameter cannot be given by name.
    """
    where = f"{cls.__name__}.predict"
    parameters, returns = _read(cls.predict, where)
    named = [parameter for parameter in parameters if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    more = next((p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD), None)
    if all(parameter.annotation is MISSING for parameter in parameters):
        return Signature(where, Form.PLAIN, returns=returns)
    if len(parameters) == 1 and _is_plain(parameters[0].annotation):
        return Signature(where, Form.PLAIN, returns=returns)
    fields = tuple(Parameter(p.name, Any if p.annotation is MISSING else p.annotation, p.default) for p in named)
    if len(parameters) == 1 and is_object(parameters[0].annotation):
        return Signature(where, Form.OBJECT, fields, returns=returns)
    for parameter in named:
        if parameter.kind not in BINDABLE:
            raise ConfigError(
                f"{where}: the payload's fields are given by name, and {parameter.name!r} does not take one: "
                "declare it without * and /"
            )
    return Signature(where, Form.FIELDS, fields, _annotation_of_more(more), returns)


def signature_of_batch(cls: type[Any]) -> Signature:
    """Read what a worker's `predict_batch` wants a list of: `list[MyInput]`, or plain payloads.

    Raises:
        ConfigError: it does not take one list.
    """
    where = f"{cls.__name__}.predict_batch"
    parameters, returns = _read(cls.predict_batch, where)
    if len(parameters) != 1:
        raise ConfigError(f"{where} must take one parameter, the list of inputs, not {len(parameters)}")
    returned = _item_of(returns)
    annotation = parameters[0].annotation
    if annotation is MISSING:
        return Signature(where, Form.PLAIN, returns=returned)
    if (typing.get_origin(annotation) or annotation) not in LIST_TYPES:
        raise ConfigError(f"{where}: its parameter is a list of inputs; annotate it as list or list[MyInput]")
    item = _item_of(annotation)
    if item is MISSING or _is_plain(item):
        return Signature(where, Form.PLAIN, returns=returned)
    if not is_object(item):
        raise ConfigError(
            f"{where}: each input is an object, so annotate the list's items with a pydantic model, "
            "a dataclass, a TypedDict or dict"
        )
    return Signature(where, Form.OBJECT, (Parameter(parameters[0].name, item, MISSING),), returns=returned)


def is_object(annotation: Any) -> bool:
    """Whether values of this type are JSON objects with named fields, and nothing else."""
    annotation = _bare(annotation)
    if typing.get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        return all(is_object(member) for member in members)
    kind = typing.get_origin(annotation) or annotation
    return isinstance(kind, type) and (
        hasattr(kind, "model_validate")
        or dataclasses.is_dataclass(kind)
        or (issubclass(kind, dict) and hasattr(kind, "__required_keys__"))
    )


def _read(method: Callable[..., Any], where: str) -> tuple[list[inspect.Parameter], Any]:
    """Give the parameters after `self` with real annotations, and that of the result."""
    function = inspect.unwrap(method)
    signature = inspect.signature(function)
    names = getattr(function, "__globals__", {})
    parameters = [
        parameter.replace(annotation=_evaluated(parameter.annotation, names, f"{where}: the parameter {name!r}"))
        for name, parameter in list(signature.parameters.items())[1:]
    ]
    try:
        returns = _evaluated(signature.return_annotation, names, where)
    except ConfigError:
        returns = MISSING  # It documents the outputs, and nothing more hangs on it.
    return parameters, returns


def _evaluated(annotation: Any, names: dict[str, Any], where: str) -> Any:
    if annotation is MISSING:
        return MISSING
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, globalns=names, include_extras=True)["it"]
    except Exception as error:  # noqa: BLE001 - an annotation in quotes is code of the author's, and may raise anything
        raise ConfigError(
            f"{where} has the annotation {annotation!r}, which cannot be read: {error}; "
            "what it names must be defined at the top of the worker's module"
        ) from None


def _annotation_of_more(more: inspect.Parameter | None) -> Any:
    if more is None:
        return MISSING
    return Any if more.annotation is MISSING else more.annotation


def _item_of(annotation: Any) -> Any:
    arguments = typing.get_args(annotation)
    return arguments[0] if len(arguments) == 1 else MISSING


def _is_plain(annotation: Any) -> bool:
    annotation = _bare(annotation)
    return any((typing.get_origin(annotation) or annotation) is plain for plain in PLAIN_TYPES)


def _bare(annotation: Any) -> Any:
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation
