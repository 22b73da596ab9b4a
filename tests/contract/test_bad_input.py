"""Bad input over a real socket: a clear answer in JSON that names what is wrong, and the server goes on."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from contract.older_worker import OlderWorker
from platform_process import PlatformProcess

JSON = {"Content-Type": "application/json"}
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture(autouse=True)
def log_without_defects(platform: PlatformProcess) -> Iterator[None]:
    """Whatever a test sends, the server must not run into an error of its own."""
    before = platform.log.read_text().count(".defect")
    yield
    assert platform.log.read_text().count(".defect") == before


def refused(answer: httpx.Response, status: int, param: str | None = None) -> str:
    """Check an error's form; returns its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert {key: answer.json()[key] for key in error} == error, "older clients read the fields at the top"
    return str(error["message"])


@pytest.mark.parametrize("path", ["/v1/queue/submit", "/v1/deployments", "/internal/v1/videos/status"])
@pytest.mark.parametrize("body", [b"", b"{", b"name=x", b"\xff\xfe", b'{"a": NaN}', b'{"a": "\xff"}', b"{} {}"])
def test_what_is_not_json_is_refused(api: httpx.Client, path: str, body: bytes) -> None:
    answer = api.post(path, content=body, headers=JSON)

    message = refused(answer, 400, answer.json()["error"]["param"])
    assert "JSON" in message or "required field" in message


@pytest.mark.parametrize("body", [b"null", b'"text"', b"5"])
def test_a_body_that_is_no_object_is_refused(api: httpx.Client, body: bytes) -> None:
    assert "Expected `object | array`" in refused(api.post("/v1/queue/submit", content=body, headers=JSON), 400)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"payload": {}}, "[1].model"),
        ({"model": "MODEL", "payload": []}, "[1].payload"),
        ({"model": "MODEL", "payload": {}, "priority": "high"}, "[1].priority"),
        ({"model": "MODEL", "payload": {}, "deadline_seconds": 0}, "[1].deadline_seconds"),
        (5, "[1]"),
    ],
)
def test_the_wrong_one_in_an_array_is_named_and_none_is_stored(
    api: httpx.Client, idle: str, wrong: Any, param: str
) -> None:
    right = {"model": idle, "payload": {}}
    body = json.loads(json.dumps([right, wrong, right]).replace("MODEL", idle))

    refused(api.post("/v1/queue/submit", json=body), 400, param)

    assert api.get("/v1/queue/metrics", params={"model": idle}).json()["total_jobs"] == 0


@pytest.mark.parametrize("payload", [b"[]", b"null", b'"text"', b"5", b"true"])
def test_a_payload_that_is_no_object_is_refused(api: httpx.Client, idle: str, payload: bytes) -> None:
    body = b'{"model": "%s", "payload": %s}' % (idle.encode(), payload)

    message = refused(api.post("/v1/queue/submit", content=body, headers=JSON), 400, "payload")

    assert message == '\'payload\' must be a JSON object, such as {"prompt": "hello"}.'


@pytest.mark.parametrize("value", [b'"\xff\xfe"', DEEP, b'"\\ud800"'])
def test_a_payload_that_no_json_reader_takes_is_refused(api: httpx.Client, idle: str, value: bytes) -> None:
    body = b'{"model": "%s", "payload": {"a": %s}}' % (idle.encode(), value)

    refused(api.post("/v1/queue/submit", content=body, headers=JSON), 400)


@pytest.mark.parametrize(
    ("size", "what"),
    [(1_048_577, "'payload' is larger than 1048576 bytes."), (20_000_000, "body is larger than 16777216 bytes.")],
)
def test_a_payload_that_is_too_large_is_refused(api: httpx.Client, idle: str, size: int, what: str) -> None:
    answer = api.post("/v1/queue/submit", json={"model": idle, "payload": {"text": "x" * size}})

    message = refused(answer, 413)
    assert what in message
    assert message.endswith("Upload large inputs as files and send their URLs.")


