"""Models stream: what they give of their outputs while their jobs run."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.create_table(
        "chunks",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("first", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("total_bytes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "attempt", "first", name=op.f("pk_chunks")),
        sqlite_with_rowid=False,
    )
