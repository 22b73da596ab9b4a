"""Who is told of a job's end, and what that is signed with."""

from sqlalchemy import Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text, text

from machineshop.store.tables.base import Timestamp, metadata

# What is still to be told to somebody about an ended job, and what has been told.
webhooks = Table(
    "webhooks",
    metadata,
    Column("job_id", String, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    # The job's last attempt; 0 where it never had one.
    Column("attempt", Integer, primary_key=True),
    Column("project_id", String, ForeignKey("projects.id"), nullable=False),
    Column("url", Text, nullable=False),
    # The URL's host: one that is slow must not hold up the others.
    Column("host", String, nullable=False),
    # How often it was sent; counted before each try, so that no try ever happens twice.
    Column("tries", Integer, nullable=False),
    # When it is sent next; empty once it was taken, or given up.
    Column("next_try_at", Timestamp),
    Column("delivered_at", Timestamp),
    Column("error", Text),
    Column("created_at", Timestamp, nullable=False),
    sqlite_with_rowid=False,
)
_undelivered = text("next_try_at IS NOT NULL")
Index(
    "ix_webhooks_due",
    webhooks.c.next_try_at,
    webhooks.c.host,
    sqlite_where=_undelivered,
    postgresql_where=_undelivered,
)

# What a project's webhooks are signed with, sealed.
webhook_signing = Table(
    "webhook_signing",
    metadata,
    Column("project_id", String, ForeignKey("projects.id"), primary_key=True),
    Column("key_id", String, nullable=False),
    Column("nonce", LargeBinary, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)

# The same in the clear, of an earlier build: the first start seals it, and leaves nothing here.
webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("project_id", String, ForeignKey("projects.id"), primary_key=True),
    Column("secret", String, nullable=False),
    Column("previous", String),
    Column("previous_until", Timestamp),
    Column("created_at", Timestamp, nullable=False),
)
