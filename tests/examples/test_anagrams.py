"""anagrams: its words come from a volume, in the version that the config names."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from machineshop.runtime.views import try_out
from platform_process import PlatformProcess

EXAMPLE = Path(__file__).parents[2] / "examples" / "anagrams"


@pytest.fixture
def folder(platform: PlatformProcess, tmp_path: Path) -> Iterator[Path]:
    """A copy of the example, to be changed; nothing of it is left on the platform."""
    if (why_not := try_out()) is not None:
        pytest.skip(why_not)
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "anagrams"))
    yield folder
    platform.jig("destroy", "--yes", cwd=folder, check=False)
    platform.jig("volumes", "delete", "words", "--yes", cwd=folder, check=False)


def anagrams(platform: PlatformProcess, word: str) -> list[str]:
    job = platform.finished("anagrams", platform.submit("anagrams", {"word": word}))
    assert job["status"] == "done", job
    found: list[str] = job["outputs"]["anagrams"]
    return found


def test_words_change_with_the_version_and_not_before(platform: PlatformProcess, folder: Path) -> None:
    refused = platform.jig("deploy", cwd=folder, check=False)
    assert refused.returncode == 1
    assert "There is no volume words." in refused.stderr

    platform.jig("volumes", "create", "words", "words", cwd=folder)
    platform.deploy(folder)
    assert anagrams(platform, "listen") == ["enlist", "inlets", "silent", "tinsel"]

    (folder / "words" / "latin.txt").write_text("lentis\n")
    updated = platform.jig("volumes", "update", "words", "words", cwd=folder)
    assert updated.stdout == "words has version 1: 2 files, 1 file sent, 7 B.\n"
    assert "words version 0, as before" in platform.jig("deploy", cwd=folder).stderr
    assert "lentis" not in anagrams(platform, "listen")

    with (folder / "pyproject.toml").open("a") as config:
        config.write("version = 1\n")
    platform.deploy(folder)
    assert "lentis" in anagrams(platform, "listen")
    shown = platform.jig("status", cwd=folder).stdout
    assert "words version 1 at /machineshop-examples/words" in shown
    assert "loaded" in shown


def test_a_payload_without_a_word_is_refused(platform: PlatformProcess, folder: Path) -> None:
    platform.jig("volumes", "create", "words", "words", cwd=folder)
    platform.deploy(folder)
    failed = platform.jig("submit", "--payload", "{}", "--watch", "--json", cwd=folder, check=False)
    assert 'the payload needs a "word"' in json.dumps(json.loads(failed.stdout)).replace('\\"', '"')
