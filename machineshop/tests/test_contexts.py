"""The jig context that a platform leaves on its machine."""

import json
import socket
import stat
from pathlib import Path
from typing import Any

from machineshop.contexts import leave_context


def contexts(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_first_platform_is_local_and_current(tmp_path: Path) -> None:
    path = tmp_path / "jig" / "contexts.json"
    assert leave_context(path, "http://127.0.0.1:1", "key-1") == ("local", True)
    assert contexts(path)["current"] == "local"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_platform_that_moves_keeps_its_context(tmp_path: Path) -> None:
    path = tmp_path / "contexts.json"
    leave_context(path, "http://127.0.0.1:1", "key-1")
    assert leave_context(path, "http://127.0.0.1:2", "key-1") == ("local", True)
    assert contexts(path)["contexts"] == {"local": {"base_url": "http://127.0.0.1:2", "api_key": "key-1"}}


def test_a_second_platform_does_not_take_the_place_of_one_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "contexts.json"
    with socket.create_server(("127.0.0.1", 0)) as first:
        leave_context(path, f"http://127.0.0.1:{first.getsockname()[1]}", "key-1")
        assert leave_context(path, "http://127.0.0.1:2", "key-2") == ("local-2", False)
        assert contexts(path)["current"] == "local"
    assert leave_context(path, "http://127.0.0.1:2", "key-2") == ("local", True)  # the first one is gone


def test_other_contexts_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "contexts.json"
    mine = {"current": "work", "contexts": {"work": {"base_url": "https://work", "api_key": "w"}}}
    path.write_text(json.dumps(mine))
    leave_context(path, "http://127.0.0.1:1", "key-1")
    assert contexts(path)["current"] == "work"
    assert contexts(path)["contexts"]["work"] == mine["contexts"]["work"]  # type: ignore[index]


def test_a_file_that_is_no_contexts_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "contexts.json"
    for text in ("not json", "[]", '{"contexts": []}', '{"contexts": {"local": "text"}}'):
        path.write_text(text)
        assert leave_context(path, "http://127.0.0.1:1", "key-1") is None
        assert path.read_text() == text
