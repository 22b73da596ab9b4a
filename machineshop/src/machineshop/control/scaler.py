"""Decides again and again how many replicas each deployment should have.

Place in the flow: the store says what waits, the gateway's traffic what is asked over HTTP, the runtime what runs. The
decision is `autoscaler.py`'s; what it comes to is kept in the store, where the reconciler finds it. What this loop
remembers from look to look is only ever a reason to wait: after a restart it stops nothing until it has seen enough.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from machineshop.control.apart import Apart
from machineshop.control.autoscaler import Decision, History, desired_replicas
from machineshop.control.scraper import Scraper
from machineshop.control.wish import Signals
from machineshop.models import Deployment, QueueCounts, ScalingDecision
from machineshop.runtime.base import Replica, ReplicaStatus, Runtime
from machineshop.services.scaling_policy import Metric, Policy, policy_of
from machineshop.services.traffic import Traffic
from machineshop.store import deployments, jobs, scaling
from machineshop.store.database import Database
from machineshop.store.scaling import QueueState

log = logging.getLogger(__name__)

_NO_QUEUE = QueueState(QueueCounts(), 0)


class Scaler:
    """One look at all deployments.

    Args:
        database: What should run, the queues, and the decisions.
        runtime: What runs.
        traffic: The requests.
        scraper: Asks replicas for metrics of their own.
    """

    def __init__(self, database: Database, runtime: Runtime, traffic: Traffic, scraper: Scraper) -> None:
        self._database = database
        self._runtime = runtime
        self._traffic = traffic
        self._scraper = scraper
        self._histories: dict[str, History] = {}
        self._latest: dict[str, ScalingDecision] = {}
        self._asleep: set[str] = set()
        self._apart = Apart("scale")
        self._wake: Callable[[], None] = lambda: None

    def on_work(self, wake: Callable[[], None]) -> None:
        """Call `wake` when something comes in for a deployment without replicas."""
        self._wake = wake

    def work_came(self, deployment_id: str) -> None:
        """A job or a request waits: where nothing runs, that is not to wait for the next look."""
        if deployment_id in self._asleep:
            self._asleep.discard(deployment_id)
            self._wake()

    def latest(self, deployment_id: str) -> ScalingDecision | None:
        """The last look at a deployment, whether it changed anything or not."""
        return self._latest.get(deployment_id)

    async def run_once(self, now: float) -> int:
        """Look at each deployment; returns how many are to have another number of replicas."""
        wanted = await self._database.read(deployments.list_of_all_projects)
        queues = await self._database.read(scaling.queue_states)
        busy = await self._database.read(jobs.busy_replicas) | self._traffic.busy_replicas()
        replicas: defaultdict[str, list[Replica]] = defaultdict(list)
        for replica in await self._runtime.observe():
            if replica.status is not ReplicaStatus.TERMINATED and not replica.draining:
                replicas[replica.deployment_id].append(replica)
        ids = {(deployment.project_id, deployment.name): deployment.id for deployment in wanted}
        changed = 0
        for deployment in wanted:
            with self._apart.turn(deployment.id):
                policy = policy_of(deployment.config)
                other = ids.get((deployment.project_id, policy.queue or ""))
                signals = self._signals(policy, deployment, replicas[deployment.id], queues, other, busy)
                changed += await self._take(deployment, policy, signals, now)
        self._forget({deployment.id for deployment in wanted})
        return changed

    def _signals(
        self,
        policy: Policy,
        deployment: Deployment,
        replicas: Sequence[Replica],
        queues: dict[str, QueueState],
        other: str | None,
        busy: frozenset[str],
    ) -> Signals:
        queue = queues.get(deployment.id, _NO_QUEUE)
        named = queues.get(other or "") if policy.metric is Metric.BACKLOG else None
        seen = self._traffic.seen(deployment.id, policy.window_seconds)
        ready = [replica for replica in replicas if replica.ready_since is not None]
        custom = None
        if policy.metric is Metric.CUSTOM and policy.custom_metric_name is not None:
            custom = self._scraper.mean(policy.custom_metric_name, ready)
        return Signals(
            pending=queue.counts.pending,
            running=queue.counts.running,
            backlog=None if named is None else named.counts.pending + named.counts.running,
            held=seen.held,
            in_flight=seen.in_flight,
            arrived=seen.arrived,
            mean_request_seconds=seen.mean_seconds,
            custom=custom,
            ready=len(ready),
            busy=sum(replica.id in busy for replica in replicas),
            activity=(queue.changes + (named or _NO_QUEUE).changes, seen.total),
        )

    async def _take(self, deployment: Deployment, policy: Policy, signals: Signals, now: float) -> bool:
        before = deployment.replicas
        decided = desired_replicas(policy, signals, now, self._histories.get(deployment.id), before)
        self._histories[deployment.id] = decided.history
        decided_before = deployment.desired_replicas or 0  # other than `before` where the bounds have changed since
        decision = _to_keep(decided, policy, signals, decided_before, now)
        self._latest[deployment.id] = decision
        if decided.replicas == 0 and policy.max_replicas:
            self._asleep.add(deployment.id)
        else:
            self._asleep.discard(deployment.id)
        if decided.replicas == decided_before:
            return False
        await self._database.write(scaling.decide, deployment.id, decision)
        log.info(
            "deployment.scaled deployment_id=%s from=%d to=%d reason=%s",
            deployment.id,
            decided_before,
            decided.replicas,
            decided.reason,
        )
        return True

    def _forget(self, live: set[str]) -> None:
        for gone in (self._histories.keys() | self._latest.keys()) - live:
            self._histories.pop(gone, None)
            self._latest.pop(gone, None)
        self._asleep &= live
        self._apart.keep(live)


def _to_keep(decided: Decision, policy: Policy, signals: Signals, before: int, now: float) -> ScalingDecision:
    inputs: dict[str, Any] = {"policy": msgspec.to_builtins(policy), "signals": msgspec.to_builtins(signals)}
    return ScalingDecision(
        at=now,
        before=before,
        replicas=decided.replicas,
        reason=decided.reason,
        message=decided.message,
        wanted=decided.wanted,
        inputs=inputs,
    )
