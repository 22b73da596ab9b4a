"""Who uses the platform: organizations, projects, keys, and the record of what they changed."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, String, Table, Text, UniqueConstraint

from machineshop.store.tables.base import Timestamp, metadata

organizations = Table(
    "organizations",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("slug", String, nullable=False, unique=True),
    Column("created_at", Timestamp, nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("id", String, primary_key=True),
    Column("organization_id", String, ForeignKey("organizations.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("slug", String, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    # The row stays, as the record of changes names it.
    Column("deleted_at", Timestamp),
    UniqueConstraint("organization_id", "slug"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("project_id", String, ForeignKey("projects.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("prefix", String, nullable=False),
    Column("hash", String, nullable=False, unique=True),
    Column("scope", String, nullable=False),
    Column("deployment_id", String),
    Column("replica_id", String),
    Column("created_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp),
    Column("last_used_at", Timestamp),
    Column("revoked_at", Timestamp),
    CheckConstraint("scope IN ('admin', 'developer', 'viewer', 'worker')", name="scope"),
    CheckConstraint("(scope = 'worker') = (deployment_id IS NOT NULL)", name="worker_has_deployment"),
)
Index("ix_api_keys_project_id", api_keys.c.project_id)
Index("ix_api_keys_replica_id", api_keys.c.replica_id)

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", String, primary_key=True),
    Column("at", Timestamp, nullable=False),
    Column("organization_id", String, ForeignKey("organizations.id"), nullable=False),
    Column("project_id", String, ForeignKey("projects.id"), nullable=False),
    Column("actor_name", String, nullable=False),
    Column("actor_key_id", String),
    Column("address", String, nullable=False),
    Column("action", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("before", Text),
    Column("after", Text),
)
Index("ix_audit_events_organization_id_id", audit_events.c.organization_id, audit_events.c.id)
Index("ix_audit_events_at", audit_events.c.at)
