"""The command `tg` of the `together` package as a person runs it, in a project's folder with a home of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from platform_process import PlatformProcess

TG = Path(sys.executable).parent / "tg"
COMMAND_SECONDS = 60


class Finished:
    """A command that has ended."""

    def __init__(self, status: int, output: str, errors: str) -> None:
        self.status = status
        self.output = output
        self.errors = errors

    @property
    def json(self) -> Any:
        """What it printed, one JSON document or the last of several."""
        decoder, text, found = json.JSONDecoder(), self.output.strip(), None
        while text:
            found, end = decoder.raw_decode(text)
            text = text[end:].lstrip()
        return found


class Tg:
    """Runs `tg beta jig` for one deployment."""

    def __init__(
        self, platform: PlatformProcess, folder: Path, name: str, outside: "Outside", config: str = ""
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "jig.toml").write_text(f'name = "{name}"\n[deploy]\ngpu_type = "none"\ngpu_count = 0\n{config}')
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "home"),
            "TOGETHER_API_KEY": platform.api_key,
            "TOGETHER_BASE_URL": platform.base_url,
            "TOGETHER_TELEMETRY_DISABLED": "1",
            "TOGETHER_DISABLE_VERSION_CHECK": "1",
            "NO_COLOR": "1",
            "COLUMNS": "250",
            **outside.environment,
        }
        (folder / "home").mkdir(exist_ok=True)

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a command."""
        return subprocess.Popen(
            [TG, "beta", "jig", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, **environment: str) -> Finished:
        """Run a command to its end."""
        process = self.start(*arguments, **environment)
        try:
            output, errors = process.communicate(timeout=COMMAND_SECONDS)
        finally:
            process.kill()
        return Finished(process.returncode, output, errors)

    def interrupt(self, process: "subprocess.Popen[str]") -> Finished:
        """Ctrl-C until it ends: in a command that never awaits, the first one is lost in the client's event loop."""
        for _ in range(COMMAND_SECONDS * 5):
            process.send_signal(signal.SIGINT)
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
            break
        output, errors = process.communicate(timeout=COMMAND_SECONDS)
        return Finished(process.returncode, output, errors)


class Outside:
    """Stands for every other address: a proxy that nobody may come to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        self.environment = {each: url for name in names for each in (name, name.lower())}
        self.environment |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    def close(self) -> None:
        """Check that nobody came."""
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        else:
            request = connection.recv(200)
            connection.close()
            raise AssertionError(f"the command went elsewhere: {request!r}")
        finally:
            self._listener.close()
