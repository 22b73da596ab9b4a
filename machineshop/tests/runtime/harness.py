"""What the tests of runtimes share: a registry of bundles, a watcher that takes notes, and the same replicas played in
memory and run as processes."""

import asyncio
import io
import json
import os
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Protocol
from urllib.parse import quote
from uuid import uuid4

import msgspec

from machineshop.errors import ArtifactMissing, SecretMissing
from machineshop.runtime.base import (
    ArtifactKind,
    Bundle,
    MountedVolume,
    PullGrant,
    Replica,
    ReplicaStatus,
    RevisionSpec,
    RunEnd,
)
from machineshop.runtime.docker.body import Limits
from machineshop.runtime.docker.engine import DockerEngine
from machineshop.runtime.fake import Behaviour, FakeEngine, FakeRuntime, FakeVolumes
from machineshop.runtime.local import LocalRuntime
from machineshop.runtime.process import VOLUMES, ProcessRuntime
from machineshop.runtime.volumes.cache import VolumeCache
from runtime.shelf import FILES, Shelf

WORKER = (Path(__file__).parent / "replica_worker.py").read_text()
BASE_IMAGE = "python:3.11-slim"
PLATFORM_URL = "http://127.0.0.1:8799"
MOUNT_PATH = f"/machineshop-test-{uuid4().hex[:8]}"
"""Nowhere on this machine."""


async def eventually(condition: Callable[[], Awaitable[bool]], *, within_seconds: float = 60.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + within_seconds
    while not await condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.01)


class Registry:
    """Bundles by image reference."""

    def __init__(self) -> None:
        self.bundles: dict[str, tuple[bytes, bytes]] = {}
        self.opened = 0

    def add(self, files: dict[str, str], *command: str, requirements: str = "", python_version: str = "3.11") -> str:
        config = {"version": 1, "command": command, "python_version": python_version, "requirements": requirements}
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w:gz") as tar:
            for name, text in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text.encode())
                tar.addfile(entry, io.BytesIO(text.encode()))
        return self.add_raw(json.dumps({**config, "environment": {"FROM_BUNDLE": "yes"}}).encode(), layer.getvalue())

    def add_raw(self, config: bytes, layer: bytes) -> str:
        image = f"127.0.0.1:8799/org/worker@sha256:{sha256(config + layer).hexdigest()}"
        self.bundles[image] = (config, layer)
        return image

    async def open_bundle(self, project_id: str, image: str) -> Bundle:
        self.opened += 1
        if image not in self.bundles:
            raise ArtifactMissing(f"There is no artifact {image}.")
        config, layer = self.bundles[image]

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(layer), 1000):
                yield layer[start : start + 1000]

        return Bundle(digest=image.partition("@")[2], config=config, layer=chunks())


