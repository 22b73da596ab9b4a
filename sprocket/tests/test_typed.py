"""Typed inputs in real workers: over HTTP, from the queue, with files."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from sprocket_fake_platform import FakePlatform
from sprocket_file_server import FileServer
from sprocket_process import Launcher, WorkerProcess

TYPED = "typed_inputs"


async def generate(worker: WorkerProcess, payload: dict[str, Any]) -> tuple[int, Any]:
    status, body = await worker.post("/generate", json.dumps(payload).encode())
    return status, json.loads(body)


async def test_fields_come_as_keyword_arguments(launch: Launcher) -> None:
    worker = await launch(None, f"{TYPED}:Fields")
    await worker.ready()
    assert await generate(worker, {"prompt": "a cat", "steps": "5"}) == (
        200,
        {"prompt": "a cat", "steps": 5, "seed": None},
    )
    status, answer = await generate(worker, {"prompt": "a cat", "steps": 0, "sed": 1})
    assert status == 422
    assert answer["error"] == {
        "message": "InvalidInputError: steps: Input should be greater than or equal to 1; "
        "sed: Extra inputs are not permitted",
        "type": "invalid_request_error",
        "param": "steps",
        "code": "invalid_input",
    }
    assert worker.stdout.count("predict was called") == 1
    assert 'sprocket_jobs_total{outcome="failed"} 1.0' in (await worker.get("/metrics"))[1]


async def test_an_object_comes_as_its_model_and_goes_out_as_one(launch: Launcher) -> None:
    worker = await launch(None, f"{TYPED}:Objects")
    await worker.ready()
    boxes = {"items": [{"name": "a", "size": [2, 3]}, {"name": "b"}]}
    assert await generate(worker, boxes) == (200, {"names": ["a", "b"], "area": 7})
    status, answer = await generate(worker, {"items": [{"name": "a"}, {"size": [1, 1]}]})
    assert (status, answer["error"]["param"]) == (422, "items.1.name")
    assert (await generate(worker, {"items": [], "mode": "burn"}))[1]["error"]["param"] == "mode"


async def test_dataclasses(launch: Launcher) -> None:
    worker = await launch(None, f"{TYPED}:Dataclasses")
    await worker.ready()
    assert await generate(worker, {"width": 3}) == (200, {"width": 1, "height": 3})


async def test_a_job_whose_input_does_not_fit_fails_with_the_text(launch: Launcher, platform: FakePlatform) -> None:
    worker = await launch(platform, f"{TYPED}:Fields")
    job = await platform.run({"steps": 3})
    assert (job.status, job.info["error"]) == ("failed", "InvalidInputError: prompt: Field required")
    assert "traceback" not in job.info
    await worker.says("the input was refused: InvalidInputError: prompt")
    assert "predict failed" not in worker.stderr
    assert "predict was called" not in worker.stdout


async def test_files_are_fetched_after_the_input_has_been_looked_at(
    launch: Launcher, files: FileServer, certificate: Any
) -> None:
    worker = await launch(None, f"{TYPED}:Files", SSL_CERT_FILE=str(certificate), SPROCKET_ALLOW_PRIVATE_DOWNLOADS="1")
    await worker.ready()
    files.files["a.txt"] = b"A"
    address = f"{files.url}/a.txt"
    status, answer = await generate(worker, {"text": address, "path": address, "n": "many"})
    assert (status, answer["error"]["param"]) == (422, "n")
    assert files.requests == []
    payload = {"text": address, "path": address, "present": address, "page": "https://nowhere.invalid/page"}
    assert await generate(worker, payload) == (
        200,
        {"text": "A", "path": "A", "present": "A", "page": "https://nowhere.invalid/page"},
    )
    status, answer = await generate(worker, {**payload, "present": "/nowhere/a.txt"})
    assert (status, answer["error"]["param"]) == (422, "present")


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("typed_inputs:Mistaken", "Mistaken.predict: the parameter 'clock' has an annotation that cannot be used"),
        ("without_pydantic:Typed", 'add "sprocket[typed]" to the worker\'s dependencies'),
    ],
)
async def test_a_mistake_in_the_annotations_is_told_at_the_start(launch: Launcher, target: str, text: str) -> None:
    worker = await launch(None, target)
    assert await worker.exit_code() == 2
    assert text in worker.stderr
    assert "Traceback" not in worker.stderr


async def test_a_plain_worker_needs_no_pydantic(launch: Launcher) -> None:
    worker = await launch(None, "without_pydantic:Plain")
    await worker.ready()
    assert await generate(worker, {"prompt": "x"}) == (200, {"prompt": "x"})


def test_importing_sprocket_imports_neither_pydantic_nor_aiohttp() -> None:
    code = "import sys, sprocket; print(sorted({'pydantic', 'aiohttp'} & set(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "[]\n"


async def test_openapi_says_what_a_typed_worker_takes_and_gives(launch: Launcher) -> None:
    worker = await launch(None, f"{TYPED}:Objects")
    await worker.ready()
    status, body = await worker.get("/openapi.json")
    document = json.loads(body)
    assert (status, document["openapi"], document["info"]["title"]) == (200, "3.1.0", "Objects")
    operation = document["paths"]["/generate"]["post"]
    taken = operation["requestBody"]["content"]["application/json"]["schema"]
    assert taken["required"] == ["items"]
    assert taken["properties"]["items"]["items"] == {"$ref": "#/components/schemas/Box"}
    assert document["components"]["schemas"]["Box"]["required"] == ["name"]
    given = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert set(given["properties"]) == {"names", "area"}
    assert {"400", "422", "500", "503"} < set(operation["responses"])


async def test_openapi_of_a_plain_worker_is_free_of_form(launch: Launcher) -> None:
    worker = await launch(None, f"{TYPED}:Plain")
    await worker.ready()
    document = json.loads((await worker.get("/openapi.json"))[1])
    body = document["paths"]["/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"type": "object", "additionalProperties": True}
    assert "description" not in document["info"]
