"""A small platform over a real socket: enough of the wire for jig, scripted by the test that starts it."""

import base64
import hashlib
import io
import json
import re
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import fake_queue
import fake_secrets
import fake_volumes
from fake_queue import FakeQueue
from fake_volumes import FakeVolumes

JsonObject = dict[str, Any]

KEY = "msk_the-secret-key"
OTHER_KEY = "msk_the-key-of-another-project"
ORGANIZATION = "acme"
SECONDS_MAX = 60
WHEEL_NAME = "sprocket-9.9-py3-none-any.whl"
WHEEL = b"a wheel"
WAITING = {"replica_status": "Waiting", "replica_status_reason": "Preparing", "replica_status_message": "Making ready."}
RUNNING = {"replica_status": "Running"}
READY = {"replica_status": "Running", "replica_ready_since": "2026-01-01T00:00:00Z"}
CRASHED = {
    "replica_status": "Waiting",
    "replica_status_reason": "CrashLoopBackOff",
    "replica_status_message": "It exited with code 1.",
}


def already_set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FakePlatform:
    """What the server knows, and what it should do next.

    `rollout` holds the replica's event at each look at a deployment, `job_states` the job's state at each look at it;
    the last of each stays. `failures` are pairs (end of a path, or a method and a path, and status): the next such
    request gets that status instead of an answer. `told_upload_url` is where files are to be put instead of here.
    `told` is what a deployment's answer says besides, or instead, and `registry` what that says which names the
    registry. Followed logs end when `is_quiet` is set: as they should, or with `is_stopping` as those of a server
    that goes away. `missing_bytes` is how many bytes too early a download ends. `projects` holds the keys, each with
    its project's name; all are of `scope`. `queue` holds the jobs but for the one of `job_states`; where `is_old`,
    there are none of its routes. While it `is_away`, connections break.
    """

    url: str = ""
    runtime: JsonObject = field(default_factory=lambda: {"runtime": "process", "accepts": ["bundle"], "gpus": 0})
    registry: JsonObject = field(default_factory=dict)
    rollout: list[dict[str, str]] = field(default_factory=lambda: [WAITING, READY])
    waiting_jobs: int = 2
    job_states: list[JsonObject] = field(default_factory=lambda: [{"status": "done", "outputs": {"text": "hi"}}])
    log_lines: list[str] = field(default_factory=lambda: ["first line", "last line"])
    failures: list[tuple[str, int]] = field(default_factory=list)
    looks_until_gone: int = 2
    is_quiet: threading.Event = field(default_factory=already_set)
    told: JsonObject = field(default_factory=dict)
    is_stopping: bool = False
    missing_bytes: int = 0
    projects: dict[str, str] = field(default_factory=lambda: {KEY: "Default", OTHER_KEY: "Vision"})
    revokes_while_followed: bool = False
    scope: str = "developer"
    requests: list[Request] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    deployments: dict[str, JsonObject] = field(default_factory=dict)
    jobs: dict[str, JsonObject] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    queue: FakeQueue = field(default_factory=FakeQueue)
    secrets: dict[str, JsonObject] = field(default_factory=dict)
    volumes: FakeVolumes = field(default_factory=FakeVolumes)
    told_upload_url: str | None = None
    is_old: bool = False
    is_away: bool = False

    def sent(self, method: str, path: str) -> list[Request]:
        """The requests of this method whose path starts like this."""
        return [each for each in self.requests if each.method == method and each.path.startswith(path)]

    def bundle(self, image: str) -> tuple[JsonObject, dict[str, bytes]]:
        """The config, and the files by name, of a bundle that a deployment names by digest."""
        manifest = json.loads(self.manifests[image.partition("@")[2]])
        assert manifest["artifactType"] == "application/vnd.machineshop.bundle.v1"
        (layer,) = manifest["layers"]
        with tarfile.open(fileobj=io.BytesIO(self.blobs[layer["digest"]]), mode="r:gz") as archive:
            files = {each.name: content_of(archive, each) for each in archive if each.isfile()}
        return json.loads(self.blobs[manifest["config"]["digest"]]), files

    def deploy(self, name: str) -> None:
        """Put a deployment there, as if it had been deployed."""
        values = {"image": f"registry/acme/{name}@sha256:{'0' * 64}", "min_replicas": 1, "environment_variables": []}
        self.deployments[name] = {"name": name, "revision": "rev-1", **values}

    def deployment(self, name: str) -> JsonObject:
        """The deployment at this look."""
        known = self.deployments[name]
        self.looks[name] = self.looks.get(name, -1) + 1
        event = self.rollout[min(self.looks[name], len(self.rollout) - 1)]
        is_ready = "replica_ready_since" in event
        return {
            **known,
            "object": "deployment",
            "id": f"dep-{name}",
            "status": "Ready" if is_ready else "Updating",
            "desired_replicas": known["min_replicas"],
            "ready_replicas": int(is_ready),
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
            "environment_variables": [
                *known["environment_variables"],
                {"name": "TOGETHER_DEPLOYMENT_REVISION_ID", "value": known["revision"]},
            ],
            "replica_events": {"r-1": {**event, "revision_id": known["revision"]}},
            **self.told,
        }


