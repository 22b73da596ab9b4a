"""What stands before a job, as the store counts it."""

from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection

from machineshop.models import Job
from machineshop.store import jobs as store_jobs
from machineshop.store import places
from machineshop.store.places import MAX_POSITION, Ahead
from migrated import migrated_database, migrated_sqlite
from queue_simulation import make_deployment, pending_job, transaction


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_ahead_are_higher_priorities_and_its_own_line_and_what_is_fair(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with transaction(migrated_database(kind, request, tmp_path)) as conn:
        project, deployment = make_deployment(conn)
        _submit(conn, project, deployment, ["a"] * 5 + ["b"] * 5, priority=0)
        _submit(conn, project, deployment, ["a", "c"], priority=3)
        _submit(conn, project, deployment, ["a"] * 3, priority=-1)
        last_of_b = _last(conn, project, deployment, "b", 0)
        # Both of the higher priority, four of its own line, and all of the other: among equals that goes first.
        assert places.ahead(conn, last_of_b) == Ahead(
            jobs=11, higher_priority=2, in_line=4, key_running=0, key_cap=None
        )
        lowest = places.ahead(conn, _last(conn, project, deployment, "a", -1))
        assert (lowest.jobs, lowest.higher_priority, lowest.in_line) == (14, 12, 2)


def test_what_is_far_back_is_not_counted_and_the_look_is_quick(tmp_path: Path) -> None:
    with transaction(migrated_sqlite(tmp_path)) as conn:
        project, deployment = make_deployment(conn)
        number = MAX_POSITION + 50
        _submit(conn, project, deployment, [""] * number, priority=0)
        first_beyond = pending_job(project, deployment, sequence=MAX_POSITION + 2)
        assert places.ahead(conn, first_beyond).jobs is None
        assert places.ahead(conn, msgspec.structs.replace(first_beyond, sequence=MAX_POSITION + 1)).jobs == MAX_POSITION


def _submit(conn: Connection, project: str, deployment: str, keys: list[str], priority: int) -> None:
    new = [pending_job(project, deployment, fair_key=key, priority=priority) for key in keys]
    store_jobs.insert(conn, new)


def _last(conn: Connection, project: str, deployment: str, key: str, priority: int) -> Job:
    query = (
        f"SELECT id FROM jobs WHERE deployment_id = '{deployment}' AND fair_key = '{key}' AND priority = {priority} "
        "ORDER BY sequence DESC LIMIT 1"
    )
    job = store_jobs.get(conn, project, "m", str(conn.exec_driver_sql(query).scalar()))
    assert job is not None
    return job
