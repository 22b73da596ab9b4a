"""What the gateway tells of requests, and what that adds up to."""

from factory import Clock
from machineshop.services.traffic import LONGEST_WINDOW_SECONDS, Seen, Traffic


def test_a_request_waits_is_in_hand_and_ends() -> None:
    clock = Clock()
    traffic = Traffic(clock)
    held: list[str] = []
    traffic.on_held(held.append)
    with traffic.request("d") as request:
        request.hold()
        assert (traffic.seen("d", 60).held, held) == (1, ["d"])
        request.send("r")
        assert (traffic.seen("d", 60).held, traffic.seen("d", 60).in_flight) == (0, 1)
        assert traffic.busy_replicas() == {"r"}
        clock.now += 2
        request.answered()
    assert traffic.seen("d", 60) == Seen(arrived=1, mean_seconds=2.0, total=1)
    assert (traffic.busy_replicas(), traffic.in_flight("r"), traffic.answered_by("r")) == (frozenset(), 0, 1)


def test_what_fails_on_one_replica_and_goes_to_another_is_in_hand_once() -> None:
    traffic = Traffic(Clock())
    with traffic.request("d") as request:
        request.send("r1")
        request.send("r2")
        assert traffic.busy_replicas() == {"r2"}
        assert traffic.seen("d", 60).in_flight == 1
    assert traffic.seen("d", 60) == Seen(arrived=1, total=1)


def test_a_window_sees_no_further_back_and_memory_does_not_grow_with_time() -> None:
    clock = Clock()
    traffic = Traffic(clock)
    for _ in range(3 * int(LONGEST_WINDOW_SECONDS)):
        with traffic.request("d"):
            clock.now += 1
    assert traffic.seen("d", 60).arrived in (60, 61)
    assert traffic.seen("d", 10 * LONGEST_WINDOW_SECONDS).arrived <= LONGEST_WINDOW_SECONDS + 2


def test_a_deployment_that_is_gone_is_forgotten_once_its_requests_have_ended() -> None:
    traffic = Traffic(Clock())
    with traffic.request("d") as request:
        request.send("r")
        traffic.keep(frozenset())
    traffic.keep(frozenset())
    assert traffic.seen("d", 60) == Seen()
