"""Who made each job and registered model, and whether others see it; request ids of each user's own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """What is there belongs to the user `local`, as everything does where nobody is asked who he is."""
    # Columns with a constant default are added in place. Jobs are never copied into a new table: SQLite would
    # delete all that refers to them with the old one.
    op.add_column("jobs", _owner())
    op.add_column("jobs", sa.Column("shared", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_jobs_owner", "jobs", ["owner", "create_time", "id"])
    is_shared = sa.text("shared = 1")
    op.create_index(
        "ix_jobs_shared",
        "jobs",
        ["create_time", "id"],
        sqlite_where=is_shared,
        postgresql_where=is_shared,
    )
    with op.batch_alter_table("requests") as requests:
        requests.add_column(_owner())
        requests.drop_constraint("pk_requests", type_="primary")
        requests.create_primary_key("pk_requests", ["owner", "request_id"])
    op.create_table(
        "registered_models",
        sa.Column("id", _text(63), nullable=False),
        sa.Column("owner", _text(64), nullable=False),
        sa.Column("shared", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_registered_models"),
    )
    op.create_table(
        "registered_versions",
        sa.Column("model_id", _text(63), nullable=False),
        sa.Column("job_id", _text(63), nullable=False),
        sa.Column("sha256", _text(64), nullable=False),
        sa.PrimaryKeyConstraint("model_id", "job_id", "sha256", name="pk_registered_versions"),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["registered_models.id"],
            name="fk_registered_versions_model_id",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    """Forget whose things are whose; of equal request ids of several users none is kept."""
    op.drop_table("registered_versions")
    op.drop_table("registered_models")
    op.execute("DELETE FROM requests WHERE owner <> 'local'")
    with op.batch_alter_table("requests") as requests:
        requests.drop_constraint("pk_requests", type_="primary")
        requests.drop_column("owner")
        requests.create_primary_key("pk_requests", ["request_id"])
    op.drop_index("ix_jobs_shared", "jobs")
    op.drop_index("ix_jobs_owner", "jobs")
    op.drop_column("jobs", "shared")
    op.drop_column("jobs", "owner")


def _text(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _owner() -> sa.Column[str]:
    return sa.Column("owner", _text(64), nullable=False, server_default="local")
