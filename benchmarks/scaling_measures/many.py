"""One server's loops over many deployments, whose replicas exist in memory alone: how long do they take, and what room?

It runs in a process of its own, so that its memory is that of the loops.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from harness.errors import BenchmarkError
from harness.report import Row
from machineshop.control.reconciler import Reconciler
from machineshop.control.rollouts import Rollouts
from machineshop.control.scaler import Scaler
from machineshop.control.scraper import Scraper
from machineshop.runtime.base import ArtifactKind, Capacity, RevisionSpec, RunEnd
from machineshop.runtime.fake import FakeRuntime
from machineshop.services.deployments import DeploymentService
from machineshop.services.identity import IdentityService
from machineshop.services.queue import QueueService
from machineshop.services.traffic import Traffic
from machineshop.services.upkeep import QueueUpkeep
from machineshop.store.database import Database, sqlite_url
from machineshop.store.schema import migrate

LIMIT_SECONDS = 240.0
PASSES = 10
MOST_SECONDS = 1.0
MOST_MIB = 1024.0
KEY = "msk_" + "0" * 40


def measure(folder: Path, deployments: int, replicas: int) -> list[Row]:
    """The rows of this measure."""
    (folder / "many").mkdir()
    argv = [sys.executable, "-m", "scaling_measures.many", str(folder / "many"), str(deployments), str(replicas)]
    here = Path(__file__).parents[1]
    try:
        done = subprocess.run(argv, cwd=here, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"The loops over {replicas} replicas did not end in {LIMIT_SECONDS:.0f} s.") from error
    if done.returncode != 0:
        raise BenchmarkError(f"The loops over {replicas} replicas failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    name = f"{deployments} deployments, {replicas} replicas"
    print(f"{name}: all ready {found.pop('ready_seconds'):.1f} s after the first look")
    memory = found.pop("memory_mib")
    rows = [Row(f"many_{loop}", "s", "lower", name, seconds, bar=MOST_SECONDS) for loop, seconds in found.items()]
    return [*rows, Row("many_memory", "MiB", "lower", name, memory, bar=MOST_MIB)]


class AnyArtifact:
    """Resolves every reference to itself."""

    async def resolve(self, _project_id: str, image: str, *, accepts: frozenset[ArtifactKind]) -> str:
        """What was asked for."""
        del accepts
        return image

    async def kind_of(self, _project_id: str, _image: str, accepts: frozenset[ArtifactKind]) -> ArtifactKind:
        """Any."""
        return min(accepts)


class Watcher:
    """Makes a worker key for each replica, as the platform does; nothing else happens to them here."""

    def __init__(self, identity: IdentityService) -> None:
        self._identity = identity

    async def issue_key(self, spec: RevisionSpec, replica_id: str) -> str:
        """One that is stored."""
        return await self._identity.create_worker_key(spec.project_id, spec.deployment_id, replica_id)

    async def reveal(self, spec: RevisionSpec) -> RevisionSpec:
        """There are no secrets."""
        return spec

    def replica_leaving(self, _replica_id: str) -> bool:
        """Nothing is on its way."""
        return False

    async def replica_exited(self, _replica_id: str, _run: RunEnd | None = None) -> bool:
        """It has not worked."""
        return False


async def loops(folder: Path, deployments: int, replicas: int) -> dict[str, float]:
    """Bring all replicas up, then run each loop some times; the longest run of each, in seconds, and the memory."""
    url = sqlite_url(folder / "machineshop.db")
    migrate(url)
    database = Database(url)
    database.start()
    identity, traffic = IdentityService(database), Traffic()
    service = DeploymentService(database, AnyArtifact(), lambda: Capacity(64, 256, 0), frozenset(ArtifactKind))
    queue = QueueService(database, service)
    upkeep = QueueUpkeep(database, queue.dispatcher, queue.changes)
    runtime = FakeRuntime(Watcher(identity))
    await runtime.start()
    project = (await identity.ensure_admin(KEY)).project.id
    each = replicas // deployments
    await _create(service, project, deployments, each)
    passes: dict[str, Callable[[], Awaitable[Any]]] = {
        "reconcile": lambda: Reconciler(database, runtime, upkeep, traffic, AnyArtifact()).run_once(time.time()),
        "settle": lambda: Rollouts(database, runtime, service).run_once(time.time()),
    }
    scaler = Scaler(database, runtime, traffic, Scraper())
    passes["scale"] = lambda: scaler.run_once(time.time())
    began = time.monotonic()
    while await _ready(runtime) < each * deployments:
        for run_once in passes.values():
            await run_once()
        await asyncio.sleep(0.2)
    found = {"ready_seconds": time.monotonic() - began}
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(PASSES):
        for name, run_once in passes.items():
            began = time.monotonic()
            await run_once()
            seconds[name].append(time.monotonic() - began)
        began = time.monotonic()
        runtime.run_once(time.time())
        seconds["runtime"].append(time.monotonic() - began)
        await asyncio.sleep(0.2)
    found |= {name: statistics.median(values) for name, values in seconds.items()}
    found["all_loops"] = statistics.median(sum(each) for each in zip(*seconds.values(), strict=True))
    found["memory_mib"] = _resident_mib()
    await runtime.close()
    queue.close()
    await asyncio.to_thread(database.close)
    return found


async def _create(service: DeploymentService, project: str, deployments: int, each: int) -> None:
    for number in range(deployments):
        fields = {
            "name": f"deployment-{number}",
            "image": f"registry/ns/hello@sha256:{number}",
            "gpu_type": "none",
            "min_replicas": each,
            "max_replicas": 2 * each,
            "autoscaling": {"metric": "QueueBacklogPerWorker", "target": 2},
        }
        await service.create(project, fields)


async def _ready(runtime: FakeRuntime) -> int:
    return sum(replica.ready_since is not None for replica in await runtime.observe())


def _resident_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    print(json.dumps(asyncio.run(loops(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))))
