"""What the autoscaler decides, from plain values; and hours of arrivals, in which it must neither flap nor starve."""

import math
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machineshop.control.autoscaler import Decision, History, desired_replicas
from machineshop.control.scaling_words import Reason
from machineshop.control.wish import Signals, amount
from machineshop.services.scaling_policy import Metric, Policy

NOW = 1_000_000.0


def policy(**fields: object) -> Policy:
    return Policy(**{"min_replicas": 0, "max_replicas": 10, "metric": Metric.BACKLOG, "target": 5.0, **fields})  # type: ignore[arg-type]


class Life:
    """One deployment, second by second."""

    def __init__(self, **fields: object) -> None:
        self.policy = policy(**fields)
        self.now, self.current = NOW, self.policy.min_replicas
        self.history: History | None = None
        self.changes: list[tuple[float, int, int]] = []

    def see(self, seconds: float = 1.0, **signals: object) -> Decision:
        self.now += seconds
        return self.take(Signals(**signals))  # type: ignore[arg-type]

    def take(self, signals: Signals) -> Decision:
        decision = desired_replicas(self.policy, signals, self.now, self.history, self.current)
        if decision.replicas != self.current:
            self.changes.append((self.now, self.current, decision.replicas))
        self.history, self.current = decision.history, decision.replicas
        return decision


def test_numbers_are_written_as_people_write_them() -> None:
    values = [0, 2.0, 0.5, 0.000125, 1e9, 1_234_567.8914, -3, 1e300, math.inf, math.nan]
    written = ["0", "2", "0.5", "0.000125", "1,000,000,000", "1,234,567.891", "-3", "1e+300", "inf", "nan"]
    assert [amount(value) for value in values] == written


def test_without_a_metric_it_is_the_lower_bound() -> None:
    decision = Life(min_replicas=2, metric=None).see(pending=100)
    assert (decision.replicas, decision.reason) == (2, Reason.OFF)


def test_without_a_metric_what_waits_in_vain_is_named() -> None:
    decision = Life(metric=None, max_replicas=0).see(pending=2, held=1)
    assert (decision.replicas, decision.reason) == (0, Reason.UPPER_BOUND)
    assert decision.message == "There is something to do (2 jobs and 1 request), but max_replicas is 0."


@pytest.mark.parametrize("metric", [None, *Metric])
@pytest.mark.parametrize("work", ["pending", "held"])
def test_whatever_the_metric_one_starts_as_soon_as_something_waits(metric: Metric | None, work: str) -> None:
    life = Life(metric=metric, custom_metric_name="x")
    assert life.see().replicas == 0
    assert life.see(**{work: 1}).replicas == 1


@pytest.mark.parametrize("metric", [Metric.BACKLOG, Metric.REQUESTS, Metric.IN_FLIGHT])
@pytest.mark.parametrize("target", [1e-308, 1e-320, 1e-9])
def test_a_number_out_of_all_proportion_asks_for_as_many_as_may_be(metric: Metric, target: float) -> None:
    decision = Life(metric=metric, target=target).see(pending=5, held=5, arrived=5)
    assert (decision.replicas, decision.reason) == (10, Reason.UPPER_BOUND)


@pytest.mark.parametrize(
    ("custom", "asked"), [(1e308, 10), (-1e308, 0), (math.inf, 10), (-math.inf, 0), (math.nan, 0), (0.0, 0)]
)
def test_what_replicas_say_may_be_any_number(custom: float, asked: int) -> None:
    life = Life(metric=Metric.CUSTOM, custom_metric_name="q", target=0.001, min_replicas=1)
    decision = life.see(custom=custom, ready=2)
    assert decision.wanted == asked
    assert 1 <= decision.replicas <= 10


def test_a_backlog_is_shared_by_the_workers_and_the_bounds_hold() -> None:
    life = Life()
    assert life.see(pending=12, running=3).replicas == 3
    assert life.see(pending=13, running=3).replicas == 4
    decision = life.see(pending=1000)
    assert (decision.replicas, decision.reason) == (10, Reason.UPPER_BOUND)
    assert "1000 waiting" in decision.message


def test_the_backlog_may_be_that_of_another_queue() -> None:
    life = Life(queue="other")
    assert life.see(backlog=12).replicas == 3
    assert life.see().reason is Reason.UNKNOWN


def test_a_target_a_little_above_one_means_a_few_less_than_jobs() -> None:
    assert Life(target=1.05, max_replicas=200).see(pending=100).replicas == 96


def test_requests_in_the_window_are_shared() -> None:
    assert Life(metric=Metric.REQUESTS, target=100.0).see(arrived=950).replicas == 10


def test_requests_in_flight_are_shared() -> None:
    assert Life(metric=Metric.IN_FLIGHT, target=4.0).see(in_flight=9, held=1).replicas == 3


