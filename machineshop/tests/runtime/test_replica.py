"""The steps of a replica's life, as values."""

import msgspec
import pytest

from machineshop.runtime import exits, replica, replica_view
from machineshop.runtime.base import ReplicaStatus, RevisionSpec
from machineshop.runtime.exits import Exit, StartFailed
from machineshop.runtime.planner import Phase
from machineshop.runtime.record import Record

FIRST = replica.FIRST_BACK_OFF_SECONDS
SPEC = RevisionSpec(
    deployment_id="d", deployment_name="hello", project_id="p", revision_id="r", image="i", grace_period_seconds=30
)
NEW = replica.created("hello-1", SPEC, 100.0)


def started(record: Record = NEW, at: float = 100.0) -> Record:
    begun = replica.starting(record, port=4000, gpus=(1,), platform_url="http://127.0.0.1:8799", now=at)
    return replica.running(begun)


def crashed(times: int) -> Record:
    record = NEW
    for _ in range(times):
        record = replica.settled(replica.exited(started(record, record.start_at)), Exit(at=record.start_at, code=1))
    return record


def test_what_keeps_a_replica_is_a_sentence_from_its_first_moment_on() -> None:
    begun = replica.starting(NEW, port=4000, gpus=(), platform_url="http://127.0.0.1:8799", now=1.0)
    views = [replica_view.view(record) for record in (NEW, begun, replica.exited(started()))]
    assert [view.message for view in views] == [
        "It is about to start.",
        "It is being started.",
        "It has ended, and is about to start again.",
    ]


@pytest.mark.parametrize(("crashes", "seconds"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (5000, 300)])
def test_each_crash_doubles_the_wait_up_to_five_minutes(
    crashes: int, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "FIRST_BACK_OFF_SECONDS", FIRST)
    assert replica.back_off_seconds(crashes) == seconds


def test_a_steady_run_makes_the_next_crash_the_first_one_again() -> None:
    record = crashed(5)
    assert (record.crashes, record.reason) == (5, "CrashLoopBackOff")
    record = replica.settled(replica.exited(started(record, 1000.0)), Exit(at=1600.0, code=1))
    assert (record.crashes, record.start_at, record.reason) == (1, 1600.0 + replica.FIRST_BACK_OFF_SECONDS, "Error")


def test_a_crash_after_some_work_is_the_first_one_again() -> None:
    record = replica.settled(replica.exited(started(crashed(5), 500.0)), Exit(at=501.0, code=1), worked=True)
    assert (record.crashes, record.start_at) == (1, 501.0 + replica.FIRST_BACK_OFF_SECONDS)


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (Exit(at=1.0, code=3), "exit code 3"),
        (Exit(at=1.0, signal=9), "signal SIGKILL"),
        (Exit(at=1.0), "nobody saw how"),
        (Exit(at=1.0, signal=9, reason="OOMKilled"), "OOMKilled"),
        (StartFailed(at=1.0, reason="CreateContainerError", message="x"), "CreateContainerError"),
    ],
)
def test_an_end_is_told_in_a_few_words(end: Exit | StartFailed, how: str) -> None:
    assert exits.how_it_ended(NEW, end) == how


def test_a_run_that_the_platform_ends_says_why_and_counts_as_a_crash() -> None:
    record = replica.condemned(replica.ready(started(), 101.0), "It is wedged.")
    assert exits.how_it_ended(record, Exit(at=102.0, signal=9)) == "It is wedged"
    record = replica.settled(replica.exited(record), Exit(at=102.0, signal=9))
    assert (record.phase, record.crashes, record.message) == (Phase.WAITING, 1, "It is wedged.")
    assert started(record).condemned_because is None


def test_a_crash_frees_what_the_run_held() -> None:
    record = crashed(1)
    assert (record.phase, record.gpus, record.port, record.ready_since) == (Phase.WAITING, (), None, None)


def test_a_signal_is_named_and_counted_as_shells_do() -> None:
    record = replica.settled(replica.exited(started()), Exit(at=101.0, signal=11, last_line="x" * 1000))
    assert record.exit_code == 139
    assert record.message is not None
    assert record.message.startswith("The process was ended by signal SIGSEGV. Its last line: xxx")
    assert len(record.message) < 400