def test_a_payload_just_below_the_limit_is_taken(api: httpx.Client, idle: str) -> None:
    answer = api.post("/v1/queue/submit", json={"model": idle, "payload": {"text": "x" * 1_048_000}})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"model": 5}, "model"),
        ({"model": None}, "model"),
        ({"model": "x" * 256}, "model"),
        ({"priority": "high"}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": 10**30}, "priority"),
        ({"priority": 2**31}, "priority"),
        ({"info": []}, "info"),
        ({"info": "text"}, "info"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(api: httpx.Client, idle: str, wrong: dict[str, Any], param: str) -> None:
    message = refused(api.post("/v1/queue/submit", json={"model": idle, "payload": {}, **wrong}), 400, param)

    assert param in message


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/v1/queue/submit", {"payload": {}}, "model"),
        ("POST", "/v1/queue/submit", {"model": "some"}, "payload"),
        ("POST", "/v1/queue/cancel", {"model": "some"}, "request_id"),
        ("POST", "/v1/queue/clear", {}, "model"),
        ("GET", "/v1/queue/status?model=some", None, "request_id"),
        ("GET", "/v1/queue/status?request_id=x", None, "model"),
        ("GET", "/v1/queue/metrics", None, "model"),
        ("GET", "/internal/v1/queue/retrieve?hostname=h", None, "model"),
        ("POST", "/internal/v1/videos/status", {"status": "done"}, "request_id"),
        ("POST", "/internal/v1/videos/status", {"request_id": "x"}, "status"),
        ("POST", "/v1/deployments", {"image": "x", "gpu_type": "none"}, "name"),
        ("POST", "/v1/deployments", {"name": "abcd", "gpu_type": "none"}, "image"),
        ("POST", "/v1/deployments", {"name": "abcd", "image": "x"}, "gpu_type"),
        ("POST", "/v1/storage/upload-request", {}, "filename"),
    ],
)
def test_a_field_that_is_missing_is_named(
    api: httpx.Client, method: str, path: str, body: dict[str, Any] | None, param: str
) -> None:
    assert param in refused(api.request(method, path, json=body), 400, param)


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"x-turn-id": "short"}, "x-turn-id"),
        ({"x-turn-id": "with spaces in its name"}, "x-turn-id"),
        ({"x-turn-id": "a" * 16, "x-turn-tries": "101"}, "x-turn-tries"),
        ({"x-turn-id": "a" * 16, "x-turn-tries": "often"}, "x-turn-tries"),
    ],
    ids=["short", "spaces", "too many", "no number"],
)
def test_a_turn_without_a_proper_name_is_refused(
    api: httpx.Client, idle: str, headers: dict[str, str], param: str
) -> None:
    query = {"model": idle, "hostname": "one"}
    refused(api.get("/internal/v1/queue/retrieve", params=query, headers=headers), 400, param)
    body = {"model": idle, "claim": {"hostname": "one"}}
    refused(api.post("/internal/v1/queue/updates", json=body, headers=headers), 400, param)


@pytest.mark.parametrize("name", ["abc", "Abcd", "-abc", "ab_cd", "a b c", "abcd\n", "", "ä-name", "a" * 64])
def test_a_name_against_the_rules_is_refused_with_the_rules(
    api: httpx.Client, fields: dict[str, Any], name: str
) -> None:
    message = refused(api.post("/v1/deployments", json={**fields, "name": name}), 400, "name")

    assert "use 4 to 63 lowercase letters, digits and hyphens" in message


@pytest.mark.parametrize("name", ["0abc", "a" * 63, "a--b"])
def test_a_name_within_the_rules_is_taken(api: httpx.Client, fields: dict[str, Any], name: str) -> None:
    assert api.post("/v1/deployments", json={**fields, "name": name}).status_code == 200
    assert api.delete(f"/v1/deployments/{name}").status_code == 200


