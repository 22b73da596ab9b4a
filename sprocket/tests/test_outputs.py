from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from sprocket import FileOutput, OutputError
from sprocket.outputs import encode_outputs


def test_outputs_come_through_unchanged() -> None:
    outputs = {"text": 'é " \n', "n": [1, 2.5, None, True], "deep": {"a": {"b": []}}}
    assert json.loads(encode_outputs(outputs).text()) == outputs


def test_empty_outputs_are_an_object() -> None:
    assert encode_outputs({}).text() == "{}"


def test_a_files_address_takes_its_place_at_any_depth(tmp_path: Path) -> None:
    one, two = FileOutput(tmp_path / "1.txt"), FileOutput(str(tmp_path / "2.txt"))
    for file in (one, two):
        file.write_text("x")
    encoded = encode_outputs({"a": one, "b": [{"c": two}, "text", (one,)], "d": 1})
    assert encoded.files == [one, two]
    text = encoded.text({one: 'https://one"', two: "https://two"})
    assert json.loads(text) == {
        "a": 'https://one"',
        "b": [{"c": "https://two"}, "text", ['https://one"']],
        "d": 1,
    }


class Picture(BaseModel):
    image: FileOutput
    thumbnails: tuple[FileOutput, ...] = ()
    by_number: dict[int, Path] = {}


def test_files_of_a_pydantic_model_are_files(tmp_path: Path) -> None:
    one, two = FileOutput(tmp_path / "1.png"), FileOutput(tmp_path / "2.png")
    for file in (one, two):
        file.write_text("x")
    encoded = encode_outputs(Picture(image=one, thumbnails=(one, two), by_number={7: tmp_path}))
    assert encoded.files == [one, two]
    assert json.loads(encoded.text({one: "https://one", two: "https://two"})) == {
        "image": "https://one",
        "thumbnails": ["https://one", "https://two"],
        "by_number": {"7": str(tmp_path)},
    }
    assert Picture.model_json_schema(mode="serialization")["properties"]["image"]["format"] == "uri"


def test_a_file_output_is_a_path(tmp_path: Path) -> None:
    file = FileOutput(str(tmp_path), "a.txt")
    file.write_text("x")
    assert (file.name, file.read_text(), str(file)) == ("a.txt", "x", str(tmp_path / "a.txt"))
    assert repr(file) == f"FileOutput({str(file)!r})"
    assert isinstance(file, Path)


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
        ({"a": [FileOutput("/no/such")]}, r"outputs\['a'\]\[0\] is a FileOutput, but there is no file at /no/such"),
        ({"a": FileOutput("/tmp")}, "no file at /tmp"),
        ({"a": Path("/tmp/x")}, r"is a path; return FileOutput\(path\)"),
        ({"a": FileOutput("/no/such/file")}, "no file at /no/such/file"),
        ({"a": cycle}, "contains itself"),
        ({"a": {(1, 2): 3}}, "keys must be"),
    ],
)
def test_what_cannot_be_sent_is_named_with_its_place(value: object, complaint: str) -> None:
    with pytest.raises(OutputError, match=complaint):
        encode_outputs(value)
