"""The guide cannot drift from the code."""

from __future__ import annotations

import re
from pathlib import Path

import sprocket
from sprocket.metrics import OUTCOMES, Metrics

HERE = Path(__file__).parent
GUIDE = (HERE.parents[1] / "docs" / "sprocket.md").read_text()
PLAIN_SETTINGS = {"PORT", "RUN_AND_EXIT", "SSL_CERT_FILE", "VERSION", "WORLD_SIZE"}
SOURCE = "\n".join(path.read_text() for path in (HERE.parent / "src" / "sprocket").glob("*.py"))


def test_every_setting_is_in_the_guide_and_the_other_way_round() -> None:
    pattern = r"\b(?:TOGETHER|SPROCKET|MACHINESHOP|TERMINATION)_[A-Z_]+[A-Z]\b"
    in_code = set(re.findall(pattern, SOURCE)) | PLAIN_SETTINGS
    table = GUIDE.partition("## Environment")[2]
    assert set(re.findall(r"^\| `([A-Z_]+)`", table, re.MULTILINE)) == in_code


def test_every_metric_is_in_the_guide() -> None:
    names = set(re.findall(r"^# TYPE (\S+)", Metrics().render(), re.MULTILINE))
    assert {name for name in names if name not in GUIDE} == set()
    assert all(f'outcome="{outcome}"' in Metrics().render() for outcome in OUTCOMES)


def test_what_an_author_calls_is_in_the_guide_and_has_a_docstring() -> None:
    names = [name for name in sprocket.__all__ if not name.startswith("_") and not name.endswith("Error")]
    assert [name for name in names if name not in GUIDE] == []
    documented = [getattr(sprocket, name) for name in names if name != "log"]
    assert all(thing.__doc__ for thing in documented)


def test_the_version_is_the_distributions() -> None:
    project = (HERE.parent / "pyproject.toml").read_text()
    assert f'version = "{sprocket.__version__}"' in project
