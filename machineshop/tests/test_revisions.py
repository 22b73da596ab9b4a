"""Revisions: what is kept of them, going back to one, and what becomes of one that does not get ready."""

from typing import Any, cast

import msgspec
import pytest

from factory import AnyArtifact, Clock
from machineshop.control.rollouts import Rollouts
from machineshop.errors import ArtifactMissing, ChangedMeanwhile, InvalidRequest, NotFound
from machineshop.models import Deployment, RevisionFailure
from machineshop.runtime.base import Capacity, Replica, ReplicaStatus, Runtime
from machineshop.services.deployments import DeploymentService
from machineshop.store import deployments as deployments_store
from machineshop.store import revisions
from machineshop.store.database import Database

FAILURE = RevisionFailure(reason="CrashLoopBackOff", message="It exited.", replica_id="r", log=("last",), failed_at=1.0)


class NoArtifact(AnyArtifact):
    """A registry that had the image once."""

    asked = 0

    async def resolve(self, project_id: str, image: str, *, accepts: object) -> str:
        self.asked += 1
        raise ArtifactMissing(message=f"{image} was deleted")


async def _run(deployments: DeploymentService, deployment: Deployment, image: str, **fields: object) -> Deployment:
    changes = {"image": f"registry/ns/hello@sha256:{image}", **fields}
    return await deployments.update(deployment.project_id, deployment.id, changes)


async def test_going_back_runs_the_old_revision_and_keeps_what_is_no_part_of_it(
    deployments: DeploymentService, deployment: Deployment
) -> None:
    await _run(deployments, deployment, "2", environment_variables=[{"name": "A", "value": "b"}])
    await deployments.update(deployment.project_id, "hello", {"max_replicas": 5, "description": "now"})

    back = await deployments.rollback(deployment.project_id, "hello", "1")

    assert (back.revision_number, back.revision_id) == (1, deployment.revision_id)
    assert back.config.image == deployment.config.image
    assert back.config.environment_variables == ()
    assert (back.config.max_replicas, back.config.description) == (5, "now")
    events = await deployments.list_events(deployment.project_id, "hello", 10, None)
    assert [(event.action, event.revision_number) for event in events] == [
        ("rollback", 1),
        ("update", 2),
        ("create", 1),
    ]


async def test_the_numbers_of_revisions_are_told_as_far_as_they_are_kept(
    deployments: DeploymentService, deployment: Deployment
) -> None:
    second = await _run(deployments, deployment, "2")
    asked = {deployment.revision_id, second.revision_id, "no-longer-kept"}
    assert await deployments.revision_numbers(second, asked) == {deployment.revision_id: 1, second.revision_id: 2}


async def test_the_revision_after_a_way_back_has_a_number_of_its_own(
    deployments: DeploymentService, deployment: Deployment
) -> None:
    second = await _run(deployments, deployment, "2")
    await deployments.rollback(deployment.project_id, "hello", "1")

    third = await _run(deployments, deployment, "3")

    assert third.revision_number == 3
    assert (await deployments.rollback(deployment.project_id, "hello", second.revision_id)).revision_number == 2


async def test_going_back_to_where_one_is_changes_nothing(
    deployments: DeploymentService, deployment: Deployment
) -> None:
    await deployments.rollback(deployment.project_id, "hello", "1")

    assert len(await deployments.list_events(deployment.project_id, "hello", 10, None)) == 1
    with pytest.raises(NotFound, match=r"There is no revision '7' of 'hello'\."):
        await deployments.rollback(deployment.project_id, "hello", "7")


async def test_the_end_of_an_id_names_a_revision_where_no_other_ends_so(
    deployments: DeploymentService, deployment: Deployment
) -> None:
    second = await _run(deployments, deployment, "2")

    found = await deployments.get_revision(deployment.project_id, "hello", second.revision_id[-8:])

    assert found.id == second.revision_id
    for shorter_or_other in (second.revision_id[-7:], "________", second.revision_id[-8:].upper() + "%"):
        with pytest.raises(NotFound):
            await deployments.get_revision(deployment.project_id, "hello", shorter_or_other)


async def test_the_newest_revisions_and_the_active_one_are_kept(
    deployments: DeploymentService, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisions, "KEPT_REVISIONS", 3)
    monkeypatch.setattr(revisions, "KEPT_EVENTS", 4)
    for number in range(2, 8):
        await _run(deployments, deployment, str(number))
    project, kept = deployment.project_id, []
    for number in range(1, 8):
        try:
            kept.append((await deployments.get_revision(project, "hello", str(number))).number)
        except NotFound:
            continue

    assert kept == [5, 6, 7]
    events = await deployments.list_events(project, "hello", 100, None)
    assert [event.revision_number for event in events] == [7, 6, 5, 4]
    assert events[-1].image.endswith(":4"), "an event outlives its revision"


async def test_what_works_is_kept_and_gone_back_to_however_many_newer_ones_fail(
    database: Database, deployments: DeploymentService, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisions, "KEPT_REVISIONS", 3)
    monkeypatch.setattr(revisions, "KEPT_EVENTS", 4)
    await database.write(revisions.note_ready, deployment.id, deployment.revision_id, 1.0)
    await deployments.update(deployment.project_id, "hello", {"rollback_on_failure": True})
    for number in range(2, 7):
        await _run(deployments, deployment, str(number))
    last = await _run(deployments, deployment, "7")

    serving = await database.read(revisions.may_serve, deployment.id, last.revision_id, last.updated_at + 3600)
    assert [revision.number for revision in serving] == [1], "its volumes are kept, too"
    back = await deployments.give_up(last, FAILURE)

    assert back is not None
    assert back.revision_id == deployment.revision_id


