"""The engine of the docker runtime: replicas are containers.

Place in the flow: `local.py` decides, this engine does. A container is one run of a replica; it is removed when the run
is over, and what it printed stays in the replica's folder:

    containers/<replica>/     replica.json, log.<k>
    containers.id             by which this server knows its own containers and networks, from the first one on
    images.json               what it has pulled from the platform's registry, and when that was last used
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from machineshop.errors import RuntimeUnavailable
from machineshop.runtime import health
from machineshop.runtime.base import ArtifactKind, Capacity, ImageSource, RevisionSpec
from machineshop.runtime.docker import ends
from machineshop.runtime.docker.api import EngineApi, EngineAway, EngineError
from machineshop.runtime.docker.body import (
    PUBLISHED_AT,
    Limits,
    Machine,
    container,
)
from machineshop.runtime.docker.clearing import Clearing
from machineshop.runtime.docker.follower import CopiedLog, Follower
from machineshop.runtime.docker.found import find, name_of
from machineshop.runtime.docker.images import Image, Images, architecture
from machineshop.runtime.docker.instance import Instance
from machineshop.runtime.docker.networks import Networks
from machineshop.runtime.docker.pulled import PulledImages
from machineshop.runtime.engine import Mount, PreparationFailed
from machineshop.runtime.exits import Exit
from machineshop.runtime.folders import ReplicaFolders
from machineshop.runtime.machine import Machine as Hardware
from machineshop.runtime.machine import free_port
from machineshop.runtime.record import Record
from machineshop.runtime.replica_log import FileLog

GIB = 1024**3
AWAY_RETRY_SECONDS = 0.5
"""How long to wait before an engine that does not answer is asked again."""
WAIT_SECONDS = 300.0
"""How long one call waits for a container's end; then it is looked at again, should the engine have forgotten."""
GONE = "Its container is gone: somebody removed it, or the engine has lost it."
IMPROPER = "container state improper"
"""Podman's word for what cannot be done to a container that has ended."""
LACKING = {
    "storage-opt": ("sized_storage", "cannot bound what a container writes"),
    "docker-init": ("init", "has no docker-init: install tini, or programs that heed no SIGTERM are killed"),
    "container-init": ("init", "has no catatonit: install it, or programs that heed no SIGTERM are killed"),
}
"""By what an engine says when only trying tells that it cannot do something: what that is, for `Machine` and people."""

logger = logging.getLogger(__name__)


