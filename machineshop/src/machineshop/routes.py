"""The ASGI application: every route of the platform, over the parts that answer it."""

import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from machineshop import __version__
from machineshop.api import authority as authority_api
from machineshop.api import deployments as deployments_api
from machineshop.api import events as events_api
from machineshop.api import files as files_api
from machineshop.api import identity as identity_api
from machineshop.api import images as images_api
from machineshop.api import job_status, openapi
from machineshop.api import multipart as multipart_api
from machineshop.api import packages as packages_api
from machineshop.api import queue as queue_api
from machineshop.api import scaling as scaling_api
from machineshop.api import secrets as secrets_api
from machineshop.api import volumes as volumes_api
from machineshop.api import webhooks as webhooks_api
from machineshop.api import work as work_api
from machineshop.api.addresses import Addresses
from machineshop.api.described.identity import HEALTH
from machineshop.api.endpoint import Api
from machineshop.api.operation import DescribedRoute
from machineshop.errors import MachineshopError, NotFound
from machineshop.front import Front, not_allowed
from machineshop.http import error_response, json_response
from machineshop.parts import Parts
from machineshop.registry import app as registry_app


def application(parts: Parts) -> Front:
    """All that the server answers."""

    def base_url() -> str:
        return parts.reach.base_url

    (gateway,) = _where_the_replicas_are(parts, parts.gateway.routes())
    api = Api(parts.identity, parts.audit)
    guard = parts.relay.guard if parts.database.is_shared else None
    routes: list[BaseRoute] = [
        *work_api.routes(api, parts.work, time.time, Addresses(base_url, parts.reach.address_inside)),
        *queue_api.routes(api, parts.queue, job_status.handler(api, parts.queue, parts.places, parts.webhooks, guard)),
        *events_api.routes(api, parts.queue, parts.deployments, parts.feed),
        *webhooks_api.routes(api, parts.webhooks, parts.signing),
        gateway,
        *registry_app.routes(parts.registry, parts.registry_access, base_url, parts.audit),
        *multipart_api.routes(api, parts.multipart),
        *volumes_api.routes(api, parts.volumes, parts.volume_uploads, parts.volume_downloads),
        *files_api.routes(api, parts.files),
        *secrets_api.routes(api, parts.secrets),
        *_where_the_replicas_are(
            parts, deployments_api.runtime_routes(api, parts.deployments, parts.secrets, parts.runtime, parts.volumes)
        ),
        *_where_the_replicas_are(parts, scaling_api.routes(api, parts.scaling)),
        *deployments_api.store_routes(api, parts.deployments, parts.secrets),
        *identity_api.routes(api, parts.identity, parts.projects, parts.audit),
        *images_api.routes(api, parts.registry, parts.outside_registry),
        *packages_api.routes(parts.packages),
        *authority_api.routes(parts.authority_pem),
        DescribedRoute("GET", "/health", _health, HEALTH),
    ]
    routes += openapi.routes(routes, base_url)
    handlers = {404: _not_found, 405: _not_allowed, 500: _defect}
    return Front(Starlette(routes=routes, exception_handlers=handlers), gateway)


def _where_the_replicas_are(parts: Parts, routes: list[Route]) -> list[Route]:
    """Routes that only the server with the replicas can answer."""
    return parts.relay.guard(routes) if parts.database.is_shared else routes


async def _health(_request: Request) -> Response:
    return json_response({"status": "healthy", "version": __version__})


async def _not_found(request: Request, _error: Exception) -> Response:
    where = ": /openapi.json describes those that programs use"
    return error_response(NotFound(what="route", id=request.url.path[:256], where=where))


async def _not_allowed(request: Request, _error: Exception) -> Response:
    return not_allowed(request.app, request.scope)


async def _defect(_request: Request, _error: Exception) -> Response:
    return error_response(MachineshopError())  # it is logged further out
