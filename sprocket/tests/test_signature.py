"""How predict's signature decides on what it is called with."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

import sprocket
from sprocket.errors import ConfigError, InvalidInputError
from sprocket.inputs import inputs_of
from sprocket.model import Model
from sprocket.signature import Form, signature_of_predict

if TYPE_CHECKING:
    from decimal import Decimal


class Cat(BaseModel):
    lives: int = 9


class Dog(BaseModel):
    name: str


@dataclass
class Bird:
    wings: int = 2


class Fish(TypedDict):
    depth: float


def plain_any(self: Any, whatever: Any) -> Any: ...
def plain_bare(self: Any, args): ...  # type: ignore[no-untyped-def]
def plain_bare_with_more(self: Any, args, verbose=False): ...  # type: ignore[no-untyped-def]
def plain_dict(self: Any, args: dict[str, Any]) -> Decimal | None: ...
def plain_old(self: Any, args: typing.Dict[str, int]) -> Any: ...  # noqa: UP006 - what older code says
def plain_mapping(self: Any, args: Mapping[str, Any]) -> Any: ...
def object_model(self: Any, args: Cat) -> Any: ...
def object_dataclass(self: Any, args: Bird) -> Any: ...
def object_dict(self: Any, args: Fish) -> Any: ...
def object_either(self: Any, args: Annotated[Cat | Dog, "either"]) -> Any: ...
def object_optional(self: Any, args: Optional[Cat]) -> Any: ...  # noqa: UP045 - what older code says
def fields_one(self: Any, prompt: str) -> Any: ...
def fields_list(self: Any, prompts: list[Cat]) -> Any: ...
def fields_dict_beside(self: Any, args: dict[str, Any], steps: int = 30) -> Any: ...
def fields_none(self: Any) -> Any: ...
def fields_keyword_only(self: Any, *, prompt: str) -> Any: ...
def fields_more(self: Any, prompt: str, **more: float) -> Any: ...


def signed(method: Callable[..., Any]) -> type[Any]:
    return type("Hello", (), {"predict": method})


@pytest.mark.parametrize("method", [f for name, f in list(globals().items()) if name.startswith(("plain_", "object_"))])
def test_one_parameter_is_the_payload_or_an_object_of_it(method: Callable[..., Any]) -> None:
    form = Form[method.__name__.partition("_")[0].upper()]
    assert signature_of_predict(signed(method)).form is form


@pytest.mark.parametrize("method", [fields_one, fields_list, fields_dict_beside, fields_keyword_only, fields_more])
def test_anything_else_that_is_annotated_takes_the_payloads_fields(method: Callable[..., Any]) -> None:
    assert signature_of_predict(signed(method)).form is Form.FIELDS


def called(method: Callable[..., Any], payload: dict[str, Any]) -> Any:
    inputs = inputs_of(signature_of_predict(signed(method)))
    return inputs.call(lambda *args, **fields: args[0] if args else fields, inputs.bind(payload))


def test_a_default_stays_pythons_own() -> None:
    marker = object()

    def predict(self: Any, n: int, thing: Any = marker, schema: str = "public", _x: int = 1) -> Any: ...

    assert called(predict, {"n": 1}) == {"n": 1}
    assert called(predict, {"n": 1, "schema": "a", "_x": "2"}) == {"n": 1, "schema": "a", "_x": 2}


def test_fields_that_nobody_declared_are_refused_unless_predict_takes_more() -> None:
    with pytest.raises(InvalidInputError, match="promt: Extra inputs are not permitted"):
        called(fields_one, {"prompt": "x", "promt": "y"})
    assert called(fields_more, {"prompt": "x", "scale": "0.5"}) == {"prompt": "x", "scale": 0.5}
    with pytest.raises(InvalidInputError, match="scale: Input should be a valid number"):
        called(fields_more, {"prompt": "x", "scale": "large"})
    assert called(object_model, {"lives": 3, "other": 1}) == Cat(lives=3)


def test_a_path_is_one_in_the_payload_whatever_types_were_tried() -> None:
    def predict(self: Any, pets: list[Cat | Dog], n: int = 0) -> Any: ...

    with pytest.raises(InvalidInputError) as caught:
        called(predict, {"pets": [{"lives": 1}, {"lives": "many"}]})
    assert caught.value.path == ("pets", 1, "lives")
    with pytest.raises(InvalidInputError) as caught:
        called(object_either, {"lives": "many"})
    assert str(caught.value) == (
        "lives: Input should be a valid integer, unable to parse string as an integer; name: Field required"
    )


def test_many_mistakes_are_cut_short() -> None:
    with pytest.raises(InvalidInputError, match="and 995 more"):
        called(fields_list, {"prompts": [{"lives": "x"}] * 1000})


def test_a_name_that_is_not_there_is_a_mistake_in_a_parameter_and_none_in_the_result() -> None:
    def predict(self: Any, args: Decimal) -> Any: ...

    assert signature_of_predict(signed(plain_dict)).form is Form.PLAIN
    with pytest.raises(ConfigError, match="the parameter 'args' has the annotation 'Decimal', which cannot be read"):
        signature_of_predict(signed(predict))


def test_a_parameter_without_a_name_is_a_mistake() -> None:
    def predict(self: Any, n: int, /) -> Any: ...

    with pytest.raises(ConfigError, match="'n' does not take one"):
        signature_of_predict(signed(predict))


def test_a_sprocket_worker_looks_at_its_request_by_itself() -> None:
    class Requests(sprocket.SprocketWorker):
        def predict(self, request: sprocket.Request) -> Any: ...

    assert Model(Requests).signature.form is Form.PLAIN
