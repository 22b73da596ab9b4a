"""What docs/webhooks.md shows to receivers is true: its example is run on what really comes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from machineshop.control.deliverer import CLAIM_SECONDS, MAX_SENDS, MAX_SENDS_PER_HOST, MAX_TRIES
from machineshop.control.sender import TOTAL_SECONDS
from webhooks.outbox import Outbox
from webhooks.receiver import Receiver

PAGE = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text()


@pytest.fixture
def verify() -> Callable[..., bool]:
    example = PAGE.split("<!-- example: verify -->")[1].split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(example, "docs/webhooks.md", "exec"), names)
    function: Callable[..., bool] = names["verify"]
    return function


async def test_the_example_takes_what_comes_and_nothing_else(
    outbox: Outbox, receiver: Receiver, verify: Callable[..., bool]
) -> None:
    outbox.clock.now = time.time()
    old = (await outbox.signing.of_project(outbox.jobs.project_id)).current
    new = (await outbox.signing.rotate(outbox.jobs.project_id)).current
    await outbox.done(receiver.url)
    await outbox.look()
    (told,) = receiver.received
    assert verify(old, told.headers, told.body)
    assert verify(new, told.headers, told.body)
    assert not verify("whsec_" + old[6:][::-1].lstrip("=") + "=", told.headers, told.body)
    assert not verify(new, told.headers, told.body + b" ")
    assert not verify(new, {**told.headers, "webhook-id": "another"}, told.body)
    late = {**told.headers, "webhook-timestamp": str(int(time.time()) - 600)}
    assert not verify(new, late, told.body)


def test_the_numbers_are_the_codes() -> None:
    assert f"within {TOTAL_SECONDS:g} seconds" in PAGE
    assert f"{MAX_TRIES} times in about a day" in PAGE
    assert f"At most {MAX_SENDS} webhooks" in PAGE
    assert f"{MAX_SENDS_PER_HOST} of them to one host" in PAGE
    assert CLAIM_SECONDS > 2 * TOTAL_SECONDS
