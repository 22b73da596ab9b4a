"""Several servers on one Postgres: one queue for all, the replicas at one of them, and others that take over."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from machineshop.store.database import READ_SECONDS
from platform_process import PlatformProcess, wait_for, write_worker
from postgres_cluster import PostgresCluster
from pusher import bundle_manifest, digest_of

ADMIN_KEY = "an-admin-key-for-all-the-servers"
ECHO = "import sprocket\n\nclass Worker(sprocket.Sprocket):\n    def predict(self, args):\n        return args\n"
TAKE_OVER_SECONDS = 60.0
POLL_SECONDS = 20


class Servers:
    """Servers that share a database, a storage directory and an admin key; each has its own data directory."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self._folder = folder
        self._database_url = database_url
        self.all: list[PlatformProcess] = []

    def add(self, *, storage: str = "storage") -> PlatformProcess:
        """One more, which is not started yet."""
        server = PlatformProcess(self._folder / f"server-{len(self.all)}")
        server.folder.mkdir()
        server.environment |= {
            "MACHINESHOP_DATABASE_URL": self._database_url,
            "MACHINESHOP_STORAGE_DIR": str(self._folder / storage),
            "MACHINESHOP_ADMIN_KEY": ADMIN_KEY,
        }
        self.all.append(server)
        return server

    def start(self, number: int) -> list[PlatformProcess]:
        """So many; the first one holds the lease."""
        servers = [self.add() for _ in range(number)]
        for server in servers:
            server.start()
        return servers

    def lease_holder(self) -> str | None:
        """Where the server is reached that holds the lease, by the database; None where nobody does."""
        with psycopg.connect(self._database_url) as conn:
            row = conn.execute("SELECT base_url FROM leases").fetchone()
        return None if row is None else str(row[0])

    def close(self) -> None:
        """End them all; the replicas end with them."""
        for server in self.all:
            server.close()


@pytest.fixture
def servers(postgres: PostgresCluster, tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path, postgres.create_database())
    yield servers
    servers.close()


@pytest.fixture(scope="module")
def three(postgres: PostgresCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[PlatformProcess]]:
    """Three servers for tests that leave them as they found them."""
    servers = Servers(tmp_path_factory.mktemp("three"), postgres.create_database())
    yield servers.start(3)
    servers.close()


@pytest.fixture
def queue_at() -> Iterator["QueueAt"]:
    """Makes queues that a test works itself; their connections are closed at its end."""
    with ExitStack() as opened:
        yield lambda server, name: Queue(opened, server, name)


def test_a_submit_at_one_server_wakes_a_worker_that_waits_at_another(
    three: list[PlatformProcess], queue_at: "QueueAt"
) -> None:
    queue = queue_at(three[0], "wakes")
    here, there = queue.client(three[0]), queue.client(three[1])
    delays_seconds = []
    with ThreadPoolExecutor(1) as pool:
        for number in range(40):
            handed = pool.submit(_claimed_at, there, queue.name)
            time.sleep(0.05)  # a server does not tell who waits; a poll that comes late makes the delay no shorter
            began = time.monotonic()
            job_id = here.post("/v1/queue/submit", json=queue.job(number)).json()["request_id"]
            claim, at = handed.result(60)
            delays_seconds.append(at - began)
            assert claim["request_id"] == job_id
            queue.finish(there, claim)
    # Nobody looks by himself before the poll's own end: what is quicker was woken.
    assert max(delays_seconds) < POLL_SECONDS / 2


def test_a_result_at_one_server_wakes_a_follower_at_another(three: list[PlatformProcess], queue_at: "QueueAt") -> None:
    queue = queue_at(three[0], "follows")
    a, b = queue.client(three[0]), queue.client(three[2])
    job_id = a.post("/v1/queue/submit", json=queue.job(1)).json()["request_id"]
    parameters = {"model": queue.name, "request_id": job_id}
    with b.stream("GET", "/v1/queue/events", params=parameters) as events:
        assert events.status_code == 200
        lines = (line.removeprefix("data:") for line in events.iter_lines() if line.startswith("data:"))
        assert json.loads(next(lines))["status"] == "pending"
        queue.finish(a, queue.claims(a, 1)[0])
        assert "done" in {json.loads(line)["status"] for line in lines}


