"""The real server holds what its description says, whatever it is sent: fuzzed along `/openapi.json`.

The requests are the same each time. The description leaves answers open for fields to come; here they are closed, so
that a field which it does not know is a failure. Nothing that is deployed here runs: its bounds are forced to zero.
"""

import copy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation, BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from platform_process import PlatformProcess, write_worker

AnyCase = schemathesis.Case[Any]
AnyOperation = APIOperation[Any, Any, Any, Any]

# What these hold besides is a deployment's own: a policy as it was sent, and the signals behind a decision.
OPEN = {"Autoscaling", "Decision"}
# Its answer has no end; machineshop/tests/test_events.py looks at what it says.
ENDLESS = "/v1/queue/events"
# Of each operation and mode: as many as take some seconds.
EXAMPLES = 10
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# These say with 503 that no replica is ready.
EXCEPT: dict[str, Any] = {"GET /v1/deployments/{deployment}/health": (not_a_server_error,)}
# A hint, which is never refused.
FORGIVING = {"POST /v1/deployments/prewarm"}
WORKER = "import sprocket\n\nclass Worker(sprocket.Sprocket):\n    def predict(self, args):\n        return args\n"
NO_REPLICAS = "[deploy]\ngpu_type = 'none'\ngpu_count = 0\nmin_replicas = 0\nmax_replicas = 0\n"
fuzzing = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Target:
    """A server with something of each kind, and its description.

    Args:
        process: The server.
        image: What can be deployed there.
        job: A job of the deployment `known`.
        secret: The name of a secret.
    """

    def __init__(self, process: PlatformProcess, image: str, job: str, secret: str) -> None:
        self.process = process
        self.headers = {"Authorization": f"Bearer {process.api_key}"}
        self._image = image
        self._known = {"deployment": "known", "model": "known", "request_id": job, "revision": "1", "secret": secret}
        document = httpx.get(f"{process.base_url}/openapi.json").raise_for_status().json()
        self.document: dict[str, Any] = copy.deepcopy(document)
        _close(document)
        del document["paths"][ENDLESS]
        config = schemathesis.Config()
        config.projects.default.generation.update(allow_extra_parameters=False, with_security_parameters=False)
        self.schema: BaseSchema = schemathesis.openapi.from_dict(document, config=config)

    def operations(self) -> Iterator[AnyOperation]:
        """All that is described."""
        for found in self.schema.get_all_operations():
            assert isinstance(found, Ok)
            yield found.ok()

    def steer(self, case: AnyCase, *, to_known: bool) -> None:
        """Keep a request from running, waiting or sending anything, and let it find something if it is to."""
        query: dict[str, Any] = case.query or {}
        body: Any = case.body
        bodies = [each for each in (body if isinstance(body, list) else [body]) if isinstance(each, dict)]
        _hold_back(case.path, query, bodies)
        if not to_known:
            return
        for each in bodies:
            each |= {name: self._known[name] for name in ("model", "request_id") if name in each}
            if "image" in each:
                each |= {"image": self._image, "gpu_type": "none", "gpu_count": 0, "volumes": [], "model_mounts": []}
            if "name" in each and isinstance(each.get("content"), dict):
                each["content"]["source_prefix"] = f"{each['name']}/0"
        query |= {name: self._known[name] for name in ("model", "request_id") if name in query}
        path = case.path_parameters
        if case.method != "DELETE":
            path |= {name: self._known[name] for name in ("deployment", "revision", "secret") if name in path}


