"""Reading a body: what is wrong with it is told to the caller, and names the field."""

import msgspec
import pytest

from machineshop.api.endpoint import decode
from machineshop.errors import MalformedBody


class Thing(msgspec.Struct):
    name: str
    payload: msgspec.Raw
    sizes: list[int] = []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"name": "a", "payload": {}', None),
        (b'{"name": "a"}', "payload"),
        (b'{"name": 5, "payload": {}}', "name"),
        (b'{"name": "a", "payload": {}, "sizes": [1, "2"]}', "sizes[1]"),
        (b'{"name": "a", "payload": {"text": "\xff"}}', None),
        (b'{"name": "a", "payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(body: bytes, param: str | None) -> None:
    with pytest.raises(MalformedBody) as raised:
        decode(body, msgspec.json.Decoder(Thing))
    assert raised.value.param == param
