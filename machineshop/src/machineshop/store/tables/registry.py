"""The registry: manifests, tags, and which repository may serve which bytes."""

from sqlalchemy import BigInteger, Column, ForeignKey, Index, LargeBinary, String, Table, UniqueConstraint

from machineshop.store.tables.base import Timestamp, metadata

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