def _hold_back(path: str, query: dict[str, Any], bodies: list[dict[str, Any]]) -> None:
    query.pop("follow", None)
    if path.endswith("/retrieve"):
        query["timeout"] = "0s"
    for each in bodies:
        each.pop("webhook_url", None)
        if isinstance(each.get("claim"), dict):
            each["claim"]["timeout"] = "0s"
        if isinstance(each.get("content"), dict):
            each["content"].pop("origin", None)  # of a volume: somebody's bucket
        if path in {"/v1/deployments", "/v1/deployments/{deployment}"}:
            each |= {"min_replicas": 0, "max_replicas": 0}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server of its own: others had better not see it being fuzzed."""
    process = PlatformProcess(tmp_path_factory.mktemp("fuzzed"))
    process.start()
    try:
        process.deploy(write_worker(tmp_path_factory.mktemp("known") / "project", "known", WORKER, tables=NO_REPLICAS))
        with process.client() as client:
            client.post("/v1/secrets", json={"name": "known", "value": "x"}).raise_for_status()
        yield Target(process, str(process.deployment("known")["image"]), process.submit("known", {}), "known")
    finally:
        process.close()


def _close(document: dict[str, Any]) -> None:
    """No answer has other fields than those described; what requests are made of stays open."""
    schemas = document["components"]["schemas"]
    bodies = [
        operation["requestBody"]
        for methods in document["paths"].values()
        for operation in methods.values()
        if "requestBody" in operation
    ]
    taken = _named(bodies, schemas) | OPEN
    for name, schema in schemas.items():
        if name not in taken and schema.get("properties"):
            schema["additionalProperties"] = False


def _named(value: object, schemas: dict[str, Any]) -> set[str]:
    """The names of the schemas that something is made of, all the way down."""
    if isinstance(value, list):
        return {name for each in value for name in _named(each, schemas)}
    if not isinstance(value, dict):
        return set()
    names = {name for each in value.values() for name in _named(each, schemas)}
    reference = value.get("$ref")
    if isinstance(reference, str):
        name = reference.rpartition("/")[2]
        names |= {name} | _named(schemas[name], schemas)
    return names


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as described", "otherwise"])
def test_whatever_is_asked_the_answer_is_as_described(target: Target, mode: GenerationMode) -> None:
    for operation in target.operations():
        if mode is GenerationMode.POSITIVE or _has_rules(operation):
            _fuzz(target, operation, mode)


@pytest.mark.timeout(300)
def test_what_was_made_is_read_changed_and_removed_by_the_links_of_the_answer(target: Target) -> None:
    followed: set[tuple[str, str]] = set()
    makers = {operation.label: operation for operation in target.operations() if _links(operation)}
    for operation in makers.values():
        _follow(target, operation, followed)

    assert followed == {(label, link) for label, maker in makers.items() for link in _links(maker)}


def test_a_method_that_a_path_does_not_have_is_405(target: Target) -> None:
    wrong = [
        (method, path, sorted(name.upper() for name in methods))
        for path, methods in target.document["paths"].items()
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        # Below the folder of all files a path is also that of a file, which has methods of its own.
        if method.lower() not in methods and not ("/storage/" in path and "{" in path)
    ]
    with target.process.client() as client:
        for method, path, methods in wrong:
            answer = client.request(method, path.replace("{", "").replace("}", ""))
            assert answer.status_code == 405, f"{method} {path}"
            allowed = set(answer.headers["allow"].split(", "))
            assert allowed - {"HEAD"} == set(methods) - {"HEAD"}, f"{method} {path}"
            assert answer.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("key", [None, "msk_nobody-has-this-one-000000000000000000"], ids=["none", "unknown"])
def test_without_a_valid_key_the_answer_is_401(target: Target, key: str | None) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=target.process.base_url, headers=headers) as client:
        for path, methods in target.document["paths"].items():
            for method, operation in methods.items():
                answer = client.request(method.upper(), path.replace("{", "").replace("}", ""))
                assert (answer.status_code == 401) == bool(operation["security"]), f"{method} {path}"


def _fuzz(target: Target, operation: AnyOperation, mode: GenerationMode) -> None:
    @settings(fuzzing, max_examples=EXAMPLES)
    @given(case=operation.as_strategy(generation_mode=mode), to_known=st.booleans())
    def ask(case: AnyCase, to_known: bool) -> None:
        made = copy.deepcopy((case.query, case.body))
        target.steer(case, to_known=to_known and mode is GenerationMode.POSITIVE)
        answer = case.call(base_url=target.process.base_url, headers=target.headers)
        is_wrong = mode is GenerationMode.NEGATIVE and (case.query, case.body) == made
        if is_wrong and operation.label not in FORGIVING:
            assert 400 <= answer.status_code < 500, f"{case.as_curl_command()} was not refused"
        case.validate_response(answer, checks=_checks_of(case))

    ask()


def _has_rules(operation: AnyOperation) -> bool:
    """Whether something can be sent that is not as described: of a path, some queries and some bodies anything is."""
    queries = [each for each in operation.definition.raw["parameters"] if each["in"] == "query"]
    bodies = operation.definition.raw.get("requestBody", {}).get("content", {}).values()
    return any("schema" in each for each in bodies) or any(
        each["required"] or each["schema"] != {"type": "string"} for each in queries
    )


def _links(operation: AnyOperation) -> dict[str, Any]:
    links: dict[str, Any] = operation.definition.raw["responses"]["200"].get("links", {})
    return links


def _follow(target: Target, operation: AnyOperation, followed: set[tuple[str, str]]) -> None:
    """Make things, and ask for each what the links of the answer say can be asked."""
    links_of = list(_links(operation).items())
    by_id = {each.definition.raw["operationId"]: each for each in target.operations()}

    @settings(fuzzing, max_examples=EXAMPLES)
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        # All is drawn before anything is asked: what is drawn may not rest on what is answered.
        case = data.draw(operation.as_strategy())
        links = [(name, link, data.draw(by_id[link["operationId"]].as_strategy())) for name, link in links_of]
        target.steer(case, to_known=True)
        made = case.call(base_url=target.process.base_url, headers=target.headers)
        case.validate_response(made, checks=_checks_of(case))
        if made.status_code != 200 or isinstance(case.body, list):
            return
        known = {"$response.body#": made.json(), "$request.body#": case.body}
        for name, link, then in links:
            target.steer(then, to_known=False)
            then.query.clear()  # a version of it, say, that there is not
            place = then.path_parameters if "{" in then.path else then.query
            for parameter, expression in link["parameters"].items():
                where, _, field = expression.partition("/")
                place[parameter] = known[where][field]
            answer = then.call(base_url=target.process.base_url, headers=target.headers)
            then.validate_response(answer, checks=_checks_of(then))
            assert answer.status_code != 404, then.as_curl_command()
            if answer.status_code == 200:
                followed.add((operation.label, name))

    ask()


def _checks_of(case: AnyCase) -> list[Any]:
    return [check for check in CHECKS if check not in EXCEPT.get(case.operation.label, ())]
