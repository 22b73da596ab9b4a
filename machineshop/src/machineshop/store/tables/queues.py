"""The queue: its counts and lines, its jobs, and what their attempts and endings leave."""

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Index, Integer, String, Table, Text, text

from machineshop.states import TERMINAL_STATES, JobState
from machineshop.store.tables.base import Sequence, Timestamp, metadata, one_of

# One row for each deployment: its queue's counts and settings.
queues = Table(
    "queues",
    metadata,
    Column("deployment_id", String, ForeignKey("deployments.id"), primary_key=True),
    Column("pending", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    # Counts every change of a job; the number goes to the job, so that those who follow know what is new.
    Column("changes", BigInteger, nullable=False),
    # How long a job runs, by the last ones.
    Column("mean_seconds", Timestamp),
    Column("max_pending", Integer, nullable=False),
    Column("max_running_per_key", Integer),
    Column("keep_seconds", Integer, nullable=False),
    Column("keep_count", Integer, nullable=False),
    CheckConstraint("pending >= 0 AND running >= 0", name="counts"),
)

# What a fair key is entitled to, where somebody has said so.
fair_keys = Table(
    "fair_keys",
    metadata,
    Column("deployment_id", String, ForeignKey("deployments.id"), primary_key=True),
    Column("fair_key", String, primary_key=True),
    Column("weight", Timestamp, nullable=False),
    Column("max_running", Integer),
    CheckConstraint("weight > 0", name="weight"),
)

# A line is the jobs of one fair key and priority: claims choose a line first, then the line's oldest job.
lines = Table(
    "lines",
    metadata,
    Column("deployment_id", String, ForeignKey("deployments.id"), primary_key=True),
    Column("fair_key", String, primary_key=True),
    Column("priority", Integer, primary_key=True),
    Column("weight", Timestamp, nullable=False),
    Column("max_running", Integer),
    Column("pending", Integer, nullable=False),
    Column("running", Integer, nullable=False),
    # Seconds that its jobs have run, divided by its weight: the line that has had the least goes first.
    Column("virtual_time", Timestamp, nullable=False),
    # The virtual time at which its last job began; empty where none has begun since the line began to wait.
    Column("start_tag", Timestamp),
    Column("mean_seconds", Timestamp),
    # 1: it has a job that may be claimed now.
    Column("ready", Integer, nullable=False),
    # Which of two lines with the same virtual time began to wait first.
    Column("since", BigInteger, nullable=False),
    CheckConstraint("pending >= 0 AND running >= 0", name="counts"),
    CheckConstraint("ready = 0 OR pending > 0", name="ready_has_jobs"),
    sqlite_with_rowid=False,
)
_ready = text("ready = 1")
Index(
    "ix_lines_ready",
    lines.c.deployment_id,
    lines.c.priority.desc(),
    lines.c.virtual_time,
    lines.c.since,
    sqlite_where=_ready,
    postgresql_where=_ready,
)
Index("ix_lines_virtual_time", lines.c.deployment_id, lines.c.priority, lines.c.virtual_time)

jobs = Table(
    "jobs",
    metadata,
    # The order of submission, and what the queue's index ends with.
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("project_id", String, ForeignKey("projects.id"), nullable=False),
    Column("deployment_id", String, nullable=False),
    Column("model", String, nullable=False),
    Column("state", String, nullable=False),
    Column("priority", Integer, nullable=False),
    # Empty: nobody's in particular.
    Column("fair_key", String, nullable=False),
    Column("payload", Text, nullable=False),
    Column("outputs", Text),
    Column("info", Text, nullable=False),
    Column("retries", Integer, nullable=False),
    # How often a worker handed it back.
    Column("releases", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("attempt_token", String),
    # Who has it, or had it last.
    Column("replica_id", String),
    Column("hostname", String),
    Column("claim_timeout_seconds", Integer),
    Column("claim_expires_at", Timestamp),
    # What its line was charged for the current attempt so far.
    Column("charged_seconds", Timestamp, nullable=False),
    # 1: the current attempt has uploaded files, which nobody sees yet.
    Column("has_files", Integer, nullable=False),
    # When the model last made itself heard, as its worker says.
    Column("progress_at", Timestamp),
    Column("cancel_requested", Integer, nullable=False),
    Column("cancel_due_at", Timestamp),
    Column("deadline_at", Timestamp),
    Column("idempotency_key", String),
    Column("webhook_url", Text),
    Column("resubmit_of", String),
    Column("change", BigInteger, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("claimed_at", Timestamp),
    Column("done_at", Timestamp),
    CheckConstraint(one_of("state", list(JobState)), name="state"),
    CheckConstraint("(state = 'running') = (attempt_token IS NOT NULL)", name="running_has_attempt"),
    CheckConstraint("(state = 'running') = (claim_expires_at IS NOT NULL)", name="running_has_claim"),
    CheckConstraint(f"({one_of('state', sorted(TERMINAL_STATES))}) = (done_at IS NOT NULL)", name="terminal_has_end"),
    CheckConstraint("state <> 'done' OR outputs IS NOT NULL", name="done_has_outputs"),
)
_pending, _running = text("state = 'pending'"), text("state = 'running'")
Index(
    "ix_jobs_pending",
    jobs.c.deployment_id,
    jobs.c.priority,
    jobs.c.fair_key,
    jobs.c.sequence,
    sqlite_where=_pending,
    postgresql_where=_pending,
)
# Few jobs run at a time, so this one serves every look at the running ones, and a claim writes a page less. It holds
# all that a look at when they began needs: behind a long payload the rest of a row is far away.
Index(
    "ix_jobs_running",
    jobs.c.deployment_id,
    jobs.c.claim_expires_at,
    jobs.c.claimed_at,
    jobs.c.fair_key,
    sqlite_where=_running,
    postgresql_where=_running,
)
# What lists and followers read along.
Index("ix_jobs_deployment_id_sequence", jobs.c.deployment_id, jobs.c.sequence)
Index("ix_jobs_deployment_id_change", jobs.c.deployment_id, jobs.c.change)
_ended, _unsuccessful = text("done_at IS NOT NULL"), text("state = 'failed' OR state = 'canceled'")
# With all that tells how long jobs take, for the same reason.
Index(
    "ix_jobs_ended",
    jobs.c.deployment_id,
    jobs.c.done_at,
    jobs.c.state,
    jobs.c.claimed_at,
    sqlite_where=_ended,
    postgresql_where=_ended,
)
Index(
    "ix_jobs_unsuccessful",
    jobs.c.deployment_id,
    jobs.c.sequence,
    sqlite_where=_unsuccessful,
    postgresql_where=_unsuccessful,
)
_due = text("deadline_at IS NOT NULL AND done_at IS NULL")
Index("ix_jobs_deadline", jobs.c.deadline_at, sqlite_where=_due, postgresql_where=_due)
_idempotent = text("idempotency_key IS NOT NULL")
Index(
    "uq_jobs_deployment_id_idempotency_key",
    jobs.c.deployment_id,
    jobs.c.idempotency_key,
    unique=True,
    sqlite_where=_idempotent,
    postgresql_where=_idempotent,
)

# The attempts that are over; the one that runs is in its job's row.
attempts = Table(
    "attempts",
    metadata,
    Column("job_id", String, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("replica_id", String),
    Column("hostname", String, nullable=False),
    Column("claimed_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp, nullable=False),
    # The verb that ended it.
    Column("outcome", String, nullable=False),
    # One tree of pages instead of two: every end of an attempt writes here.
    sqlite_with_rowid=False,
)

# What streaming models have given of their outputs, in batches; it counts only while the attempt runs.
chunks = Table(
    "chunks",
    metadata,
    Column("job_id", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    # The number of its first one in the attempt, from 0 on.
    Column("first", Integer, primary_key=True),
    # A JSON array of them.
    Column("content", Text, nullable=False),
    # Of the attempt up to here.
    Column("total_bytes", Integer, nullable=False),
    sqlite_with_rowid=False,
)
