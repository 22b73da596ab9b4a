"""A worker that knows nothing of attempts and tokens works jobs over plain HTTP."""

from typing import Any

import httpx
import pytest

from contract.older_worker import OlderWorker


@pytest.fixture
def jobs(api: httpx.Client, worker: OlderWorker) -> "Jobs":
    return Jobs(api, worker.model)


class Jobs:
    """The user's side of the queue that the worker works."""

    def __init__(self, client: httpx.Client, model: str) -> None:
        self._client = client
        self._model = model

    def submit(self, payload: dict[str, Any], **fields: Any) -> str:
        answer = self._client.post("/v1/queue/submit", json={"model": self._model, "payload": payload, **fields})
        return str(answer.json()["request_id"])

    def read(self, request_id: str) -> dict[str, Any]:
        query = {"model": self._model, "request_id": request_id}
        job: dict[str, Any] = self._client.get("/v1/queue/status", params=query).json()
        return job


def test_a_claim_brings_what_was_submitted(worker: OlderWorker, jobs: Jobs) -> None:
    request_id = jobs.submit({"prompt": "a cat"}, priority=7, info={"trace": "abc"})

    claimed = worker.claim(claim_timeout=90)

    assert claimed["request_id"] == request_id
    assert (claimed["payload"], claimed["priority"], claimed["info"]) == ({"prompt": "a cat"}, 7, {"trace": "abc"})
    job = jobs.read(request_id)
    assert (job["status"], job["outputs"], job["done_at"]) == ("running", None, None)
    assert job["claimed_at"] >= job["created_at"]


def test_done_stores_the_outputs(worker: OlderWorker, jobs: Jobs) -> None:
    request_id = jobs.submit({"prompt": "a cat"})
    worker.claim()

    assert worker.report(request_id, "done", {"url": "https://files/1.mp4"}).status_code == 200

    job = jobs.read(request_id)
    assert (job["status"], job["outputs"]) == ("done", {"url": "https://files/1.mp4"})
    assert (job["inputs"], job["error"], job["retries"]) == ({"prompt": "a cat"}, None, 0)
    assert job["done_at"] >= job["claimed_at"]


def test_failed_stores_why_and_is_not_tried_again(worker: OlderWorker, jobs: Jobs) -> None:
    request_id = jobs.submit({})
    worker.claim()

    assert worker.report(request_id, "failed", info={"error": "out of memory"}).status_code == 200

    job = jobs.read(request_id)
    assert (job["status"], job["error"], job["info"]) == ("failed", "out of memory", {"error": "out of memory"})
    assert job["outputs"] is None
    assert worker.poll().json() == {"data": None}


def test_a_heartbeat_with_an_empty_payload_wipes_nothing(worker: OlderWorker, jobs: Jobs) -> None:
    request_id = jobs.submit({"prompt": "a cat"}, info={"trace": "abc"})
    worker.claim(claim_timeout=90)
    before = jobs.read(request_id)

    assert worker.report(request_id, "running", {}).status_code == 200

    assert jobs.read(request_id) == before


def test_info_is_merged_key_by_key_and_survives_to_the_end(worker: OlderWorker, jobs: Jobs) -> None:
    request_id = jobs.submit({}, info={"trace": "abc", "step": 0})
    worker.claim()

    worker.report(request_id, "running", info={"step": 1})
    worker.report(request_id, "running")
    worker.report(request_id, "running", info={"preview": {"width": 64}})
    assert jobs.read(request_id)["info"] == {"trace": "abc", "step": 1, "preview": {"width": 64}}

    worker.report(request_id, "done", {}, info={"step": 2})
    assert jobs.read(request_id)["info"] == {"trace": "abc", "step": 2, "preview": {"width": 64}}


def test_info_survives_a_release(worker: OlderWorker, jobs: Jobs) -> None:
    request_id = jobs.submit({})
    worker.claim()
    worker.report(request_id, "running", info={"step": 1})

    worker.report(request_id, "pending")

    claimed = worker.claim()
    assert (claimed["request_id"], claimed["info"], claimed["retries"]) == (request_id, {"step": 1}, 0)


def test_jobs_come_by_priority_then_in_order(worker: OlderWorker, jobs: Jobs) -> None:
    ids = [jobs.submit({}, priority=priority) for priority in (0, 5, 0, 5, -1)]

    claimed = [worker.claim()["request_id"] for _ in ids]

    assert claimed == [ids[1], ids[3], ids[0], ids[2], ids[4]]


def test_the_first_result_stays(worker: OlderWorker, jobs: Jobs) -> None:
    request_id = jobs.submit({})
    worker.claim()
    worker.report(request_id, "done", {"first": True})

    for said in ("done", "failed", "running", "pending", "canceled"):
        assert worker.report(request_id, said, {"first": False}).status_code == 409

    assert jobs.read(request_id)["outputs"] == {"first": True}


def test_a_job_that_is_not_claimed_takes_no_result(worker: OlderWorker, jobs: Jobs) -> None:
    request_id = jobs.submit({})

    assert worker.report(request_id, "done", {"who": "knows"}).status_code == 409

    assert jobs.read(request_id)["status"] == "pending"


def test_an_unknown_job_takes_no_result(worker: OlderWorker) -> None:
    answer = worker.report("01900000-0000-7000-8000-000000000000", "done")

    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "not_found_error")


def test_the_older_paths_of_the_queue(worker: OlderWorker, api: httpx.Client) -> None:
    model = worker.model
    first, second = (
        api.post("/v1/videos/generations", json={"model": model, "payload": {}}).json()["request_id"] for _ in range(2)
    )
    assert api.post("/v1/videos/cancel", json={"model": model, "request_id": second}).json() == {"status": "canceled"}
    worker.claim()
    worker.report(first, "done", {"ok": True})

    job = api.get("/v1/videos/status", params={"model": model, "request_id": first}).json()

    assert (job["status"], job["outputs"]) == ("done", {"ok": True})
