"""`jig dev`, but for the platform itself (tests/e2e/test_jig_dev.py): the watch over files, and the keeper."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from jig_process import Jig

from jig.config.file import find_config
from jig.dev.files import changes, check_syntax, look
from jig.dev.keeper import remember_context
from jig.dev.throwaway import find_program
from jig.errors import DevError


def test_files_that_come_go_and_change_are_seen(project: Path) -> None:
    config = find_config(None, project)
    before = look(config)
    assert set(before) == {"worker.py", "jig.toml"}
    (project / "worker.py").write_text("class Hello: pass\n")
    (project / "model.py").touch()
    (project / "__pycache__").mkdir()
    (project / "__pycache__" / "x.pyc").touch()
    after = look(config)
    assert changes(before, after) == ["model.py", "worker.py"]
    (project / "model.py").unlink()
    (project / "jig.toml").write_text('name = "hello"\nworker = "worker:Hello"\n\n')
    assert changes(after, look(config)) == ["jig.toml", "model.py"]
    assert changes(after, after) == []


def test_code_that_cannot_run_is_found(project: Path) -> None:
    config = find_config(None, project)
    config = replace(config, image=replace(config.image, python_version="{}.{}".format(*sys.version_info)))
    (project / "worker.py").write_text("import os\nsyntax error(\n")
    (project / "data.bin").write_bytes(b"\0")
    with pytest.raises(DevError, match=r"(?s)worker\.py:2: .*syntax error\("):
        check_syntax(config, look(config))
    check_syntax(config, ["data.bin", "gone.py"])
    # What another Python can read is not for this one to judge.
    check_syntax(replace(config, image=replace(config.image, python_version="3.99")), look(config))


def test_without_a_project_nothing_is_started(bare_jig: Jig) -> None:
    ran = bare_jig("dev")
    assert (ran.code, "There is no jig.toml" in ran.err) == (1, True)
    assert not list(Path(bare_jig.environment["TMPDIR"]).glob("jig-dev-*"))


def test_a_port_that_is_none_is_refused(bare_jig: Jig) -> None:
    assert bare_jig("dev", "--port", "99999").code == 2


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("words", "--volume must be NAME=FOLDER, not words."),
        ("words=nowhere", "--volume words=nowhere names no folder that there is."),
        ("words=", "--volume words= names no folder that there is."),
        ("a b=.", "cannot be a volume's name."),
    ],
)
def test_a_volume_is_a_name_and_a_folder(bare_jig: Jig, project: Path, word: str, said: str) -> None:
    finished = bare_jig("dev", "--volume", word)
    assert finished.code == 2
    assert said in finished.err


def test_without_machineshop_that_is_said(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DevError, match=r"machineshop is not installed: it is neither in .* nor on the PATH"):
        find_program()
    program = tmp_path / "machineshop"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_program() == program


PLATFORM = """
import signal, sys, time
from pathlib import Path

signal.signal(signal.SIGINT, lambda *_: (Path(sys.argv[1]).write_text("interrupted"), sys.exit(0)))
Path("running").touch()
time.sleep(300)
"""


def test_the_keeper_ends_all_when_jig_is_gone(tmp_path: Path) -> None:
    folder, contexts, trace = tmp_path / "dev", tmp_path / "contexts.json", tmp_path / "trace"
    folder.mkdir()
    known = {name: {"base_url": "http://127.0.0.1:1", "api_key": "k"} for name in ("mine", "dev-1")}
    contexts.write_text(json.dumps({"current": "dev-1", "contexts": known}))
    remember_context(folder, "dev-1", "mine")
    keeper = start_keeper(folder, contexts, "-c", PLATFORM, str(trace))
    wait_for(folder / "running")
    assert keeper.stdin
    keeper.stdin.close()
    assert keeper.wait(60) == 0
    assert trace.read_text() == "interrupted"
    assert not folder.exists()
    left = json.loads(contexts.read_text())
    assert (left["current"], list(left["contexts"])) == ("mine", ["mine"])


def test_the_keeper_leaves_a_context_alone_that_was_chosen_meanwhile(tmp_path: Path) -> None:
    folder, contexts = tmp_path / "dev", tmp_path / "contexts.json"
    folder.mkdir()
    known = {name: {"base_url": "http://127.0.0.1:1", "api_key": "k"} for name in ("mine", "other", "dev-1")}
    contexts.write_text(json.dumps({"current": "other", "contexts": known}))
    remember_context(folder, "dev-1", "mine")
    keeper = start_keeper(folder, contexts, "-c", "print('the port is taken')")
    wait_for(folder / "ended")
    assert (folder / "platform.log").read_text() == "the port is taken\n"
    assert keeper.stdin
    keeper.stdin.close()
    keeper.wait(60)
    assert json.loads(contexts.read_text())["current"] == "other"


def start_keeper(folder: Path, contexts: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "jig.dev.keeper", str(folder), sys.executable, *arguments],
        stdin=subprocess.PIPE,
        env={**os.environ, "JIG_CONTEXTS": str(contexts)},
        start_new_session=True,
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} has not come"
        time.sleep(0.02)
