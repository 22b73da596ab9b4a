"""What the tests of webhooks do: end jobs, let the deliverer look, and read what became of it."""

from factory import Clock, Jobs
from machineshop.control.deliverer import Deliverer
from machineshop.control.sender import TOTAL_SECONDS, Sender
from machineshop.models import Job
from machineshop.services.signing import SigningService
from machineshop.services.targets import Targets
from machineshop.services.webhooks import WebhookService
from machineshop.store.database import Database
from machineshop.store.moves import Holder
from machineshop.store.webhooks import Webhook


class Outbox:
    """Jobs with webhooks, and a deliverer whose clock stands still."""

    def __init__(
        self,
        database: Database,
        webhooks: WebhookService,
        signing: SigningService,
        jobs: Jobs,
        clock: Clock,
        deliverer: Deliverer,
    ) -> None:
        self.database = database
        self.webhooks = webhooks
        self.signing = signing
        self.jobs = jobs
        self.clock = clock
        self.deliverer = deliverer
        self._others: list[Deliverer] = []

    async def close(self) -> None:
        for deliverer in [self.deliverer, *self._others]:
            for task in deliverer._tasks:
                task.cancel()
            await deliverer.close()

    def another(self, targets: Targets, total_seconds: float = TOTAL_SECONDS) -> Deliverer:
        """A deliverer on the same store, as of another server."""
        sender = Sender(targets, total_seconds)
        deliverer = Deliverer(self.database, self.webhooks, sender, clock=self.clock, chance=lambda: 0.5)
        self._others.append(deliverer)
        return deliverer

    async def done(self, url: str, outputs: bytes = b"{}") -> Job:
        """A job that is done, and to be told of."""
        job = await self.jobs.pending(webhook_url=url)
        claim = await self.jobs.claim()
        assert claim is not None
        await self.jobs.finish(claim.job.id, Holder(token=claim.token), outputs)
        return job

    async def canceled(self, url: str, number: int) -> list[Job]:
        """Jobs that were canceled before anybody had them, and are to be told of."""
        submitted = [self.jobs.submission(webhook_url=url) for _ in range(number)]
        jobs = [one.job for one in await self.jobs.queue.submit_many(self.jobs.project_id, submitted)]
        await self.jobs.queue.clear(self.jobs.project_id, self.jobs.deployment.name)
        return jobs

    async def look(self, deliverer: Deliverer | None = None) -> int:
        """One pass, until all that it began has ended."""
        deliverer = deliverer or self.deliverer
        begun = await deliverer.run_once(self.clock.now)
        await deliverer.settled()
        return begun

    async def of(self, job: Job) -> Webhook:
        """What has been told about a job."""
        (webhook,) = await self.webhooks.of_job(self.jobs.project_id, job.model, job.id)
        return webhook
