"""A worker of the older kind, over plain HTTP: it knows its host name and its job's id, and nothing of attempts."""

from typing import Any

import httpx

HOSTNAME = "older-worker"


class OlderWorker:
    """Claims and reports as that SDK does, one request at a time."""

    def __init__(self, client: httpx.Client, model: str) -> None:
        self.client = client
        self.model = model

    def poll(self, *, timeout: str = "0s", **query: Any) -> httpx.Response:
        """One long poll."""
        return self.client.get(
            "/internal/v1/queue/retrieve",
            params={"model": self.model, "hostname": HOSTNAME, "timeout": timeout, **query},
            headers={"x-idle-time": "0", "x-worker-version": "0.1.4"},
        )

    def claim(self, **query: Any) -> dict[str, Any]:
        """The next job, which must be there."""
        answer = self.poll(**query)
        assert answer.status_code == 200, answer.text
        job: dict[str, Any] = answer.json()["data"]
        assert job is not None, "the queue is empty"
        return job

    def report(
        self, request_id: str, status: str, payload: dict[str, Any] | None = None, info: dict[str, Any] | None = None
    ) -> httpx.Response:
        """One update of a job."""
        body: dict[str, Any] = {
            "model": self.model,
            "request_id": request_id,
            "status": status,
            "payload": payload or {},
        }
        return self.client.post("/internal/v1/videos/status", json=body if info is None else {**body, "info": info})
