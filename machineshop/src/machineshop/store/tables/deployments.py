"""What runs: deployments, their revisions and secrets, and how many replicas there should be."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from machineshop.store.tables.base import Timestamp, metadata

deployments = Table(
    "deployments",
    metadata,
    Column("id", String, primary_key=True),
    Column("project_id", String, ForeignKey("projects.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("config", Text, nullable=False),
    Column("revision_id", String, nullable=False),
    Column("revision_number", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("deleted_at", Timestamp),
    # What the autoscaler has decided last; empty before its first decision.
    Column("desired_replicas", Integer),
)
Index(
    "uq_deployments_project_id_name",
    deployments.c.project_id,
    deployments.c.name,
    unique=True,
    sqlite_where=text("deleted_at IS NULL"),
    postgresql_where=text("deleted_at IS NULL"),
)

# Values for replicas, sealed: which of the server's keys did it, and what came out.
secrets = Table(
    "secrets",
    metadata,
    Column("id", String, primary_key=True),
    Column("project_id", String, ForeignKey("projects.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("description", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("nonce", LargeBinary, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("ttl_seconds", Integer),
    Column("expires_at", Timestamp),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    # The ids of API keys.
    Column("created_by", String, nullable=False),
    Column("last_updated_by", String, nullable=False),
    UniqueConstraint("project_id", "name"),
    CheckConstraint("(ttl_seconds IS NULL) = (expires_at IS NULL)", name="ttl_has_end"),
)

revisions = Table(
    "revisions",
    metadata,
    Column("id", String, primary_key=True),
    Column("deployment_id", String, ForeignKey("deployments.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("config", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("ready_at", Timestamp),
    # Why it did not get ready, as JSON.
    Column("failure", Text),
    UniqueConstraint("deployment_id", "number"),
)

revision_events = Table(
    "revision_events",
    metadata,
    Column("deployment_id", String, ForeignKey("deployments.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    # Events are kept longer than the revisions they are of.
    Column("revision_id", String, nullable=False),
    Column("revision_number", Integer, nullable=False),
    Column("image", Text, nullable=False),
    Column("action", String, nullable=False),
    Column("activated_at", Timestamp, nullable=False),
    CheckConstraint("action IN ('create', 'update', 'system', 'rollback')", name="action"),
)

# How many replicas there should be from when on, and why; the newest of each deployment are kept.
scaling_decisions = Table(
    "scaling_decisions",
    metadata,
    Column("deployment_id", String, ForeignKey("deployments.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("at", Timestamp, nullable=False),
    Column("before", Integer, nullable=False),
    Column("replicas", Integer, nullable=False),
    Column("reason", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("wanted", Integer),
    Column("inputs", Text, nullable=False),
)