def test_no_job_is_handed_out_twice(three: list[PlatformProcess], queue_at: "QueueAt") -> None:
    queue, number = queue_at(three[0], "once"), 3000
    clients = [queue.client(server) for server in three for _ in range(3)]
    work = [queue.job(n) for n in range(number)]
    with ThreadPoolExecutor(len(clients) + 3) as pool:
        handed = [pool.submit(queue.drain, client, size) for client, size in zip(clients, (1, 25, 50) * 3, strict=True)]
        for client, at in zip(clients[::3], range(0, number, 1000), strict=True):
            pool.submit(client.post, "/v1/queue/submit", json=work[at : at + 1000])
        wait_for(lambda: len(queue.jobs(clients[0], status="done")) == number, "every job is done", 60)
        queue.over.set()
        claims = [claim for result in handed for claim in result.result(60)]
    assert len(claims) == number
    assert {claim["payload"]["number"] for claim in claims} == set(range(number))
    # A claim for a poll that has just ended is taken back: another attempt, which nobody else has had.
    assert {claim["retries"] for claim in claims} == {0}
    by_server = [sum(len(result.result()) for result in handed[at : at + 3]) for at in (0, 3, 6)]
    print(f"\n{number} jobs, claims at each server: {by_server}")
    assert all(by_server)


def test_a_claim_that_one_server_could_not_tell_of_is_told_by_another(
    three: list[PlatformProcess], queue_at: "QueueAt"
) -> None:
    queue = queue_at(three[0], "told-again")
    here, there = queue.client(three[0]), queue.client(three[1])
    jobs = [here.post("/v1/queue/submit", json=queue.job(number)).json()["request_id"] for number in range(3)]
    claim = {"hostname": "test", "claim_timeout": 90, "max_jobs": 2}
    found = []
    for client, tries in ((here, "0"), (there, "1"), (here, "2")):
        headers = {"x-turn-id": "a-turn-of-this-test", "x-turn-tries": tries}
        answer = client.post(
            "/internal/v1/queue/updates", json={"model": queue.name, "claim": claim}, headers=headers
        ).json()
        found.append([(each["request_id"], each["attempt"]) for each in answer["data"]])
    assert found == [[(jobs[0], 1), (jobs[1], 1)]] * 3
    assert here.get("/v1/queue/metrics", params={"model": queue.name}).json()["messages_running"] == 2


def test_what_needs_the_replicas_is_answered_at_any_server(three: list[PlatformProcess], tmp_path: Path) -> None:
    holder, follower, other = three
    follower.deploy(write_worker(tmp_path / "echo", "echo", ECHO))
    (replica,) = holder.deployment("echo")["replica_events"]
    assert list(other.deployment("echo")["replica_events"]) == [replica]
    with other.client() as client:
        assert client.get("/v1/runtime").json()["runtime"] == "process"
        assert client.get("/v1/deployments/echo/health").json()["ready_replicas"] == 1
        assert any("ready" in line for line in client.get("/v1/deployments/echo/logs").json()["lines"])
        answer = client.post("/v1/deployment-request/echo/generate", json={"a": "b"})
        assert (answer.status_code, answer.json()) == (200, {"a": "b"})
        assert client.get("/v1/deployment-request/echo/health").status_code == 200
        changed = client.patch("/v1/deployments/echo", json={"description": "changed"})
        assert changed.json()["description"] == "changed"
    with follower.client() as client:
        assert client.get("/v1/deployments/echo").json()["description"] == "changed"
    with other.client(key="a-key-that-nobody-has-made") as client:
        assert client.get("/v1/deployments/echo").status_code == 401
    with other.client() as client:
        assert client.patch("/v1/deployments/echo", json={"min_replicas": 0}).status_code == 200
    wait_for(lambda: not _live(holder), "no replica is left")
    job = follower.submit("echo", {"number": 7})
    assert other.job("echo", job)["queue"]["reason"] == "no_replica"
    with other.client() as client:
        assert client.patch("/v1/deployments/echo", json={"min_replicas": 1}).status_code == 200
    assert other.finished("echo", job)["outputs"] == {"number": 7}
    with follower.client() as client:
        assert client.delete("/v1/deployments/echo").status_code == 200
    wait_for(lambda: not _live(holder), "the replicas end, though the deployment was deleted at another server")


