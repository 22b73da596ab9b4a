"""Workers that live and get nowhere are found by what their heartbeats say."""

from factory import Clock, Jobs
from machineshop.control.wedged import Wedged
from machineshop.models import Worker
from machineshop.services.deployments import DeploymentService
from machineshop.states import JobVerb
from machineshop.store.database import Database
from machineshop.store.moves import Holder

REPLICA = Worker(hostname="h", replica_id="replica-1", claim_timeout_seconds=90)


class Restarts:
    """Takes notes."""

    def __init__(self) -> None:
        self.of: list[tuple[str, str]] = []

    async def restart(self, replica_id: str, why: str) -> None:
        self.of.append((replica_id, why))


async def test_a_job_without_progress_for_too_long_has_its_replica_restarted(
    database: Database, deployments: DeploymentService, jobs: Jobs, clock: Clock
) -> None:
    restarts = Restarts()
    wedged = Wedged(database, jobs.upkeep, restarts, clock)
    claim = await jobs.running(REPLICA)
    holder, began_at = Holder(token=claim.token), clock.now

    async def look(at: float, progress_at: float = began_at) -> list[str]:
        clock.now = at
        await jobs.say(JobVerb.RENEW, claim.job.id, holder, progress_at=progress_at)
        return await wedged.run_once(at)

    assert await look(began_at + 100) == [], "nobody has said how long it may take"
    await deployments.update(jobs.deployment.project_id, "hello", {"progress_timeout_seconds": 103})
    assert await look(began_at + 102) == []
    assert await look(began_at + 104) == ["replica-1"]
    assert "progress_timeout_seconds" in restarts.of[0][1]
    assert await look(began_at + 106, progress_at=began_at + 106) == []


async def test_what_a_worker_said_before_nobody_could_hear_it_any_more_does_not_count(
    database: Database, deployments: DeploymentService, jobs: Jobs, clock: Clock
) -> None:
    await deployments.update(jobs.deployment.project_id, "hello", {"progress_timeout_seconds": 60})
    claim = await jobs.running(REPLICA)
    began_at = clock.now
    await jobs.say(JobVerb.RENEW, claim.job.id, Holder(token=claim.token), progress_at=began_at)
    clock.now += 600
    wedged = Wedged(database, jobs.upkeep, Restarts(), clock)
    assert await wedged.run_once(clock.now) == []
    clock.now += 2
    await jobs.say(JobVerb.RENEW, claim.job.id, Holder(token=claim.token), progress_at=began_at)
    assert await wedged.run_once(clock.now) == ["replica-1"], "it got on no further meanwhile"


async def test_a_worker_that_says_nothing_of_progress_is_let_be(
    database: Database, deployments: DeploymentService, jobs: Jobs, clock: Clock
) -> None:
    await deployments.update(jobs.deployment.project_id, "hello", {"progress_timeout_seconds": 60})
    await jobs.running(REPLICA)
    assert await Wedged(database, jobs.upkeep, Restarts()).run_once(clock.now + 1e6) == []
