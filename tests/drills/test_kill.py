"""The promises, proved by breaking things: kill -9 of the server and of workers loses no acknowledged job."""

import os
import signal
import sqlite3
from pathlib import Path

import pytest

from platform_process import PlatformProcess, wait_for, write_worker

# Says who it is, then works until the test lets it go on.
GATED = """
import os, pathlib, time
import sprocket

class Worker(sprocket.Sprocket):
    def setup(self):
        pass

    def predict(self, args):
        gate = pathlib.Path(args["gate"])
        with (gate / "started").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        while not (gate / "open").exists():
            time.sleep(0.01)
        return {"pid": os.getpid(), "number": args.get("number")}
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    gate = tmp_path / "gate"
    gate.mkdir()
    return gate


def started(gate: Path) -> list[int]:
    """The processes that began a job, in order."""
    path = gate / "started"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def attempts(platform: PlatformProcess, job_id: str) -> list[str]:
    with sqlite3.connect(platform.data_dir / "machineshop.db") as conn:
        rows = conn.execute("SELECT outcome FROM attempts WHERE job_id = ? ORDER BY number", (job_id,)).fetchall()
    conn.close()
    return [outcome for (outcome,) in rows]


def test_kill_9_of_the_server_loses_no_job_and_adopts_the_replica(
    own_platform: PlatformProcess, tmp_path: Path, gate: Path
) -> None:
    own_platform.deploy(write_worker(tmp_path / "worker", "gated", GATED))
    replica = next(iter(own_platform.deployment("gated")["replica_events"]))
    in_hand = own_platform.submit("gated", {"gate": str(gate), "number": 1})
    wait_for(lambda: started(gate), "the first job is in hand")
    waiting = [own_platform.submit("gated", {"gate": str(gate), "number": n}) for n in range(2, 12)]

    own_platform.kill()
    (gate / "open").touch()  # the worker finishes while nobody is there to take the result
    own_platform.start()

    results = [own_platform.finished("gated", job_id) for job_id in [in_hand, *waiting]]
    assert [job["status"] for job in results] == ["done"] * 11
    assert [job["outputs"]["number"] for job in results] == list(range(1, 12))
    assert {job["outputs"]["pid"] for job in results} == {started(gate)[0]}  # one process did it all
    assert attempts(own_platform, in_hand) == ["finish"]  # delivered late, not worked twice
    assert list(own_platform.deployment("gated")["replica_events"]) == [replica]


def test_kill_9_of_a_worker_in_a_job_gives_one_result_by_another_attempt(
    own_platform: PlatformProcess, tmp_path: Path, gate: Path
) -> None:
    own_platform.deploy(write_worker(tmp_path / "worker", "gated", GATED))
    job_id = own_platform.submit("gated", {"gate": str(gate)})
    (first,) = wait_for(lambda: started(gate), "the job is in hand")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: len(started(gate)) == 2, "another process takes the job")
    (gate / "open").touch()
    job = own_platform.finished("gated", job_id)
    assert (job["status"], job["retries"], job["attempt"]) == ("done", 1, 2)
    assert job["outputs"]["pid"] == started(gate)[1] != first
    assert attempts(own_platform, job_id) == ["lose", "finish"]


def test_a_worker_that_was_stopped_past_its_claim_changes_nothing(
    own_platform: PlatformProcess, tmp_path: Path, gate: Path
) -> None:
    own_platform.deploy(write_worker(tmp_path / "worker", "gated", GATED))
    job_id = own_platform.submit("gated", {"gate": str(gate)})
    (stopped,) = wait_for(lambda: started(gate), "the job is in hand")
    os.kill(stopped, signal.SIGSTOP)
    with sqlite3.connect(own_platform.data_dir / "machineshop.db", timeout=60) as conn:
        # Its claim is over, and no longer than the server has been there to hear it renewed.
        conn.execute("UPDATE jobs SET claim_expires_at = 1, claim_timeout_seconds = 1 WHERE id = ?", (job_id,))
    conn.close()
    wait_for(lambda: own_platform.job("gated", job_id)["status"] == "pending", "the claim expires")
    with own_platform.client() as client:
        claim = client.get(
            "/internal/v1/queue/retrieve", params={"model": "gated", "hostname": "other", "claim_timeout": "90"}
        ).json()["data"]
        assert (claim["request_id"], claim["attempt"]) == (job_id, 2)
        (gate / "open").touch()
        os.kill(stopped, signal.SIGCONT)  # it wakes and delivers a result that nobody wants any longer
        idle = {"model": "gated", "payload": {"gate": str(gate)}}
        after = client.post("/v1/queue/submit", json=idle).json()["request_id"]
        own_platform.finished("gated", after)  # the worker is back at work: its stale result is behind it
        assert own_platform.job("gated", job_id)["status"] == "running"
        done = client.post(
            "/internal/v1/videos/status",
            json={
                "model": "gated",
                "request_id": job_id,
                "status": "done",
                "payload": {"by": "other"},
                "attempt_token": claim["attempt_token"],
            },
        )
    assert done.status_code == 200
    assert own_platform.job("gated", job_id)["outputs"] == {"by": "other"}
    assert attempts(own_platform, job_id) == ["lose", "finish"]