def test_a_replica_at_one_server_reads_a_file_that_came_in_at_another(three: list[PlatformProcess]) -> None:
    with three[1].client() as client:
        where = client.post("/v1/storage/upload-request", json={"filename": "shared/a.txt"}).json()["upload_url"]["url"]
        assert httpx.put(where, content=b"bytes").status_code == 200
    with three[2].client() as client:
        assert client.get("/v1/storage/shared/a.txt").content == b"bytes"


def test_a_push_goes_on_at_another_server(three: list[PlatformProcess]) -> None:
    a, b = (httpx.Client(base_url=server.base_url, auth=("x", ADMIN_KEY)) for server in three[:2])
    digest = "sha256:88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"  # of abcd
    with a, b:
        path = httpx.URL(a.post("/v2/default/shared/blobs/uploads/").headers["location"]).path
        for client, content, at in ((a, b"a", "0-0"), (b, b"b", "1-1"), (a, b"c", "2-2")):
            answer = client.patch(path, content=content, headers={"content-range": at})
            assert answer.status_code == 202, answer.text
        assert b.put(path, params={"digest": digest}, content=b"d").status_code == 201
        assert a.get(f"/v2/default/shared/blobs/{digest}").content == b"abcd"
        assert a.patch(path, content=b"e").status_code == 404


def test_another_server_takes_over_from_one_that_was_killed(
    servers: Servers, tmp_path: Path, queue_at: "QueueAt"
) -> None:
    holder, follower = servers.start(2)
    queue = queue_at(holder, "orphans")
    follower.deploy(write_worker(tmp_path / "echo", "echo", ECHO))
    client = queue.client(follower)
    job_id = client.post("/v1/queue/submit", json=queue.job(1)).json()["request_id"]
    assert queue.claims(client, 1, claim_timeout=1)[0]["request_id"] == job_id
    began = time.monotonic()
    holder.kill()
    wait_for(lambda: follower.job(queue.name, job_id)["status"] == "pending", "its claim is ended", TAKE_OVER_SECONDS)
    print(f"\nkill -9 of the holder to the end of an expired claim: {time.monotonic() - began:.1f} s")
    assert follower.job(queue.name, job_id)["retries"] == 1
    wait_for(lambda: _status(follower, "echo") == "Ready", "its replicas run here")
    assert follower.finished("echo", follower.submit("echo", {"number": 1}))["outputs"] == {"number": 1}
    holder.start()  # its replica of before has run on, and is of no more use
    wait_for(lambda: not _live(holder), "the replica of before is ended")
    assert list(holder.deployment("echo")["replica_events"]) == list(follower.deployment("echo")["replica_events"])


def test_a_halted_server_notices_that_another_has_taken_over(servers: Servers, tmp_path: Path) -> None:
    holder, follower = servers.start(2)
    follower.deploy(write_worker(tmp_path / "echo", "echo", ECHO))
    before = _live(holder)
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        with follower.client() as client:
            answer = client.get("/v1/deployments/echo")  # asked of the one that is halted, until it has lost its lease
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
        wait_for(lambda: _status(follower, "echo") == "Ready", "its replicas run here", TAKE_OVER_SECONDS)
    finally:
        os.kill(holder.pid, signal.SIGCONT)
    wait_for(lambda: not _live(holder), "the one that was halted ends its replicas")
    (after,) = follower.deployment("echo")["replica_events"]
    assert [after] != before
    assert list(holder.deployment("echo")["replica_events"]) == [after]
    assert '"event": "replica created' not in holder.log.read_text().split("lease.elsewhere")[-1]


def test_a_server_that_stops_hands_over_at_once(servers: Servers, tmp_path: Path) -> None:
    holder, follower = servers.start(2)
    follower.deploy(write_worker(tmp_path / "echo", "echo", ECHO))
    assert holder.signal(signal.SIGTERM) == 0
    assert servers.lease_holder() != holder.base_url, "it has given the lease back, and not left it to run out"
    assert not _live(holder), "its successors are about to run elsewhere"
    wait_for(lambda: _status(follower, "echo") is not None, "another server has taken over")
    wait_for(lambda: _status(follower, "echo") == "Ready", "its replicas run here")


