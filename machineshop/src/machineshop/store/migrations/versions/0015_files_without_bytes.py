"""A file of a volume whose bytes are not in the storage is known by that, and looked for again after a while."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

UNHASHED = sa.text("volume_id IS NOT NULL AND digest IS NULL")
WITHOUT_BYTES = sa.text("hash_again_at IS NOT NULL")


def upgrade() -> None:
    """Apply the change."""
    op.add_column("files", sa.Column("hash_again_at", sa.Float(precision=53), nullable=True))
    op.drop_index("ix_files_unhashed", "files")
    for name, columns, where in (
        ("ix_files_unhashed", ["hash_again_at", "created_at"], UNHASHED),
        ("ix_files_without_bytes", ["project_id"], WITHOUT_BYTES),
    ):
        op.create_index(name, "files", columns, sqlite_where=where, postgresql_where=where)
