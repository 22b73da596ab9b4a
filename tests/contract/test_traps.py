"""What breaks real clients when it is a little different, each as one test over plain HTTP."""

import http.client
import json
import socket
import struct
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest

from contract.older_worker import HOSTNAME, OlderWorker
from platform_process import PlatformProcess, wait_for

REVISION_VARIABLE = "TOGETHER_DEPLOYMENT_REVISION_ID"

# A container of the older SDK in the middle of a synchronous job: it polls nothing, and the test speaks for it.
SILENT = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/exit":
            os._exit(1)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["TOGETHER_API_KEY"].encode() if self.path == "/key" else b"{}")

    def log_message(self, *_):
        pass

http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
SILENT_NAME = "contract-silent"
SILENT_CONFIG = f"""
name = "{SILENT_NAME}"
[image]
cmd = "python app.py"
[deploy]
gpu_type = "none"
gpu_count = 0
"""


def submit(api: httpx.Client, model: str, **fields: Any) -> str:
    answer = api.post("/v1/queue/submit", json={"model": model, "payload": {}, **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["request_id"])


def status(api: httpx.Client, model: str, request_id: str) -> dict[str, Any]:
    answer = api.get("/v1/queue/status", params={"model": model, "request_id": request_id})
    job: dict[str, Any] = answer.json()
    return job


def revision_of(deployment: dict[str, Any]) -> str:
    [value] = [each["value"] for each in deployment["environment_variables"] if each["name"] == REVISION_VARIABLE]
    return str(value)


@pytest.mark.parametrize("path", ["/v3/whoami", "/v1/v3/whoami"])
def test_1_whoami_says_whose_key_it_is(api: httpx.Client, path: str) -> None:
    answer = api.get(path)

    assert answer.status_code == 200
    body = answer.json()
    assert body["type"] == "project_api_key"
    assert body["api_key"]["id"]
    assert {"id", "name"} <= body["organization"].keys()
    assert {"id", "name", "slug"} <= body["project"].keys()


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_2_a_base_url_may_end_in_v1(api: httpx.Client, worker: OlderWorker, prefix: str) -> None:
    model = worker.model
    submitted = api.post(f"{prefix}/v1/queue/submit", json={"model": model, "payload": {}})
    query = {"model": model, "request_id": submitted.json()["requestId"]}

    assert api.get(f"{prefix}/v1/queue/status", params=query).json()["status"] == "pending"
    assert api.get(f"{prefix}/v1/deployments/{model}").json()["name"] == model
    assert api.get(f"{prefix}/internal/v1/queue/status", params={"model": model}).json()["messages_waiting"] == 1
    assert api.post(f"{prefix}/v1/storage/upload-request", json={"filename": "a"}).status_code == 200


def test_4_the_platform_says_where_workers_reach_it(platform: PlatformProcess, echo: str) -> None:
    job = platform.finished(echo, platform.submit(echo, {"variable": "TOGETHER_API_BASE_URL"}))

    assert job["outputs"] == {"value": platform.base_url}


@pytest.mark.parametrize("timeout", ["0s", "50ms", "0.05"])
def test_5_a_poll_of_an_empty_queue_answers_json(worker: OlderWorker, timeout: str) -> None:
    answer = worker.poll(timeout=timeout)

    assert (answer.status_code, answer.json()) == (200, {"data": None})
    assert answer.headers["content-type"] == "application/json"


def test_5_a_poll_that_is_refused_answers_json_too(worker: OlderWorker, api: httpx.Client) -> None:
    for answer in (
        worker.poll(timeout="soon"),
        OlderWorker(api, "nowhere").poll(),
        httpx.get(f"{api.base_url}/internal/v1/queue/retrieve"),
    ):
        assert answer.status_code in {400, 401, 404}
        assert answer.json()["error"]["message"]


@pytest.fixture
def silent(platform: PlatformProcess, api: httpx.Client, project: Path) -> Iterator[str]:
    (project / "app.py").write_text(SILENT)
    (project / "jig.toml").write_text(SILENT_CONFIG)
    platform.deploy(project)
    yield SILENT_NAME
    api.delete(f"/v1/deployments/{SILENT_NAME}")


def test_7_a_claim_without_a_time_out_is_held_until_its_replica_is_gone(
    platform: PlatformProcess, api: httpx.Client, silent: str
) -> None:
    request_id = submit(api, silent)
    gateway = f"/v1/deployment-request/{silent}"
    key = api.get(f"{gateway}/key").text
    with platform.client(key=key) as client:
        claimed = OlderWorker(client, silent).claim()
    assert claimed["request_id"] == request_id
    held = datetime.fromisoformat(claimed["claim_expires_at"]) - datetime.fromisoformat(claimed["created_at"])
    assert held > timedelta(days=300), "no clock may end it"
    assert status(api, silent, request_id)["status"] == "running"

    assert api.get(f"{gateway}/exit").status_code in {502, 503}

    freed = wait_for(
        lambda: job if (job := status(api, silent, request_id))["status"] == "pending" else None, "the job is freed"
    )
    assert freed["retries"] == 1
    with platform.client(key=key) as client:
        assert OlderWorker(client, silent).report(request_id, "done").status_code in {401, 409}
    wait_for(lambda: api.get(f"{gateway}/key").status_code == 200, "another replica is ready")
    with platform.client(key=api.get(f"{gateway}/key").text) as client:
        successor = OlderWorker(client, silent)
        assert successor.claim()["request_id"] == request_id
        assert successor.report(request_id, "done", {"late": False}).status_code == 200
    assert status(api, silent, request_id)["outputs"] == {"late": False}


@pytest.mark.parametrize("said", ["running", "done", "failed", "canceled", "pending"])
def test_8_a_job_update_answers_exactly_200(worker: OlderWorker, api: httpx.Client, said: str) -> None:
    request_id = submit(api, worker.model)
    worker.claim(claim_timeout=90)

    answer = worker.report(request_id, said)

    assert answer.status_code == 200
    assert answer.json() == {"request_id": request_id, "status": said, "cancel_requested": False}
    assert status(api, worker.model, request_id)["status"] == said


@pytest.mark.parametrize("path", ["/v1/queue/submit", "/v1/videos/generations"])
def test_9_submit_returns_the_id_in_both_spellings(api: httpx.Client, idle: str, path: str) -> None:
    answer = api.post(path, json={"model": idle, "payload": {}}).json()

    assert answer["requestId"] == answer["request_id"]
    assert answer["status"] == "pending"
    assert answer["request_id"][14] == "7", "a UUID of version 7"


def test_10_a_conflict_that_is_an_answer_is_not_retried(
    worker: OlderWorker, api: httpx.Client, fields: dict[str, Any]
) -> None:
    request_id = submit(api, worker.model)
    worker.claim()
    too_late = {"model": worker.model, "request_id": request_id}

    cancel = api.post("/v1/queue/cancel", json=too_late)
    assert (cancel.status_code, cancel.json()["status"]) == (409, "running")
    assert cancel.json()["cancel_requested"] is True
    assert worker.report(request_id, "running").json()["cancel_requested"] is True
    assert worker.report(request_id, "done").status_code == 200
    again = worker.report(request_id, "done", {"second": True})
    taken = api.post("/v1/deployments", json={**fields, "name": worker.model})

    for conflict in (cancel, again, taken, api.post("/v1/videos/cancel", json=too_late)):
        assert conflict.status_code == 409
        assert conflict.headers["x-should-retry"] == "false"
        assert conflict.json()["error"]["type"] == "conflict_error"
        assert conflict.json()["message"] == conflict.json()["error"]["message"]
    assert status(api, worker.model, request_id)["outputs"] == {}


def test_11_a_deployment_lists_its_revision_and_a_rollout_is_updating(
    platform: PlatformProcess, api: httpx.Client, fields: dict[str, Any]
) -> None:
    name = fields["name"]
    created = api.post("/v1/deployments", json={**fields, "min_replicas": 1}).json()
    assert created["status"] == "Updating"
    wait_for(lambda: platform.deployment(name)["status"] == "Ready", "the first revision is ready")
    unchanged = api.patch(f"/v1/deployments/{name}", json={"description": "no other revision"}).json()
    assert unchanged["status"] == "Ready"
    assert revision_of(unchanged) == revision_of(platform.deployment(name)) == revision_of(created)

    variables = [
        {"name": "COLOR", "value": "blue"},
        {"name": "TOGETHER_API_BASE_URL", "value": "http://127.0.0.1:9"},  # as a client sends it: the platform wins
    ]
    patched = api.patch(f"/v1/deployments/{name}", json={"environment_variables": variables}).json()
    assert patched["status"] == "Updating"
    assert revision_of(patched) != revision_of(created)

    def current_and_ready() -> bool:
        deployment = platform.deployment(name)
        return deployment["status"] == "Ready" and any(
            event["revision_id"] == revision_of(patched)
            and event["replica_status"] == "Running"
            and event["replica_ready_since"]
            for event in deployment["replica_events"].values()
        )

    wait_for(current_and_ready, "the second revision is ready")
    job = platform.finished(name, platform.submit(name, {"variable": REVISION_VARIABLE}))
    assert job["outputs"] == {"value": revision_of(patched)}
    assert api.delete(f"/v1/deployments/{name}").json()["id"] == created["id"]


@pytest.mark.parametrize(
    ("headers", "query"),
    [({"X-Stainless-Raw-Response": "stream"}, {}), ({}, {"follow": "true"}), ({}, {"follow": "1"})],
)
def test_12_follow_is_a_header_or_a_parameter(
    platform: PlatformProcess, api: httpx.Client, echo: str, headers: dict[str, str], query: dict[str, str]
) -> None:
    mark = f"followed {headers} {query}"
    with api.stream("GET", f"/v1/deployments/{echo}/logs", headers=headers, params=query) as stream:
        assert stream.headers["content-type"].startswith("application/x-ndjson")
        platform.submit(echo, {"say": mark})
        for text in stream.iter_lines():
            line = json.loads(text)
            assert line.keys() == {"lines"}
            if line["lines"] == [mark]:
                break
        else:
            pytest.fail("the stream ended without the line")


@pytest.mark.parametrize("headers", [{}, {"X-Stainless-Raw-Response": "raw"}])
def test_12_plain_logs_end(api: httpx.Client, echo: str, headers: dict[str, str]) -> None:
    answer = api.get(f"/v1/deployments/{echo}/logs", headers=headers, timeout=60)

    assert answer.headers["content-type"] == "application/json"
    assert len(answer.json()["lines"]) > 1


@pytest.mark.parametrize("manner", ["closed", "reset"])
def test_13_a_poll_whose_connection_is_closed_is_handed_no_job(
    platform: PlatformProcess, api: httpx.Client, worker: OlderWorker, manner: str
) -> None:
    poll = http.client.HTTPConnection("127.0.0.1", urlsplit(platform.base_url).port or 0, timeout=60)
    query = urlencode({"model": worker.model, "hostname": HOSTNAME, "timeout": "20s"})
    poll.request("GET", f"/internal/v1/queue/retrieve?{query}", headers={"Authorization": f"Bearer {platform.api_key}"})
    worker.poll()  # answered after the other one, which waits by now
    if manner == "reset":  # as the kernel does for a process that was killed with unread data
        poll.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    poll.close()

    request_id = submit(api, worker.model)

    # Where the close and the submit cross inside the server, the claim is taken back before it is sent: no harm done.
    claimed = worker.claim(timeout="25s")  # the claim of the other one would expire after a day
    assert (claimed["request_id"], claimed["retries"]) == (request_id, 0)
    assert worker.report(request_id, "done", {"by": "the one that is there"}).status_code == 200


def test_14_a_name_conflict_says_already_exists(api: httpx.Client, idle: str, fields: dict[str, Any]) -> None:
    answer = api.post("/v1/deployments", json={**fields, "name": idle})

    assert answer.status_code == 409
    assert "already exists" in answer.json()["error"]["message"]
