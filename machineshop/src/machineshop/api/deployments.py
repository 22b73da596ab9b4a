"""The deployments' routes: create, read, change, delete, revisions and logs."""

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from machineshop.api.deployment_view import config_view, event_view, failure_view, replica_view
from machineshop.api.described import deployments as described
from machineshop.api.durations import parse_duration, parse_time
from machineshop.api.endpoint import Api, Call, iso
from machineshop.errors import InvalidRequest, NotFound, RegistryAway
from machineshop.http import json_response
from machineshop.models import Deployment, DeploymentConfig
from machineshop.runtime.base import ArtifactKind, LogLine, Replica, ReplicaStatus, Runtime, VolumeVersion
from machineshop.runtime.logs import in_batches
from machineshop.services.audit import config_values
from machineshop.services.deployment_rules import secrets_of
from machineshop.services.deployments import DeploymentService
from machineshop.services.secrets import SecretService
from machineshop.services.status import standing
from machineshop.services.volumes import VolumeService

DEFAULT_EVENTS = 10
DEFAULT_TAIL = 1000
MAX_TAIL = 10_000
MAX_PREWARMED = 16

Handler = Callable[[Call], Awaitable[Response]]


ONE = "/v1/deployments/{deployment}"


class Rollback(msgspec.Struct, frozen=True):
    """Where to go back to."""

    revision_identifier: str | int
    """A revision's number or id."""


def runtime_routes(
    api: Api, deployments: DeploymentService, secrets: SecretService, runtime: Runtime, volumes: VolumeService
) -> list[Route]:
    """The routes whose answers show replicas: only a server that runs them can give those."""
    pages = _Deployments(deployments, secrets, runtime, volumes)
    return [
        api.route("GET", "/v1/runtime", pages.describe_runtime, operation=described.RUNTIME),
        api.route("GET", "/v1/deployments", pages.list_all, operation=described.LIST),
        api.route("POST", "/v1/deployments/prewarm", pages.prewarm, body=dict[str, Any], operation=described.PREWARM),
        api.route(
            "POST",
            "/v1/deployments",
            pages.create,
            body=dict[str, Any],
            action="deployment.create",
            operation=described.CREATE,
        ),
        api.route("GET", ONE, pages.get, operation=described.GET),
        api.route(
            "PATCH", ONE, pages.update, body=dict[str, Any], action="deployment.update", operation=described.UPDATE
        ),
        api.route(
            "POST",
            f"{ONE}/rollback",
            pages.rollback,
            body=Rollback,
            action="deployment.rollback",
            operation=described.ROLLBACK,
        ),
        api.route("GET", f"{ONE}/logs", pages.logs, operation=described.LOGS),
        api.route("GET", f"{ONE}/health", pages.health, operation=described.HEALTH),
    ]


def store_routes(api: Api, deployments: DeploymentService, secrets: SecretService) -> list[Route]:
    """The routes whose answers lie in the store alone."""
    pages = _StoredDeployments(deployments, secrets)
    return [
        api.route("DELETE", ONE, pages.delete, action="deployment.delete", operation=described.DELETE),
        api.route("GET", f"{ONE}/revisions", pages.list_revisions, operation=described.REVISIONS),
        api.route("GET", f"{ONE}/revisions/{{revision}}", pages.get_revision, operation=described.REVISION),
    ]


class _StoredDeployments:
    """The handlers that need the services alone."""

    def __init__(self, deployments: DeploymentService, secrets: SecretService) -> None:
        self._deployments = deployments
        self._secrets = secrets

    async def delete(self, call: Call) -> Response:
        deployment = await self._deployments.delete(call.project_id, call.path["deployment"])
        call.changed(deployment.name, before=config_values(deployment.config))
        return json_response({"object": "deployment", "id": deployment.id, "name": deployment.name, "deleted": True})

    async def list_revisions(self, call: Call) -> Response:
        events = await self._deployments.list_events(
            call.project_id,
            call.path["deployment"],
            _number(call, "limit", DEFAULT_EVENTS) or DEFAULT_EVENTS,
            _number(call, "before", None),
        )
        return json_response({"object": "list", "data": [event_view(event) for event in events]})

    async def get_revision(self, call: Call) -> Response:
        revision = await self._deployments.get_revision(call.project_id, call.path["deployment"], call.path["revision"])
        expiries = await expiries_of(self._secrets, call.project_id, [revision.config])
        return json_response(
            {
                **config_view(revision.config, expiries),
                "object": "revision",
                "id": revision.id,
                "revision_id": revision.id,
                "revision_number": revision.number,
                "protocol": "http",
                "created_at": iso(revision.created_at),
                "ready_at": iso(revision.ready_at),
                "failure": None if revision.failure is None else failure_view(revision.failure),
            }
        )


