"""What `jig audit` says of an event."""

from jig.commands.audit import CHANGE_SHOWN_CHARACTERS, change, row

EVENT = {
    "id": "e1",
    "at": "2026-01-02T03:04:05.678901Z",
    "actor": {"name": "ci", "key_id": "k1"},
    "address": "192.0.2.1",
    "action": "deployment.update",
    "subject": "hello",
    "before": {"cpu": 1.0},
    "after": {"cpu": 2.0},
}


def test_an_event_is_a_line() -> None:
    assert row(EVENT) == ("2026-01-02 03:04:05", "ci", "192.0.2.1", "deployment.update", "hello", "cpu: 1.0 -> 2.0")


def test_what_is_new_or_gone_has_no_difference() -> None:
    assert change({**EVENT, "before": None}) == change({**EVENT, "after": None}) == ""


def test_a_long_difference_is_cut() -> None:
    assert len(change({**EVENT, "after": {"args": ["x"] * 1000}})) == CHANGE_SHOWN_CHARACTERS
