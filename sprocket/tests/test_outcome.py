from __future__ import annotations

import asyncio

from sprocket.errors import InputError
from sprocket.job import Job
from sprocket.outcome import Canceled, Done, Exited, Failed, failure, outcome_of_exception, outcome_of_value
from sprocket.outputs import encode_outputs


def raised(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301
    except BaseException as caught:  # noqa: BLE001
        return caught


def job(*, requested: bool = False, seen: bool = False) -> Job:
    made = Job("1", {})
    made.cancel_requested, made.cancel_seen = requested, seen
    return made


def test_a_dict_is_done() -> None:
    assert outcome_of_value(job(), {"a": 1}) == Done(encode_outputs({"a": 1}))


def test_a_bad_value_is_failed_without_a_traceback() -> None:
    assert outcome_of_value(job(), None) == Failed(
        "OutputError: predict returned None; it must return a dict (did you forget `return`?)"
    )


def test_a_result_counts_when_the_model_did_not_notice_the_cancel() -> None:
    assert isinstance(outcome_of_value(job(requested=True), {}), Done)


def test_what_comes_after_a_noticed_cancel_is_canceled() -> None:
    seen = job(requested=True, seen=True)
    assert outcome_of_value(seen, {"partial": 1}) == Canceled()
    assert outcome_of_exception(seen, raised(RuntimeError("unwound"))) == Canceled()


def test_a_cancelled_error_is_canceled_only_when_asked_for() -> None:
    assert outcome_of_exception(job(requested=True), raised(asyncio.CancelledError())) == Canceled()
    assert isinstance(outcome_of_exception(job(), raised(asyncio.CancelledError())), Failed)


def test_system_exit_ends_the_process() -> None:
    assert outcome_of_exception(job(), SystemExit(3)) == Exited(3)
    assert outcome_of_exception(job(), SystemExit()) == Exited(0)
    assert outcome_of_exception(job(), SystemExit("text")) == Exited(1)


def test_long_errors_are_cut() -> None:
    failed = failure(raised(ValueError("x" * 100_000)))
    assert failed.error.startswith("ValueError: xxx")
    assert len(failed.error) == 2_000
    assert failed.traceback is not None
    assert len(failed.traceback) == 3_000


def test_our_own_errors_come_without_a_traceback() -> None:
    assert failure(raised(InputError("input 'a': gone"))) == Failed("InputError: input 'a': gone")


def test_an_error_without_text_is_named() -> None:
    assert failure(raised(ZeroDivisionError())).error == "ZeroDivisionError"