async def test_what_an_earlier_version_has_written_can_be_changed(
    database: Database, deployments: DeploymentService, deployment: Deployment
) -> None:
    def as_before(conn: object) -> None:
        config = msgspec.to_builtins(deployment.config)
        del config["rollback_on_failure"], config["startup_timeout_seconds"]
        text = msgspec.json.encode(config).decode()
        conn.exec_driver_sql(f"UPDATE deployments SET config = '{text}'")  # type: ignore[attr-defined]

    await database.write(as_before)
    deployments.changed()

    assert (await _run(deployments, deployment, "2")).revision_number == 2


async def test_a_failure_is_kept_and_seen_until_a_later_revision_is_active(
    deployments: DeploymentService, deployment: Deployment
) -> None:
    assert await deployments.give_up(deployment, FAILURE) is None
    failed = await deployments.last_failure(deployment)
    assert failed is not None
    assert failed.failure == FAILURE
    (event,) = await deployments.list_events(deployment.project_id, "hello", 10, None)
    assert event.failure == FAILURE

    assert await deployments.last_failure(await _run(deployments, deployment, "2")) is None


async def test_a_revision_that_fails_makes_way_for_the_last_that_worked_where_that_is_wanted(
    database: Database, deployments: DeploymentService, deployment: Deployment, clock: Clock
) -> None:
    await database.write(revisions.note_ready, deployment.id, deployment.revision_id, clock.now)
    broken = await _run(deployments, deployment, "2")
    assert await deployments.give_up(broken, FAILURE) is None, "nobody asked for it"
    broken = await _run(deployments, deployment, "3", rollback_on_failure=True)

    back = await deployments.give_up(broken, FAILURE)

    assert back is not None
    assert (back.revision_number, back.config.rollback_on_failure) == (1, True)
    failed = await deployments.last_failure(back)
    assert failed is not None
    assert failed.failure is not None
    assert (failed.number, failed.failure.rolled_back) == (3, True)
    events = await deployments.list_events(deployment.project_id, "hello", 1, None)
    assert events[0].action == "system"
    assert await deployments.give_up(broken, FAILURE) is None, "once is enough"


async def test_whoever_reads_of_a_failure_sees_the_way_back_too(
    database: Database, deployments: DeploymentService, deployment: Deployment, clock: Clock
) -> None:
    await database.write(revisions.note_ready, deployment.id, deployment.revision_id, clock.now)
    broken = await _run(deployments, deployment, "2", rollback_on_failure=True)
    changing = deployments_store.update

    def breaks_off(*args: Any) -> None:
        changing(*args)
        raise ChangedMeanwhile(what="deployment", name="hello")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deployments_store, "update", breaks_off)
        assert await deployments.give_up(broken, FAILURE) is None
    assert await deployments.last_failure(broken) is None, "all of it, or nothing"

    back = await deployments.give_up(broken, FAILURE)
    assert back is not None, "the next look goes back"
    assert back.revision_number == 1


async def test_a_way_back_that_is_barred_is_said_once_and_the_failure_kept(
    database: Database, deployments: DeploymentService, deployment: Deployment, clock: Clock
) -> None:
    await database.write(revisions.note_ready, deployment.id, deployment.revision_id, clock.now)
    broken = await _run(deployments, deployment, "2", rollback_on_failure=True)
    registry = NoArtifact()
    meanwhile = DeploymentService(database, registry, lambda: Capacity(2, 8, 0), frozenset(), clock)

    with pytest.raises(InvalidRequest, match="was deleted"):
        await meanwhile.give_up(broken, FAILURE)
    assert await meanwhile.give_up(broken, FAILURE) is None
    assert registry.asked == 1, "the loop, which looks each second, does not bother it again"

    failed = await deployments.last_failure(broken)
    assert failed is not None
    assert failed.failure == FAILURE


async def test_a_revision_that_has_been_ready_is_never_given_up(
    database: Database, deployments: DeploymentService, deployment: Deployment, clock: Clock
) -> None:
    second = await _run(deployments, deployment, "2", rollback_on_failure=True)
    for one in (deployment, second):
        await database.write(revisions.note_ready, deployment.id, one.revision_id, clock.now)

    assert await deployments.give_up(second, FAILURE) is None
    assert await deployments.last_failure(second) is None


class Ready:
    """Stands for the runtime: one ready replica of one revision."""

    def __init__(self, deployment: Deployment) -> None:
        self.replica = Replica(
            id="r",
            deployment_id=deployment.id,
            revision_id=deployment.revision_id,
            image="i",
            status=ReplicaStatus.RUNNING,
            created_at=0.0,
            ready_since=1.0,
        )

    async def observe(self, deployment_id: str | None = None) -> list[Replica]:
        return [self.replica]


async def test_a_revision_that_was_replaced_before_it_was_seen_to_be_ready_worked_all_the_same(
    deployments: DeploymentService, deployment: Deployment, database: Database, clock: Clock
) -> None:
    second = await _run(deployments, deployment, "2", rollback_on_failure=True)
    await Rollouts(database, cast("Runtime", Ready(deployment)), deployments).run_once(clock.now)
    first = await deployments.get_revision(deployment.project_id, deployment.id, "1")
    assert first.ready_at == clock.now
    back = await deployments.give_up(second, FAILURE)
    assert back is not None
    assert back.revision_id == deployment.revision_id