def test_a_database_that_restarts_is_found_again_by_all(
    servers: Servers, postgres: PostgresCluster, queue_at: "QueueAt"
) -> None:
    a, b = servers.start(2)
    queue = queue_at(a, "heals")
    there = queue.client(b)
    postgres.stop()
    for server in (a, b):
        began = time.monotonic()
        answer = queue.client(server).post("/v1/queue/submit", json=queue.job(0))
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert time.monotonic() - began < READ_SECONDS, "it has waited for no bound"
    postgres.start()
    wait_for(lambda: _status(a, queue.name) and _status(b, queue.name), "the lease is held again", TAKE_OVER_SECONDS)
    with ThreadPoolExecutor(1) as pool:
        for number, client in enumerate((queue.client(a), there), 1):  # each finds out by itself
            wait_for(partial(_is_submitted, client, queue.job(number)), "jobs come in")
        assert len(queue.claims(there, 2)) == 2
        handed = pool.submit(_claimed_at, there, queue.name)
        time.sleep(0.05)
        began = time.monotonic()
        assert queue.client(a).post("/v1/queue/submit", json=queue.job(3)).status_code == 200
        assert handed.result(60)[1] - began < POLL_SECONDS / 2, "the listeners have come back"
    for server in (a, b):
        assert "Traceback" not in server.log.read_text()


def _is_submitted(client: httpx.Client, job: dict[str, Any]) -> bool:
    return client.post("/v1/queue/submit", json=job).is_success


def test_every_acknowledged_job_ends_though_the_database_goes_away(
    servers: Servers, postgres: PostgresCluster, queue_at: "QueueAt"
) -> None:
    queue = queue_at(servers.start(2)[0], "outage")
    stop = threading.Event()
    with ThreadPoolExecutor(8) as pool:
        clients = [queue.client(server) for server in servers.all for _ in range(4)]
        submitting = [pool.submit(queue.submit_until, client, stop) for client in clients[::2]]
        working = [pool.submit(queue.drain, client, 10, claim_timeout=5) for client in clients[1::2]]
        time.sleep(1.5)
        postgres.stop()
        time.sleep(5)
        postgres.start()
        time.sleep(3)
        stop.set()
        acknowledged = {job_id for result in submitting for job_id in result.result(60)}
        wait_for(lambda: _idle(clients[0], queue.name), "every job has ended", 60)
        queue.over.set()
        for result in working:
            result.result(60)
    print(f"\n{len(acknowledged)} jobs acknowledged around an outage of 5 s")
    found = {job["request_id"]: job["status"] for job in queue.jobs(clients[0])}
    assert acknowledged <= found.keys()
    assert set(found.values()) == {"done"}
    for server in servers.all:
        assert "Traceback" not in server.log.read_text()


def test_a_server_with_another_storage_directory_is_refused(servers: Servers) -> None:
    servers.start(1)
    stranger = servers.add(storage="other")
    finished = stranger.machineshop("serve", "--data-dir", stranger.data_dir, "--port", "0")
    servers.all.remove(stranger)
    assert finished.returncode == 1
    assert "name the storage that the other servers on it use with --storage-dir" in finished.stderr


