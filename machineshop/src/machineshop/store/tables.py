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

# Files that an attempt has uploaded: they move to `files` in the transaction that stores its result.
attempt_files = Table(
    "attempt_files",
    metadata,
    Column("job_id", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("name", String, primary_key=True),
    Column("project_id", String, ForeignKey("projects.id"), nullable=False),
    Column("blob_key", String, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("etag", String, nullable=False),
    Column("created_at", Timestamp, nullable=False),
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

# Which server runs the control loops: it renews its lease, and another takes it over once it has run out.
leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    # Where the holder is reached.
    Column("base_url", String, nullable=False),
    Column("expires_at", Timestamp, nullable=False),
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
    # The job whose output it is; it goes when the job goes.
    Column("job_id", String),
    # The SHA-256 of its bytes in hex digits, where that is known.
    Column("digest", String),
    # The volume and the version that it is a file of. The version may be the next one, of which there is no row yet.
    Column("volume_id", String),
    Column("volume_version", Integer),
    # Its bytes were not in the storage when they were to be hashed: when they are looked for again.
    Column("hash_again_at", Timestamp),
)
Index("ix_files_job_id", files.c.job_id)
# Whether a blob is anybody's: files with the same bytes may share one.
Index("ix_files_blob_key", files.c.blob_key)
_of_volume = text("volume_id IS NOT NULL")
_unhashed = text("volume_id IS NOT NULL AND digest IS NULL")
Index(
    "ix_files_volume",
    files.c.volume_id,
    files.c.volume_version,
    files.c.name,
    sqlite_where=_of_volume,
    postgresql_where=_of_volume,
)
# Which file of a volume has these bytes already.
Index(
    "ix_files_volume_digest",
    files.c.volume_id,
    files.c.digest,
    sqlite_where=_of_volume,
    postgresql_where=_of_volume,
)
Index(
    "ix_files_unhashed",
    files.c.hash_again_at,
    files.c.created_at,
    sqlite_where=_unhashed,
    postgresql_where=_unhashed,
)
_without_bytes = text("hash_again_at IS NOT NULL")
Index("ix_files_without_bytes", files.c.project_id, sqlite_where=_without_bytes, postgresql_where=_without_bytes)

volumes = Table(
    "volumes",
    metadata,
    Column("id", String, primary_key=True),
    Column("project_id", String, ForeignKey("projects.id"), nullable=False),
    Column("name", String, nullable=False),
    Column("current_version", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    UniqueConstraint("project_id", "name"),
)

volume_versions = Table(
    "volume_versions",
    metadata,
    Column("volume_id", String, ForeignKey("volumes.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("state", String, nullable=False),
    Column("message", Text, nullable=False),
    # Where its files are copied from; empty: they are uploaded.
    Column("origin_uri", Text),
    Column("origin_role_arn", Text),
    # The name of a secret of the project.
    Column("origin_secret", String),
    Column("created_at", Timestamp, nullable=False),
    Column("sealed_at", Timestamp),
    # A look at its files' paths since whose beginning no file has come or gone, and what it has found, once it is over.
    Column("check_id", String),
    Column("paths_trouble", Text),
    CheckConstraint("state IN ('open', 'pending', 'syncing', 'ready', 'failed')", name="state"),
    CheckConstraint("(state IN ('ready', 'failed')) = (sealed_at IS NOT NULL)", name="sealed_has_time"),
    CheckConstraint("state NOT IN ('pending', 'syncing') OR origin_uri IS NOT NULL", name="copied_has_origin"),
)
_copied = text("state IN ('pending', 'syncing')")
Index("ix_volume_versions_copied", volume_versions.c.created_at, sqlite_where=_copied, postgresql_where=_copied)

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
    # When garbage collection found that nobody needs it; whoever asks for it takes that back.
    Column("unneeded_since", Timestamp),
)
Index("ix_manifests_repository_id_subject", manifests.c.repository_id, manifests.c.subject)

# What a manifest cannot do without: blobs, and the manifests of an index.
manifest_references = Table(
    "manifest_references",
    metadata,
    Column("repository_id", String, ForeignKey("repositories.id"), primary_key=True),
    Column("manifest", String, primary_key=True),
    Column("digest", String, primary_key=True),
)
Index(
    "ix_manifest_references_repository_id_digest",
    manifest_references.c.repository_id,
    manifest_references.c.digest,
)

tags = Table(
    "tags",
    metadata,
    Column("repository_id", String, ForeignKey("repositories.id"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
)
Index("ix_tags_repository_id_digest", tags.c.repository_id, tags.c.digest)

# Which repository may serve which blob: bytes are shared between organizations, the right to read them is not.
repository_blobs = Table(
    "repository_blobs",
    metadata,
    Column("repository_id", String, ForeignKey("repositories.id"), primary_key=True),
    Column("digest", String, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    # As that of a manifest.
    Column("unneeded_since", Timestamp),
)
Index("ix_repository_blobs_digest", repository_blobs.c.digest)

# Where the bytes of a digest lie. Each push has a key of its own: what is deleted is never what was just pushed.
blob_keys = Table(
    "blob_keys",
    metadata,
    Column("digest", String, primary_key=True),
    Column("key", String, nullable=False, unique=True),
)
