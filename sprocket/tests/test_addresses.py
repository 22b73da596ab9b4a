from __future__ import annotations

import copy
from typing import Any

from sprocket.addresses import files_in, with_paths


def is_address(value: str) -> bool:
    return value.startswith("https://")


PAYLOAD: dict[str, Any] = {
    "image": "https://a/1.png",
    "n": 1,
    "scenes": [{"take": "https://a/2.png", "text": "hello"}, {"take": None}, ["https://a/3.png"]],
    "empty": {},
}


def test_addresses_at_the_top_level_alone() -> None:
    found = files_in(PAYLOAD, is_address, nested=False)
    assert [(wanted.name, wanted.address) for wanted in found] == [("'image'", "https://a/1.png")]


def test_addresses_at_any_depth_in_their_order() -> None:
    found = files_in(PAYLOAD, is_address, nested=True)
    assert [(wanted.name, wanted.address) for wanted in found] == [
        ("'image'", "https://a/1.png"),
        ("'scenes'[0]['take']", "https://a/2.png"),
        ("'scenes'[2][0]", "https://a/3.png"),
    ]


def test_paths_take_the_places_of_addresses_in_a_copy() -> None:
    before = copy.deepcopy(PAYLOAD)
    found = files_in(PAYLOAD, is_address, nested=True)
    changed = with_paths(PAYLOAD, {wanted.place: wanted.address.replace("https://", "/tmp/") for wanted in found})
    assert changed == {
        "image": "/tmp/a/1.png",
        "n": 1,
        "scenes": [{"take": "/tmp/a/2.png", "text": "hello"}, {"take": None}, ["/tmp/a/3.png"]],
        "empty": {},
    }
    assert before == PAYLOAD


def test_no_depth_is_too_deep() -> None:
    deep: Any = "https://a/1.png"
    for _ in range(100_000):
        deep = [deep]
    (found,) = files_in({"deep": deep}, is_address, nested=True)
    assert len(found.place) == 100_001
    while isinstance(deep, list):  # freed from the outside in, or the interpreter runs out of stack
        deep = deep.pop()
