"""Deployments under many hands at once."""

import asyncio

import pytest

from factory import WORKER, Jobs, never_disconnected
from machineshop.errors import AlreadyExists, NotFound
from machineshop.models import Deployment
from machineshop.services.deployments import DeploymentService


async def test_changes_made_at_once_are_all_kept(deployments: DeploymentService, deployment: Deployment) -> None:
    fields = ["cpu", "memory", "storage", "port", "min_replicas", "termination_grace_period_seconds"]
    await asyncio.gather(
        *[deployments.update(deployment.project_id, "hello", {field: 7}) for field in fields],
        *[deployments.update(deployment.project_id, "hello", {"description": f"{n}"}) for n in range(10)],
    )
    config = (await deployments.get(deployment.project_id, "hello")).config
    assert [getattr(config, field) for field in fields] == [7] * len(fields)


async def test_of_many_creates_one_wins(deployments: DeploymentService, deployment: Deployment) -> None:
    fields = {"name": "other", "image": "i", "gpu_type": "none"}
    made = await asyncio.gather(
        *[deployments.create(deployment.project_id, fields) for _ in range(8)], return_exceptions=True
    )
    assert sum(isinstance(result, Deployment) for result in made) == 1
    assert sum(isinstance(result, AlreadyExists) for result in made) == 7


async def test_a_name_is_free_again_after_a_delete(
    deployments: DeploymentService, deployment: Deployment, jobs: Jobs
) -> None:
    old = await jobs.pending()
    await deployments.delete(deployment.project_id, "hello")
    with pytest.raises(NotFound):
        await deployments.get(deployment.project_id, "hello")
    new = await deployments.create(deployment.project_id, {"name": "hello", "image": "i", "gpu_type": "none"})
    assert new.id != deployment.id
    assert await jobs.work.retrieve(new, WORKER, 0, never_disconnected) == []
    assert (await jobs.get(old.id)).deployment_id == deployment.id


async def test_revisions_are_counted_and_listed(deployments: DeploymentService, deployment: Deployment) -> None:
    await deployments.update(deployment.project_id, "hello", {"min_replicas": 2})  # bounds make no revision
    await deployments.update(deployment.project_id, "hello", {"cpu": 2})
    events = await deployments.list_events(deployment.project_id, "hello", 10, None)
    assert [(event.number, event.revision_number, event.action) for event in events] == [
        (2, 2, "update"),
        (1, 1, "create"),
    ]
    older = await deployments.list_events(deployment.project_id, "hello", 10, 2)
    assert [event.number for event in older] == [1]
    revision = await deployments.get_revision(deployment.project_id, "hello", "1")
    assert revision.config.cpu == 1
    assert await deployments.get_revision(deployment.project_id, "hello", revision.id) == revision
    with pytest.raises(NotFound):
        await deployments.get_revision(deployment.project_id, "hello", "3")
