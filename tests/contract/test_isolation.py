"""What a key reaches: nothing of another project, whatever the route; and a replica's key only its own queue."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from contract.older_worker import OlderWorker
from machineshop.app import Platform
from machineshop.config import Settings
from machineshop.runtime.choice import Choice
from platform_process import PlatformProcess, wait_for

TABLE = [
    # method, path with what is the other project's, body; all must answer as if it did not exist
    ("GET", "/v1/deployments/{deployment}", None),
    ("PATCH", "/v1/deployments/{deployment}", {"description": "mine now"}),
    ("DELETE", "/v1/deployments/{deployment}", None),
    ("GET", "/v1/deployments/{deployment}/revisions", None),
    ("GET", "/v1/deployments/{deployment}/revisions/{revision}", None),
    ("POST", "/v1/deployments/{deployment}/rollback", {"revision_identifier": "1"}),
    ("GET", "/v1/deployments/{deployment}/scaling", None),
    ("GET", "/v1/deployments/{deployment}/logs", None),
    ("GET", "/v1/deployments/{deployment}/health", None),
    ("POST", "/v1/deployment-request/{deployment}/{path:path}", {}),
    ("POST", "/v1/queue/submit", {"model": "MODEL", "payload": {}}),
    ("POST", "/v1/videos/generations", {"model": "MODEL", "payload": {}}),
    ("GET", "/v1/queue/status", None),
    ("GET", "/v1/videos/status", None),
    ("POST", "/v1/queue/cancel", {"model": "MODEL", "request_id": "JOB"}),
    ("POST", "/v1/videos/cancel", {"model": "MODEL", "request_id": "JOB"}),
    ("POST", "/v1/queue/clear", {"model": "MODEL"}),
    ("POST", "/v1/queue/results", {"model": "MODEL", "request_ids": ["JOB"]}),
    ("POST", "/v1/queue/resubmit", {"model": "MODEL", "request_ids": ["JOB"]}),
    ("GET", "/v1/queue/jobs", None),
    ("GET", "/v1/queue/events", None),
    ("GET", "/v1/queue/webhooks", None),
    ("GET", "/v1/queue/settings", None),
    ("PATCH", "/v1/queue/settings", {"max_pending": 1}),
    (
        "POST",
        "/internal/v1/queue/updates",
        {"model": "MODEL", "updates": [{"request_id": "JOB", "status": "done"}], "claim": {"hostname": "thief"}},
    ),
    ("GET", "/v1/queue/metrics", None),
    ("GET", "/internal/v1/queue/status", None),
    ("GET", "/internal/v1/queue/retrieve", None),
    ("POST", "/internal/v1/videos/status", {"model": "MODEL", "request_id": "JOB", "status": "done"}),
    ("GET", "/v1/storage/{filename:path}", None),
    ("DELETE", "/v1/storage/{filename:path}", None),
    ("GET", "/v1/deployments/storage/{filename:path}", None),
    ("DELETE", "/v1/deployments/storage/{filename:path}", None),
    ("POST", "/v1/storage/multipart/complete", {"filename": "large.txt", "upload_id": "UPLOAD", "parts": ["PART"]}),
    ("POST", "/v1/storage/multipart/abort", {"filename": "large.txt", "upload_id": "UPLOAD"}),
    ("GET", "/v1/deployments/secrets/{secret:path}", None),
    ("PATCH", "/v1/deployments/secrets/{secret:path}", {"value": "mine now", "redeploy": True}),
    ("DELETE", "/v1/deployments/secrets/{secret:path}", None),
    ("GET", "/v1/secrets/{secret:path}", None),
    ("PATCH", "/v1/secrets/{secret:path}", {"value": "mine now"}),
    ("DELETE", "/v1/secrets/{secret:path}", None),
    *(
        (method, f"/v1/{base}/volumes/{{volume}}{rest}", body)
        for base in ("deployments/storage", "storage")
        for method, rest, body in (
            ("GET", "", None),
            ("PATCH", "", {"content": {"type": "files", "source_prefix": "mine/1"}}),
            ("DELETE", "", None),
            ("GET", "/versions/{version}/files", None),
            ("PUT", "/versions/{version}/files", None),
            ("POST", "/versions/{version}/files/contents", {"paths": ["mine.bin"]}),
            (
                "POST",
                "/versions/{version}/files",
                {"files": [{"path": "copy", "size": 6, "sha256": hashlib.sha256(b"hidden").hexdigest()}]},
            ),
        )
    ),
    ("GET", "/v1/image-repositories/{id}/images", None),
    ("DELETE", "/v1/api-keys/{id}", None),
    ("PATCH", "/v1/projects/{id}", {"name": "mine now"}),
    ("DELETE", "/v1/projects/{id}", None),
    ("GET", "/v2/{name:path}/blobs/{digest}", None),
    ("DELETE", "/v2/{name:path}/blobs/{digest}", None),
    ("POST", "/v2/{name:path}/blobs/uploads", None),
    ("POST", "/v2/{name:path}/blobs/uploads/", None),
    ("GET", "/v2/{name:path}/blobs/uploads/{upload_id}", None),
    ("PATCH", "/v2/{name:path}/blobs/uploads/{upload_id}", None),
    ("PUT", "/v2/{name:path}/blobs/uploads/{upload_id}", None),
    ("DELETE", "/v2/{name:path}/blobs/uploads/{upload_id}", None),
    ("GET", "/v2/{name:path}/manifests/{reference}", None),
    ("PUT", "/v2/{name:path}/manifests/{reference}", {}),
    ("DELETE", "/v2/{name:path}/manifests/{reference}", None),
    ("GET", "/v2/{name:path}/tags/list", None),
    ("GET", "/v2/{name:path}/referrers/{digest}", None),
    ("GET", "/v2/{name:path}", None),
    ("POST", "/v2/{name:path}", None),
    ("PUT", "/v2/{name:path}", None),
    ("PATCH", "/v2/{name:path}", None),
    ("DELETE", "/v2/{name:path}", None),
]
# These name nothing of a project's; tests below look at the lists among them.
OWN = {
    "/health",
    "/v1/deployments",
    "/v1/api-keys",
    "/v1/audit",
    "/v1/deployments/prewarm",
    "/v1/deployments/secrets",
    "/v1/deployments/storage/volumes",
    "/v1/image-repositories",
    "/v1/image-repositories/base-path",
    "/v1/projects",
    "/v1/runtime",
    "/v1/secrets",
    "/v1/storage/multipart/init",
    "/v1/storage/upload-request",
    "/v1/storage/volumes",
    "/v1/tls/ca",
    "/v1/webhooks/secret",
    "/v1/webhooks/secret/rotate",
    "/v2",
    "/v2/",
    "/v2/token",
    "/v3/whoami",
}
# The same for everyone, without a key: free software, its description, and nothing of a project's.
PUBLIC = {"/openapi.json", "/simple/", "/simple/{project}/", "/packages/{sha256}/{filename}"}
# Opened by a signature, not by a key.
SIGNED = {
    "/v1/storage/signed/{project_id}/{filename:path}",
    "/v1/storage/signed-part/{project_id}/{upload_id}/{part_number}",
}


# What nobody needs a key for, or asks for one in a way of its own.
WITHOUT_SCOPE = PUBLIC | SIGNED | {"/health", "/v1/tls/ca", "/v2/token"}


class Possessions:
    """What the first project has."""

    def __init__(self, platform: PlatformProcess, api: httpx.Client, deployment: str) -> None:
        self.deployment = deployment
        who = api.get("/v3/whoami").json()
        self.key, self.project = who["api_key"]["id"], who["project"]["id"]
        self.id = platform.deployment(deployment)["id"]
        self.job = platform.submit(deployment, {"hidden": "mine"})
        upload = api.post("/v1/storage/upload-request", json={"filename": "mine.txt"}).json()["upload_url"]["url"]
        assert httpx.put(upload, content=b"mine").status_code == 200
        self.signed_upload = upload
        begun = api.post("/v1/storage/multipart/init", json={"filename": "large.txt", "parts_count": 1}).json()
        self.upload, self.signed_part = begun["upload_id"], begun["part_upload_urls"][0]["url"]
        self.etag = httpx.put(self.signed_part, content=b"large").headers["ETag"].strip('"')
        self.secret = f"{deployment}/token"
        assert api.post("/v1/secrets", json={"name": self.secret, "value": "hidden"}).status_code == 200
        content = {"type": "files", "source_prefix": f"{deployment}-files/0"}
        made = api.post(
            "/v1/storage/volumes", json={"name": f"{deployment}-files", "type": "readOnly", "content": content}
        )
        self.volume = made.json()["name"]
        asked = api.post("/v1/storage/upload-request", json={"filename": f"{self.volume}/0/mine.bin"}).json()
        assert httpx.put(asked["upload_url"]["url"], content=b"hidden").status_code == 200
        reference = str(platform.deployment(deployment)["image"])
        self.repository, _, self.manifest = reference.partition("/")[2].partition("@")
        manifest = api.get(f"/v2/{self.repository}/manifests/{self.manifest}").json()
        self.blob = manifest["layers"][0]["digest"]

    def path(self, template: str, name: str) -> str:
        if template.startswith("/v1/api-keys"):
            return template.replace("{id}", self.key)
        if template.startswith("/v1/projects"):
            return template.replace("{id}", self.project)
        for placeholder, value in {
            "{deployment}": name,
            "{revision}": "1",
            "{path:path}": "generate",
            "{filename:path}": "mine.txt",
            "{secret:path}": self.secret,
            "{volume}": self.volume,
            "{version}": "0",
            "{id}": self.repository.replace("/", "___"),
            "{name:path}": self.repository,
            "{digest}": self.blob,
            "{reference}": self.manifest,
            "{upload_id}": "01900000-0000-7000-8000-000000000000",
        }.items():
            template = template.replace(placeholder, value)
        return template

    def body(self, body: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
        part = json.dumps({"part_number": 1, "etag": self.etag})
        text = json.dumps(body).replace("MODEL", name).replace("JOB", self.job)
        text = text.replace("UPLOAD", self.upload).replace('"PART"', part)
        filled: dict[str, Any] | None = json.loads(text)
        return filled


@pytest.fixture
def mine(platform: PlatformProcess, api: httpx.Client, idle: str) -> Possessions:
    return Possessions(platform, api, idle)


@pytest.fixture
def routes(tmp_path: Path) -> Iterator[list[Route]]:
    """The routes of the real application, which is put together and not started."""
    platform = Platform(Settings(data_dir=tmp_path, port=0))
    platform.data_dir.open()
    platform.build(Choice())
    yield [route for route in platform.asgi.application.routes if isinstance(route, Route)]
    platform.data_dir.close()


def test_every_route_is_covered_here(routes: list[Route]) -> None:
    covered = {path for _, path, _ in TABLE}

    assert {route.path for route in routes} - OWN - PUBLIC - SIGNED == covered


def test_every_method_is_covered_here(routes: list[Route]) -> None:
    methods = {
        (method, route.path)
        for route in routes
        if route.path not in OWN | PUBLIC | SIGNED and "deployment-request" not in route.path
        for method in route.methods or vars(route.endpoint)["_handlers"]  # the registry's endpoints keep their own
        if method != "HEAD"
    }

    assert methods == {(method, path) for method, path, _ in TABLE if "deployment-request" not in path}


def test_another_project_finds_nothing_by_any_route(
    stranger: httpx.Client, api: httpx.Client, platform: PlatformProcess, mine: Possessions
) -> None:
    before = platform.deployment(mine.deployment), platform.job(mine.deployment, mine.job)
    secret = api.get(f"/v1/secrets/{mine.secret}").json()
    volume = api.get(f"/v1/storage/volumes/{mine.volume}").json()

    for name in (mine.deployment, mine.id):
        query = {"model": name, "request_id": mine.job, "hostname": "thief", "timeout": "0s", "digest": mine.blob}
        for method, template, body in TABLE:
            path = mine.path(template, name)
            answer = stranger.request(method, path, json=mine.body(body, name), params=query)
            assert answer.status_code == 404, f"{method} {template}: {answer.status_code} {answer.text}"
            assert "hidden" not in answer.text

    assert api.get(f"/v1/secrets/{mine.secret}").json()["updated_at"] == secret["updated_at"]
    assert api.get(f"/v1/storage/volumes/{mine.volume}").json() == volume
    assert (platform.deployment(mine.deployment), platform.job(mine.deployment, mine.job)) == before
    assert api.get("/v1/storage/mine.txt").content == b"mine"
    parts = [{"part_number": 1, "etag": mine.etag}]
    whole = {"filename": "large.txt", "upload_id": mine.upload, "parts": parts}
    assert api.post("/v1/storage/multipart/complete", json=whole).json()["size"] == len(b"large")


def test_an_unknown_thing_and_a_foreign_one_look_alike(stranger: httpx.Client, mine: Possessions) -> None:
    foreign = stranger.get(f"/v1/deployments/{mine.deployment}").text
    unknown = stranger.get("/v1/deployments/nowhere").text

    assert foreign.replace(mine.deployment, "X") == unknown.replace("nowhere", "X")


def test_lists_show_only_what_is_ones_own(stranger: httpx.Client, mine: Possessions) -> None:
    assert stranger.get("/v1/deployments").json()["data"] == []
    assert stranger.get("/v1/image-repositories").json()["data"] == []
    assert stranger.get("/v1/secrets").json()["data"] == []
    assert stranger.get("/v1/storage/volumes").json()["data"] == []
    assert stranger.get("/v3/whoami").json()["project"]["slug"] == "stranger"
    assert {project["slug"] for project in stranger.get("/v1/projects").json()["data"]} == {"stranger"}
    assert mine.key not in stranger.get("/v1/api-keys").text
    assert mine.deployment not in stranger.get("/v1/audit", params={"limit": 1000}).text
    assert stranger.get("/v1/image-repositories/base-path").json()["base-path"].endswith("/stranger")


def test_two_projects_may_use_the_same_names(stranger: httpx.Client, api: httpx.Client, mine: Possessions) -> None:
    upload = stranger.post("/v1/storage/upload-request", json={"filename": "mine.txt"}).json()["upload_url"]["url"]
    assert httpx.put(upload, content=b"the stranger's").status_code == 200

    assert stranger.get("/v1/storage/mine.txt").content == b"the stranger's"
    assert api.get("/v1/storage/mine.txt").content == b"mine"
    assert stranger.delete("/v1/storage/mine.txt").status_code == 200
    assert api.get("/v1/storage/mine.txt").content == b"mine"


def test_a_foreign_image_cannot_be_deployed(stranger: httpx.Client, image: str) -> None:
    answer = stranger.post("/v1/deployments", json={"name": "thief", "image": image, "gpu_type": "none"})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "image")


def test_a_foreign_blob_cannot_be_mounted(stranger: httpx.Client, mine: Possessions) -> None:
    mount = {"mount": mine.blob, "from": mine.repository}

    answer = stranger.post("/v2/stranger/copy/blobs/uploads/", params=mount)

    assert answer.status_code == 202, "an ordinary upload begins instead"
    assert stranger.head(f"/v2/stranger/copy/blobs/{mine.blob}").status_code == 404


def test_a_signed_upload_is_good_for_its_project_and_name_alone(mine: Possessions) -> None:
    assert httpx.put(mine.signed_upload.replace("mine.txt", "other.txt"), content=b"x").status_code == 403
    project = httpx.URL(mine.signed_upload).path.removeprefix("/v1/storage/signed/").split("/")[0]
    other = mine.signed_upload.replace(project, "01900000-0000-7000-8000-000000000000")
    assert httpx.put(other, content=b"x").status_code == 403
    assert httpx.put(mine.signed_upload.partition("?")[0], content=b"x").status_code == 403
    assert httpx.put(mine.signed_part.replace("/1?", "/2?"), content=b"x").status_code == 403
    assert httpx.put(mine.signed_part.partition("?")[0], content=b"x").status_code == 403


@pytest.mark.parametrize("key", [None, "msk_guessed", "Basic x", "\u00e4".encode().decode("latin-1")])
def test_without_a_key_nothing_is_told(platform: PlatformProcess, mine: Possessions, key: str | None) -> None:
    headers = {} if key is None else {b"Authorization": f"Bearer {key}".encode("latin-1")}
    with httpx.Client(base_url=platform.base_url, headers=headers) as nobody:
        for method, template, body in TABLE:
            path = mine.path(template, mine.deployment)
            answer = nobody.request(method, path, json=mine.body(body, mine.deployment))
            assert answer.status_code == 401, f"{method} {template}: {answer.status_code} {answer.text}"
            assert "www-authenticate" in answer.headers


def test_a_revoked_key_ends(platform: PlatformProcess) -> None:
    key = platform.create_key("passing")
    with platform.client(key=key) as client:
        assert client.get("/v3/whoami").status_code == 200
        assert platform.machineshop("keys", "revoke", key[:10], "--data-dir", platform.data_dir).returncode == 0
        wait_for(lambda: client.get("/v3/whoami").status_code == 401, "the key ends")


# What a viewer may do beside reading: asking for many results, or files, is a POST.
LOOKS = {
    ("POST", "/v1/queue/results"),
    ("POST", "/v1/deployments/storage/volumes/{volume}/versions/{version}/files/contents"),
    ("POST", "/v1/storage/volumes/{volume}/versions/{version}/files/contents"),
}
# What looks like reading, and is not for viewers: it claims a job, runs the model, shows a secret or tells of a push.
NO_LOOKS = {
    ("GET", "/internal/v1/queue/retrieve"),
    ("GET", "/v1/webhooks/secret"),
    ("GET", "/v2/{name:path}/blobs/uploads/{upload_id}"),
}
# What is for admins alone.
ADMINS = {"/v1/api-keys", "/v1/api-keys/{id}", "/v1/audit", "/v1/projects"}
# All that the key of a replica may ask for, of its own deployment.
WORKERS = {
    ("GET", "/internal/v1/queue/retrieve"),
    ("GET", "/internal/v1/queue/status"),
    ("GET", "/v1/deployments/storage/{filename:path}"),
    ("GET", "/v1/queue/metrics"),
    ("GET", "/v1/queue/status"),
    ("GET", "/v1/storage/{filename:path}"),
    ("GET", "/v1/videos/status"),
    ("GET", "/v3/whoami"),
    ("POST", "/internal/v1/queue/updates"),
    ("POST", "/internal/v1/videos/status"),
    ("POST", "/v1/storage/multipart/abort"),
    ("POST", "/v1/storage/multipart/complete"),
    ("POST", "/v1/storage/multipart/init"),
    ("POST", "/v1/storage/upload-request"),
    # The registry lets it pull.
    ("GET", "/v2/"),
    ("GET", "/v2"),
    ("GET", "/v2/{name:path}"),
    ("GET", "/v2/{name:path}/blobs/{digest}"),
    ("GET", "/v2/{name:path}/manifests/{reference}"),
    ("GET", "/v2/{name:path}/referrers/{digest}"),
    ("GET", "/v2/{name:path}/tags/list"),
}


def keyed_routes(routes: list[Route]) -> set[tuple[str, str]]:
    """Every method and path that wants a key; the gateway's by the methods that a person would use."""
    return {
        (method, route.path)
        for route in routes
        if route.path not in WITHOUT_SCOPE
        for method in route.methods or vars(route.endpoint)["_handlers"]
        if method in {"GET", "POST", "PUT", "PATCH", "DELETE"}
    }


