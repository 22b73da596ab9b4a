"""URLs of files in jobs, for workers that know the platform by another address than its users."""

import msgspec

from machineshop.api.addresses import Addresses

OUTSIDE, INSIDE = "http://127.0.0.1:8799", "http://host.docker.internal:8799"
BOTH = Addresses(lambda: OUTSIDE, lambda: INSIDE)


def test_a_worker_in_a_container_sees_files_where_it_can_reach_them_and_users_where_they_can() -> None:
    inputs = msgspec.Raw(b'{"file": "http://127.0.0.1:8799/v1/storage/a.txt", "text": "see http://127.0.0.1:8799"}')
    seen = BOTH.for_worker("host.docker.internal:8799", inputs)
    assert msgspec.json.decode(seen) == {
        "file": "http://host.docker.internal:8799/v1/storage/a.txt",
        "text": "see http://127.0.0.1:8799",
    }
    assert msgspec.json.decode(BOTH.from_worker("host.docker.internal:8799", seen)) == msgspec.json.decode(inputs)


def test_other_workers_and_other_texts_are_let_be() -> None:
    inputs = msgspec.Raw(b'{"file": "http://127.0.0.1:8799/v1/storage/a.txt"}')
    assert BOTH.for_worker("127.0.0.1:8799", inputs) is inputs
    assert BOTH.for_worker(None, inputs) is inputs
    assert Addresses(lambda: OUTSIDE, lambda: None).for_worker("host.docker.internal:8799", inputs) is inputs
    other = msgspec.Raw(b'{"file": "http://127.0.0.1:87990/v1/storage/a.txt"}')
    assert bytes(BOTH.for_worker("host.docker.internal:8799", other)) == bytes(other)
