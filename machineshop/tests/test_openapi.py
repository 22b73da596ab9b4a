"""The description of the API has the routes that the application has, and nothing else."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from machineshop.api.endpoint import Endpoint
from machineshop.api.openapi import LEFT_OUT, document, plain_path
from machineshop.api.operation import DescribedRoute
from machineshop.app import Platform
from machineshop.config import Settings
from machineshop.runtime.choice import Choice


@pytest.fixture
async def routes(tmp_path: Path) -> AsyncIterator[list[Route]]:
    platform = Platform(Settings(data_dir=tmp_path, port=0))
    platform.data_dir.open()
    platform.build(Choice())
    yield [route for route in platform.asgi.application.routes if isinstance(route, Route)]
    platform.data_dir.close()


def _is_left_out(route: Route) -> bool:
    return any(route.path == prefix or route.path.startswith(f"{prefix.rstrip('/')}/") for prefix in LEFT_OUT)


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


async def test_every_route_says_what_it_is_or_is_left_out_on_purpose(routes: list[Route]) -> None:
    silent = {
        f"{route.methods} {route.path}: give it an `operation`, as its neighbours have"
        for route in routes
        if not _is_left_out(route) and (not isinstance(route, DescribedRoute) or route.operation is None)
    }
    assert not silent
    for prefix in LEFT_OUT:
        assert any(route.path.startswith(prefix) for route in routes), f"{prefix} is no route any longer"


async def test_the_description_has_the_routes_of_the_application_and_no_other(routes: list[Route]) -> None:
    described = {
        (method.upper(), path) for path, operations in document(routes)["paths"].items() for method in operations
    }
    served = {
        (method, plain_path(route.path))
        for route in routes
        if not _is_left_out(route)
        for method in route.methods or ()
    }
    # Starlette answers HEAD wherever there is a GET; it is described where it is of use.
    assert {each for each in described if each[0] != "HEAD"} == {each for each in served if each[0] != "HEAD"}
    assert described <= served


async def test_the_description_says_whose_keys_may(routes: list[Route]) -> None:
    paths = document(routes)["paths"]
    for route in routes:
        if _is_left_out(route) or not isinstance(route, DescribedRoute):
            continue
        operation = paths[plain_path(route.path)][route.method.lower()]
        if isinstance(route.endpoint, Endpoint):
            assert operation["description"] == f"Keys: {', '.join(sorted(route.endpoint.scopes))}."
            assert operation["security"] == [{"key": []}]
            assert "401" in operation["responses"]
        else:
            assert operation["security"] == []


async def test_everything_that_the_description_points_at_is_in_it(routes: list[Route]) -> None:
    described = document(routes)
    operations = [each for methods in described["paths"].values() for each in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for reference in _references(described):
        found: Any = described
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    for operation in operations:
        for answer in operation["responses"].values():
            assert {link["operationId"] for link in answer.get("links", {}).values()} <= set(names)
        placeholders = [each["name"] for each in operation["parameters"] if each["in"] == "path"]
        assert len(set(placeholders)) == len(placeholders)


async def test_anybody_may_read_the_description(platform: Platform) -> None:
    async with httpx.AsyncClient(base_url=platform.base_url) as client:
        answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    described = json.loads(answer.content)
    assert re.fullmatch(r"3\.1\.\d+", described["openapi"])
    assert described["servers"] == [{"url": platform.base_url}]
    assert {"/v1/deployments", "/openapi.json"} <= described["paths"].keys()
