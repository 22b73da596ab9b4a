"""The docs say what the code does: routes, options, states and glossary words."""

import dataclasses
import inspect
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.routing import Mount, Route

import machineshop
from machineshop.api.endpoint import Endpoint
from machineshop.app import Platform
from machineshop.commands.serve import serve
from machineshop.config import Settings
from machineshop.http import ADMIN_SCOPES, ANY_SCOPE, USER_SCOPES, VIEWER_SCOPES, WORK_SCOPES
from machineshop.runtime.choice import Choice
from machineshop.states import JOB_MOVES, TERMINAL_STATES, VOLUME_MOVES, DeploymentStatus

WHOSE = {
    frozenset(ANY_SCOPE): "any",
    frozenset(WORK_SCOPES): "worker",
    frozenset(VIEWER_SCOPES): "viewer",
    frozenset(USER_SCOPES): "developer",
    frozenset(ADMIN_SCOPES): "admin",
}
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
async def routes(tmp_path: Path) -> AsyncIterator[dict[str, str | None]]:
    platform = Platform(Settings(data_dir=tmp_path, port=0))
    platform.data_dir.open()
    platform.build(Choice())
    yield {name: _keys(route) for route in platform.asgi.application.routes for name in _names(route)}
    platform.data_dir.close()


def _names(route: object) -> list[str]:
    """`METHOD /path` of a route; those of one application behind a prefix are one line."""
    if isinstance(route, Mount) or (isinstance(route, Route) and route.path.startswith("/v2")):
        return ["ANY /v2/{path}"]
    assert isinstance(route, Route)
    path = re.sub(r":path\}", "}", route.path)
    if path.startswith("/v1/deployment-request"):
        return [f"ANY {path}"]
    return [
        f"{method} {path}" for method in route.methods or () if method != "HEAD" or path.endswith("storage/{filename}")
    ]


def _keys(route: object) -> str | None:
    """The scopes of a route in the docs' words; None where it looks after that itself."""
    endpoint = getattr(route, "endpoint", None)
    if not isinstance(endpoint, Endpoint):
        return None
    return WHOSE[frozenset(endpoint.scopes)]


async def test_every_route_is_documented_and_every_documented_route_exists(routes: dict[str, str | None]) -> None:
    rows = re.findall(r"^\| `([A-Z]+ /[^`]*)` \| ([^|]*) \|", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(route for route, _ in rows) == sorted(routes)
    assert dict(rows) == {route: routes[route] or keys for route, keys in rows}


def test_every_option_of_serve_is_documented() -> None:
    options = _options_of_serve()
    documented = re.findall(r"^\| `(--[a-z-]+)` \|", (DOCS / "configuration.md").read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(options)


def test_every_option_that_an_error_names_exists() -> None:
    options = _options_of_serve()
    kinds = {option.split("-")[2] for option in options if option.count("-") > 2}  # `gateway` of `--gateway-key-rate`
    named = {
        option
        for path in Path(machineshop.__file__).parent.rglob("*.py")
        for option in re.findall(r"(?<![\w-])--[a-z]+-[a-z-]*[a-z]", path.read_text())
        if option.split("-")[2] in kinds
    }
    assert named - {"--no-storage-redirects"} <= options


def _options_of_serve() -> set[str]:
    options: set[str] = set()
    for name, parameter in inspect.signature(serve).parameters.items():
        group = parameter.default
        names = [field.name for field in dataclasses.fields(group)] if dataclasses.is_dataclass(group) else [name]
        options |= {f"--{each.replace('_', '-')}" for each in names}
    return options


def _drawn(kind: str) -> list[tuple[str, str, str]]:
    diagram = (DOCS / "architecture.md").read_text().split(f"<!-- states: {kind} -->")[1].split("```")[1]
    return re.findall(r"^ +(\S+) --> ([\w*\[\]]+)(?:: (.*))?$", diagram, re.MULTILINE)


def test_the_diagram_of_a_job_is_the_table() -> None:
    drawn = {(source, verb, target) for source, target, verb in _drawn("job") if source != "[*]" and verb}
    assert drawn == {(str(source), str(verb), str(target)) for (source, verb), target in JOB_MOVES.items()}
    assert {source for source, target, _ in _drawn("job") if target == "[*]"} == {str(s) for s in TERMINAL_STATES}


def test_the_diagram_of_a_version_is_the_table() -> None:
    drawn = {(source, target) for source, target, _ in _drawn("volume") if "[*]" not in {source, target}}
    assert drawn == {(str(source), str(target)) for source, targets in VOLUME_MOVES.items() for target in targets}


def test_the_diagram_of_a_deployment_has_its_states() -> None:
    drawn = {state for source, target, _ in _drawn("deployment") for state in (source, target)} - {"[*]"}
    assert drawn == {str(status) for status in DeploymentStatus}
