"""Volumes that are deleted keep a row until their files are removed; files that were copied say from which object."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.add_column("files", sa.Column("origin_tag", sa.String(), nullable=True))
    op.create_table(
        "gone_volumes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gone_volumes")),
    )
