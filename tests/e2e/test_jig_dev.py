"""`jig dev` as a person uses it: a platform, reloads, broken code, and an end that leaves nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from platform_process import BIN, wait_for, write_worker

WORKER = """
import sprocket, time

class Worker(sprocket.Sprocket):
    def predict(self, args):
        sprocket.log.info("at work")
        time.sleep(args.get("seconds", 0))
        return {{"version": {version}}}
"""


class Dev:
    """A running `jig dev` in a folder."""

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]", said: Path, env: dict[str, str]) -> None:
        self.folder, self.process, self.env = folder, process, env
        self._said = said

    def says(self, text: str, times: int = 1) -> None:
        wait_for(lambda: self.said.count(text) >= times or self.process.poll() is not None, f"it says {text!r}")
        assert self.said.count(text) >= times, self.said

    @property
    def said(self) -> str:
        return self._said.read_text()

    def write(self, source: str) -> None:
        (self.folder / "worker.py").write_text(source)

    def submit(self, payload: dict[str, Any]) -> "subprocess.Popen[bytes]":
        """`jig submit` in another terminal."""
        command = [str(BIN / "jig"), "submit", "--payload", json.dumps(payload), "--watch"]
        return subprocess.Popen(command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE)

    def result(self, submitting: "subprocess.Popen[bytes]") -> Any:
        out, _ = submitting.communicate(timeout=60)
        assert submitting.returncode == 0, self.said
        return json.loads(out)

    @property
    def contexts(self) -> Any:
        path = Path(self.env["JIG_CONTEXTS"])
        return json.loads(path.read_text()) if path.exists() else None

    def processes(self) -> list[str]:
        """All that runs with this test's folder for temporary files, jig itself aside."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                environment = (path / "environ").read_bytes()
            except OSError:
                continue
            if self.env["TMPDIR"].encode() in environment and int(path.name) != self.process.pid:
                found.append(path.name)
        return found

    def left_nothing(self) -> None:
        wait_for(lambda: not self.processes() and not list(Path(self.env["TMPDIR"]).glob("jig-dev-*")), "all is gone")
        assert "dev-" not in json.dumps(self.contexts)


@contextmanager
def started(tmp_path: Path, source: str, *words: str) -> Iterator[Dev]:
    folder = write_worker(tmp_path / "hello", "hello", source)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TOGETHER_", "MACHINESHOP_"))}
    env |= {"JIG_CONTEXTS": str(tmp_path / "contexts.json"), "TMPDIR": str(temporary), "NO_COLOR": "1"}
    said = tmp_path / "said"
    # Where the tests run in the background, Ctrl-C is ignored from birth on; a terminal's jig would not ignore it.
    heeding = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )
    with said.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", heeding, str(BIN / "jig"), "dev", *words],
            cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield Dev(folder, process, said, env)
    finally:
        process.kill()
        process.wait()


@pytest.mark.timeout(180)
def test_a_day_of_changes(tmp_path: Path) -> None:
    with started(tmp_path, WORKER.format(version=1)) as dev:
        dev.says("hello is ready after")
        long = dev.submit({"seconds": 2})
        dev.says("at work")
        dev.write("import sprocket\nsyntax error(\n")
        dev.says("jig: worker.py:2: ")
        dev.says("Waiting for the next change")
        dev.write(WORKER.format(version=2))
        dev.says("hello is ready after", times=2)
        # For a moment both serve: the one of before is drained once the new one is ready.
        wait_for(lambda: dev.result(dev.submit({})) == {"version": 2}, "the new version serves")
        assert dev.result(long) == {"version": 1}
        dev.write("import not_installed_anywhere\n")
        dev.says("Its last line: sprocket: the module worker imports not_installed_anywhere")
        dev.says("goes on serving")
        assert dev.result(dev.submit({})) == {"version": 2}
        (dev.folder / "jig.toml").write_text("name = 7\n")
        dev.says("jig: jig.toml: name must be a string")
        (name,) = dev.contexts["contexts"]
        assert dev.contexts["current"] == name
        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(60) == 130
        dev.left_nothing()


@pytest.mark.timeout(120)
def test_a_worker_that_is_broken_at_the_start_is_mended_and_kill_9_leaves_nothing(tmp_path: Path) -> None:
    with started(tmp_path, "raise RuntimeError('no weights')\n", "--json") as dev:
        dev.says('"event": "failed"')
        assert "no weights" in dev.said
        dev.write(WORKER.format(version=1))
        dev.says('"event": "ready"')
        assert dev.result(dev.submit({})) == {"version": 1}
        assert all(json.loads(line)["event"] for line in dev.said.splitlines() if line.startswith("{"))
        assert dev.processes()
        dev.process.kill()
        dev.process.wait()
        dev.left_nothing()


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with started(tmp_path, WORKER.format(version=1), "--port", str(taken.getsockname()[1])) as dev:
            assert dev.process.wait(60) == 1
            assert "jig: The platform did not start:" in dev.said
            assert "cannot listen on 127.0.0.1" in dev.said
            dev.left_nothing()


READER = """
import pathlib, sprocket

class Worker(sprocket.Sprocket):
    def predict(self, args):
        return {{"words": pathlib.Path("{place}/words.txt").read_text()}}
"""


@pytest.mark.timeout(180)
def test_ctrl_c_while_a_volume_is_sent_says_that_it_begins_anew(tmp_path: Path) -> None:
    source = tmp_path / "words"
    source.mkdir()
    with (source / "large.bin").open("wb") as large:
        large.truncate(768 * 1024**2)
    with started(tmp_path, WORKER.format(version=1), "--volume", f"words={source}") as dev:
        data = Path(dev.env["TMPDIR"])
        wait_for(lambda: stored_bytes(data) > 16 * 1024**2, "some of it has arrived")
        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(60) == 130
        dev.says("the same command sends all files again")
        assert "is not sent again" not in dev.said
        dev.left_nothing()


def stored_bytes(folder: Path) -> int:
    """The size of what a throw-away platform has, which may go meanwhile."""
    sizes = []
    for path in folder.glob("jig-dev-*/**/*"):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


def test_volumes_are_made_of_folders(tmp_path: Path) -> None:
    place, source = tmp_path / "mounted", tmp_path / "words"
    source.mkdir()
    (source / "words.txt").write_text("one two")
    with started(tmp_path, READER.format(place=place), "--volume", f"words={source}") as dev:
        dev.says("hello is ready after")
        config = dev.folder / "jig.toml"
        before, mount = config.read_text(), f'mount_path = "{place}"\nversion = 7\n'
        config.write_text(f'{before}[[deploy.volume_mounts]]\nname = "wrods"\n{mount}')
        dev.says("There is no volume wrods on the platform of `jig dev`")
        dev.says("jig dev --volume wrods=FOLDER")
        config.write_text(f'{before}[[deploy.volume_mounts]]\nname = "words"\n{mount}')
        dev.says("hello is ready after", times=2)
        assert dev.result(dev.submit({})) == {"words": "one two"}
        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(timeout=60) == 130
        dev.left_nothing()
