"""The paths of a version of a volume are looked at before it is sealed, and what was found is noted with it."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.add_column("volume_versions", sa.Column("check_id", sa.String(), nullable=True))
    op.add_column("volume_versions", sa.Column("paths_trouble", sa.Text(), nullable=True))