def content_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the second would wait for the first's receipt
    platform: FakePlatform

    def log_message(self, *args: object) -> None:
        pass

    def handle_any(self) -> None:
        if self.platform.is_away:
            self.close_connection = True
            return
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # whoever sent it has given up
            self.close_connection = True
            return
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        request = Request(self.command, parts.path, query, dict(self.headers), body)
        self.platform.requests.append(request)
        for failure in self.platform.failures:
            if f"{self.command} {parts.path}".endswith(failure[0]):
                self.platform.failures.remove(failure)
                self.answer(failure[1], error("The platform is unwell."))
                return
        if not parts.path.startswith(("/signed/", "/health")) and self.key not in self.platform.projects:
            self.answer(401, error("This API key is not valid.", "authentication_error"))
            return
        for method, pattern, route in ROUTES if self.platform.is_old else (*ROUTES, *fake_queue.ROUTES):
            match = re.fullmatch(pattern, parts.path)
            if match and method == self.command:
                route(self, request, *match.groups())
                return
        self.answer(404, error(f"There is no route {parts.path}.", "not_found_error"))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any  # noqa: N815

    @property
    def key(self) -> str:
        kind, _, value = (self.headers.get("Authorization") or "").partition(" ")
        return base64.b64decode(value).decode().partition(":")[2] if kind == "Basic" else value

    def answer(self, status: int, document: JsonObject | None = None, **headers: str) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def error(message: str, kind: str = "invalid_request_error") -> JsonObject:
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def whoami(handler: Handler, request: Request) -> None:
    organization = {"id": "org-1", "name": "Acme"}
    name = handler.platform.projects[handler.key]
    project = {"id": f"proj-{name}", "name": name, "slug": name.lower()}
    api_key = {"id": "key-1", "scope": handler.platform.scope}
    handler.answer(200, {"api_key": api_key, "organization": organization, "project": project})


def web_page(handler: Handler, request: Request) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "13")
    handler.end_headers()
    handler.wfile.write(b"<html></html>")


def runtime(handler: Handler, request: Request) -> None:
    handler.answer(200, handler.platform.runtime)


def base_path(handler: Handler, request: Request) -> None:
    handler.answer(200, {"base-path": f"{handler.platform.url}/{ORGANIZATION}", **handler.platform.registry})


def package_page(handler: Handler, request: Request) -> None:
    digest = hashlib.sha256(WHEEL).hexdigest()
    file = {"filename": WHEEL_NAME, "url": f"../../packages/{digest}/{WHEEL_NAME}", "hashes": {"sha256": digest}}
    handler.answer(200, {"name": "sprocket", "files": [file]})


def package_file(handler: Handler, request: Request) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(WHEEL)))
    handler.end_headers()
    handler.wfile.write(WHEEL)


def health(handler: Handler, request: Request) -> None:
    handler.answer(200, {"status": "healthy", "version": "9.9"})


def registry_root(handler: Handler, request: Request) -> None:
    handler.answer(200, {})


def head_blob(handler: Handler, request: Request, digest: str) -> None:
    handler.answer(200 if digest in handler.platform.blobs else 404)


def start_upload(handler: Handler, request: Request, repository: str) -> None:
    handler.answer(202, Location=f"/v2/{repository}/blobs/uploads/1?_state=x")


def put_blob(handler: Handler, request: Request) -> None:
    digest = f"sha256:{hashlib.sha256(request.body).hexdigest()}"
    if digest != request.query["digest"]:
        handler.answer(400, {"errors": [{"code": "DIGEST_INVALID"}]})
        return
    handler.platform.blobs[digest] = request.body
    handler.answer(201, Docker_Content_Digest=digest)


