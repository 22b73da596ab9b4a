"""The registry can tell what is needed: references of manifests, marks of what nobody needs, keys of bytes.

Until now the bytes of a blob lay under a key that its digest alone made; they stay there.
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BATCH = 500


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "blob_keys",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_blob_keys")),
        sa.UniqueConstraint("key", name=op.f("uq_blob_keys_key")),
    )
    op.create_table(
        "manifest_references",
        sa.Column("repository_id", sa.String(), nullable=False),
        sa.Column("manifest", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name=op.f("fk_manifest_references_repository_id")
        ),
        sa.PrimaryKeyConstraint("repository_id", "manifest", "digest", name=op.f("pk_manifest_references")),
    )
    op.create_index("ix_manifest_references_repository_id_digest", "manifest_references", ["repository_id", "digest"])
    op.add_column("manifests", sa.Column("unneeded_since", sa.Float(precision=53), nullable=True))
    op.add_column("repository_blobs", sa.Column("unneeded_since", sa.Float(precision=53), nullable=True))
    op.create_index("ix_repository_blobs_digest", "repository_blobs", ["digest"])
    op.create_index("ix_tags_repository_id_digest", "tags", ["repository_id", "digest"])
    _name_keys(op.get_bind())
    _find_references(op.get_bind())


def _name_keys(conn: sa.Connection) -> None:
    digests = conn.execute(sa.text("SELECT DISTINCT digest FROM repository_blobs")).scalars().all()
    rows = [{"digest": digest, "key": f"registry/sha256/{digest[7:9]}/{digest[7:]}"} for digest in digests]
    _insert(conn, "INSERT INTO blob_keys (digest, key) VALUES (:digest, :key)", rows)


def _find_references(conn: sa.Connection) -> None:
    rows = []
    for repository_id, digest, content in conn.execute(
        sa.text("SELECT repository_id, digest, content FROM manifests")
    ).all():
        rows += [
            {"repository_id": repository_id, "manifest": digest, "digest": referred}
            for referred in _referred(json.loads(bytes(content)))
        ]
    _insert(
        conn,
        "INSERT INTO manifest_references (repository_id, manifest, digest) VALUES (:repository_id, :manifest, :digest)",
        rows,
    )


def _referred(manifest: dict[str, Any]) -> set[str]:
    layers = [layer for layer in manifest.get("layers") or () if not layer.get("urls")]
    descriptors = [manifest.get("config"), *layers, *(manifest.get("manifests") or ())]
    return {descriptor["digest"] for descriptor in descriptors if descriptor is not None}


def _insert(conn: sa.Connection, statement: str, rows: list[dict[str, str]]) -> None:
    for at in range(0, len(rows), BATCH):
        conn.execute(sa.text(statement), rows[at : at + BATCH])
