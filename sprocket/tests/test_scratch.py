from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sprocket.scratch import PREFIX, Scratch, remove_leftovers

DYING = """
import os
from sprocket.scratch import Scratch
(Scratch().make() / "big.bin").write_bytes(b"x")
os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


async def test_every_job_has_a_directory_of_its_own_until_it_ends() -> None:
    scratch = Scratch()
    one, two = scratch.make(), scratch.make()
    assert one != two
    await scratch.remove(one)
    assert (one.exists(), two.exists()) == (False, True)
    scratch.close()


def test_nothing_is_left_after_an_orderly_end(temporary: Path) -> None:
    scratch = Scratch()
    (scratch.make() / "a").write_text("x")
    scratch.close()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(temporary: Path) -> None:
    living = Scratch()
    kept = living.make()
    killed = subprocess.run([sys.executable, "-c", DYING], env={**os.environ, "TMPDIR": str(temporary)}, check=False)
    assert killed.returncode == -9
    assert len(list(temporary.glob("*/*/big.bin"))) == 1
    assert remove_leftovers() == 1
    assert list(temporary.glob("*/*")) == [kept]
    assert remove_leftovers() == 0
    living.close()


def test_what_others_keep_there_under_a_name_like_ours_stays(temporary: Path) -> None:
    (temporary / f"{PREFIX}mine").mkdir()
    (temporary / f"{PREFIX}abcdefgh").write_text("a file")
    target = temporary / "target"
    target.mkdir()
    (temporary / f"{PREFIX}12345678").symlink_to(target)
    assert remove_leftovers() == 0
    assert len(list(temporary.iterdir())) == 4


def test_a_root_that_somebody_has_removed_is_made_anew(temporary: Path) -> None:
    scratch = Scratch()
    first = scratch.make()
    first.rmdir()
    first.parent.rmdir()
    assert scratch.make().is_dir()
    scratch.close()
    assert list(temporary.iterdir()) == []