class Queue:
    """A deployment without replicas, whose jobs a test works itself."""

    def __init__(self, opened: ExitStack, server: PlatformProcess, name: str) -> None:
        self.name = name
        self._opened = opened
        self.over = threading.Event()
        with server.client() as client:
            fields = {"name": name, "image": _push_bundle(client, name), "gpu_type": "none", "min_replicas": 0}
            answer = client.post("/v1/deployments", json=fields)
        assert answer.status_code == 200, answer.text

    def client(self, server: PlatformProcess) -> httpx.Client:
        return self._opened.enter_context(server.client())

    def job(self, number: int) -> dict[str, Any]:
        return {"model": self.name, "payload": {"number": number}}

    def claims(self, client: httpx.Client, number: int, *, claim_timeout: int = 90) -> list[dict[str, Any]]:
        claim = {"hostname": "test", "claim_timeout": claim_timeout, "max_jobs": number, "timeout": "0s"}
        claims: list[dict[str, Any]] = self.turn(client, [], claim)["data"]
        return claims

    def turn(self, client: httpx.Client, updates: list[dict[str, Any]], claim: dict[str, Any] | None) -> dict[str, Any]:
        answer = client.post(
            "/internal/v1/queue/updates", json={"model": self.name, "updates": updates, "claim": claim}
        )
        assert answer.status_code == 200, answer.text
        turn: dict[str, Any] = answer.json()
        return turn

    def finish(self, client: httpx.Client, claim: dict[str, Any]) -> None:
        self.turn(client, [_result(self.name, claim)], None)

    def drain(self, client: httpx.Client, size: int, *, claim_timeout: int = 90) -> list[dict[str, Any]]:
        """Work as long as there are jobs, through every outage; what was handed out here."""
        handed: list[dict[str, Any]] = []
        last: list[dict[str, Any]] = []
        claim = {"hostname": "test", "claim_timeout": claim_timeout, "max_jobs": size, "timeout": "1s"}
        while not self.over.is_set() or last:
            updates = [_result(self.name, claim) for claim in last]
            answer = client.post(
                "/internal/v1/queue/updates", json={"model": self.name, "updates": updates, "claim": claim}
            )
            if answer.status_code == 503:
                time.sleep(0.1)
                continue
            assert answer.status_code == 200, answer.text
            turn = answer.json()
            refused = [update for update in turn["updates"] if update.get("http_status", 409) != 409]
            assert not refused, "but for results that had arrived before"
            last = turn["data"]
            handed += last
        return handed

    def submit_until(self, client: httpx.Client, stop: threading.Event) -> list[str]:
        """Submit one job after another; the ids of those that were acknowledged."""
        acknowledged = []
        while not stop.is_set():
            answer = client.post("/v1/queue/submit", json=self.job(0))
            if answer.status_code == 200:
                acknowledged.append(answer.json()["request_id"])
            else:
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["Retry-After"]) > 0
                time.sleep(0.05)
        return acknowledged

    def jobs(self, client: httpx.Client, **chosen: str) -> list[dict[str, Any]]:
        page = {"model": self.name, "limit": "1000", "include": "none", **chosen}
        found: list[dict[str, Any]] = []
        while True:
            answer = client.get("/v1/queue/jobs", params=page).json()
            found += answer["data"]
            if answer["next_cursor"] is None:
                return found
            page["cursor"] = answer["next_cursor"]


QueueAt = Callable[[PlatformProcess, str], Queue]


def _result(model: str, claim: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": model,
        "request_id": claim["request_id"],
        "attempt_token": claim["attempt_token"],
        "status": "done",
        "payload": {},
    }


def _claimed_at(client: httpx.Client, model: str) -> tuple[dict[str, Any], float]:
    parameters = {"model": model, "hostname": "test", "timeout": f"{POLL_SECONDS}s", "claim_timeout": "90"}
    answer = client.get("/internal/v1/queue/retrieve", params=parameters)
    at = time.monotonic()
    assert answer.status_code == 200, answer.text
    return answer.json()["data"], at


def _idle(client: httpx.Client, model: str) -> bool:
    answer = client.get("/v1/queue/metrics", params={"model": model})
    return answer.status_code == 200 and answer.json()["total_jobs"] == 0


def _status(server: PlatformProcess, name: str) -> str | None:
    with server.client() as client:
        answer = client.get(f"/v1/deployments/{name}")
    return answer.json()["status"] if answer.status_code == 200 else None


def _live(server: PlatformProcess) -> list[str]:
    """The replicas of a server that have not ended, by its own records."""
    records = [json.loads(path.read_text()) for path in server.data_dir.glob("runtime/replicas/*/replica.json")]
    return [record["id"] for record in records if record["phase"] != "ended"]


def _push_bundle(client: httpx.Client, name: str) -> str:
    """A bundle that nobody will run; its reference."""
    config, layer = b'{"version": 1}', b""
    for content in (config, layer):
        where = client.post(f"/v2/default/{name}/blobs/uploads/").headers["location"]
        answer = client.put(where, params={"digest": digest_of(content)}, content=content)
        assert answer.status_code == 201, answer.text
    manifest = bundle_manifest(config, layer)
    answer = client.put(
        f"/v2/default/{name}/manifests/1", json=manifest, headers={"Content-Type": manifest["mediaType"]}
    )
    assert answer.status_code == 201, answer.text
    return f"{client.base_url.netloc.decode()}/default/{name}@{answer.headers['docker-content-digest']}"
