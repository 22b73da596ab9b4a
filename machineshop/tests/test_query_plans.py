"""Statements use indexes, however long a queue is, and however much is over."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event

from machineshop.store import queues, revisions
from machineshop.store.statement import Statement
from migrated import migrated_sqlite
from postgres_cluster import PostgresCluster
from queue_simulation import make_deployment, transaction

MODULES = ["attempts", "charges", "claims", "jobs", "lines", "losses", "moves", "places", "queues", "withdrawals"]
# Indexes of what is pending, running, overdue: small beside all the jobs that there have ever been.
SMALL = {"ix_jobs_running", "ix_jobs_deadline", "ix_jobs_pending"}


def _statements() -> Iterator[tuple[str, Statement]]:
    for name in MODULES:
        module = importlib.import_module(f"machineshop.store.{name}")
        for variable, value in vars(module).items():
            if isinstance(value, Statement):
                yield f"{name}.{variable}", value
            elif isinstance(value, dict):
                for key, statement in value.items():
                    if isinstance(statement, Statement):
                        yield f"{name}.{variable}[{key}]", statement


def _sqlite_plans(conn: Connection) -> Iterator[tuple[str, str]]:
    """How SQLite would go about each statement, a step at a time, by the statement's name."""
    driver = conn.connection.driver_connection
    assert driver is not None
    for name, statement in _statements():
        values = [1] * len(set(re.findall(r"\?(\d+)", statement._sqlite)))
        for *_, plan in driver.execute(f"EXPLAIN QUERY PLAN {statement._sqlite}", values):
            yield name, plan


def test_no_statement_looks_through_all_jobs_of_a_queue(tmp_path: Path) -> None:
    """In SQLite, which has no idea of the numbers, so that what it chooses here it chooses anywhere."""
    with transaction(migrated_sqlite(tmp_path)) as conn:
        for name, plan in _sqlite_plans(conn):
            found = re.match(r"(SCAN|SEARCH) jobs(?: USING (?:COVERING )?(?:INDEX (\w+)|INTEGER PRIMARY KEY))?", plan)
            if found is None or name == "withdrawals._LAST":  # that one reads the last entry alone
                continue
            if found[1] == "SCAN":
                assert found[2] in SMALL, f"{name}: {plan}"
            else:
                assert found[2] != "ix_jobs_deployment_id_sequence", f"{name}: {plan}"


def test_lines_are_found_by_their_indexes(tmp_path: Path) -> None:
    with transaction(migrated_sqlite(tmp_path)) as conn:
        for name, plan in _sqlite_plans(conn):
            assert not re.match(r"SCAN (lines|l)\b", plan), f"{name}: {plan}"


def test_revisions_are_found_without_looking_through_those_of_other_deployments(tmp_path: Path) -> None:
    """At each deploy, and each second by two loops."""
    asked: list[tuple[str, Any]] = []
    with transaction(migrated_sqlite(tmp_path)) as conn:
        event.listen(conn, "before_cursor_execute", lambda *what: asked.append(what[2:4]))
        revisions.may_serve(conn, "deployment", "revision", 1.0)
        revisions.last_that_worked(conn, "deployment", "revision")
        revisions.unsettled(conn)
        driver = conn.connection.driver_connection
        assert driver is not None
        for statement, values in asked:
            for *_, plan in driver.execute(f"EXPLAIN QUERY PLAN {statement}", values):
                assert not re.match(r"SCAN (revisions|revision_events)\b", plan), f"{statement}: {plan}"
    assert len(asked) >= 3


def test_postgres_finds_what_is_pending_without_reading_what_is_over(postgres: PostgresCluster) -> None:
    """Where most jobs are over, and those are the first: the planner must not look for a pending one among them."""
    with transaction(postgres.create_database()) as conn:
        deployment = _make_jobs(conn)
        values = {"deployment_id": deployment, "fair_key": "", "priority": 0, "number": 10, "sequence": 20_005}
        values |= {"limit": 10_001}
        for name, statement in _statements():
            if name in {"claims._CLAIM_ONE", "claims._CLAIM_MANY", "places._IN_LINE"}:
                names = re.findall(r"%\((\w+)\)s", statement._postgres)
                driver = conn.connection.driver_connection
                assert driver is not None
                filled = dict.fromkeys(names, 1) | {"token": "t", "hostname": "h", "replica_id": "r"} | values
                plan = "\n".join(row for (row,) in driver.execute(f"EXPLAIN {statement._postgres}", filled))
                assert "ix_jobs_pending" in plan, f"{name}: {plan}"
                assert "Seq Scan on jobs" not in plan, f"{name}: {plan}"


def test_postgres_looks_for_what_to_remove_in_the_index_though_most_jobs_are_another_queues(
    postgres: PostgresCluster,
) -> None:
    with transaction(postgres.create_database()) as conn:
        deployment, asked = _make_jobs(conn), []
        event.listen(conn, "before_cursor_execute", lambda *what: asked.append(what[2:4]))
        assert [kept[0] for kept in queues.retention(conn)] == [deployment]
        ((statement, values),) = asked
        driver = conn.connection.driver_connection
        assert driver is not None
        plan = "\n".join(row for (row,) in driver.execute(f"EXPLAIN {statement}", values))
        assert "ix_jobs_ended" in plan, plan
        assert "Seq Scan on jobs" not in plan, plan


def _make_jobs(conn: Connection) -> str:
    """A queue of 20,000 jobs that are over, and behind them as many that wait; the deployment whose it is."""
    project, deployment = make_deployment(conn)
    conn.exec_driver_sql(
        "INSERT INTO jobs (id, project_id, deployment_id, model, state, priority, fair_key, payload, outputs, "
        "info, retries, releases, attempt, charged_seconds, has_files, cancel_requested, change, created_at, "
        f"done_at) SELECT 'j' || i::text, '{project}', '{deployment}', 'm', "
        "CASE WHEN i > 20000 THEN 'pending' ELSE 'done' END, 0, '', '{}', '{}', '{}', 0, 0, 0, 0, 0, 0, i, 1, "
        "CASE WHEN i > 20000 THEN NULL ELSE 1 END "
        "FROM generate_series(1, 40000) AS n(i)"
    )
    conn.exec_driver_sql("ANALYZE jobs")
    return deployment
