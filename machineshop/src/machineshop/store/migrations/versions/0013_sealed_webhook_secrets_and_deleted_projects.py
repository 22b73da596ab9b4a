"""What webhooks are signed with is sealed, as secrets are; projects may be deleted.

The keys are not the database's to know: what lies in the clear is sealed, and removed, at the first start.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.add_column("projects", sa.Column("deleted_at", sa.Float(precision=53), nullable=True))
    op.create_table(
        "webhook_signing",
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_webhook_signing_project_id")),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_webhook_signing")),
    )
