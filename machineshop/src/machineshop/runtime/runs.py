"""The runs of replicas: one task each, from the worker key to the exit that the platform has taken note of.

Place in the flow: `local.py` begins a run when the planner says so, or when it finds one going on; what a run comes to
is written into the ledger, from which the planner decides what follows.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from machineshop.errors import MachineshopError, Unavailable
from machineshop.runtime import exits, health, replica
from machineshop.runtime.base import ReplicaWatcher, RevisionSpec, RunEnd
from machineshop.runtime.engine import Engine, PreparationFailed
from machineshop.runtime.exits import Exit, StartFailed
from machineshop.runtime.ledger import Ledger
from machineshop.runtime.needs import Needs
from machineshop.runtime.planner import Phase
from machineshop.runtime.record import Record

REPORT_RETRY_SECONDS = 1.0
"""How long to wait before the platform is told of an exit again, when it could not take note."""

logger = logging.getLogger(__name__)


class Runs:
    """The runs going on.

    Args:
        engine: Runs the replicas.
        watcher: Makes worker keys and takes them back.
        needs: Has what replicas mount.
        ledger: Where the replicas' states are written.
        is_busy: Whether a replica has a job in hand.
        changed: Called when something has happened that may need a new plan.
    """

    def __init__(
        self,
        engine: Engine,
        watcher: ReplicaWatcher,
        needs: Needs,
        ledger: Ledger,
        is_busy: Callable[[Record], bool],
        changed: Callable[[], None],
    ) -> None:
        self._engine, self._watcher, self._needs, self._ledger = engine, watcher, needs, ledger
        self._is_busy, self._changed = is_busy, changed
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, record: Record, spec: RevisionSpec) -> None:
        """Start a replica whose record says that it is starting."""
        self._attend(record.id, lambda: self._run(record.id, spec))

    def adopt(self, record: Record) -> None:
        """Go on with a run that an earlier server began, or learn how it ended."""
        logger.info("replica adopted: replica=%s deployment=%s", record.id, record.spec.deployment_id)
        self._ledger.put(msgspec.structs.replace(record, phase=Phase.RUNNING))
        self._attend(record.id, lambda: self._watch(record.id))

    def condemn(self, record: Record, why: str) -> None:
        """End a replica's run now, to be started again as after a crash."""
        if record.phase is Phase.RUNNING and record.draining_since is None:
            logger.warning("replica's run ended by the platform: replica=%s %s", record.id, why)
            self._ledger.put(replica.condemned(record, why))
            self._engine.kill(record)

    async def close(self) -> None:
        """Look away; what runs goes on running."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _attend(self, replica_id: str, run: Callable[[], Awaitable[Exit | StartFailed]]) -> None:
        task = asyncio.create_task(self._settle(replica_id, run), name=f"run of {replica_id}")
        self._tasks[replica_id] = task
        task.add_done_callback(lambda task: self._over(replica_id, task))

    def _over(self, replica_id: str, task: asyncio.Task[None]) -> None:
        # The next run may have begun before this one's end is told here.
        if self._tasks.get(replica_id) is task:
            del self._tasks[replica_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a replica's run failed unexpectedly: replica=%s", replica_id, exc_info=error)
        self._changed()

    async def _settle(self, replica_id: str, run: Callable[[], Awaitable[Exit | StartFailed]]) -> None:
        end = await run()
        self._ledger.put(replica.exited(self._ledger[replica_id]))
        worked = await self._report_exit(self._ledger[replica_id], end)
        record = replica.settled(self._ledger[replica_id], end, worked=worked)
        self._ledger.put(record)
        logger.info("replica's run over: replica=%s reason=%s code=%s", replica_id, record.reason, record.exit_code)

    async def _report_exit(self, record: Record, end: Exit | StartFailed) -> bool:
        started_at, how = record.started_at or record.created_at, exits.how_it_ended(record, end)
        run = RunEnd(deployment_id=record.spec.deployment_id, started_at=started_at, how=how)
        while True:
            try:
                return await self._watcher.replica_exited(record.id, run)
            except Unavailable as error:
                logger.warning("no note taken of an exit yet: replica=%s error=%s", record.id, error)
            except Exception:
                logger.exception("the platform took no note of an exit and is told again: replica=%s", record.id)
            await asyncio.sleep(REPORT_RETRY_SECONDS)

    async def _run(self, replica_id: str, spec: RevisionSpec) -> Exit | StartFailed:
        failure = await self._launch(replica_id, spec)
        if failure is not None:
            return failure
        record = replica.running(self._ledger[replica_id])
        self._ledger.put(record)
        if record.draining_since is not None:
            self._engine.terminate(record)
        return await self._watch(replica_id)

    async def _launch(self, replica_id: str, spec: RevisionSpec) -> StartFailed | None:
        try:
            if spec.secrets:
                spec = await self._watcher.reveal(spec)
            key = await self._watcher.issue_key(spec, replica_id)
        except MachineshopError as error:
            logger.warning("no worker key, or no secrets, for a replica: replica=%s error=%s", replica_id, error)
            return _without_credentials(error.message)
        except Exception:
            logger.exception("no worker key, or no secrets, for a replica: replica=%s", replica_id)
            return _without_credentials("the platform's log says why")
        try:
            await self._engine.launch(self._ledger[replica_id], spec, key, await self._needs.mounts(spec))
        except PreparationFailed as error:
            return StartFailed(at=time.time(), reason=error.reason, message=error.message)
        except OSError as error:
            message = f"This machine could not start it: {error}"
            return StartFailed(at=time.time(), reason="CreateContainerError", message=message)
        return None

    async def _watch(self, replica_id: str) -> Exit:
        probing = asyncio.create_task(self._keep_probing(replica_id))
        try:
            return await self._engine.wait(self._ledger[replica_id])
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    async def _keep_probing(self, replica_id: str) -> None:
        record = self._ledger[replica_id]
        readiness = health.Readiness(ready=record.ready_since is not None)
        unanswered = wrong_answers = 0
        while record.draining_since is None:
            probe = await self._probe(record)
            busy = self._is_busy(record)
            readiness = health.judge(readiness, probe, busy=busy)
            self._take_readiness(self._ledger[replica_id], readiness, probe)
            record = self._ledger[replica_id]
            running_seconds = time.time() - (record.started_at or 0.0)
            unanswered = health.unanswered(unanswered, probe, busy=busy)
            wrong_answers = health.wrong_answers(wrong_answers, probe)
            been_ready = record.ready_run == record.runs
            timeout_seconds = record.spec.startup_timeout_seconds
            why = health.is_over(probe, unanswered, running_seconds, timeout_seconds, ready=been_ready)
            if why is not None:
                self.condemn(record, why)
                return
            await asyncio.sleep(health.interval_seconds(readiness, running_seconds, wrong_answers))

    async def _probe(self, record: Record) -> health.Probe:
        if not record.spec.health_check_path:
            return health.Probe(health.Answer.HEALTHY)
        return await self._engine.probe(record)

    def _take_readiness(self, record: Record, readiness: health.Readiness, probe: health.Probe) -> None:
        if record.draining_since is not None or record.phase is not Phase.RUNNING:
            return
        now = time.time()
        why = health.describe(probe, readiness, now - (record.started_at or now))
        if not readiness.ready and record.ready_since is None:
            self._ledger.note(replica.not_ready(record, why))
        elif not readiness.ready:
            logger.warning("replica no longer ready: replica=%s %s", record.id, why)
            self._ledger.put(replica.not_ready(record, why))
            self._changed()
        elif record.ready_since is None:
            logger.info("replica ready: replica=%s", record.id)
            self._ledger.put(replica.ready(record, now))
            self._changed()


def _without_credentials(cause: str) -> StartFailed:
    message = f"The platform could not give it its key and secrets: {cause}"
    return StartFailed(at=time.time(), reason="CreateContainerConfigError", message=message)