def put_manifest(handler: Handler, request: Request, tag: str) -> None:
    manifest = request.json
    for each in [manifest["config"], *manifest["layers"]]:
        assert len(handler.platform.blobs[each["digest"]]) == each["size"]
    digest = f"sha256:{hashlib.sha256(request.body).hexdigest()}"
    handler.platform.manifests[digest] = handler.platform.manifests[tag] = request.body
    handler.answer(201, Docker_Content_Digest=digest)


def list_deployments(handler: Handler, request: Request) -> None:
    data = [handler.platform.deployment(name) for name in handler.platform.deployments]
    handler.answer(200, {"object": "list", "data": data})


def create(handler: Handler, request: Request) -> None:
    store(handler, request.json["name"], request.json)


def get_deployment(handler: Handler, request: Request, name: str) -> None:
    platform = handler.platform
    if name.startswith("dep-") and request.query.get("deleted") == "true" and platform.looks_until_gone > 1:
        platform.looks_until_gone -= 1
        draining = f"Replicas that drain: {platform.looks_until_gone}."
        handler.answer(200, {"object": "deployment", "id": name, "status": "Scaling", "status_message": draining})
        return
    if name not in platform.deployments:
        handler.answer(404, error(f"There is no deployment {name}.", "not_found_error"))
        return
    handler.answer(200, platform.deployment(name))


def patch(handler: Handler, request: Request, name: str) -> None:
    store(handler, name, {**handler.platform.deployments[name], **request.json})


def store(handler: Handler, name: str, values: JsonObject) -> None:
    platform = handler.platform
    before = platform.deployments.get(name, {})
    number = int(before.get("revision", "rev-0")[4:])
    revision = f"rev-{number if runs_the_same(before, values) else number + 1}"
    platform.deployments[name] = {**values, "revision": revision}
    platform.looks.pop(name, None)
    handler.answer(200, platform.deployment(name))


def runs_the_same(before: JsonObject, values: JsonObject) -> bool:
    differing = {key for key in (*before, *values) if before.get(key) != values.get(key)}
    return differing <= {"min_replicas", "max_replicas", "autoscaling"}


def delete(handler: Handler, request: Request, name: str) -> None:
    del handler.platform.deployments[name]
    handler.answer(200, {"object": "deployment", "deleted": True})


def scaling(handler: Handler, request: Request, name: str) -> None:
    known = handler.platform.deployments.get(name)
    if known is None:
        handler.answer(404, error(f"There is no deployment {name}.", "not_found_error"))
        return
    bounds = {key: known.get(key) for key in ("min_replicas", "max_replicas")}
    handler.answer(200, {"object": "scaling", "desired_replicas": bounds["max_replicas"], **bounds})


def logs(handler: Handler, request: Request, name: str) -> None:
    lines = handler.platform.log_lines
    if request.query.get("follow") != "true":
        handler.answer(200, {"lines": lines})
        return
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.send_header("Connection", "close")
    handler.end_headers()
    for line in lines:
        piece = json.dumps({"lines": [line]}).encode() + b"\n"
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        handler.wfile.flush()
    handler.platform.is_quiet.wait(SECONDS_MAX)
    if handler.platform.revokes_while_followed:
        del handler.platform.projects[KEY]
    if not handler.platform.is_stopping:
        handler.wfile.write(b"0\r\n\r\n")
    handler.close_connection = True


def prewarm(handler: Handler, request: Request) -> None:
    if "volume" in request.json:
        fake_volumes.seal(handler, request.json["volume"])
        return
    handler.answer(200, {})


def submit(handler: Handler, request: Request) -> None:
    if isinstance(request.json, list):
        fake_queue.submit_many(handler, request)
        return
    handler.platform.jobs["job-1"] = request.json
    handler.answer(200, {"requestId": "job-1", "request_id": "job-1", "status": "pending"})


def job(handler: Handler, request: Request) -> None:
    platform = handler.platform
    if request.query["request_id"] in platform.queue.jobs:
        handler.answer(200, platform.queue.look([request.query["request_id"]])[0])
        return
    if request.query["request_id"] != "job-1":
        handler.answer(404, error("There is no such job.", "not_found_error"))
        return
    platform.looks["job"] = platform.looks.get("job", -1) + 1
    state = platform.job_states[min(platform.looks["job"], len(platform.job_states) - 1)]
    handler.answer(200, {"request_id": "job-1", "inputs": {}, "created_at": "2026-01-01T00:00:00Z", **state})