@pytest.fixture
def viewer(platform: PlatformProcess) -> Iterator[httpx.Client]:
    """A key that may look at all that the first project has."""
    with platform.client(key=platform.create_key("default", "viewer")) as client:
        yield client


@pytest.fixture
def developer(platform: PlatformProcess) -> Iterator[httpx.Client]:
    with platform.client(key=platform.create_key("default", "developer")) as client:
        yield client


def asked(client: httpx.Client, mine: Possessions, method: str, template: str) -> httpx.Response:
    bodies = {(each, path): body for each, path, body in TABLE}
    query = {"model": mine.deployment, "request_id": mine.job, "hostname": "h", "timeout": "0s"}
    body = mine.body(bodies.get((method, template), {}), mine.deployment)
    return client.request(method, mine.path(template, mine.deployment), json=body, params=query)


def test_a_viewer_looks_at_everything_and_changes_nothing(
    viewer: httpx.Client, platform: PlatformProcess, mine: Possessions, routes: list[Route]
) -> None:
    before = platform.deployment(mine.deployment), platform.job(mine.deployment, mine.job)

    for method, template in sorted(keyed_routes(routes)):
        may = (method == "GET" and (method, template) not in NO_LOOKS) or (method, template) in LOOKS
        may = may and template not in ADMINS and "deployment-request" not in template
        if template == "/v1/queue/events":
            continue  # it goes on without an end
        answer = asked(viewer, mine, method, template)
        assert (answer.status_code != 403) is may, f"{method} {template}: {answer.status_code} {answer.text}"

    assert (platform.deployment(mine.deployment), platform.job(mine.deployment, mine.job)) == before