class _Deployments:
    """The handlers, over the services and the runtime that they show."""

    def __init__(
        self, deployments: DeploymentService, secrets: SecretService, runtime: Runtime, volumes: VolumeService
    ) -> None:
        self._deployments = deployments
        self._secrets = secrets
        self._runtime = runtime
        self._volumes = volumes

    async def describe_runtime(self, _call: Call) -> Response:
        capacity = self._runtime.capacity()
        return json_response(
            {
                "runtime": self._runtime.name,
                "accepts": sorted(self._runtime.accepts),
                "cpu": capacity.cpu,
                "memory": capacity.memory_gib,
                "gpus": capacity.gpus,
                "gpu_types": capacity.gpu_types,
            }
        )

    async def prewarm(self, call: Call) -> Response:
        """Bring images and a volume to where replicas run, before a deployment waits for them.

        Of images it is a hint that is never refused. A volume that is named alone is sealed by it: whoever has uploaded
        its files says that these are all. With images it is somebody's deployment that is about to come, and others may
        be uploading: what is mounted is sealed then.
        """
        volume, images = call.body.get("volume"), call.body.get("images")
        if isinstance(volume, str) and volume and not images:
            sealed = await self._volumes.seal(call.project_id, volume)
            version = VolumeVersion(volume_id=sealed.id, name=sealed.name, version=sealed.current_version)
            self._runtime.preload(call.project_id, version)
        for image in images[:MAX_PREWARMED] if isinstance(images, list) else []:
            if isinstance(image, str) and ArtifactKind.IMAGE in self._runtime.accepts:
                with contextlib.suppress(
                    InvalidRequest, RegistryAway
                ):  # whoever deploys it is told what is wrong with it
                    self._runtime.prefetch(
                        call.project_id, await self._deployments.resolve_image(call.project_id, image)
                    )
        return json_response({})

    async def list_all(self, call: Call) -> Response:
        found = await self._deployments.list_live(call.project_id)
        expiries = await expiries_of(self._secrets, call.project_id, [deployment.config for deployment in found])
        views = [await self._view_with(deployment, expiries) for deployment in found]
        return json_response({"object": "list", "data": views})

    async def create(self, call: Call) -> Response:
        deployment = await self._deployments.create(call.project_id, call.body)
        call.changed(deployment.name, after=config_values(deployment.config))
        return json_response(await self._view(deployment))

    async def get(self, call: Call) -> Response:
        try:
            deployment = await self._find(call)
        except NotFound:
            if not _is_true(call, "deleted"):
                raise
            deployment = await self._find_ending(call)
        return json_response(await self._whole_view(deployment))

    async def rollback(self, call: Call) -> Response:
        identifier = str(call.body.revision_identifier)
        old = await self._find(call)
        deployment = await self._deployments.rollback(call.project_id, call.path["deployment"], identifier)
        call.changed(deployment.name, before=config_values(old.config), after=config_values(deployment.config))
        return json_response(await self._whole_view(deployment))

    async def update(self, call: Call) -> Response:
        old = await self._find(call)
        deployment = await self._deployments.update(call.project_id, call.path["deployment"], call.body)
        if (deployment.config, deployment.revision_id) != (old.config, old.revision_id):
            call.changed(deployment.name, before=config_values(old.config), after=config_values(deployment.config))
        return json_response(await self._whole_view(deployment))

    async def health(self, call: Call) -> Response:
        deployment = await self._find(call)
        state = standing(deployment, await self._replicas(deployment.id), time.time())
        healthy = state.ready_replicas > 0
        return json_response(
            {
                "status": "healthy" if healthy else "unhealthy",
                "ready_replicas": state.ready_replicas,
                "desired_replicas": state.desired_replicas,
                "message": state.message,
            },
            200 if healthy else 503,
        )

    async def logs(self, call: Call) -> Response:
        deployment = await self._find(call)
        # The same header with another value only asks the client itself for the raw response.
        streamed = call.headers.get("x-stainless-raw-response") == "stream"
        follow = streamed or _is_true(call, "follow")
        since = call.query.get("since")
        lines = self._runtime.logs(
            deployment.id,
            call.query.get("replica_id") or None,
            tail=min(_number(call, "tail", MAX_TAIL if since else DEFAULT_TAIL) or 0, MAX_TAIL),
            follow=follow,
            since=_moment(since, time.time()) if since else 0.0,
            wanted=await self._wanted(call, deployment),
        )
        batches = in_batches(lines)
        if follow:
            return StreamingResponse(call.while_key_holds(_ndjson(batches)), media_type="application/x-ndjson")
        return StreamingResponse(_one_object(batches), media_type="application/json")

    async def _wanted(self, call: Call, deployment: Deployment) -> Callable[[Replica], bool] | None:
        """Which replicas' lines: those of one revision, or of one image by its tag or the end of its digest."""
        revision, version = call.query.get("revision"), call.query.get("version")
        revision_id = None
        if revision:
            revision_id = (await self._deployments.get_revision(call.project_id, deployment.id, revision)).id
        if not revision_id and not version:
            return None

        def matches(replica: Replica) -> bool:
            of_revision = revision_id is None or replica.revision_id == revision_id
            return of_revision and (not version or _is_version(replica.image, version))

        return matches

    async def _find(self, call: Call) -> Deployment:
        return await self._deployments.get(call.project_id, call.path["deployment"])

    async def _find_ending(self, call: Call) -> Deployment:
        """One that was deleted, by its id, as long as replicas of it run: none of them is wanted any more."""
        deployment = await self._deployments.get_even_deleted(call.project_id, call.path["deployment"])
        replicas = await self._replicas(deployment.id)
        if all(replica.status is ReplicaStatus.TERMINATED for replica in replicas):
            raise NotFound(what="deployment", id=deployment.id)
        config = msgspec.structs.replace(deployment.config, min_replicas=0)
        return msgspec.structs.replace(deployment, config=config, desired_replicas=0)

    async def _replicas(self, deployment_id: str) -> list[Replica]:
        return await self._runtime.observe(deployment_id)

    async def _whole_view(self, deployment: Deployment) -> dict[str, Any]:
        """With what lists leave out: why the newest revision did not get ready."""
        failed = await self._deployments.last_failure(deployment)
        failure = None
        if failed is not None and failed.failure is not None:
            failure = {
                "revision_id": failed.id,
                "revision_number": failed.number,
                **failure_view(failed.failure),
            }
        return {**await self._view(deployment), "last_failure": failure}

    async def _view(self, deployment: Deployment) -> dict[str, Any]:
        expiries = await expiries_of(self._secrets, deployment.project_id, [deployment.config])
        return await self._view_with(deployment, expiries)

    async def _view_with(self, deployment: Deployment, expiries: Mapping[str, float | None]) -> dict[str, Any]:
        replicas = await self._replicas(deployment.id)
        state = standing(deployment, replicas, time.time())
        numbers = await self._deployments.revision_numbers(deployment, {each.revision_id for each in replicas})
        view = config_view(deployment.config, expiries)
        # Clients find the active revision by this variable.
        revision = {"name": "TOGETHER_DEPLOYMENT_REVISION_ID", "value": deployment.revision_id}
        return {
            **view,
            "environment_variables": [*view["environment_variables"], revision],
            "object": "deployment",
            "id": deployment.id,
            "status": state.status,
            "status_message": state.message,
            "created_at": iso(deployment.created_at),
            "updated_at": iso(deployment.updated_at),
            "desired_replicas": state.desired_replicas,
            "ready_replicas": state.ready_replicas,
            "revision_id": deployment.revision_id,
            "revision_number": deployment.revision_number,
            "replica_events": {each.id: replica_view(each, numbers.get(each.revision_id)) for each in replicas},
        }


