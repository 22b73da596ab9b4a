"""What `jig revisions` and `jig rollback` make of a deployment's history."""

from datetime import UTC, datetime

from jig.revisions import diff_text, events_text, last_that_worked

NOW = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
FAILURE = {"reason": "CrashLoopBackOff", "message": "It exited."}


def event(number: int, *, ready: bool = False, failed: bool = False) -> dict[str, object]:
    at = "2026-01-01T00:00:00Z"
    return {
        "revision_number": number,
        "revision_id": f"rev-{number}",
        "action": "deploy",
        "activated_at": at,
        "ready_at": at if ready else None,
        "failure": FAILURE if failed else None,
    }


def test_the_way_back_leads_to_what_worked() -> None:
    assert last_that_worked([event(8, failed=True), event(7, ready=True), event(6, ready=True)]) == "rev-7"


def test_where_nothing_worked_the_way_leads_to_what_did_not_fail() -> None:
    assert last_that_worked([event(3, failed=True), event(2), event(1, failed=True)]) == "rev-2"
    assert last_that_worked([event(1, failed=True)]) is None


def test_the_revision_that_serves_is_marked_beside_the_one_that_is_to_run() -> None:
    events = [event(4, failed=True), event(8, failed=True), event(7, ready=True), event(7, ready=True)]
    lines = events_text(events, "rev-4", {"rev-7"}, NOW).splitlines()
    assert ["4 (rev-4) *" in line for line in lines] == [False, True, False, False, False]
    assert lines[2].startswith("8 (rev-8) ")
    assert ["worked, serves" in line for line in lines] == [False, False, False, True, False]


def test_a_difference_names_the_two_and_is_written_as_json() -> None:
    old = {"revision_number": 1, "revision_id": "an-id-of-old-one1", "rollback_on_failure": False, "cpu": 1.0}
    new = {
        "revision_number": 2,
        "revision_id": "an-id-of-new-one2",
        "rollback_on_failure": True,
        "cpu": 1.0,
        "volumes": [{"name": "words"}],
    }
    assert diff_text(old, new).splitlines() == [
        "--- revision 1 (old-one1)",
        "+++ revision 2 (new-one2)",
        "- rollback_on_failure: false",
        "+ rollback_on_failure: true",
        '+ volumes: [{"name": "words"}]',
    ]
    assert diff_text(old, old) == ""
