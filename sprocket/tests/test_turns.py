"""What a worker calls its requests for jobs, and when it asks again for the same."""

from __future__ import annotations

import pytest
from sprocket_raw_server import RawServer, Script, answer

from sprocket.config import PlatformConfig
from sprocket.errors import PlatformAwayError, PlatformRefusedError
from sprocket.messages import Claim, Update
from sprocket.platform import Platform
from sprocket.turns import MOST_TRIES, TURN_ID, TURN_TRIES, Turns

CLAIMED = answer(
    "200 OK",
    b'{"updates": [{"request_id": "a"}], "data": [{"request_id": "b", "payload": {}}]}',
    connection="close",
)
LOST = Script(b"HTTP/1.1 200 OK\r\nContent-Le")
RESULT = Update("a", "token", "done", {})


def test_a_request_that_was_answered_has_its_name_for_itself() -> None:
    turns = Turns(90.0)
    first = turns.headers()
    turns.answered()
    second = turns.headers()
    assert first.keys() == second.keys() == {TURN_ID}
    assert first[TURN_ID] != second[TURN_ID]


def test_one_that_was_not_is_made_again_by_its_name_and_says_how_often() -> None:
    turns = Turns(90.0)
    name = turns.headers()[TURN_ID]
    assert turns.headers() == {TURN_ID: name, TURN_TRIES: "1"}
    assert turns.headers() == {TURN_ID: name, TURN_TRIES: "2"}


def test_what_a_claim_held_is_not_asked_for_when_it_has_run_out() -> None:
    now = 1000.0
    turns = Turns(90.0, clock=lambda: now)
    name = turns.headers()[TURN_ID]
    now += 89
    assert turns.headers()[TURN_ID] == name
    now += 2
    assert turns.headers()[TURN_ID] != name


def test_the_platform_is_not_asked_more_often_than_it_takes() -> None:
    turns = Turns(90.0)
    asked = [turns.headers() for _ in range(MOST_TRIES + 2)]
    assert asked[MOST_TRIES] == {**asked[0], TURN_TRIES: str(MOST_TRIES)}
    assert asked[MOST_TRIES + 1].keys() == {TURN_ID}


@pytest.mark.parametrize("by", ["turn", "poll"])
async def test_a_lost_answer_is_asked_for_again(by: str) -> None:
    server = RawServer(LOST, LOST, Script(CLAIMED), Script(CLAIMED))
    await server.start()
    platform = Platform(PlatformConfig(server.url, "key", "hello", "host"))
    taken: list[Claim] = []

    async def claim() -> None:
        if by == "turn":
            await platform.exchange([RESULT], 1, taken.extend)
        else:
            await platform.claim(1, 0.0, taken.extend)

    for _ in range(2):
        with pytest.raises(PlatformAwayError):
            await claim()
    await claim()
    await claim()
    await platform.close()
    await server.stop()
    names = [head["x-turn-id"] for head in server.heads]
    assert names[0] == names[1] == names[2] != names[3]
    assert [head.get("x-turn-tries") for head in server.heads] == [None, "1", "2", None]
    assert [each.request_id for each in taken] == ["b", "b"]


async def test_a_definite_no_is_an_answer_and_what_claims_nothing_has_no_name() -> None:
    refused = Script(answer("400 Bad Request", b"{}", connection="close"))
    server = RawServer(refused, refused, Script(CLAIMED))
    await server.start()
    platform = Platform(PlatformConfig(server.url, "key", "hello", "host"))
    for _ in range(2):
        with pytest.raises(PlatformRefusedError):
            await platform.exchange([RESULT], 1, list)
    await platform.exchange([RESULT], 0, list)
    await platform.close()
    await server.stop()
    assert len({head.get("x-turn-id") for head in server.heads}) == 3
    assert all("x-turn-tries" not in head for head in server.heads)
    assert "x-turn-id" not in server.heads[2]