def test_slow_requests_ask_for_more_in_proportion_to_what_is_ready() -> None:
    life = Life(metric=Metric.DURATION, target=1.0, min_replicas=2)
    assert life.see(mean_request_seconds=1.05, ready=2).reason is Reason.METRIC
    assert life.see(mean_request_seconds=1.8, ready=2).replicas == 4
    # The average lags: what has just been started is not seen in it yet.
    decision = life.see(mean_request_seconds=1.8, ready=4)
    assert (decision.replicas, decision.reason) == (4, Reason.MAX_STEP)
    assert life.see(60, mean_request_seconds=1.8, ready=4).replicas == 8


def test_a_metric_without_a_value_changes_nothing() -> None:
    life = Life(metric=Metric.CUSTOM, custom_metric_name="depth", target=10.0, min_replicas=1)
    assert life.see(custom=15.0, ready=1).replicas == 2
    decision = life.see(ready=2)
    assert (decision.replicas, decision.reason) == (2, Reason.UNKNOWN)
    assert "depth" in decision.message


def test_fewer_come_only_once_fewer_have_been_enough_for_long() -> None:
    life = Life(min_replicas=1)
    life.see(pending=50)
    assert life.see(299, pending=2).reason is Reason.STABILIZING
    life.see(1, pending=20)
    assert life.see(299, pending=2).replicas == 4
    assert life.see(2, pending=2).replicas == 1


def test_what_was_before_the_first_look_is_not_known_and_nothing_stops_for_it() -> None:
    life = Life(min_replicas=1)
    life.current = 7
    assert life.see(pending=0).replicas == 7
    assert life.see(301, pending=0).replicas == 1


def test_zero_comes_after_the_idle_time_alone() -> None:
    life = Life(idle_seconds=30.0)
    life.see(pending=20)
    life.see(5, pending=0, running=1)
    assert life.see(29).reason is Reason.STABILIZING
    decision = life.see(1)
    assert decision.message == "There is nothing to do: the next job or request starts a replica."
    assert (decision.reason, life.current) == (Reason.IDLE, 0)


@pytest.mark.parametrize(
    "asks",
    [
        {"metric": Metric.REQUESTS, "window_seconds": 3600.0, "arrived": 1000},
        {"metric": Metric.DURATION, "window_seconds": 3600.0, "mean_request_seconds": 60.0},
        {"metric": Metric.CUSTOM, "custom_metric_name": "gpu", "custom": 60.0},
        {"metric": Metric.CUSTOM, "custom_metric_name": "gone", "custom": None},
        {"metric": Metric.BACKLOG, "queue": "gone", "backlog": None},
        {"metric": None},
    ],
    ids=lambda asks: "-".join(str(value) for value in asks.values()),
)
def test_a_deployment_that_nobody_uses_sleeps_whatever_its_metric_still_says(asks: dict[str, Any]) -> None:
    signals = {name: value for name, value in asks.items() if name in Signals.__struct_fields__}
    life = Life(idle_seconds=30.0, **{name: value for name, value in asks.items() if name not in signals})
    life.see(pending=1, ready=1, **signals)
    life.see(activity=(1, 0), ready=1, **signals)
    assert life.see(29, activity=(1, 0), ready=1, **signals).replicas >= 1
    assert life.see(1, activity=(1, 0), ready=1, **signals).reason is Reason.IDLE
    assert life.see(1, activity=(1, 0), **signals).replicas == 0


def test_a_named_queue_that_is_empty_for_a_moment_is_not_idle_yet() -> None:
    life = Life(queue="other", idle_seconds=30.0, stabilization_seconds=0.0)
    life.see(backlog=0)
    assert life.see(100, backlog=1).replicas == 1
    assert life.see(29, backlog=0).reason is Reason.NOT_IDLE_YET
    assert life.see(1, backlog=0).reason is Reason.IDLE


def test_bounds_that_change_the_number_are_the_reason_where_the_metric_has_no_value() -> None:
    life = Life(metric=Metric.CUSTOM, custom_metric_name="x", min_replicas=1)
    assert life.see(custom=None).reason is Reason.UNKNOWN
    life.policy = msgspec.structs.replace(life.policy, min_replicas=3)
    assert life.see(custom=None).message == "No replica says a value of x on /metrics, but min_replicas is 3."
    assert life.see(custom=None).reason is Reason.UNKNOWN
    life.policy = msgspec.structs.replace(life.policy, min_replicas=1, max_replicas=2)
    assert life.see(custom=None).reason is Reason.UPPER_BOUND


def test_an_idle_deployment_that_may_have_no_replica_says_so() -> None:
    decision = Life(metric=None, max_replicas=0).see()
    assert decision.message == "There is nothing to do, and no replica may run: max_replicas is 0."


def test_a_job_too_short_to_be_seen_keeps_it_awake() -> None:
    life = Life(idle_seconds=30.0)
    life.see(pending=1)
    for changes in range(20):
        life.see(20, activity=(changes, 0))
    assert life.current == 1
    assert life.see(30, activity=(19, 0)).replicas == 0


def test_a_metric_below_zero_asks_for_none() -> None:
    life = Life(metric=Metric.CUSTOM, custom_metric_name="depth", target=1.0)
    assert life.see(custom=-1.0, ready=1, in_flight=1).replicas == 1


