"""The README's transcript, run again: every command with what it prints, but for ids, times and addresses."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from platform_process import BIN, ROOT, PlatformProcess

TRANSCRIPT = re.compile(r"```console\n(.*?)```", re.DOTALL)

# What differs from run to run, and what stands for it.
VARIABLE = [
    (r"\x1b\[[0-9;]*m", ""),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"msk_[\w-]+", "KEY"),
    (r"sha256:[0-9a-f]+", "DIGEST"),
    (r"greeter-[0-9a-f]{10}", "REPLICA"),
    (r"(?<= Running  )\d+\w+ +1 \([0-9a-f]{8}\)", "AGE REVISION"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"port \d+", "port N"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", "TIME"),
    (r" +\d+\.\d+ s", " N s"),
    (r"\d+(\.\d+)? k?B", "N B"),
    (r"\d+s ago", "N ago"),
    (r"\S*/(data|\.local/share/machineshop|contexts\.json)\b", "PATH"),
    (r"(?m)^  replica REPLICA: (waiting|starting).*\n", ""),
    (r"(?m)^ +N s  (pending|running).*\n", ""),
    (r"runtime +\w+, runs .*", "RUNTIME"),
    (r"[ \t]+$", ""),
]


def settled(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, stand_in in VARIABLE:
        text = re.sub(pattern, stand_in, text, flags=re.MULTILINE)
    return text.strip()


def steps() -> list[tuple[str, str]]:
    """The transcript's commands, each with what it prints."""
    found = []
    for block in TRANSCRIPT.findall((ROOT / "README.md").read_text()):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


@pytest.mark.timeout(180)
def test_the_transcript_of_the_first_five_minutes_is_true(own_platform: PlatformProcess, tmp_path: Path) -> None:
    announced, *rest = steps()
    assert announced[0] == "machineshop serve"
    announcement = own_platform.log.read_text().split("Ctrl-C", 1)[0]
    lines = [line for line in announcement.splitlines() if not line.startswith("{")]
    assert settled("\n".join(lines)) == settled(announced[1].split("Ctrl-C", 1)[0])
    folder = tmp_path / "home"
    folder.mkdir()
    environment = {**own_platform.environment, "PATH": f"{BIN}:{os.environ['PATH']}", "TOGETHER_API_KEY": ""}
    del environment["TOGETHER_API_KEY"]
    for command, expected in rest:
        if command.startswith("cd "):
            folder = folder / command.removeprefix("cd ")
            continue
        if command.startswith("export KEY="):
            environment["KEY"] = own_platform.jig("auth", "key", cwd=folder).stdout.strip()
            continue
        line = command.replace("http://127.0.0.1:8799", own_platform.base_url)
        finished = subprocess.run(
            ["bash", "-c", line],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert finished.returncode == 0, f"{command}\n{finished.stdout}"
        assert settled(finished.stdout) == settled(expected), command
