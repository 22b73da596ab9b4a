"""The queue grows: fair keys, counts, deadlines, webhooks, files of attempts, leases.

Jobs that wait or run are counted into their queue and line; an attempt that runs lives in its job's row alone now.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("base_url", sa.String(), nullable=False),
        sa.Column("expires_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "attempt_files",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("blob_key", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("etag", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_attempt_files_project_id")),
        sa.PrimaryKeyConstraint("job_id", "attempt", "name", name=op.f("pk_attempt_files")),
    )
    op.create_table(
        "fair_keys",
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("fair_key", sa.String(), nullable=False),
        sa.Column("weight", sa.Float(precision=53), nullable=False),
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.CheckConstraint("weight > 0", name=op.f("ck_fair_keys_weight")),
        sa.ForeignKeyConstraint(["deployment_id"], ["deployments.id"], name=op.f("fk_fair_keys_deployment_id")),
        sa.PrimaryKeyConstraint("deployment_id", "fair_key", name=op.f("pk_fair_keys")),
    )
    op.create_table(
        "lines",
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("fair_key", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("weight", sa.Float(precision=53), nullable=False),
        sa.Column("max_running", sa.Integer(), nullable=True),
        sa.Column("pending", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("virtual_time", sa.Float(precision=53), nullable=False),
        sa.Column("start_tag", sa.Float(precision=53), nullable=True),
        sa.Column("mean_seconds", sa.Float(precision=53), nullable=True),
        sa.Column("ready", sa.Integer(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("pending >= 0 AND running >= 0", name=op.f("ck_lines_counts")),
        sa.CheckConstraint("ready = 0 OR pending > 0", name=op.f("ck_lines_ready_has_jobs")),
        sa.ForeignKeyConstraint(["deployment_id"], ["deployments.id"], name=op.f("fk_lines_deployment_id")),
        sa.PrimaryKeyConstraint("deployment_id", "fair_key", "priority", name=op.f("pk_lines")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("lines", schema=None) as batch_op:
        batch_op.create_index(
            "ix_lines_ready",
            ["deployment_id", sa.literal_column("priority DESC"), "virtual_time", "since"],
            unique=False,
            sqlite_where=sa.text("ready = 1"),
            postgresql_where=sa.text("ready = 1"),
        )
        batch_op.create_index("ix_lines_virtual_time", ["deployment_id", "priority", "virtual_time"], unique=False)

    op.create_table(
        "queues",
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("pending", sa.Integer(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.Column("mean_seconds", sa.Float(precision=53), nullable=True),
        sa.Column("max_pending", sa.Integer(), nullable=False),
        sa.Column("max_running_per_key", sa.Integer(), nullable=True),
        sa.Column("keep_seconds", sa.Integer(), nullable=False),
        sa.Column("keep_count", sa.Integer(), nullable=False),
        sa.CheckConstraint("pending >= 0 AND running >= 0", name=op.f("ck_queues_counts")),
        sa.ForeignKeyConstraint(["deployment_id"], ["deployments.id"], name=op.f("fk_queues_deployment_id")),
        sa.PrimaryKeyConstraint("deployment_id", name=op.f("pk_queues")),
    )
    with op.batch_alter_table("files", schema=None) as batch_op:
        batch_op.add_column(sa.Column("job_id", sa.String(), nullable=True))
        batch_op.create_index("ix_files_job_id", ["job_id"], unique=False)
        batch_op.create_index("ix_files_blob_key", ["blob_key"], unique=False)

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("fair_key", sa.String(), nullable=False, server_default=sa.text("''")))
        batch_op.add_column(sa.Column("releases", sa.Integer(), nullable=False, server_default=sa.text("0")))
        batch_op.add_column(
            sa.Column("charged_seconds", sa.Float(precision=53), nullable=False, server_default=sa.text("0"))
        )
        batch_op.add_column(sa.Column("has_files", sa.Integer(), nullable=False, server_default=sa.text("0")))
        batch_op.add_column(sa.Column("cancel_due_at", sa.Float(precision=53), nullable=True))
        batch_op.add_column(sa.Column("deadline_at", sa.Float(precision=53), nullable=True))
        batch_op.add_column(sa.Column("idempotency_key", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("webhook_url", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("resubmit_of", sa.String(), nullable=True))
        batch_op.add_column(sa.Column("change", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
        batch_op.drop_index(batch_op.f("ix_jobs_pending"), sqlite_where=sa.text("state = 'pending'"))
        batch_op.create_index(
            "ix_jobs_pending",
            ["deployment_id", "priority", "fair_key", "sequence"],
            unique=False,
            sqlite_where=sa.text("state = 'pending'"),
            postgresql_where=sa.text("state = 'pending'"),
        )
        batch_op.drop_index(batch_op.f("ix_jobs_running"), sqlite_where=sa.text("state = 'running'"))
        batch_op.create_index(
            "ix_jobs_running",
            ["deployment_id", "claim_expires_at", "claimed_at", "fair_key"],
            unique=False,
            sqlite_where=sa.text("state = 'running'"),
            postgresql_where=sa.text("state = 'running'"),
        )
        batch_op.create_index(
            "ix_jobs_deadline",
            ["deadline_at"],
            unique=False,
            sqlite_where=sa.text("deadline_at IS NOT NULL AND done_at IS NULL"),
            postgresql_where=sa.text("deadline_at IS NOT NULL AND done_at IS NULL"),
        )
        batch_op.create_index("ix_jobs_deployment_id_change", ["deployment_id", "change"], unique=False)
        batch_op.create_index("ix_jobs_deployment_id_sequence", ["deployment_id", "sequence"], unique=False)
        batch_op.create_index(
            "ix_jobs_ended",
            ["deployment_id", "done_at", "state", "claimed_at"],
            unique=False,
            sqlite_where=sa.text("done_at IS NOT NULL"),
            postgresql_where=sa.text("done_at IS NOT NULL"),
        )
        batch_op.create_index(
            "ix_jobs_unsuccessful",
            ["deployment_id", "sequence"],
            unique=False,
            sqlite_where=sa.text("state = 'failed' OR state = 'canceled'"),
            postgresql_where=sa.text("state = 'failed' OR state = 'canceled'"),
        )
        batch_op.create_index(
            "uq_jobs_deployment_id_idempotency_key",
            ["deployment_id", "idempotency_key"],
            unique=True,
            sqlite_where=sa.text("idempotency_key IS NOT NULL"),
            postgresql_where=sa.text("idempotency_key IS NOT NULL"),
        )

    _replace_attempts()
    op.create_table(
        "webhooks",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.Float(precision=53), nullable=True),
        sa.Column("delivered_at", sa.Float(precision=53), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_webhooks_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_webhooks_project_id")),
        sa.PrimaryKeyConstraint("job_id", "attempt", name=op.f("pk_webhooks")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("webhooks", schema=None) as batch_op:
        batch_op.create_index(
            "ix_webhooks_due",
            ["next_try_at", "host"],
            unique=False,
            sqlite_where=sa.text("next_try_at IS NOT NULL"),
            postgresql_where=sa.text("next_try_at IS NOT NULL"),
        )
    op.create_table(
        "webhook_secrets",
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("previous", sa.String(), nullable=True),
        sa.Column("previous_until", sa.Float(precision=53), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_webhook_secrets_project_id")),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_webhook_secrets")),
    )

    _count()


def _replace_attempts() -> None:
    op.execute(
        "CREATE TABLE attempts_before AS SELECT job_id, number, replica_id, hostname, claimed_at, ended_at, outcome "
        "FROM attempts WHERE outcome IS NOT NULL"
    )
    op.drop_table("attempts")
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("replica_id", sa.String(), nullable=True),
        sa.Column("hostname", sa.String(), nullable=False),
        sa.Column("claimed_at", sa.Float(precision=53), nullable=False),
        sa.Column("ended_at", sa.Float(precision=53), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_attempts")),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO attempts SELECT * FROM attempts_before")
    op.drop_table("attempts_before")


def _count() -> None:
    op.execute(
        "INSERT INTO queues (deployment_id, pending, running, changes, max_pending, max_running_per_key, "
        "keep_seconds, keep_count) SELECT id, "
        "(SELECT count(*) FROM jobs WHERE deployment_id = deployments.id AND state = 'pending'), "
        "(SELECT count(*) FROM jobs WHERE deployment_id = deployments.id AND state = 'running'), "
        "0, 1000000, NULL, 604800, 100000 FROM deployments"
    )
    op.execute(
        "INSERT INTO lines (deployment_id, fair_key, priority, weight, pending, running, virtual_time, ready, since) "
        "SELECT deployment_id, '', priority, 1, sum(CASE WHEN state = 'pending' THEN 1 ELSE 0 END), "
        "sum(CASE WHEN state = 'running' THEN 1 ELSE 0 END), 0, max(CASE WHEN state = 'pending' THEN 1 ELSE 0 END), 0 "
        "FROM jobs WHERE state IN ('pending', 'running') GROUP BY deployment_id, priority"
    )


def downgrade() -> None:
    """There is no way back: what the new columns hold would be lost.

    Raises:
        NotImplementedError: Always.
    """
    raise NotImplementedError("the schema 0002 cannot be taken back; restore a backup of the database")