def test_an_exit_that_nobody_saw_is_said_to_be_one() -> None:
    record = replica.settled(replica.exited(started()), Exit(at=101.0))
    assert (record.exit_code, record.message) == (
        None,
        "The process ended and nobody saw how, without having printed anything.",
    )


def test_a_start_that_failed_is_tried_again_with_its_own_reason() -> None:
    failure = StartFailed(at=100.0, reason="CreateContainerError", message="No space left on device")
    record = replica.settled(replica.exited(started()), failure)
    assert (record.phase, record.reason, record.message) == (Phase.WAITING, failure.reason, failure.message)
    again = replica.settled(replica.exited(started(record)), failure)
    assert (again.reason, again.start_at) == ("CreateContainerError", 100.0 + replica.back_off_seconds(2))


def test_draining_a_replica_that_does_not_run_ends_it() -> None:
    assert replica.draining(NEW, 105.0).phase is Phase.ENDED
    running = replica.draining(replica.ready(started(), 101.0), 105.0)
    assert (running.phase, running.ready_since) == (Phase.RUNNING, None)
    assert replica_view.observed(running, prepared=True).kill_at == 135.0


def test_a_replica_that_drains_says_so_until_it_has_ended() -> None:
    draining = replica.draining(replica.ready(started(), 101.0), 105.0)
    for record in (draining, replica.running(draining), replica.exited(draining)):
        seen = replica_view.view(record)
        assert (seen.reason, seen.message) == ("Draining", "It finishes what it has in hand, and ends.")
    hurried = replica_view.view(replica.draining(draining, 106.0, within_seconds=1, why="The machine goes away."))
    assert (hurried.reason, hurried.message) == ("Draining", "The machine goes away.")
    ended = replica_view.view(replica.settled(replica.exited(draining), Exit(at=106.0, code=0)))
    assert (ended.reason, ended.message) == ("Completed", "It was asked to end, and did.")


def test_a_drained_replica_that_obeyed_is_completed_and_one_that_did_not_is_not() -> None:
    draining = replica.draining(started(), 105.0)
    for end in (Exit(at=106.0, code=0), Exit(at=106.0, signal=15)):
        assert replica.settled(replica.exited(draining), end).reason == "Completed"
    killed = msgspec.structs.replace(draining, killed=True)
    ended = replica.settled(replica.exited(killed), Exit(at=135.0, signal=9))
    assert (ended.reason, ended.phase, ended.ended_at) == ("Error", Phase.ENDED, 135.0)
    crashed = replica.settled(replica.exited(draining), Exit(at=106.0, code=2))
    assert (crashed.reason, crashed.exit_code) == ("Error", 2)


def deadlines(record: Record) -> tuple[float | None, float | None]:
    seen = replica_view.observed(record, prepared=True)
    return seen.insist_at, seen.kill_at


def test_a_replica_that_has_less_time_than_it_was_told_is_asked_again_before_it_is_killed() -> None:
    hurried = replica.draining(started(), 100.0, within_seconds=10)
    assert deadlines(hurried) == (108.0, None)
    assert deadlines(replica.insisted(hurried, 108.0)) == (None, 110.0)
    assert deadlines(replica.insisted(hurried, 500.0)) == (None, 502.0)  # the server was away
    assert deadlines(replica.draining(started(), 100.0, within_seconds=1)) == (100.5, None)
    assert deadlines(replica.draining(started(), 100.0, within_seconds=0)) == (100.0, None)


def test_a_replica_that_has_all_its_time_sees_to_its_job_itself() -> None:
    assert deadlines(replica.draining(started(), 100.0)) == (None, 130.0)
    assert deadlines(replica.draining(started(), 100.0, within_seconds=30)) == (None, 130.0)
    assert deadlines(replica.exited(replica.draining(started(), 100.0))) == (None, None)


def test_a_drain_that_goes_on_can_be_hurried_and_never_prolonged() -> None:
    draining = replica.draining(started(), 100.0)
    hurried = replica.draining(draining, 112.0, within_seconds=10)
    assert (hurried.draining_since, deadlines(hurried)) == (100.0, (120.0, None))
    assert deadlines(replica.draining(draining, 125.0, within_seconds=10)) == (None, 130.0)


