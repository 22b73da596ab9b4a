"""The life of a deployment: scaling decisions, how revisions fared, and events that outlive their revisions."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the change."""
    op.add_column("deployments", sa.Column("desired_replicas", sa.Integer(), nullable=True))
    op.add_column("revisions", sa.Column("ready_at", sa.Float(precision=53), nullable=True))
    op.add_column("revisions", sa.Column("failure", sa.Text(), nullable=True))
    op.create_table(
        "scaling_decisions",
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.Column("before", sa.Integer(), nullable=False),
        sa.Column("replicas", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=True),
        sa.Column("inputs", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["deployment_id"], ["deployments.id"], name=op.f("fk_scaling_decisions_deployment_id")),
        sa.PrimaryKeyConstraint("deployment_id", "number", name=op.f("pk_scaling_decisions")),
    )
    _events_say_their_image_themselves()


def _events_say_their_image_themselves() -> None:
    op.add_column("revision_events", sa.Column("revision_number", sa.Integer(), nullable=True))
    op.add_column("revision_events", sa.Column("image", sa.Text(), nullable=True))
    image = "r.config::json ->> 'image'" if op.get_bind().dialect.name == "postgresql" else "r.config ->> '$.image'"
    of = "FROM revisions r WHERE r.id = revision_events.revision_id"
    op.execute(f"UPDATE revision_events SET revision_number = (SELECT r.number {of}), image = (SELECT {image} {of})")
    with op.batch_alter_table("revision_events") as events:
        events.alter_column("revision_number", existing_type=sa.Integer(), nullable=False)
        events.alter_column("image", existing_type=sa.Text(), nullable=False)
        events.drop_constraint(op.f("fk_revision_events_revision_id"), type_="foreignkey")
