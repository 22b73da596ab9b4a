"""What is said of a body whose values have the wrong shape."""

from typing import Any

import msgspec
import pytest

from machineshop.models import QueueSettings
from machineshop.services.malformed import malformed
from machineshop.services.submissions import Submission


@pytest.mark.parametrize(
    ("wanted", "body", "said"),
    [
        (QueueSettings, b'{"keep_seconds": 0}', "'keep_seconds' must be at least 60."),
        (QueueSettings, b'{"max_pending": 1000000000}', "'max_pending' must be at most 100,000,000."),
        (QueueSettings, b'{"keys": {"a": {"weight": 0}}}', "'keys[...].weight' must be at least 0.001."),
        (QueueSettings, b'{"keep_count": "1"}', "Expected `int`, got `str`, in 'keep_count'."),
        (
            Submission,
            b'{"model": "m", "payload": {}, "deadline_seconds": 0.0}',
            "'deadline_seconds' must be more than 0.",
        ),
        (
            Submission,
            b'{"model": "m", "payload": {}, "idempotency_key": ""}',
            "'idempotency_key' must have at least 1 character.",
        ),
    ],
)
def test_bounds_are_told_in_words(wanted: type[Any], body: bytes, said: str) -> None:
    decoder = msgspec.json.Decoder(wanted)
    with pytest.raises(msgspec.ValidationError) as raised:
        decoder.decode(body)
    error = malformed(raised.value, body, decoder)
    assert error.message == said
    assert error.param is not None
    assert f"'{error.param}'" in said
