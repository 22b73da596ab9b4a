from __future__ import annotations

from sprocket import FileOutput
from sprocket.files import names_of


def test_no_two_files_get_one_name() -> None:
    paths = ["/a/out.png", "/b/out.png", "/c/out-2.png", "/a/log", "/b/log", "/x/a b", "/y/a_b", "/c/out.png"]
    names = names_of([FileOutput(path) for path in paths])
    assert names == ["out.png", "out-2.png", "out-2-2.png", "log", "log-2", "a_b", "a_b-2", "out-3.png"]
