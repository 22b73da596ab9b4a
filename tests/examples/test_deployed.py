"""Every example as its README tells: `jig deploy` from its folder, submit, look at what comes back."""

import io
import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw, ImageFont

from platform_process import PlatformProcess, wait_for

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ["hello-world", "ocr-cpu", "slow", "banner"]
FOREVER_SECONDS = 3600
SOON_SECONDS = 60


@pytest.fixture(scope="module")
def deployed(platform: PlatformProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Deploy an example once; gives the folder it was deployed from: a copy, since jig leaves a file there."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(EXAMPLES, folder, dirs_exist_ok=True)

    @cache
    def deploy(example: str) -> Path:
        platform.deploy(folder / example)
        return folder / example

    yield deploy
    with platform.client() as client:
        for name in NAMES:
            client.delete(f"/v1/deployments/{name}")


def submitted(platform: PlatformProcess, folder: Path, payload: dict[str, Any]) -> dict[str, Any]:
    """Submit with jig and wait; gives the job."""
    finished = platform.jig("submit", "--watch", "--json", "--payload", json.dumps(payload), cwd=folder)
    job: dict[str, Any] = json.loads(finished.stdout)
    return job


def progress_of(job: dict[str, Any]) -> dict[str, int] | None:
    progress: dict[str, int] | None = job["info"].get("progress")
    return progress


def test_typed(platform: PlatformProcess, deployed: Callable[[str], Path]) -> None:
    folder = deployed("typed")

    job = submitted(platform, folder, {"text": "Hi", "width": "6", "labels": [{"text": ">"}]})
    assert job["outputs"] == {"lines": ["+------+", "| > Hi |", "+------+"]}

    failed = platform.finished("banner", platform.submit("banner", {"text": "Hi", "labels": [{"side": "top"}]}))
    assert (failed["status"], failed["retries"]) == ("failed", 0)
    assert failed["error"] == (
        "InvalidInputError: labels.0.text: Field required; labels.0.side: Input should be 'left' or 'right'"
    )

    with platform.client() as client:
        gateway = "/v1/deployment-request/banner"
        answer = client.post(f"{gateway}/generate", json={"text": "Hi", "width": 0})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "width")
        document = client.get(f"{gateway}/openapi.json").json()
        assert document["info"]["description"] == "Prints a text in a frame of characters."


def test_hello_world(platform: PlatformProcess, deployed: Callable[[str], Path]) -> None:
    folder = deployed("hello-world")

    assert submitted(platform, folder, {"name": "Ada"})["outputs"] == {"greeting": "Hello, Ada!"}

    failed = platform.finished("hello-world", platform.submit("hello-world", {"name": 3}))
    assert failed["status"] == "failed"
    assert failed["error"].startswith('ValueError: say whom to greet: the payload needs a "name"')


def test_slow_tells_its_progress_and_takes_a_cancel(platform: PlatformProcess, deployed: Callable[[str], Path]) -> None:
    folder = deployed("slow")

    done = submitted(platform, folder, {"seconds": 0.5})
    assert done["outputs"] == {"slept_seconds": 0.5}
    assert progress_of(done) == {"done": 10, "total": 10}

    endless = platform.submit("slow", {"seconds": FOREVER_SECONDS})
    wait_for(lambda: platform.job("slow", endless)["status"] == "running", "the job runs")
    platform.jig("job-cancel", endless, cwd=folder)
    assert platform.finished("slow", endless, SOON_SECONDS)["status"] == "canceled"

    short = platform.submit("slow", {"seconds": 0})
    assert platform.finished("slow", short, SOON_SECONDS)["status"] == "done", "the worker is free again"


def test_slow_shows_how_far_it_is_while_it_runs(platform: PlatformProcess, deployed: Callable[[str], Path]) -> None:
    deployed("slow")
    seen: set[int] = set()

    request_id = platform.submit("slow", {"seconds": 3})
    while (job := platform.job("slow", request_id))["status"] in {"pending", "running"}:
        seen |= {progress["done"]} if (progress := progress_of(job)) else set()

    assert job["status"] == "done"
    assert len(seen & set(range(1, 10))) >= 3


def test_ocr_reads_an_uploaded_picture_and_gives_it_back_annotated(
    platform: PlatformProcess, deployed: Callable[[str], Path]
) -> None:
    folder = deployed("ocr")
    texts = ["Machineshop 2026", "Total: 1,234.56 EUR"]
    photo = Image.new("RGB", (700, 250), "white")
    for row, text in enumerate(texts):
        ImageDraw.Draw(photo).text((50, 30 + 110 * row), text, font=ImageFont.load_default(size=48), fill="black")
    photo.save(folder / "photo.png")

    job = submitted(platform, folder, {"image": "@photo.png"})

    lines = job["outputs"]["lines"]
    assert [line["text"] for line in lines] == texts
    assert all(line["confidence"] > 0.9 for line in lines)
    assert progress_of(job) == {"done": 2, "total": 2}

    address = job["outputs"]["annotated"]
    assert address == f"{platform.base_url}/v1/storage/{job['request_id']}-annotated.png"
    with platform.client() as client:
        answer = client.get(address, follow_redirects=True)
    with Image.open(io.BytesIO(answer.content)) as annotated:
        assert (annotated.format, annotated.size) == ("PNG", photo.size)
        corners = [tuple(corner) for line in lines for corner in line["box"]]
        assert {annotated.convert("RGB").getpixel(corner) for corner in corners} == {(255, 0, 0)}


def test_ocr_of_a_file_that_is_no_picture_says_so(platform: PlatformProcess, deployed: Callable[[str], Path]) -> None:
    folder = deployed("ocr")
    (folder / "notes.txt").write_text("no picture at all")

    finished = platform.jig("submit", "--watch", "--payload", '{"image": "@notes.txt"}', cwd=folder, check=False)

    assert finished.returncode == 1
    assert "PictureError: this picture cannot be read: unknown format" in finished.stderr
