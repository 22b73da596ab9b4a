"""The tables. The migrations build them; a test holds the two together."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from machineshop.states import TERMINAL_STATES, JobState

# SQLite numbers only a column of type INTEGER by itself.
Sequence = BigInteger().with_variant(Integer, "sqlite")
Timestamp = Float(53)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _one_of(column: str, states: "list[JobState]") -> str:
    return f"{column} IN ({', '.join(repr(str(state)) for state in states)})"


settings = Table(
    "settings",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", Text, nullable=False),
)

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
    Column("revoked_at", Timestamp),
    CheckConstraint("scope IN ('admin', 'project', 'worker')", name="scope"),
    CheckConstraint("(scope = 'worker') = (deployment_id IS NOT NULL)", name="worker_has_deployment"),
)
Index("ix_api_keys_project_id", api_keys.c.project_id)
Index("ix_api_keys_replica_id", api_keys.c.replica_id)

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
)
Index(
    "uq_deployments_project_id_name",
    deployments.c.project_id,
    deployments.c.name,
    unique=True,
    sqlite_where=text("deleted_at IS NULL"),
    postgresql_where=text("deleted_at IS NULL"),
)

revisions = Table(
    "revisions",
    metadata,
    Column("id", String, primary_key=True),
    Column("deployment_id", String, ForeignKey("deployments.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("config", Text, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    UniqueConstraint("deployment_id", "number"),
)

revision_events = Table(
    "revision_events",
    metadata,
    Column("deployment_id", String, ForeignKey("deployments.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("revision_id", String, ForeignKey("revisions.id"), nullable=False),
    Column("action", String, nullable=False),
    Column("activated_at", Timestamp, nullable=False),
    CheckConstraint("action IN ('create', 'update', 'system', 'rollback')", name="action"),
)

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
    Column("payload", Text, nullable=False),
    Column("outputs", Text),
    Column("info", Text, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("attempt_token", String),
    Column("replica_id", String),
    Column("hostname", String),
    Column("claim_timeout_seconds", Integer),
    Column("claim_expires_at", Timestamp),
    # When the model last made itself heard, as its worker says.
    Column("progress_at", Timestamp),
    Column("cancel_requested", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("claimed_at", Timestamp),
    Column("done_at", Timestamp),
    CheckConstraint(_one_of("state", list(JobState)), name="state"),
    CheckConstraint("(state = 'running') = (attempt_token IS NOT NULL)", name="running_has_attempt"),
    CheckConstraint("(state = 'running') = (claim_expires_at IS NOT NULL)", name="running_has_claim"),
    CheckConstraint(f"({_one_of('state', sorted(TERMINAL_STATES))}) = (done_at IS NOT NULL)", name="terminal_has_end"),
    CheckConstraint("state <> 'done' OR outputs IS NOT NULL", name="done_has_outputs"),
)
_pending, _running = text("state = 'pending'"), text("state = 'running'")
Index(
    "ix_jobs_pending",
    jobs.c.deployment_id,
    jobs.c.priority.desc(),
    jobs.c.sequence,
    sqlite_where=_pending,
    postgresql_where=_pending,
)
# Few jobs run at a time, so this one serves every look at the running ones, and a claim writes a page less.
Index("ix_jobs_running", jobs.c.claim_expires_at, sqlite_where=_running, postgresql_where=_running)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", String, ForeignKey("jobs.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("replica_id", String),
    Column("hostname", String, nullable=False),
    Column("claimed_at", Timestamp, nullable=False),
    Column("ended_at", Timestamp),
    # The verb that ended it; empty while it runs.
    Column("outcome", String),
    CheckConstraint("(ended_at IS NULL) = (outcome IS NULL)", name="ended_has_outcome"),
    # One tree of pages instead of two: every claim and every end of an attempt writes here.
    sqlite_with_rowid=False,
)

files = Table(
    "files",
    metadata,
    Column("project_id", String, ForeignKey("projects.id"), primary_key=True),
    Column("name", String, primary_key=True),
    # Where the bytes lie among the blobs: a new upload gets a new key, so a reader never sees a mixture.
    Column("blob_key", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("etag", String, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)

repositories = Table(
    "repositories",
    metadata,
    Column("id", String, primary_key=True),
    Column("organization_id", String, ForeignKey("organizations.id"), nullable=False),
    # Without the organization's namespace.
    Column("name", String, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    UniqueConstraint("organization_id", "name"),
)

manifests = Table(
    "manifests",
    metadata,
    Column("repository_id", String, ForeignKey("repositories.id"), primary_key=True),
    Column("digest", String, primary_key=True),
    Column("media_type", String, nullable=False),
    Column("content", LargeBinary, nullable=False),
    # The digest of the manifest that this one says something about (a signature, an SBOM): what referrers are found by.
    Column("subject", String),
    Column("created_at", Timestamp, nullable=False),
)
Index("ix_manifests_repository_id_subject", manifests.c.repository_id, manifests.c.subject)

tags = Table(
    "tags",
    metadata,
    Column("repository_id", String, ForeignKey("repositories.id"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
)

# Which repository may serve which blob: bytes are shared between organizations, the right to read them is not.
repository_blobs = Table(
    "repository_blobs",
    metadata,
    Column("repository_id", String, ForeignKey("repositories.id"), primary_key=True),
    Column("digest", String, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)