def cancel(handler: Handler, request: Request) -> None:
    known = {"job-1": handler.platform.job_states[0], **handler.platform.queue.jobs}
    if request.json["request_id"] not in known:
        handler.answer(404, error("There is no such job.", "not_found_error"))
        return
    status = known[request.json["request_id"]]["status"]
    if status == "pending":
        handler.answer(200, {"status": "canceled"})
        return
    body = {"message": f"The job is {status}.", "type": "conflict_error", "param": None, "code": None}
    asked = {"cancel_requested": True} if status == "running" else {}
    handler.answer(409, {**body, "error": body, "status": status, **asked}, x_should_retry="false")


def clear(handler: Handler, request: Request) -> None:
    handler.answer(200, {"canceled_count": 3})


def metrics(handler: Handler, request: Request) -> None:
    handler.answer(200, {"messages_running": 1, "messages_waiting": handler.platform.waiting_jobs, "total_jobs": 3})


def upload_request(handler: Handler, request: Request) -> None:
    filename = request.json["filename"]
    url = f"{handler.platform.told_upload_url or handler.platform.url}/signed/{quote(filename)}"
    handler.answer(200, {"path": filename, "upload_url": {"url": url, "method": "PUT"}})


def put_file(handler: Handler, request: Request, filename: str) -> None:
    handler.platform.files[filename] = request.body
    handler.answer(200, {}, ETag=f'"{hashlib.sha256(request.body).hexdigest()}"')


def get_file(handler: Handler, request: Request, filename: str) -> None:
    content = handler.platform.files.get(filename)
    if content is None:
        handler.answer(404, error(f"There is no file {filename}.", "not_found_error"))
        return
    is_part = "Range" in request.headers and handler.platform.volumes.takes_ranges
    start = int(request.headers["Range"][6:-1]) if is_part else 0
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    fake_volumes.send(handler, content[start:])


ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", "/v3/whoami", whoami),
    ("GET", "/v1/runtime", runtime),
    ("GET", "/health", health),
    ("GET", "/v2/", registry_root),
    ("GET", "/simple/sprocket/", package_page),
    ("GET", r"/packages/\w+/sprocket-.*", package_file),
    ("GET", "/web/.*", web_page),
    ("GET", "/v1/image-repositories/base-path", base_path),
    ("HEAD", r"/v2/acme/[\w-]+/blobs/(sha256:\w+)", head_blob),
    ("POST", r"/v2/(acme/[\w-]+)/blobs/uploads/", start_upload),
    ("PUT", r"/v2/acme/[\w-]+/blobs/uploads/1", put_blob),
    ("PUT", r"/v2/acme/[\w-]+/manifests/([\w.-]+)", put_manifest),
    ("POST", "/v1/deployments/prewarm", prewarm),
    *fake_secrets.ROUTES,
    *fake_volumes.ROUTES,
    ("GET", "/v1/deployments", list_deployments),
    ("POST", "/v1/deployments", create),
    ("GET", r"/v1/deployments/([\w-]+)", get_deployment),
    ("PATCH", r"/v1/deployments/([\w-]+)", patch),
    ("DELETE", r"/v1/deployments/([\w-]+)", delete),
    ("GET", r"/v1/deployments/([\w-]+)/scaling", scaling),
    ("GET", r"/v1/deployments/([\w-]+)/logs", logs),
    ("POST", "/v1/queue/submit", submit),
    ("GET", "/v1/queue/status", job),
    ("POST", "/v1/queue/cancel", cancel),
    ("POST", "/v1/queue/clear", clear),
    ("GET", "/v1/queue/metrics", metrics),
    ("POST", "/v1/storage/upload-request", upload_request),
    ("PUT", r"/signed/(.+)", put_file),
    ("GET", r"/v1/storage/(.+)", get_file),
]


class FakeServer:
    """The fake on a free port of this machine, from `start` to `stop`."""

    def __init__(self) -> None:
        self.platform = FakePlatform()
        handler = type("BoundHandler", (Handler,), {"platform": self.platform})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.platform.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def start(self) -> FakePlatform:
        self._thread.start()
        return self.platform

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