def test_a_developer_makes_no_keys_and_reads_no_record(
    developer: httpx.Client, mine: Possessions, routes: list[Route]
) -> None:
    for method, template in sorted(keyed_routes(routes)):
        if template in ADMINS:
            assert asked(developer, mine, method, template).status_code == 403, f"{method} {template}"


def test_a_replicas_key_may_only_work(replica: httpx.Client, mine: Possessions, routes: list[Route]) -> None:
    for method, template in sorted(keyed_routes(routes) - WORKERS):
        answer = asked(replica, mine, method, template)
        assert answer.status_code == 403, f"{method} {template}: {answer.status_code} {answer.text}"
        assert "scope" in answer.text


def test_a_replicas_key_works_no_other_queue(
    replica: httpx.Client, worker: OlderWorker, platform: PlatformProcess
) -> None:
    request_id = platform.submit(worker.model, {})
    thief = OlderWorker(replica, worker.model)

    assert thief.poll().status_code == 404
    worker.claim()
    assert thief.report(request_id, "done", {"stolen": True}).status_code == 409

    assert platform.job(worker.model, request_id)["status"] == "running"


def test_a_replicas_key_reads_files_and_uploads_none_but_its_jobs(replica: httpx.Client, api: httpx.Client) -> None:
    upload = api.post("/v1/storage/upload-request", json={"filename": "made.txt"}).json()["upload_url"]["url"]
    assert httpx.put(upload, content=b"made").status_code == 200

    assert replica.get("/v1/storage/made.txt").content == b"made"
    refused = replica.post("/v1/storage/upload-request", json={"filename": "made.txt"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_a_jobs_file")


def test_a_replicas_key_sees_and_counts_no_job_of_another_deployment(replica: httpx.Client, mine: Possessions) -> None:
    answer = replica.get("/v1/queue/status", params={"model": mine.deployment, "request_id": mine.job})

    assert answer.status_code == 404
    assert "hidden" not in answer.text
    for path in ("/v1/queue/metrics", "/internal/v1/queue/status"):
        assert replica.get(path, params={"model": mine.deployment}).status_code == 404


def test_an_update_with_a_zero_character_spoils_no_other(api: httpx.Client, mine: Possessions) -> None:
    claim = {"hostname": "h", "claim_timeout": 90}
    turn = {"model": mine.deployment, "updates": [], "claim": claim}
    (job,) = api.post("/internal/v1/queue/updates", json=turn).json()["data"]
    good = {"request_id": job["request_id"], "status": "done", "attempt_token": job["attempt_token"], "payload": {}}
    updates = [{"request_id": "a\0", "status": "done"}, {**good, "attempt_token": "\0"}, good]

    answers = api.post("/internal/v1/queue/updates", json={**turn, "updates": updates, "claim": None}).json()["updates"]

    assert [answer.get("http_status") for answer in answers] == [400, 400, None]