async def expiries_of(
    secrets: SecretService, project_id: str, configs: list[DeploymentConfig]
) -> Mapping[str, float | None]:
    """When the secrets of a project expire, where any of these configurations names one."""
    return await secrets.expiries(project_id) if any(secrets_of(config) for config in configs) else {}


def _is_version(image: str, version: str) -> bool:
    reference, _, digest = image.partition("@")
    return reference.rpartition(":")[2] == version or (len(version) >= 4 and digest.endswith(version))


def _moment(text: str, now: float) -> float:
    """Seconds since the epoch of a time, or of so long ago."""
    return parse_time(text, "since") if "-" in text else now - parse_duration(text, "since")


def _is_true(call: Call, name: str) -> bool:
    return call.query.get(name, "").lower() in {"1", "true"}


def _number(call: Call, name: str, default: int | None) -> int | None:
    text = call.query.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 9:
        raise InvalidRequest(f"'{name}' is '{text[:64]}', not a whole number.", param=name)
    return int(text)


async def _ndjson(batches: AsyncIterator[list[LogLine]]) -> AsyncGenerator[bytes, None]:
    """An object for each line, and one piece of the answer for each batch."""
    async for batch in batches:
        yield b"".join(msgspec.json.encode({"lines": [line.text]}) + b"\n" for line in batch)


async def _one_object(batches: AsyncIterator[list[LogLine]]) -> AsyncIterator[bytes]:
    """All lines as one object. It may be long, and making it at once would keep everybody waiting."""
    before = b'{"lines":['
    async for batch in batches:
        yield before + msgspec.json.encode([line.text for line in batch])[1:-1]
        before = b","
    yield b"]}" if before == b"," else before + b"]}"
