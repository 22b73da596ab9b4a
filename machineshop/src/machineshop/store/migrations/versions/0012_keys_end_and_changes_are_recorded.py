"""Keys have finer scopes, may end by themselves and tell when they were used; changes are recorded.

What was the scope `project` is `developer` now: it may do the same.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0008"
branch_labels = None
depends_on = None

SCOPE = "scope IN ('admin', 'developer', 'viewer', 'worker')"
NEW_SCOPE = "CASE scope WHEN 'project' THEN 'developer' ELSE scope END"
OLD_COLUMNS = "id, project_id, name, prefix, hash, scope, deployment_id, replica_id, created_at, revoked_at"


def upgrade() -> None:
    """Apply the change."""
    if op.get_bind().dialect.name == "sqlite":
        _make_keys_anew()
    else:
        _alter_keys()
    op.create_table(
        "audit_events",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("at", sa.Float(precision=53), nullable=False),
        sa.Column("organization_id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("actor_name", sa.String(), nullable=False),
        sa.Column("actor_key_id", sa.String(), nullable=True),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("before", sa.Text(), nullable=True),
        sa.Column("after", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_audit_events_organization_id")
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_audit_events_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    op.create_index("ix_audit_events_organization_id_id", "audit_events", ["organization_id", "id"])
    op.create_index("ix_audit_events_at", "audit_events", ["at"])


def _alter_keys() -> None:
    op.drop_constraint(op.f("ck_api_keys_scope"), "api_keys")
    op.add_column("api_keys", sa.Column("expires_at", sa.Float(precision=53), nullable=True))
    op.add_column("api_keys", sa.Column("last_used_at", sa.Float(precision=53), nullable=True))
    op.execute(f"UPDATE api_keys SET scope = {NEW_SCOPE}")
    op.create_check_constraint(op.f("ck_api_keys_scope"), "api_keys", SCOPE)


def _make_keys_anew() -> None:
    """SQLite cannot change a table's conditions."""
    op.rename_table("api_keys", "api_keys_before")
    for index in ("ix_api_keys_project_id", "ix_api_keys_replica_id"):
        op.drop_index(index)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=True),
        sa.Column("replica_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.Column("expires_at", sa.Float(precision=53), nullable=True),
        sa.Column("last_used_at", sa.Float(precision=53), nullable=True),
        sa.Column("revoked_at", sa.Float(precision=53), nullable=True),
        sa.CheckConstraint(
            "(scope = 'worker') = (deployment_id IS NOT NULL)", name=op.f("ck_api_keys_worker_has_deployment")
        ),
        sa.CheckConstraint(SCOPE, name=op.f("ck_api_keys_scope")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_api_keys_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("hash", name=op.f("uq_api_keys_hash")),
    )
    new_columns = OLD_COLUMNS.replace("scope", NEW_SCOPE)
    op.execute(f"INSERT INTO api_keys ({OLD_COLUMNS}) SELECT {new_columns} FROM api_keys_before")
    op.drop_table("api_keys_before")
    op.create_index("ix_api_keys_project_id", "api_keys", ["project_id"])
    op.create_index("ix_api_keys_replica_id", "api_keys", ["replica_id"])
