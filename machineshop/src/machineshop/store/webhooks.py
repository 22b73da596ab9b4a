"""The outbox of webhooks: what is to be told about ended jobs, written in the transaction that ends them."""

from sqlalchemy import Connection

from machineshop.store.statement import Statement


def enqueue(conn: Connection, project_id: str, job_id: str, attempt: int, url: str, now: float) -> None:
    """Have it told that a job has ended; once for each attempt, however often this is called."""
    _ENQUEUE.run(conn, {"project_id": project_id, "job_id": job_id, "attempt": attempt, "url": url, "now": now})


_ENQUEUE = Statement(
    "INSERT INTO webhooks (job_id, attempt, project_id, url, tries, next_try_at, created_at) "
    "VALUES (:job_id, :attempt, :project_id, :url, 0, :now, :now) ON CONFLICT (job_id, attempt) DO NOTHING"
)
