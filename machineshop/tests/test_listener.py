"""Servers on one Postgres hear of one another's writes, of nothing else, and again after the connection was lost."""

import asyncio
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest
from sqlalchemy import Connection

from factory import ADMIN_KEY, AnyArtifact, eventually
from machineshop.errors import Conflict
from machineshop.runtime.base import Capacity
from machineshop.services.deployments import DeploymentService
from machineshop.services.identity import IdentityService
from machineshop.store.announcements import announce
from machineshop.store.database import Database
from machineshop.store.deployment_rows import DEPLOYMENTS
from machineshop.store.listener import MAX_PAUSE_SECONDS, pause_seconds
from machineshop.store.tables import settings


class Server:
    """A database that listens, and what it has heard."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.database = Database(url)
        self.database.start()
        self.heard: list[str] = []
        self.missed = 0
        self.topics = 0
        self.database.on_announced("topic", self._count_topic)

    async def listen(self) -> None:
        self.database.listen(self.heard.append, self._count_missed)
        await eventually(lambda: self.missed == 1)
        self.topics = 0

    async def close(self) -> None:
        await self.database.hang_up()
        await asyncio.to_thread(self.database.close)

    def _count_missed(self) -> None:
        self.missed += 1

    def _count_topic(self) -> None:
        self.topics += 1


NewServer = Callable[[], Server]


@pytest.fixture
async def servers(postgres_url: str) -> AsyncIterator[tuple[Server, Server]]:
    a, b = Server(postgres_url), Server(postgres_url)
    await a.listen()
    await b.listen()
    yield a, b
    await a.close()
    await b.close()


def put(conn: Connection, name: str) -> None:
    conn.execute(settings.insert().values(name=name, value="x"))


async def test_a_write_in_a_queue_is_heard_of_at_the_others(servers: tuple[Server, Server]) -> None:
    a, b = servers
    await a.database.write_in_queue("q1", put, "x")
    await a.database.write_in_queues(["q2", "q3"], lambda conn: put(conn, "y"))
    await eventually(lambda: set(b.heard) == {"q1", "q2", "q3"})
    await b.database.write_in_queue("q4", put, "z")
    await eventually(lambda: a.heard == ["q4"])
    assert "q4" not in b.heard, "its own"


async def test_what_changed_nothing_is_not_told(servers: tuple[Server, Server]) -> None:
    a, b = servers

    def refuse(conn: Connection) -> None:
        put(conn, "refused")
        raise Conflict(message="no")

    await a.database.write_in_queue("looked", lambda conn: conn.exec_driver_sql("SELECT 1").scalar())
    with pytest.raises(Conflict):
        await a.database.write_in_queue("refused", refuse)
    await a.database.write(put, "in no queue")
    await a.database.write_in_queue("told", put, "x")
    await eventually(lambda: "told" in b.heard)
    assert b.heard == ["told"]


async def test_an_announcement_reaches_every_server(servers: tuple[Server, Server]) -> None:
    a, b = servers

    def tell(conn: Connection) -> None:
        put(conn, "x")
        announce(conn, "topic")

    await a.database.write(tell)
    await eventually(lambda: (a.topics, b.topics) == (1, 1))
    assert (a.heard, b.heard) == ([], [])


async def test_after_a_lost_connection_everything_counts_as_missed(servers: tuple[Server, Server]) -> None:
    a, b = servers
    with psycopg.connect(b.url, autocommit=True) as conn:
        ended = conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = %s AND datname = current_database()",
            (f"machineshop-listener {b.database.server_id}",),
        ).fetchall()
    assert ended == [(True,)]
    await eventually(lambda: b.missed == 2)
    assert b.topics == 1
    await a.database.write_in_queue("again", put, "x")
    await eventually(lambda: b.heard == ["again"])


async def test_a_deployment_that_was_changed_at_one_server_is_new_at_the_others(servers: tuple[Server, Server]) -> None:
    a, b = (
        DeploymentService(server.database, AnyArtifact(), lambda: Capacity(2, 8, 0), frozenset()) for server in servers
    )
    servers[1].database.on_announced(DEPLOYMENTS, b.changed)
    project = (await IdentityService(servers[0].database).ensure_admin(ADMIN_KEY)).project.id
    woken = asyncio.Event()
    b.on_change(woken.set)
    await a.create(project, {"name": "hello", "image": "registry/ns/hello@sha256:1", "gpu_type": "none"})
    await asyncio.wait_for(woken.wait(), 60)
    woken.clear()
    await b.get(project, "hello")  # from now on it is in that server's cache
    await a.update(project, "hello", {"min_replicas": 0})
    await asyncio.wait_for(woken.wait(), 60)
    assert (await b.get(project, "hello")).config.min_replicas == 0


def test_the_pauses_grow_up_to_a_bound() -> None:
    pauses = [pause_seconds(failures) for failures in range(1, 50)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE_SECONDS
    assert pauses[0] < 0.5
