from __future__ import annotations

import asyncio
import logging

import pytest

from sprocket import journal as journal_module
from sprocket.job import Job
from sprocket.journal import LINES_PER_SPAN, Journal


async def test_few_jobs_get_a_line_each_and_many_are_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "sprocket")
    journal = Journal()
    for n in range(LINES_PER_SPAN + 5):
        journal.note(Job(str(n), {}), "failed" if n % 2 else "done", 0.5, 1)
    assert len(caplog.messages) == LINES_PER_SPAN
    assert caplog.messages[0] == "done after 0.500 s (attempt 1)"
    assert caplog.records[3].job_id == "3"  # type: ignore[attr-defined]
    journal.sum_up()
    journal.sum_up()
    assert caplog.messages[LINES_PER_SPAN:] == ["and 5 more jobs within a second: 3 done, 2 failed"]


async def test_the_sum_comes_by_itself_and_lines_go_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "sprocket")
    monkeypatch.setattr(journal_module, "SPAN_SECONDS", 0.3)
    monkeypatch.setattr(journal_module, "LINES_PER_SPAN", 1)
    journal = Journal()
    for name in "ab":
        journal.note(Job(name, {}), "done", 0.5, 1)
    async with asyncio.timeout(60):
        while len(caplog.messages) < 2:
            await asyncio.sleep(0.005)
    journal.note(Job("c", {}), "done", 0.25, 2)
    assert caplog.messages[1:] == ["and 1 more jobs within a second: 1 done", "done after 0.250 s (attempt 2)"]