@pytest.mark.parametrize(
    ("wrong", "param", "said"),
    [
        ({"gpu_type": "h100-80gb", "gpu_count": 1}, "gpu_count", "set gpu_type to 'none' and gpu_count to 0"),
        ({"gpu_count": 1}, "gpu_count", "set gpu_count to 0, or name a GPU"),
        ({"gpu_type": "gtx"}, "gpu_type", "use one of none, h100-80gb"),
        ({"gpu_count": "1"}, "gpu_count", "Expected `int`, got `str`"),
        ({"cpu": 0}, "cpu", "at least 0.1"),
        ({"memory": 1001}, "memory", "at most 1000"),
        ({"storage": 401}, "storage", "at most 400"),
        ({"port": 0}, "port", "at least 1"),
        ({"port": 65536}, "port", "at most 65535"),
        ({"min_replicas": 2, "max_replicas": 1}, "max_replicas", "below min_replicas"),
        ({"command": "python app.py"}, "command", "Expected `array`"),
        ({"command": ["a\0b"]}, "command", "NUL"),
        ({"args": [1]}, "args[0]", "Expected `str`, got `int`"),
        ({"environment_variables": {"A": "b"}}, "environment_variables", "Expected `array`"),
        ({"environment_variables": [{"value": "b"}]}, "environment_variables[0].name", "missing required field"),
        ({"environment_variables": [{"name": "1A", "value": ""}]}, "environment_variables", "no digit first"),
        ({"health_check_path": "health"}, "health_check_path", "begin with '/'"),
        ({"health_check_path": "/\r\nX-Injected: 1"}, "health_check_path", "fit for a URL"),
        ({"autoscaling": {"metric": ["x"]}}, "autoscaling.metric", "use one of"),
        ({"autoscaling": "off"}, "autoscaling", "Expected `object | null`"),
        ({"volumes": [{"name": "gone", "mount_path": "/d"}]}, "volumes", "no volume 'gone'"),
        ({"capacity_type": "cheap"}, "capacity_type", "cheap"),
        ({"termination_grace_period_seconds": -1}, "termination_grace_period_seconds", "at least 0"),
        ({"image": ""}, "image", "at least 1 character"),
        ({"image": "no such thing!"}, "image", "does not name an image"),
        ({"image": "docker.io/library/nginx:latest"}, "image", "push it there"),
    ],
)
def test_a_deployment_that_cannot_run_is_refused(
    api: httpx.Client, fields: dict[str, Any], wrong: dict[str, Any], param: str, said: str
) -> None:
    assert said in refused(api.post("/v1/deployments", json={**fields, **wrong}), 400, param)
    refused(api.get(f"/v1/deployments/{fields['name']}"), 404)


def test_a_patch_that_cannot_be_changes_nothing(api: httpx.Client, idle: str) -> None:
    before = api.get(f"/v1/deployments/{idle}").json()
    for wrong, param in (({"name": "other"}, "name"), ({"cpu": None}, "cpu"), ({"image": "nowhere"}, "image")):
        refused(api.patch(f"/v1/deployments/{idle}", json={"description": "changed", **wrong}), 400, param)

    assert api.get(f"/v1/deployments/{idle}").json() == before


def test_fields_of_other_versions_are_ignored(api: httpx.Client, fields: dict[str, Any]) -> None:
    answer = api.post("/v1/deployments", json={**fields, "experimental": {"auto_optimize": True}, "new": 1})

    assert answer.status_code == 200
    assert api.delete(f"/v1/deployments/{fields['name']}").status_code == 200


@pytest.mark.parametrize("name", ["nowhere", "%00", "%ff%fe", "..%2f..%2fetc", "x" * 5000])
def test_an_unknown_deployment_is_not_found(api: httpx.Client, name: str) -> None:
    refused(api.get(f"/v1/deployments/{name}"), 404)
    refused(api.get(f"/v1/deployments/{name}/logs"), 404)
    refused(api.post("/v1/deployment-request/" + name + "/generate", json={}), 404)


def test_a_job_for_an_unknown_deployment_is_refused(api: httpx.Client) -> None:
    answer = api.post("/v1/queue/submit", json={"model": "nowhere", "payload": {}})

    assert refused(answer, 404) == "There is no deployment 'nowhere' in this project."


@pytest.mark.parametrize("timeout", ["", "soon", "-1s", "1e3s", "s", "5 s", "5sx", "5s5"])
def test_a_bad_duration_is_refused(worker: OlderWorker, timeout: str) -> None:
    assert "such as '5s' or '1m30s'" in refused(worker.poll(timeout=timeout), 400, "timeout")


