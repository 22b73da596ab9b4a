from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sprocket import FileOutput, OutputError
from sprocket.outputs import encode_outputs, join


def test_outputs_come_through_unchanged() -> None:
    outputs = {"text": 'é " \n', "n": [1, 2.5, None, True], "deep": {"a": {"b": []}}}
    encoded = encode_outputs(outputs)
    assert json.loads(join({name: str(text) for name, text in encoded.items()})) == outputs


def test_empty_outputs_are_an_object() -> None:
    assert join({}) == "{}"


def test_files_stay_files(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    file = FileOutput(str(path))
    assert encode_outputs({"file": file}) == {"file": file}


class Tensor:
    pass


cycle: list[Any] = []
cycle.append(cycle)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (None, "returned None"),
        ("text", "returned str"),
        ([1], "returned list"),
        ({1: "a"}, "names must be strings"),
        ({"a": float("nan")}, r"outputs\['a'\] is nan; JSON has no NaN"),
        ({"a": [{"b": float("inf")}]}, r"outputs\['a'\]\[0\]\['b'\] is inf"),
        ({"a": b"raw"}, "is bytes, which is not JSON"),
        ({"a": {"b": Tensor()}}, r"outputs\['a'\]\['b'\] is .*Tensor, which is not JSON"),
        ({"a": {1, 2}}, "is set"),
        ({"a": [FileOutput("/x")]}, "only at the top level"),
        ({"a": FileOutput("/no/such/file")}, "no file at /no/such/file"),
        ({"a": cycle}, "contains itself"),
        ({"a": {(1, 2): 3}}, "keys must be"),
    ],
)
def test_what_cannot_be_sent_is_named_with_its_place(value: object, complaint: str) -> None:
    with pytest.raises(OutputError, match=complaint):
        encode_outputs(value)
