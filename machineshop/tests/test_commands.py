"""What the command line itself costs: its help and its errors load nothing of the platform."""

import os
import subprocess
import sys

import pytest

from machineshop.cli import COMMANDS, GROUPS

HEAVY = ("sqlalchemy", "alembic", "starlette", "uvicorn", "aiohttp", "cryptography", "pygments", "machineshop.app")
PATHS = [path for commands in (COMMANDS, *(each for _, each in GROUPS.values())) for _, path, _ in commands]
FILES = sorted({path.partition(":")[0] for path in PATHS})


@pytest.mark.parametrize("file", FILES)
def test_a_command_is_loaded_without_what_it_runs_on(file: str) -> None:
    code = f"import sys, machineshop.commands.{file}; print(*(each for each in {HEAVY!r} if each in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.split() == []


def test_an_option_that_is_no_number_is_told_in_words() -> None:
    code = "import sys; from machineshop.cli import main; sys.argv[1:] = ['serve', '--port', 'x']; main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr.splitlines()[0]) == (
        2,
        'machineshop: --port must be a whole number, not "x".',
    )


def test_a_reader_that_has_seen_enough_is_no_defect() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "import sys; from machineshop.cli import main; sys.argv[1:] = ['--help']; main()"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")
