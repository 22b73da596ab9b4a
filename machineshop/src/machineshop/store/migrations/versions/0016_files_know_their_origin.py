"""A file of a volume that was copied from an object says from which one, so that an unchanged one need not come again."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.add_column("files", sa.Column("origin_tag", sa.String(), nullable=True))
