"""The files of a new project."""

from __future__ import annotations

WORKER_FILE, WORKER_CLASS = "worker.py", "Hello"
WORKER = '''\
"""A worker: `setup` runs once, `predict` once per job."""

import sprocket


class Hello(sprocket.Sprocket):
    def setup(self) -> None:
        # Load the model here: a replica gets jobs only when this is over.
        self.greeting = "Hello"

    def predict(self, args: dict) -> dict:
        return {"text": f"{self.greeting}, {args.get('prompt', 'world')}!"}
'''

PYPROJECT = """\
[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["sprocket"]

[tool.jig]
name = "{name}"
worker = "worker:{worker}"
gpu = "none"  # or A100, H100, H200, B200, with gpu_count
"""

JIG_TOML = """\
name = "{name}"
worker = "worker:{worker}"
gpu = "none"  # or A100, H100, H200, B200, with gpu_count
"""

README = """\
# {name}

    jig run --prompt "you"                 # one job on this machine, without a platform
    jig dev                                # a throw-away platform that follows your changes
    jig deploy                             # ship this folder and wait until it is ready
    jig submit --prompt "you" --watch      # one job, and its result
    jig logs --follow                      # what the worker writes
    jig destroy                            # stop it

The model goes into `setup` of `worker.py`, the work into `predict`. Packages go into `dependencies` of
`pyproject.toml`; `sprocket` is there already wherever this runs.
"""


def files(name: str, worker: str) -> dict[str, str]:
    """The starter's files by their names; the config names this class of worker.py."""
    return {
        WORKER_FILE: WORKER,
        "pyproject.toml": PYPROJECT.format(name=name, worker=worker),
        "README.md": README.format(name=name),
    }


def jig_toml(name: str, worker: str) -> str:
    """The config for a folder whose pyproject.toml is somebody's own."""
    return JIG_TOML.format(name=name, worker=worker)
