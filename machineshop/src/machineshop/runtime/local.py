"""The loop of every runtime that runs replicas on this machine.

Place in the flow: the control loop declares what should run (`apply`); `run_once` asks the planner what to do about it
and does it. What happens to a replica meanwhile (`runs.py`), or to an artifact (`preparation.py`), wakes the loop.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from uuid import uuid4

from machineshop.runtime import replica, replica_view
from machineshop.runtime.base import Capacity, LogLine, Replica, ReplicaWatcher, RevisionSpec, VolumeVersion
from machineshop.runtime.draining import Draining
from machineshop.runtime.engine import Engine
from machineshop.runtime.ledger import Ledger
from machineshop.runtime.logs import read_merged
from machineshop.runtime.needs import Needs
from machineshop.runtime.planner import (
    Action,
    Create,
    Desired,
    Drain,
    Insist,
    Kill,
    Observed,
    Phase,
    Start,
    next_change,
    overdue,
    plan,
)
from machineshop.runtime.prefetch import Prefetches
from machineshop.runtime.record import Record
from machineshop.runtime.runs import Runs
from machineshop.runtime.volumes.base import Volumes, trees_of
from machineshop.runtime.volumes.trees import TreeKey

IDLE_SECONDS = 1.0
"""How long the loop sleeps at most; whatever it waits for wakes it earlier."""
KILL_SLACK_SECONDS = 10.0
"""How long `stop_all` waits beyond the grace period for killed replicas to be gone."""
STOOD_DOWN = "Another server of the platform runs the deployments now."

logger = logging.getLogger(__name__)


class LocalRuntime:
    """A `Runtime` made of the planner, an engine and this loop.

    Args:
        engine: Runs the replicas.
        watcher: What the platform does around the life of a replica.
        volumes: Those on this machine.
    """

    def __init__(self, engine: Engine, watcher: ReplicaWatcher, volumes: Volumes) -> None:
        self.name, self.accepts = engine.name, engine.accepts
        self._engine, self._ledger, self._watcher = engine, Ledger(engine), watcher
        self._wanted: dict[str, tuple[RevisionSpec, Desired]] = {}
        self._specs: dict[tuple[str, str], RevisionSpec] = {}
        """By deployment and revision, as they were applied to this server: with their environment."""
        self._changed = asyncio.Event()
        self._volumes, self._needs = volumes, Needs(engine, volumes, self._changed.set)
        self._prefetches = Prefetches()
        self._runs = Runs(engine, watcher, self._needs, self._ledger, self._is_busy, self._changed.set)
        self.draining = Draining(engine, self._ledger, watcher, self._wanted.__contains__, self._changed.set)
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Find the replicas that already run and begin the loop.

        Raises:
            RuntimeUnavailable: The machine lacks something that the engine needs.
        """
        for record in await self._engine.open():
            self._ledger.note(record)
            if record.phase in (Phase.STARTING, Phase.RUNNING, Phase.EXITED):
                self._runs.adopt(record)
            if record.phase in (Phase.STARTING, Phase.RUNNING):
                self.draining.drain_stranded(record)
        await self._volumes.start(self._mounted)
        self._loop = asyncio.create_task(self._run_forever(), name=f"{self.name} runtime")
        for record in self._ledger.live():
            self.draining.tell(record.id)

    async def close(self) -> None:
        """End the loop and leave the replicas running, to be adopted by the next start."""
        self.draining.close()
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
        await self._runs.close()
        await self._needs.close()
        await self._prefetches.close()
        await self._volumes.close()
        await self._engine.close()

    async def stop_all(self, grace_seconds: float) -> None:
        """Drain and end every replica, within `grace_seconds` at most."""
        self._stopping = True
        for record in self._ledger.live():
            self.draining.drain(record.id, time.time(), within_seconds=grace_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds + KILL_SLACK_SECONDS):
                while self._ledger.live():  # noqa: ASYNC110 - the loop clears the event that tells of changes
                    await asyncio.sleep(0.02)

    async def stand_down(self, grace_seconds: float) -> None:
        """Want nothing any more and drain every replica: another server runs the deployments now."""
        self._wanted.clear()
        for record in self._ledger.live():
            self.draining.drain(record.id, time.time(), within_seconds=grace_seconds, why=STOOD_DOWN)

    async def apply(
        self,
        spec: RevisionSpec,
        replicas: int,
        busy: frozenset[str] = frozenset(),
        older: Sequence[RevisionSpec] = (),
    ) -> None:
        """Declare what should run of this deployment; the loop makes it so."""
        for each in older:
            self._specs.setdefault((each.deployment_id, each.revision_id), each)
        desired = Desired(revision_id=spec.revision_id, replicas=replicas, busy=busy)
        if self._wanted.get(spec.deployment_id) != (spec, desired):
            self._wanted[spec.deployment_id] = (spec, desired)
            self._specs[spec.deployment_id, spec.revision_id] = spec
            self._changed.set()

    async def delete(self, deployment_id: str) -> None:
        """Declare that nothing of this deployment should run."""
        self._wanted.pop(deployment_id, None)
        for record in self._ledger.live(deployment_id):
            self.draining.drain(record.id, time.time())

    async def replace(self, replica_id: str) -> None:
        """End a replica at once; another takes its place. One that is gone already is let be."""
        if any(record.id == replica_id for record in self._ledger.live()):
            self.draining.drain(replica_id, time.time(), within_seconds=0.0, why="It did not give up a canceled job.")

    async def restart(self, replica_id: str, why: str) -> None:
        """End a replica's run at once and start it again, as after a crash. One that is gone already is let be."""
        for record in self._ledger.live():
            if record.id == replica_id:
                self._runs.condemn(record, why)

    async def observe(self, deployment_id: str | None = None) -> list[Replica]:
        """All replicas, or those of one deployment, with those that ended in the last minutes."""
        records = self._ledger if deployment_id is None else self._ledger.of(deployment_id)
        return [self._view(record) for record in replica_view.shown(records, time.time())]

    def capacity(self) -> Capacity:
        """What this machine has in all."""
        return self._engine.capacity()

    async def pin(self, image: str) -> str:
        """An image that the platform's registry does not know, with its digest where the engine has it."""
        return await self._engine.pin(image)

    def prefetch(self, project_id: str, image: str) -> None:
        """Begin to bring an image to this machine, before it is needed."""
        self._prefetches.begin((project_id, image), lambda: self._engine.prefetch(project_id, image))

    def preload(self, project_id: str, volume: VolumeVersion) -> None:
        """Begin to bring a version of a volume to this machine, before it is needed."""
        what = (project_id, volume.volume_id, str(volume.version))
        self._prefetches.begin(what, lambda: self._volumes.make(project_id, volume))

    def drop_deleted_volumes(self) -> None:
        """Begin to take deleted versions of volumes away from this machine; those in use follow their last replica."""
        self._volumes.drop_deleted()

    def logs(
        self,
        deployment_id: str,
        replica_id: str | None,
        *,
        tail: int | None,
        follow: bool,
        since: float = 0.0,
        wanted: Callable[[Replica], bool] | None = None,
    ) -> AsyncIterator[LogLine]:
        """Log lines, oldest first; following ends with the deployment, or with the replica that was asked for."""

        def replicas() -> list[str]:
            records = [r for r in self._ledger.of(deployment_id) if replica_id in (None, r.id)]
            return [r.id for r in records if wanted is None or wanted(self._view(r))]

        def over() -> bool:
            live = [record.id for record in self._ledger.live(deployment_id)]
            if replica_id is not None:
                return self._loop is None or replica_id not in live
            runs = deployment_id in self._wanted and not self._stopping
            return self._loop is None or not (runs or live)

        return read_merged(replicas, self._engine.log, over, tail=tail, follow=follow, since=since)

    def run_once(self, now: float) -> list[Action]:
        """Do what is to be done now, and return what the planner asked for."""
        done = [action for deployment in self._deployments() for action in self._advance(deployment, now)]
        self._forget_old(now)
        return done

    async def _run_forever(self) -> None:
        while True:
            self._changed.clear()
            try:
                self.run_once(time.time())
            except Exception:
                logger.exception("the runtime's loop failed and goes on")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._sleep_seconds(time.time())):
                    await self._changed.wait()

    def _sleep_seconds(self, now: float) -> float:
        live = self._ledger.live()
        tries = [self._needs.retry_at(self._spec(r)) for r in live if r.phase is Phase.WAITING]
        changes = [next_change([self._observed(record) for record in live], now), *tries]
        return max(0.0, min([IDLE_SECONDS, *(change - now for change in changes if change is not None)]))

    def _advance(self, deployment_id: str, now: float) -> list[Action]:
        wanted = None if self._stopping else self._wanted.get(deployment_id)
        if wanted is None:
            actions = overdue([self._observed(record) for record in self._ledger.of(deployment_id)], now)
        else:
            self._make_startable(deployment_id, now)
            observed = [self._observed(record) for record in self._ledger.of(deployment_id)]
            actions = plan(wanted[1], observed, now=now, free_gpus=len(self._free_gpus()))
        for action in actions:
            self._carry_out(action, deployment_id, now)
        return actions

    def _make_startable(self, deployment_id: str, now: float) -> None:
        for record in self._ledger.of(deployment_id):
            if record.phase is not Phase.WAITING:
                continue
            if (deployment_id, record.spec.revision_id) in self._specs:
                self._prepare(record, now)
            else:
                # Its environment was known to an earlier server alone, as it is never written down.
                why = "It ended after its revision was replaced, and cannot be started again."
                self._ledger.put(replica.abandoned(record, now, why))

    def _prepare(self, record: Record, now: float) -> None:
        spec = self._spec(record)
        self._needs.want(spec, now)
        preloading = replica.preloading(record, now, loaded=self._needs.has_volumes(spec))
        if preloading != record:
            self._ledger.put(preloading)

    def _carry_out(self, action: Action, deployment_id: str, now: float) -> None:
        match action:
            case Create():
                self._create(self._wanted[deployment_id][0], now)
            case Start(replica_id):
                self._start(self._ledger[replica_id], now)
            case Drain(replica_id):
                self.draining.drain(replica_id, now)
            case Insist(replica_id):
                self.draining.insist(self._ledger[replica_id], now)
            case Kill(replica_id):
                self.draining.kill(self._ledger[replica_id])

    def _create(self, spec: RevisionSpec, now: float) -> None:
        replica_id = f"{spec.deployment_name}-{uuid4().hex[:10]}"
        logger.info("replica created: replica=%s revision=%s", replica_id, spec.revision_id)
        self._ledger.put(replica.created(replica_id, spec, now))
        self._changed.set()

    def _start(self, record: Record, now: float) -> None:
        spec = self._spec(record)
        taken = frozenset(other.port for other in self._ledger if other.port is not None)
        gpus = self._free_gpus()[: spec.gpu_count]
        port, platform_url = self._engine.free_port(taken), self._engine.platform_url(spec)
        record = replica.starting(record, port=port, gpus=gpus, platform_url=platform_url, now=now)
        self._ledger.put(record)
        self._runs.begin(record, spec)

    def _forget_old(self, now: float) -> None:
        for deployment_id in self._ledger.deployments():
            for record in replica_view.forgettable(self._ledger.of(deployment_id), now):
                self._ledger.forget(record)
        live = {(r.spec.deployment_id, r.spec.revision_id) for r in self._ledger.live()}
        used = live | {(spec.deployment_id, spec.revision_id) for spec, _ in self._wanted.values()}
        self._specs = {key: spec for key, spec in self._specs.items() if key in used}
        self._needs.keep(self._specs.values(), [spec for key, spec in self._specs.items() if key in live])

    def _deployments(self) -> list[str]:
        return list(dict.fromkeys([*self._wanted, *(record.spec.deployment_id for record in self._ledger)]))

    def _mounted(self) -> frozenset[TreeKey]:
        """The versions of volumes that replicas mount, or wait for."""
        return frozenset(key for record in self._ledger.live() for key in trees_of(record.spec))

    def _is_busy(self, record: Record) -> bool:
        wanted = self._wanted.get(record.spec.deployment_id)
        return wanted is not None and record.id in wanted[1].busy

    def _spec(self, record: Record) -> RevisionSpec:
        return self._specs.get((record.spec.deployment_id, record.spec.revision_id), record.spec)

    def _free_gpus(self) -> tuple[int, ...]:
        if not self._engine.gpus():
            return ()  # of thousands of replicas none holds any
        running = [record for record in self._ledger if record.phase in (Phase.STARTING, Phase.RUNNING)]
        held = {gpu for record in running for gpu in record.gpus}
        return tuple(gpu for gpu in self._engine.gpus() if gpu not in held)

    def _observed(self, record: Record) -> Observed:
        prepared = record.phase is not Phase.WAITING or self._needs.are_met(self._spec(record))
        return replica_view.observed(record, prepared=prepared)

    def _view(self, record: Record) -> Replica:
        if record.phase is not Phase.WAITING:
            return replica_view.view(record)
        spec, free = self._spec(record), len(self._free_gpus())
        if record.spec.gpu_count > free and not record.crashes and self._needs.are_met(spec):
            plural, there_are = "" if record.spec.gpu_count == 1 else "s", len(self._engine.gpus())
            message = f"It needs {record.spec.gpu_count} GPU{plural}; {free} of this machine's {there_are} are free."
            return replica_view.view(record, reason="Insufficient GPU", message=message)
        return self._needs.view(record, spec)
