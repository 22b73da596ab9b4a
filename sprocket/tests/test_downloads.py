from __future__ import annotations

import pytest

from sprocket.downloads import safe_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b/photo.png", "photo.png"),
        ("/", "input"),
        ("", "input"),
        ("/..", "input"),
        ("/a/..%2f..%2fetc%2fpasswd", "passwd"),
        ("/.bashrc", "bashrc"),
        ("/my photo (1).png", "my_photo_1_.png"),
        ("/%00;rm -rf.sh", "_rm_-rf.sh"),
        ("/noextension/", "noextension"),
        ("/" + "x" * 300 + ".tar", "x" * 84 + ".tar"),
        ("/" + "x" * 300, "x" * 100),
        ("/x." + "y" * 300, "x." + "y" * 15),
    ],
)
def test_names_are_made_harmless(path: str, name: str) -> None:
    assert safe_name(path) == name