class Watcher:
    """Takes notes of what the runtime tells the platform, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.keys: dict[str, str] = {}
        self.secrets: dict[str, str] = {}
        self.failures = 0
        self.left: list[str] = []
        self.ends: list[str] = []
        """How runs ended, in a few words."""
        self.has_worked = False
        """Whether each run has done some work, as the platform says."""

    async def issue_key(self, spec: RevisionSpec, replica_id: str) -> str:
        self._fail_if_told()
        self.events.append(("key", replica_id))
        self.keys[replica_id] = f"secret-worker-key-{len(self.events)}"
        return self.keys[replica_id]

    async def reveal(self, spec: RevisionSpec) -> RevisionSpec:
        self._fail_if_told()
        if missing := {variable: name for variable, name in spec.secrets.items() if name not in self.secrets}:
            raise SecretMissing(missing)
        values = {variable: self.secrets[name] for variable, name in spec.secrets.items()}
        return msgspec.structs.replace(spec, environment={**spec.environment, **values})

    def replica_leaving(self, replica_id: str) -> bool:
        self.left.append(replica_id)
        return False

    async def replica_exited(self, replica_id: str, run: RunEnd | None = None) -> bool:
        self._fail_if_told()
        # The platform takes its time; nothing may be started meanwhile.
        await asyncio.sleep(0.02)
        self.events.append(("exited", replica_id))
        self.ends.append("" if run is None else run.how)
        return self.has_worked

    def of(self, replica_id: str) -> list[str]:
        return [event for event, of in self.events if of == replica_id]

    def _fail_if_told(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise ArtifactMissing("The store is away.")


class World(Protocol):
    """A machine with a runtime, and a way to make its replicas do things."""

    runtime: LocalRuntime
    watcher: Watcher

    def spec(self, revision: str = "r1", behaviour: Behaviour = ..., **fields: object) -> RevisionSpec: ...
    def volume(self, version: int = 0, files: Mapping[str, bytes] = ...) -> MountedVolume: ...
    def hold_volumes(self, held: bool) -> None: ...
    def lose_volumes(self, lost: bool) -> None: ...
    async def end(self, replica: Replica, code: int) -> None: ...
    async def print(self, replica: Replica, text: str) -> None: ...
    async def variable(self, replica: Replica, name: str) -> str | None: ...
    async def set_healthy(self, replica: Replica, healthy: bool) -> None: ...
    async def restart_server(
        self, while_away: Callable[[], Awaitable[None]] | None = None, platform_url: str = PLATFORM_URL
    ) -> None: ...
    async def close(self) -> None: ...


def _spec(revision: str, image: str, fields: dict[str, object]) -> RevisionSpec:
    given = {"deployment_id": "dep-1", "deployment_name": "hello", "grace_period_seconds": 5, **fields}
    return RevisionSpec(project_id="project-1", revision_id=revision, image=image, **given)  # type: ignore[arg-type]


class FakeWorld:
    def __init__(self, gpus: int = 0) -> None:
        self.engine, self.watcher = FakeEngine(gpus=gpus), Watcher()
        self.volumes = FakeVolumes()
        self.runtime: LocalRuntime = FakeRuntime(self.watcher, self.engine, self.volumes)

    def spec(self, revision: str = "r1", behaviour: Behaviour = Behaviour(), **fields: object) -> RevisionSpec:  # noqa: B008
        self.engine.behaviours[revision] = behaviour
        return _spec(revision, f"image@sha256:{revision}", fields)

    def volume(self, version: int = 0, files: Mapping[str, bytes] = FILES) -> MountedVolume:
        return MountedVolume(volume_id="volume-1", name="weights", version=version, mount_path=MOUNT_PATH)

    def hold_volumes(self, held: bool) -> None:
        self.volumes.on_their_way = {"weights"} if held else set()

    def lose_volumes(self, lost: bool) -> None:
        self.volumes.failures = {"weights": "There is no version of it."} if lost else {}

    async def end(self, replica: Replica, code: int) -> None:
        self.engine.end(replica.id, code=code)

    async def print(self, replica: Replica, text: str) -> None:
        self.engine.print(replica.id, text)

    async def variable(self, replica: Replica, name: str) -> str | None:
        return self.engine.specs[replica.id].environment.get(name)

    async def set_healthy(self, replica: Replica, healthy: bool) -> None:
        self.engine.behaviours[replica.revision_id] = Behaviour(healthy=healthy)

    async def restart_server(
        self, while_away: Callable[[], Awaitable[None]] | None = None, platform_url: str = PLATFORM_URL
    ) -> None:
        await self.runtime.close()
        if while_away is not None:
            await while_away()
        self.engine.url = platform_url
        self.runtime = FakeRuntime(self.watcher, self.engine, self.volumes)
        await self.runtime.start()

    async def close(self) -> None:
        await self.runtime.stop_all(0.0)
        await self.runtime.close()


class ProcessWorld:
    def __init__(self, data_dir: Path, environments: Path) -> None:
        self.data_dir, self.registry, self.watcher, self.shelf = data_dir, Registry(), Watcher(), Shelf()
        self.platform_url = PLATFORM_URL
        # Making an environment takes half a second, and all tests need the same one.
        data_dir.mkdir(exist_ok=True)
        (data_dir / "environments").symlink_to(environments)
        self.image = self.registry.add({"worker.py": WORKER, "notes/read.me": "a file"}, "python", "worker.py")
        self.runtime: LocalRuntime = self._runtime()

    def spec(self, revision: str = "r1", behaviour: Behaviour = Behaviour(), **fields: object) -> RevisionSpec:  # noqa: B008
        variables = {"HEALTHY": str(int(behaviour.healthy)), "START_SECONDS": str(behaviour.start_seconds)}
        if behaviour.exit_code is not None:
            variables["EXIT_CODE"] = str(behaviour.exit_code)
        if behaviour.ignores_terminate:
            variables["IGNORE_TERMINATE"] = "1"
        if behaviour.has_job_in_hand:
            variables["HAS_JOB_IN_HAND"] = "1"
        given = fields.pop("environment", {})
        assert isinstance(given, dict)
        image = self.image if behaviour.preparation_failure is None else "127.0.0.1:8799/org/nothing@sha256:00"
        return _spec(revision, image, {"environment": {**variables, **given}, **fields})

    def volume(self, version: int = 0, files: Mapping[str, bytes] = FILES) -> MountedVolume:
        self.shelf.put(files, version)
        return MountedVolume(volume_id="volume-1", name="weights", version=version, mount_path=MOUNT_PATH)

    def hold_volumes(self, held: bool) -> None:
        self.shelf.gate.clear() if held else self.shelf.gate.set()

    def lose_volumes(self, lost: bool) -> None:
        self.shelf.lost = lost

    async def read(self, replica: Replica, name: str, path: str = MOUNT_PATH) -> str:
        """A file of the volume that a replica sees, or why it does not."""
        return await self.get(replica, f"/read?path={quote(f'{path}/{name}')}")

    async def write(self, replica: Replica, name: str, path: str = MOUNT_PATH) -> str:
        """Why a replica cannot write there."""
        return await self.get(replica, f"/write?path={quote(f'{path}/{name}')}")

    async def end(self, replica: Replica, code: int) -> None:
        with suppress(OSError, ValueError, IndexError):
            await self.get(replica, f"/exit?code={code}")

    async def print(self, replica: Replica, text: str) -> None:
        await self.get(replica, f"/print?text={quote(text)}")

    async def variable(self, replica: Replica, name: str) -> str | None:
        value: str | None = json.loads(await self.get(replica, "/env"))["env"].get(name)
        return value

    async def set_healthy(self, replica: Replica, healthy: bool) -> None:
        async def is_told() -> bool:
            with suppress(OSError, IndexError):  # it runs, and does not listen yet
                await self.get(replica, f"/healthy?value={int(healthy)}")
                return True
            return False

        await eventually(is_told)

    async def get(self, replica: Replica, path: str) -> str:
        """GET from a replica."""
        assert replica.port is not None
        reader, writer = await asyncio.open_connection(replica.host, replica.port)
        try:
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            async with asyncio.timeout(60):
                answer = await reader.read()
            return answer.split(b"\r\n\r\n", 1)[1].decode()
        finally:
            writer.close()

    async def restart_server(
        self, while_away: Callable[[], Awaitable[None]] | None = None, platform_url: str = PLATFORM_URL
    ) -> None:
        await self.runtime.close()
        if while_away is not None:
            await while_away()
        self.platform_url = platform_url
        self.runtime = self._runtime()
        await self.runtime.start()

    async def close(self) -> None:
        await self.runtime.stop_all(0.0)
        await self.runtime.close()

    def run_note(self, replica: Replica) -> dict[str, int]:
        """The pids of a replica's present run."""
        folder = self.data_dir / "replicas" / replica.id
        notes = sorted(folder.glob("run-*.json"), key=lambda path: int(path.stem[4:]))
        note: dict[str, int] = json.loads(notes[-1].read_text())
        return note

    def _runtime(self) -> LocalRuntime:
        return ProcessRuntime(
            self.data_dir,
            bundles=self.registry,
            volumes=self.shelf,
            watcher=self.watcher,
            platform_url=lambda: self.platform_url,
        )


