"""Volumes: versions of read-only files, which share the blobs of what they have in common."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

OF_VOLUME = sa.text("volume_id IS NOT NULL")
UNHASHED = sa.text("volume_id IS NOT NULL AND digest IS NULL")
COPIED = sa.text("state IN ('pending', 'syncing')")


def upgrade() -> None:
    """Apply the change."""
    op.add_column("files", sa.Column("digest", sa.String(), nullable=True))
    op.add_column("files", sa.Column("volume_id", sa.String(), nullable=True))
    op.add_column("files", sa.Column("volume_version", sa.Integer(), nullable=True))
    for name, columns, where in (
        ("ix_files_volume", ["volume_id", "volume_version", "name"], OF_VOLUME),
        ("ix_files_volume_digest", ["volume_id", "digest"], OF_VOLUME),
        ("ix_files_unhashed", ["created_at"], UNHASHED),
    ):
        op.create_index(name, "files", columns, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "volumes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("current_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("updated_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_volumes_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volumes")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_volumes_project_id_name")),
    )
    op.create_table(
        "volume_versions",
        sa.Column("volume_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("origin_uri", sa.Text(), nullable=True),
        sa.Column("origin_role_arn", sa.Text(), nullable=True),
        sa.Column("origin_secret", sa.String(), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("sealed_at", sa.Float(precision=53), nullable=True),
        sa.CheckConstraint(
            "state IN ('open', 'pending', 'syncing', 'ready', 'failed')", name=op.f("ck_volume_versions_state")
        ),
        sa.CheckConstraint(
            "(state IN ('ready', 'failed')) = (sealed_at IS NOT NULL)", name=op.f("ck_volume_versions_sealed_has_time")
        ),
        sa.CheckConstraint(
            "state NOT IN ('pending', 'syncing') OR origin_uri IS NOT NULL",
            name=op.f("ck_volume_versions_copied_has_origin"),
        ),
        sa.ForeignKeyConstraint(["volume_id"], ["volumes.id"], name=op.f("fk_volume_versions_volume_id")),
        sa.PrimaryKeyConstraint("volume_id", "number", name=op.f("pk_volume_versions")),
    )
    op.create_index(
        "ix_volume_versions_copied",
        "volume_versions",
        ["created_at"],
        sqlite_where=COPIED,
        postgresql_where=COPIED,
    )