class DockerEngine:
    """Runs images as containers.

    Args:
        data_dir: The runtime's folder.
        endpoint: Where the engine is, as in DOCKER_HOST.
        images: The platform's registry.
        platform_url: Asked at each start for the address at which containers reach the platform.
        ca_bundle: A file of the authorities that replicas trust; None: as their images do.
        limits: What every container gets.
    """

    name = "docker"
    accepts = frozenset({ArtifactKind.IMAGE})

    def __init__(
        self,
        data_dir: Path,
        endpoint: str,
        *,
        images: ImageSource,
        platform_url: Callable[[], str],
        ca_bundle: Path | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._instance = Instance(data_dir)
        self._folders = ReplicaFolders(data_dir / "containers")
        self._api = EngineApi(endpoint)
        self._pulled = PulledImages(self._api, data_dir / "images.json")
        self._images = Images(self._api, images, self._pulled)
        self._platform_url, self._ca_bundle, self._limits = platform_url, ca_bundle, limits or Limits()
        self._hardware = Hardware()
        self._followers: dict[str, Follower] = {}
        self._asked: set[tuple[str, int]] = set()
        self._killing: set[tuple[str, int]] = set()
        self._architectures: dict[str, str] = {}
        """Of the images of replicas that this server has started."""
        self._errands: set[asyncio.Task[None]] = set()

    async def open(self) -> list[Record]:
        """Ask the engine what it can do, and find the replicas of earlier."""
        self._folders.open()
        try:
            self._machine = await self._look_around()
            self._networks = Networks(self._api, self._machine.instance)
            self._clearing = Clearing(self._api, self._networks)
            found = await find(self._api, self._machine.instance, self._folders.load())
            for record in found.adopted:
                self._networks.adopt(record.spec.project_id, name_of(record))
            await self._networks.sweep()
        except (EngineError, EngineAway) as error:
            await self._api.close()
            raise RuntimeUnavailable(
                message=f"The docker runtime cannot start: {error}. Start the engine, set DOCKER_HOST, or use "
                "--runtime process, which needs none."
            ) from error
        for container_id, project_id in found.leftover:
            self._clearing.clear(container_id, project_id)
        self._send(self._prune())
        return found.records

    async def close(self) -> None:
        """Look away; containers go on running."""
        await self._clearing.close()
        errands = list(self._errands)
        for task in errands:
            task.cancel()
        await asyncio.gather(*errands, return_exceptions=True)
        for follower in self._followers.values():
            await follower.stop()
        self._followers.clear()
        await self._api.close()

    def capacity(self) -> Capacity:
        """What the engine's machine has in all."""
        return self._capacity

    def gpus(self) -> tuple[int, ...]:
        """Those of the machine, where the engine can hand them out."""
        return self._hardware.gpus if self._machine.gpu_runtime else ()

    def free_port(self, taken: frozenset[int]) -> int:
        """A port of this machine, at which the container's own is published."""
        return free_port(taken)

    def platform_url(self, spec: RevisionSpec) -> str:  # noqa: ARG002 - the protocol's
        """The address at which containers that start now reach the platform."""
        return self._platform_url()

    async def pin(self, image: str) -> str:
        """The reference with the digest of what the engine has under it."""
        return await self._images.pin(image)

    async def prefetch(self, project_id: str, image: str) -> None:
        """Pull an image that the engine lacks."""
        await self._images.fetch(project_id, image)

    def doing(self, spec: RevisionSpec) -> str:
        """How far the image has come."""
        return self._images.doing(spec.project_id, spec.image)

    async def prepare(self, spec: RevisionSpec) -> None:
        """Pull the image where the engine lacks it."""
        if spec.artifact is ArtifactKind.BUNDLE:
            raise PreparationFailed(
                "ErrImagePull",
                f"'{spec.image}' is a bundle, and this runtime runs container images only. Build an image of the "
                "project and deploy that, or start the platform with --runtime auto or process.",
                final=True,
            )
        await self._images.fetch(spec.project_id, spec.image)
        self._send(self._prune())

    async def launch(self, record: Record, spec: RevisionSpec, key: str, mounts: Sequence[Mount]) -> None:
        """Create and start the container of this run."""
        image = await self._images.fetch(spec.project_id, spec.image)
        self._architectures[record.id] = image.architecture
        try:
            await self._start(record, spec, image, key, mounts)
        except EngineError as error:
            self._clear_away(record)
            raise ends.why_not_started(error.message, record, self._architectures_of(record)) from error

    async def wait(self, record: Record) -> Exit:
        """Wait for the container's end, over any absence of the engine."""
        while True:
            try:
                end = await self._look(record)
            except (EngineAway, EngineError) as error:
                logger.warning("container not seen: replica=%s error=%s", record.id, error)
                await asyncio.sleep(AWAY_RETRY_SECONDS)
                continue
            if end is not None:
                self._asked.discard((record.id, record.runs))
                self._clear_away(record)
                return end

    async def probe(self, record: Record) -> health.Probe:
        """Ask the replica's health check once."""
        port, spec = record.port or 0, record.spec
        return await health.probe(PUBLISHED_AT, port, spec.health_check_path, known_port=spec.port, proxied=True)

    def terminate(self, record: Record) -> None:
        """Send SIGTERM, or what the image wants in its place; the engine kills the container a grace period later."""
        run = (record.id, record.runs)
        if run in self._asked:
            self._send(self._tell(record, "kill", signal="SIGTERM"))
        else:
            self._asked.add(run)
            self._send(self._tell(record, "stop", t=record.spec.grace_period_seconds))

    def kill(self, record: Record) -> None:
        """Kill everything in the container."""
        run = (record.id, record.runs)
        if run not in self._killing:
            self._killing.add(run)
            self._send(self._kill(record))

    def save(self, record: Record) -> None:
        """Write the record down, without the variables of its environment, which hold secrets."""
        self._instance.keep()
        self._folders.save(record)

    def forget(self, record: Record) -> None:
        """Remove the replica's folder, and what a run may have left that could not be seen to its end."""
        self._folders.remove(record.id)
        self._architectures.pop(record.id, None)
        self._clear_away(record)

    def log(self, replica_id: str) -> FileLog:
        """A reader of the replica's log."""
        return self._folders.log(replica_id)

    async def _look_around(self) -> Machine:
        info = await self._api.get("/info")
        hardware = self._hardware.capacity
        runs_gpus = "nvidia" in (info.get("Runtimes") or {}) or bool(info.get("CDISpecDirs"))
        cpus, memory_gib = int(info["NCPU"]), round(int(info["MemTotal"]) / GIB, 1)
        gpus = hardware.gpus if runs_gpus else 0
        self._capacity = Capacity(float(cpus), memory_gib, gpus, hardware.gpu_types if gpus else ())
        driver, backing = info.get("Driver"), dict(info.get("DriverStatus") or ()).get("Backing Filesystem")
        return Machine(
            instance=self._instance.id,
            cpus=cpus,
            architecture=architecture(info.get("Architecture", "")),
            init=True,
            sized_storage=driver in {"btrfs", "zfs"} or (driver, backing) == ("overlay2", "xfs"),
            gpu_runtime=runs_gpus,
            ca_bundle=self._ca_bundle,
            limits=self._limits,
        )

    async def _start(self, record: Record, spec: RevisionSpec, image: Image, key: str, mounts: Sequence[Mount]) -> None:
        network = await self._networks.join(spec.project_id, name_of(record))
        while True:
            body = container(record, spec, image, key, network, self._machine, mounts)
            try:
                await self._api.post("/containers/create", body, name=name_of(record))
                await self._api.post(f"/containers/{name_of(record)}/start")
                break
            except EngineError as error:
                if not self._does_without(error.message):
                    raise
                await self._clearing.remove(name_of(record))
        self._follow(record)

    def _does_without(self, words: str) -> bool:
        """Whether these words tell of something that the engine lacks, and that is not asked for from now on."""
        for sign, (ability, lacks) in LACKING.items():
            if sign in words and getattr(self._machine, ability):
                logger.warning("the engine at %s %s", self._api.endpoint, lacks)
                self._machine = msgspec.structs.replace(self._machine, **{ability: False})
                return True
        return False

    async def _look(self, record: Record) -> Exit | None:
        """The end of the present run; None once the container has been seen running for a while."""
        try:
            state = (await self._api.get(f"/containers/{name_of(record)}/json"))["State"]
        except EngineError as error:
            if error.status != 404:
                raise
            await self._finish_log(record)
            return Exit(at=time.time(), message=GONE)
        if state["Status"] == "created":
            return Exit(at=time.time(), began=False)
        if not (state.get("Running") or state.get("Restarting")):
            last_line = await self._finish_log(record)
            both = self._architectures_of(record)
            return ends.exit_of(state, record, last_line, architectures=both, now=time.time())
        self._follow(record)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._api.post(f"/containers/{name_of(record)}/wait", within_seconds=None)
        except TimeoutError:
            pass
        return None

    def _follow(self, record: Record) -> None:
        if record.id not in self._followers:
            log = CopiedLog(self._folders.of(record.id))
            self._followers[record.id] = Follower(self._api, name_of(record), log)

    async def _finish_log(self, record: Record) -> str:
        self._follow(record)
        return await self._followers.pop(record.id).finish()

    def _clear_away(self, record: Record) -> None:
        """Have what a run leaves behind removed."""
        self._killing.discard((record.id, record.runs))
        self._clearing.clear(name_of(record), record.spec.project_id)

    async def _prune(self) -> None:
        await self._pulled.prune(time.time())

    async def _tell(self, record: Record, verb: str, **query: object) -> None:
        """Have the engine tell a container to end, as soon as it can."""
        while True:
            try:
                await self._api.post(f"/containers/{name_of(record)}/{verb}", within_seconds=None, **query)
                return
            except EngineError as error:
                if error.status not in {304, 404, 409} and IMPROPER not in error.message:  # it has ended already
                    logger.warning("container not told to end: replica=%s error=%s", record.id, error)
                return
            except EngineAway as error:
                logger.warning("container not told to end: replica=%s error=%s", record.id, error)
                await asyncio.sleep(AWAY_RETRY_SECONDS)

    async def _kill(self, record: Record) -> None:
        try:
            await self._tell(record, "kill", signal="SIGKILL")
        finally:
            self._killing.discard((record.id, record.runs))

    def _send(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _architectures_of(self, record: Record) -> tuple[str, str]:
        return self._architectures.get(record.id, ""), self._machine.architecture