class NoImages:
    """A platform that has no images of its own."""

    async def grant_pull(self, project_id: str, image: str) -> PullGrant | None:
        return None


class DockerWorld(ProcessWorld):
    """The same worker in containers of a real engine."""

    def __init__(self, data_dir: Path, endpoint: str, limits: Limits | None = None) -> None:
        data_dir.mkdir(exist_ok=True)
        self.data_dir, self.endpoint, self.watcher, self.limits = data_dir, endpoint, Watcher(), limits
        self.shelf = Shelf()
        self.platform_url = PLATFORM_URL
        self.image = BASE_IMAGE
        self.runtime: LocalRuntime = self._runtime()

    def spec(self, revision: str = "r1", behaviour: Behaviour = Behaviour(), **fields: object) -> RevisionSpec:  # noqa: B008
        # Outside of a container nothing could reach a worker that listens on the container's loopback.
        command = ("python3", "-c", WORKER.replace('("127.0.0.1", ', '("0.0.0.0", '))
        few = {"artifact": ArtifactKind.IMAGE, "command": command, "memory_gib": 0.25, "cpu": 1.0}
        image = fields.pop("image", None)
        spec = super().spec(revision, behaviour, **{**few, **fields})
        return spec if image is None else msgspec.structs.replace(spec, image=image)

    def _runtime(self) -> LocalRuntime:
        engine = DockerEngine(
            self.data_dir,
            self.endpoint,
            images=NoImages(),
            platform_url=lambda: self.platform_url,
            limits=self.limits,
        )
        return LocalRuntime(engine, self.watcher, VolumeCache(self.data_dir / VOLUMES, self.shelf))


async def ready(runtime: LocalRuntime, count: int, revision: str | None = None) -> list[Replica]:
    """Wait until so many replicas are ready, and no others run or wait; returns them."""
    found: list[Replica] = []

    async def reached() -> bool:
        found[:] = [r for r in await runtime.observe() if r.status is not ReplicaStatus.TERMINATED]
        fine = [r for r in found if r.ready_since is not None and revision in (None, r.revision_id) and not r.draining]
        return len(fine) == count == len(found)

    await eventually(reached)
    return list(found)


async def one(runtime: LocalRuntime, condition: Callable[[Replica], bool], *, within_seconds: float = 60.0) -> Replica:
    """Wait until a replica fulfils a condition; returns it."""
    found: list[Replica] = []

    async def reached() -> bool:
        found[:] = [replica for replica in await runtime.observe() if condition(replica)]
        return bool(found)

    await eventually(reached, within_seconds=within_seconds)
    return found[0]


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(pid: int, number: int) -> None:
    """Signal a process that a test started."""
    os.kill(pid, number)


async def print_and_see(world: World, replica: Replica, text: str) -> None:
    """Two replicas' lines are in order where the second is printed once the first has got its time."""
    await world.print(replica, text)

    async def seen() -> bool:
        return await texts_of(world.runtime, replica.id, tail=1) == [text]

    await eventually(seen)


async def texts_of(runtime: LocalRuntime, replica_id: str | None, tail: int | None) -> list[str]:
    """What replicas of the deployment of most tests have printed, or one of them."""
    return [line.text async for line in runtime.logs("dep-1", replica_id, tail=tail, follow=False)]
