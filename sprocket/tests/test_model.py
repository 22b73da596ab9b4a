from __future__ import annotations

from typing import Any

import pytest

import sprocket
from sprocket.model import Model


class Plain(sprocket.Sprocket):
    def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return args


def test_a_model_takes_one_job_at_a_time_unless_it_says_otherwise() -> None:
    class Many(Plain):
        concurrency = 1000

    chosen = Plain()
    chosen.concurrency = 3
    assert [Model(worker).concurrency for worker in (Plain, Plain(), Many, chosen)] == [1, 1, 1000, 3]


@pytest.mark.parametrize("wrong", [0, -1, 1001, True, 2.0, "4", None, property(lambda _: 4)])
def test_a_concurrency_that_is_none_is_named(wrong: Any) -> None:
    wrongly = type("Wrongly", (Plain,), {"concurrency": wrong})
    with pytest.raises(sprocket.ConfigError, match=r"Wrongly\.concurrency must be a whole number from 1 to 1000"):
        Model(wrongly)
