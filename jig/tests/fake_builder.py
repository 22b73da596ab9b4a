"""A program on the PATH that stands for docker, podman or buildah: it writes down what it is asked, and no more."""

import json
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIGEST = f"sha256:{'d' * 64}"
PROGRAM = f"""\
#!{sys.executable} -IS
import json, os, pathlib, sys

words, folder = sys.argv[1:], pathlib.Path(__file__).parent
name = pathlib.Path(__file__).name
stdin = sys.stdin.read() if "--password-stdin" in words else ""
with (folder / "asked.jsonl").open("a") as file:
    print(json.dumps({{"argv": [name, *words], "stdin": stdin, "environment": dict(os.environ)}}), file=file)
answers = json.loads((folder / "answers.json").read_text())
for start, (code, text) in answers.items():
    if [name, *words][: len(start.split())] == start.split():
        print(text)
        sys.exit(code)
for option in ("--digestfile", "--metadata-file"):
    if option in words:
        metadata = json.dumps({{"containerimage.digest": "{DIGEST}"}})
        path = pathlib.Path(words[words.index(option) + 1])
        path.write_text("{DIGEST}" if option == "--digestfile" else metadata)
if words[0] == "push":
    print("latest: digest: {DIGEST} size: 528")
if words[0] == "create":
    print("container-1")
if words[0] == "cp":
    folder = pathlib.Path(words[2])
    folder.mkdir()
    (folder / "kernel").write_text("compiled")
"""


@dataclass(frozen=True)
class FakeBuilder:
    """A folder of such programs, which is all of the PATH that jig sees.

    Args:
        folder: for the PATH.
    """

    folder: Path

    def install(self, *names: str) -> None:
        """Have these programs."""
        self.folder.mkdir(exist_ok=True)
        self.answer({})
        for name in names:
            path = self.folder / name
            path.write_text(PROGRAM)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def answer(self, answers: dict[str, tuple[int, str]]) -> None:
        """Answer command lines that begin like this with an exit code and a text."""
        (self.folder / "answers.json").write_text(json.dumps(answers))

    def asked(self, start: str = "") -> list[dict[str, Any]]:
        """What was asked, in order: command lines that begin like this."""
        try:
            lines = (self.folder / "asked.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [each for each in map(json.loads, lines) if each["argv"][: len(start.split())] == start.split()]

    def commands(self, start: str = "") -> list[list[str]]:
        """Their command lines."""
        return [each["argv"] for each in self.asked(start)]
