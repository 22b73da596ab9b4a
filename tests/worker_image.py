"""An image with a worker, as a person builds it, for tests that run it."""

import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

from platform_process import ROOT, PlatformProcess

BASE = "python:3.11-slim"
BUILD_SECONDS = 300
WORKER = """
import os
import sprocket

class Worker(sprocket.Sprocket):
    def predict(self, args):
        if "file" in args:
            with open(args["file"]) as read, open("/tmp/louder.txt", "w") as written:
                written.write(read.read().upper())
            return {"file": sprocket.FileOutput("/tmp/louder.txt"), "replica": os.environ["MACHINESHOP_REPLICA_ID"]}
        if "hold_mib" in args:
            held = bytearray(args["hold_mib"] * 2**20)
            return {"held": len(held)}
        return {"echo": args, "in_a_container": os.path.exists("/.dockerenv")}

sprocket.run(Worker())
"""
# Its layers are those with which every image begins: as long as it is there they are made once.
FIRST_LAYERS = "machineshop-test-sprocket"
DOCKERFILE = f"""
FROM {BASE}
COPY *.whl /wheels/
RUN pip install --quiet /wheels/*.whl
"""
REST = """
COPY worker.py /app/worker.py
WORKDIR /app
CMD ["python3", "worker.py"]
"""


def docker(*arguments: str, folder: Path | None = None) -> str:
    """Run a command of docker, which must succeed; returns what it printed."""
    finished = subprocess.run(
        ["docker", *arguments], cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout.strip()


def build(folder: Path, source: str = WORKER) -> str:
    """Build the image of a worker's source in an empty folder; returns its name."""
    for wheel in (ROOT / "machineshop/src/machineshop/wheels").glob("sprocket-*.whl"):
        (folder / wheel.name).write_bytes(wheel.read_bytes())
    (folder / "Dockerfile").write_text(DOCKERFILE)
    docker("build", "--quiet", "--network", "host", "--tag", FIRST_LAYERS, ".", folder=folder)
    (folder / "worker.py").write_text(source)
    name = f"machineshop-test-worker:{uuid4().hex[:12]}"
    # An image of its own: others are built of the same at the same time, and each is removed by its id.
    (folder / "Dockerfile").write_text(f"{DOCKERFILE}{REST}LABEL name={name}\n")
    docker("build", "--quiet", "--network", "host", "--tag", name, ".", folder=folder)
    return name


def remove(name: str) -> None:
    """Remove it from the engine, with all its names, those of the platform's registry among them."""
    docker("image", "rm", "--force", docker("image", "inspect", "--format", "{{.Id}}", name))


def forget_first_layers() -> None:
    """Remove what `build` keeps for the next one, if there is any."""
    if shutil.which("docker") is not None:
        subprocess.run(["docker", "image", "rm", FIRST_LAYERS], capture_output=True, timeout=BUILD_SECONDS, check=False)


def left_of(platform: PlatformProcess) -> list[str]:
    """The containers and networks that this platform has in the engine."""
    instance = (platform.data_dir / "runtime/containers.id").read_text()
    mine = ("-q", "--filter", f"label=machineshop.instance={instance}")
    return [*docker("container", "ls", "--all", *mine).split(), *docker("network", "ls", *mine).split()]
