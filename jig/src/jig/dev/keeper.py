"""The process between `jig dev` and its platform: it sees to it that nothing of the platform outlives jig.

`python -m jig.dev.keeper FOLDER COMMAND...` runs the command until its own standard input ends: jig holds the other end
and lets go of it however it ends, kill -9 included. Then the platform is ended, jig's context of it forgotten, and the
folder removed. The keeper is in a session of its own, so that a Ctrl-C for jig doesn't reach it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

from jig.contexts import contexts_path, read_contexts, write_contexts
from jig.errors import JigError

LOG, OWN_CONTEXTS, REMEMBERED, ENDED = "platform.log", "contexts.json", "context.json", "ended"

STOP_SECONDS = 60.0
"""Its replicas get 10 s to finish what is in hand; the rest is for a slow machine."""


def main(words: list[str]) -> int:
    """Keep a platform; returns its exit code."""
    folder, command = Path(words[0]), words[1:]
    with (folder / LOG).open("wb") as log:
        platform = subprocess.Popen(
            command,
            cwd=folder,
            env=platform_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    ending = threading.Thread(target=end_with_jig, args=(platform,))
    ending.start()
    code = platform.wait()
    (folder / ENDED).touch()  # jig may want to read why, before all of it is gone
    ending.join()
    forget_context(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return code


def end_with_jig(platform: subprocess.Popen[bytes]) -> None:
    """Wait until jig has let go, and end the platform."""
    sys.stdin.buffer.read()
    end(platform)


def platform_environment(folder: Path) -> dict[str, str]:
    """That of this process, without another platform's settings, and with a contexts file of its own."""
    passed_on = {
        name: value for name, value in os.environ.items() if not name.startswith(("TOGETHER_", "MACHINESHOP_"))
    }
    return {**passed_on, "JIG_CONTEXTS": str(folder / OWN_CONTEXTS)}


def end(platform: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C would, which ends the replicas too; by force where that does not help."""
    if platform.poll() is None:
        platform.send_signal(signal.SIGINT)
    try:
        platform.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        platform.kill()
        platform.wait()


def remember_context(folder: Path, name: str, before: str | None) -> None:
    """Note which context `jig dev` has added, and which one was the current one before."""
    (folder / REMEMBERED).write_text(json.dumps({"name": name, "before": before}))


def forget_context(folder: Path) -> None:
    """Take jig's context of the platform away; the one of before is the current one again."""
    with contextlib.suppress(OSError, ValueError, JigError):
        noted = json.loads((folder / REMEMBERED).read_text())
        path = contexts_path(os.environ)
        contexts = read_contexts(path)
        was_current = contexts.current == noted["name"]
        contexts = contexts.without(noted["name"])
        if was_current and noted["before"] in contexts.contexts:
            contexts = contexts.using(noted["before"])
        write_contexts(path, contexts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
