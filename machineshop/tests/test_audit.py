"""The record of changes: what is kept of them, for how long, and that no change goes without one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from factory import Clock
from machineshop.api.endpoint import Endpoint
from machineshop.app import Platform
from machineshop.config import Settings
from machineshop.models import Actor, DeploymentConfig, EnvironmentVariable, Identity
from machineshop.runtime.choice import Choice
from machineshop.services.audit import MAX_VALUES_BYTES, AuditLog, Hidden, config_values, difference, make_event
from machineshop.store.database import Database

CANARY = "canary-1f7a"
# What jobs do is told of by the queue itself; and these change nothing.
NOT_RECORDED = {
    "POST /internal/v1/queue/updates",
    "POST /internal/v1/videos/status",
    "POST /v1/deployments/prewarm",
    "POST /v1/deployments/storage/volumes/{volume}/versions/{version}/files",
    "POST /v1/deployments/storage/volumes/{volume}/versions/{version}/files/contents",
    "POST /v1/queue/cancel",
    "POST /v1/queue/results",
    "POST /v1/queue/resubmit",
    "POST /v1/queue/submit",
    "POST /v1/storage/multipart/abort",
    "POST /v1/storage/multipart/complete",
    "POST /v1/storage/multipart/init",
    "POST /v1/storage/upload-request",
    "POST /v1/storage/volumes/{volume}/versions/{version}/files",
    "POST /v1/storage/volumes/{volume}/versions/{version}/files/contents",
    "POST /v1/videos/cancel",
    "POST /v1/videos/generations",
    "PUT /v1/deployments/storage/volumes/{volume}/versions/{version}/files",
    "PUT /v1/storage/volumes/{volume}/versions/{version}/files",
}
# In one transaction with what they change.
RECORDED_BY_THE_STORE = {
    "POST /v1/api-keys",
    "DELETE /v1/api-keys/{id}",
    "POST /v1/projects",
    "PATCH /v1/projects/{id}",
    "DELETE /v1/projects/{id}",
}


def config(**variables: str) -> DeploymentConfig:
    set_to = tuple(EnvironmentVariable(name=name, value=value) for name, value in variables.items())
    return DeploymentConfig(name="hello", image="i", gpu_type="none", environment_variables=set_to)


@pytest.fixture
def audit(database: Database, clock: Clock) -> AuditLog:
    return AuditLog(database, keep_seconds=3600, clock=clock)


@pytest.fixture
async def routes(tmp_path: Path) -> AsyncIterator[list[Route]]:
    platform = Platform(Settings(data_dir=tmp_path, port=0))
    platform.data_dir.open()
    platform.build(Choice())
    yield [route for route in platform.asgi.application.routes if isinstance(route, Route)]
    platform.data_dir.close()


async def test_every_route_that_changes_something_is_recorded(routes: list[Route]) -> None:
    changing = {
        f"{method} {route.path}": route.endpoint.action
        for route in routes
        if isinstance(route.endpoint, Endpoint)
        for method in (route.methods or set()) - {"GET", "HEAD"}
    }

    assert {name for name, action in changing.items() if action is None} == NOT_RECORDED | RECORDED_BY_THE_STORE


def test_of_a_change_only_what_differs_is_kept() -> None:
    before, after = difference({"a": 1, "b": {"c": 2, "d": 3}, "e": None}, {"a": 1, "b": {"c": 2, "d": 4}, "f": None})

    assert (before, after) == ({"b": {"d": 3}, "e": None}, {"b": {"d": 4}, "f": None})


VALUES = st.dictionaries(
    st.sampled_from("abcd"),
    st.recursive(st.integers(0, 3) | st.none(), lambda inner: st.dictionaries(st.sampled_from("xyz"), inner)),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(VALUES, VALUES)
def test_the_difference_of_equals_is_nothing_and_of_others_something(one: object, other: object) -> None:
    assert isinstance(one, dict)
    assert isinstance(other, dict)
    assert (difference(one, other) == ({}, {})) is (one == other)


def test_values_of_variables_are_compared_and_never_kept() -> None:
    event = make_event(
        Actor(name="ci"),
        "o",
        "p",
        "deployment.update",
        "hello",
        0.0,
        config_values(config(TOKEN=CANARY, SAME=CANARY)),
        config_values(config(TOKEN=f"{CANARY}-2", SAME=CANARY)),
    )

    assert event.before == event.after == {"environment_variables": {"TOKEN": "***"}}
    assert CANARY not in repr(event)
    assert CANARY not in repr(Hidden(CANARY))


def test_what_is_too_large_is_named_and_not_kept() -> None:
    event = make_event(Actor(name="ci"), "o", "p", "a.b", "s" * 9999, 0.0, None, {"args": ["x" * MAX_VALUES_BYTES]})

    assert event.after == {"too_large": ["args"]}
    assert len(event.subject) == 512


async def test_events_are_kept_for_a_set_time(audit: AuditLog, admin: Identity, clock: Clock) -> None:
    await audit.record(admin, "127.0.0.1", "deployment.create", "old")
    clock.now += 3601
    await audit.record(admin, "127.0.0.1", "deployment.create", "new")

    assert await audit.clean(clock.now) == 1
    assert [event.subject for event in await audit.list_events(admin.organization.id, 10)] == ["new"]


async def test_events_are_found_by_action_and_by_kind(audit: AuditLog, admin: Identity) -> None:
    for action in ("deployment.create", "deployment.update", "deployment_x.update"):
        await audit.record(admin, "127.0.0.1", action, action)

    async def found(action: str) -> set[str]:
        return {event.subject for event in await audit.list_events(admin.organization.id, 10, None, action)}

    assert await found("deployment") == {"deployment.create", "deployment.update"}
    assert await found("deployment.update") == {"deployment.update"}
    assert await found("deployment%") == set()
    assert await audit.list_events("another-organization", 10) == []
