"""A deployment's jobs as the platform lists them, page by page, and its answers about several at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jig.client import Client

PAGE_JOBS = 1000  # the most that the platform gives at a time
NO_VALUES = "none"  # leaves inputs and outputs out


@dataclass(frozen=True)
class JobPage:
    """Some jobs, newest first.

    Args:
        jobs: as the platform tells them.
        next_cursor: where the next page begins; None at the end.
    """

    jobs: list[dict[str, Any]]
    next_cursor: str | None


def job_pages(client: Client, params: dict[str, object], limit: int | None) -> Iterator[JobPage]:
    """Pages of a deployment's jobs, newest first.

    Args:
        client: the platform.
        params: `model`, and what the jobs should have in common.
        limit: how many jobs at most; None for all.
    """
    cursor: str | None = None
    while limit is None or limit > 0:
        wanted = PAGE_JOBS if limit is None else min(limit, PAGE_JOBS)
        answer = client.get("/v1/queue/jobs", **params, limit=wanted, cursor=cursor)
        page = JobPage(list(answer["data"]), answer.get("next_cursor"))
        yield page
        cursor = page.next_cursor
        if cursor is None:
            return
        limit = None if limit is None else limit - len(page.jobs)


def all_jobs(client: Client, **params: object) -> Iterator[dict[str, Any]]:
    """All of a deployment's jobs that fit, newest first, without what went in and came out."""
    for page in job_pages(client, {**params, "include": NO_VALUES}, None):
        yield from page.jobs


def failed_once(client: Client, name: str) -> list[str]:
    """The IDs of a deployment's failed jobs that nobody has submitted again, oldest first."""
    failed = list(all_jobs(client, model=name, status="failed"))
    if not failed:
        return []
    # A job that repeats another is newer than that one.
    since = failed[-1]["created_at"]
    others = all_jobs(client, model=name, status="pending,running,done,canceled", created_after=since)
    repeated = {job.get("resubmit_of") for job in (*failed, *others)}
    return [str(job["request_id"]) for job in reversed(failed) if job["request_id"] not in repeated]


def in_portions(items: list[str], size: int = PAGE_JOBS) -> Iterator[list[str]]:
    """The items in portions that one call takes."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
