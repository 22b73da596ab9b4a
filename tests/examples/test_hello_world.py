"""hello-world: what goes in, and exactly what comes out."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from sprocket import Sprocket
from sprocket.testing import run_job


@pytest.fixture(scope="module")
def hello(load: Callable[[str], ModuleType]) -> type[Sprocket]:
    worker: type[Sprocket] = load("hello-world").Hello
    return worker


@pytest.mark.parametrize(
    ("name", "greeting"),
    [
        ("Ada", "Hello, Ada!"),
        ("  Grace Hopper ", "Hello, Grace Hopper!"),
        ("Zoë 北京", "Hello, Zoë 北京!"),
    ],
)
def test_greets_the_name_in_the_payload(hello: type[Sprocket], name: str, greeting: str) -> None:
    assert run_job(hello, {"name": name}) == {"greeting": greeting}


@pytest.mark.parametrize("payload", [{}, {"name": ""}, {"name": " "}, {"name": 3}, {"name": None}, {"Name": "Ada"}])
def test_a_payload_without_a_name_says_what_it_needs(hello: type[Sprocket], payload: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r'needs a "name", for example {"name": "Ada"}'):
        run_job(hello, payload)


def test_serves_over_http(serve: Callable[[str, str], Any]) -> None:
    worker = serve("hello-world", "worker:Hello")

    answer = worker.generate({"name": "Ada"})
    assert (answer.status_code, answer.json()) == (200, {"greeting": "Hello, Ada!"})

    failure = worker.generate({"name": 3})
    assert failure.status_code == 500
    assert 'needs a "name"' in failure.json()["error"]["message"]
    assert "Traceback" not in failure.text

    assert worker.generate({"name": "Grace"}).json() == {"greeting": "Hello, Grace!"}, "it goes on after a failure"
    assert worker.stop() == 0