@pytest.mark.parametrize("claim_timeout", ["", "x", "0", "-1", "1.5", "3601", "9" * 30, "90s"])
def test_a_bad_claim_timeout_is_refused(worker: OlderWorker, claim_timeout: str) -> None:
    message = refused(worker.poll(claim_timeout=claim_timeout), 400, "claim_timeout")

    assert "whole number from 1 to 3600" in message


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"status": "finished"}, "status"),
        ({"status": 5}, "status"),
        ({"status": "done", "payload": []}, "payload"),
        ({"status": "running", "info": "x"}, "info"),
        ({"status": "running", "progress_age_seconds": "x"}, "progress_age_seconds"),
        ({"status": "done", "attempt_token": 5}, "attempt_token"),
    ],
)
def test_a_bad_update_changes_nothing(
    api: httpx.Client, platform: PlatformProcess, worker: OlderWorker, wrong: dict[str, Any], param: str
) -> None:
    request_id = platform.submit(worker.model, {})
    worker.claim()

    refused(api.post("/internal/v1/videos/status", json={"request_id": request_id, **wrong}), 400, param)

    assert platform.job(worker.model, request_id)["status"] == "running"


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("revisions?limit=many", "limit"),
        ("revisions?limit=-1", "limit"),
        ("revisions?before=x", "before"),
        ("logs?tail=all", "tail"),
    ],
)
def test_a_bad_number_in_the_query_is_refused(api: httpx.Client, idle: str, path: str, param: str) -> None:
    assert "not a whole number" in refused(api.get(f"/v1/deployments/{idle}/{path}"), 400, param)


@pytest.mark.parametrize("path", ["/", "/nope", "/v1", "/v1/nope", "/v1/v1/v1/deployments", "/v1/deployments/x/nope"])
def test_an_unknown_route_is_not_found(api: httpx.Client, path: str) -> None:
    answer = api.get(path)
    refused(answer, 404)
    assert ": /openapi.json describes those that programs use." in answer.text


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/queue/submit", "POST"),
        ("PUT", "/v1/queue/submit", "POST"),
        ("DELETE", "/v1/deployments", "GET, HEAD, POST"),
        ("POST", "/v3/whoami", "GET, HEAD"),
        ("PUT", "/v1/deployments/some", "DELETE, GET, HEAD, PATCH"),
    ],
)
def test_a_method_that_a_route_lacks_is_not_allowed(api: httpx.Client, method: str, path: str, allowed: str) -> None:
    answer = api.request(method, path)
    assert refused(answer, 405) == f"{method} is not allowed at {path}, which takes {allowed}."
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("name", ["", "/", "../etc/passwd", "a//b", "a\nb", "x" * 513])
def test_a_files_name_that_leads_elsewhere_is_refused(api: httpx.Client, name: str) -> None:
    refused(api.post("/v1/storage/upload-request", json={"filename": name}), 400, "filename")


def test_a_huge_header_breaks_nothing(api: httpx.Client, platform: PlatformProcess) -> None:
    with httpx.Client(base_url=platform.base_url) as client:
        try:
            answer = client.get("/v3/whoami", headers={"X-Filler": "x" * 100_000})
        except httpx.TransportError:
            pass  # hanging up is an answer too
        else:
            refused(answer, 401 if answer.status_code == 401 else 431)
        refused(client.get("/v3/whoami", headers={"Authorization": "Bearer " + "x" * 50_000}), 401)

    assert api.get("/v3/whoami").status_code == 200


@pytest.mark.parametrize("text", [b"\0\0\0\0", b"GET\r\n\r\n", b"BREW /pot HTTP/1.1\r\n\r\n", b"GET / HTTP/9\r\n\r\n"])
def test_what_is_not_http_breaks_nothing(api: httpx.Client, platform: PlatformProcess, text: bytes) -> None:
    address = urlsplit(platform.base_url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))

    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert b"Traceback" not in answer
    assert api.get("/health").status_code == 200


def test_a_body_that_never_comes_breaks_nothing(api: httpx.Client, platform: PlatformProcess, idle: str) -> None:
    address = urlsplit(platform.base_url)
    lines = ["POST /v1/queue/submit HTTP/1.1", "Host: x", f"Authorization: Bearer {platform.api_key}"]
    head = "\r\n".join([*lines, "Content-Length: 99", "", ""])
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        connection.sendall(head.encode() + b'{"model"')

    assert api.get("/v1/queue/metrics", params={"model": idle}).json()["total_jobs"] == 0