def test_a_replica_that_was_killed_in_a_hurry_is_said_to_have_had_that_time() -> None:
    record = msgspec.structs.replace(replica.draining(started(), 100.0, within_seconds=10), killed=True)
    ended = replica.settled(replica.exited(record), Exit(at=110.0, signal=9))
    assert ended.message == "It did not end within its grace period of 10 s and was killed."
    obeyed = replica.settled(replica.exited(record), Exit(at=110.0, code=0))
    assert (obeyed.reason, obeyed.message) == ("Completed", "It was asked to end, and did.")


def test_a_run_that_was_told_another_address_is_stranded() -> None:
    assert replica.stranded(started(), "http://127.0.0.1:8799") is None
    assert replica.stranded(msgspec.structs.replace(started(), platform_url=None), "http://127.0.0.1:1") is None
    why = replica.stranded(started(), "http://127.0.0.1:1")
    assert why == "It was started with the platform at http://127.0.0.1:8799, which is now at http://127.0.0.1:1."
    draining = replica.draining(started(), 105.0, within_seconds=5, why=why)
    assert draining.message == why
    ended = replica.settled(replica.exited(draining), Exit(at=106.0, code=0))
    assert (ended.reason, ended.message) == ("Completed", f"{why} It was asked to end, and did.")


def test_only_a_replica_that_will_start_again_speaks_of_a_next_start() -> None:
    waiting = crashed(3)
    view = replica_view.view(waiting)
    wait = f"{replica.back_off_seconds(3):g} s"
    assert view.message is not None
    assert view.message.startswith(f"It ended 3 times in a row, the next start is {wait} after the last. The process")
    for ended in (replica.draining(waiting, 200.0), replica.abandoned(waiting, 200.0, "It cannot be started again.")):
        view = replica_view.view(ended)
        assert (view.status, view.reason) == (ReplicaStatus.TERMINATED, "Error")
        assert "next start" not in (view.message or "")
    again = replica_view.view(started(waiting))
    assert (again.reason, again.message) == (None, None)
    assert "3 times in a row. The process exited" in (replica.draining(waiting, 200.0).message or "")


def test_a_replica_that_was_never_started_says_so() -> None:
    ended = replica.draining(NEW, 105.0)
    assert (ended.reason, ended.message) == ("Completed", "It was asked to end before it was started.")


def test_a_run_that_never_began_says_whether_somebody_had_asked_it_to_end() -> None:
    never = Exit(at=106.0, began=False)
    drained = replica.settled(replica.exited(replica.draining(started(), 105.0)), never)
    assert (drained.reason, drained.message) == ("Completed", "It was asked to end before it had begun.")
    cut_off = replica.settled(replica.exited(started()), never)
    assert (cut_off.reason, cut_off.message) == ("Error", "The platform stopped while it was starting.")


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_has_a_status_that_clients_know(phase: Phase) -> None:
    view = replica_view.view(msgspec.structs.replace(NEW, phase=phase))
    assert view.status in ReplicaStatus


def test_restarts_count_the_runs_after_the_first() -> None:
    assert replica_view.view(NEW).restarts == 0
    assert replica_view.view(started()).restarts == 0
    assert replica_view.view(started(crashed(2))).restarts == 2


def test_the_logs_of_ended_replicas_are_kept_for_a_day_and_of_ten_at_most() -> None:
    ended = [replica.abandoned(msgspec.structs.replace(NEW, id=str(n)), 1000.0 + n, "over") for n in range(12)]
    assert [r.id for r in replica_view.forgettable([NEW, *ended], 1020.0)] == ["1", "0"]
    day = 24 * 3600.0
    assert [r.id for r in replica_view.forgettable([NEW, *ended[:3]], 1001.5 + day)] == ["1", "0"]


def test_ended_replicas_are_shown_for_ten_minutes_and_five_of_them_at_most() -> None:
    ended = [replica.abandoned(msgspec.structs.replace(NEW, id=str(n)), 1000.0 + n, "over") for n in range(7)]
    assert {r.id for r in replica_view.shown([NEW, *ended], 1010.0)} == {NEW.id, "2", "3", "4", "5", "6"}
    assert {r.id for r in replica_view.shown([NEW, *ended], 1605.5)} == {NEW.id, "6"}