def test_new_bounds_hold_at_once() -> None:
    life = Life()
    life.see(pending=50)
    life.policy = policy(max_replicas=3)
    assert life.see(pending=50).replicas == 3
    life.policy = policy(min_replicas=6)
    assert life.see(pending=0).replicas == 6


def test_a_step_is_no_larger_than_may_be_in_either_direction() -> None:
    life = Life(max_step=2, min_replicas=1, stabilization_seconds=0.0)
    assert life.see(pending=50).replicas == 3
    assert life.see(30, pending=50).replicas == 3
    assert life.see(31, pending=50).replicas == 5
    assert life.see(61, pending=0).replicas == 3
    assert life.see(10, pending=0).reason is Reason.MAX_STEP
    assert life.current == 3


def _hours(life: Life, hours: float, rate: Callable[[float], float], job_seconds: float, seed: int = 1) -> list[int]:
    """A queue worked by the replicas that there are to be, each ready 20 s after it was asked for; returns backlogs."""
    random_, backlog, ready_at, backlogs = random.Random(seed), 0.0, [0.0] * life.current, []
    for second in range(int(hours * 3600)):
        expected = rate(second)
        backlog += random_.gauss(expected, math.sqrt(expected)) if expected > 5 else _poisson(random_, expected)
        backlog = max(0.0, backlog)
        ready = sum(at <= second for at in ready_at)
        running = min(ready, int(backlog))
        backlog = max(0.0, backlog - ready / job_seconds)
        decision = life.see(
            pending=max(0, int(backlog) - running),
            running=running,
            ready=ready,
            busy=running,
            activity=(second if running else 0, 0),
        )
        ready_at = ready_at[: decision.replicas] + [second + 20.0] * (decision.replicas - len(ready_at))
        backlogs.append(int(backlog))
    return backlogs


def _poisson(random_: random.Random, mean: float) -> int:
    limit, product, number = math.exp(-mean), random_.random(), 0
    while product > limit:
        product, number = product * random_.random(), number + 1
    return number


def test_steady_noise_over_hours_does_not_flap() -> None:
    life = Life(min_replicas=1, max_replicas=20, target=2.0)
    backlogs = _hours(life, 3, lambda _: 2.0, 3.0)
    down = [change for change in life.changes if change[2] < change[1]]
    assert len(down) <= 3 * 3600 / 300, "never more often than the stabilization time allows"
    last_hour = [change for change in life.changes if change[0] > NOW + 2 * 3600]
    assert len(last_hour) <= 12
    assert max(backlogs[600:]) < 60


def test_a_day_of_high_and_low_tide_starves_nobody_and_ends_at_zero() -> None:
    life = Life(max_replicas=20, target=2.0, idle_seconds=120.0)
    backlogs = _hours(life, 4, lambda second: 4.0 * max(0.0, math.sin(second / 3600 * math.pi)), 3.0)
    assert max(backlogs) < 200
    assert life.current == 0
    assert max(number for _, _, number in life.changes) >= 12


def test_rare_jobs_are_each_done_and_replicas_sleep_between_them() -> None:
    life = Life(idle_seconds=60.0)
    backlogs = _hours(life, 3, lambda second: 1.0 if second % 1800 == 0 else 0.0, 2.0)
    assert backlogs[-1] == 0
    ups = [change for change in life.changes if change[1] == 0]
    assert 1 <= len(ups) <= 6


signal = st.builds(
    Signals,
    pending=st.integers(0, 500),
    running=st.integers(0, 20),
    held=st.integers(0, 3),
    in_flight=st.integers(0, 20),
    arrived=st.integers(0, 5000),
    mean_request_seconds=st.none() | st.floats(0, 1e4),
    custom=st.none() | st.floats(-1e6, 1e6),
    ready=st.integers(0, 20),
)


@settings(max_examples=80, deadline=None)
@given(
    metric=st.none() | st.sampled_from(list(Metric)),
    least=st.integers(0, 5),
    extra=st.integers(0, 10),
    target=st.floats(1e-3, 1e4),
    max_step=st.none() | st.integers(1, 3),
    looks=st.lists(st.tuples(st.floats(0.1, 400), signal), min_size=1, max_size=15),
)
def test_whatever_is_seen_the_bounds_hold_and_nobody_starves(
    metric: Metric | None,
    least: int,
    extra: int,
    target: float,
    max_step: int | None,
    looks: list[tuple[float, Signals]],
) -> None:
    life = Life(metric=metric, min_replicas=least, max_replicas=least + extra, target=target, max_step=max_step)
    for seconds, signals in looks:
        life.now += seconds
        before = life.current
        decision = life.take(signals)
        assert least <= decision.replicas <= least + extra
        if signals.to_do and extra:
            assert decision.replicas >= 1
        if max_step is not None and before:
            assert abs(decision.replicas - before) <= max(max_step, 0) or decision.replicas in (0, least)
        assert decision.message
        assert len(decision.history.wanted) <= 500
        assert msgspec.json.encode(decision)
