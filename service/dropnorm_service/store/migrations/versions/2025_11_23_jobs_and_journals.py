"""Jobs, their journals, accepted request ids, and the cursors of those who read the journals."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the first tables."""
    _create_jobs()
    _create_parts_of_jobs()
    _create_events()
    op.create_table(
        "cursors",
        sa.Column("consumer", _text(63), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("consumer", name="pk_cursors"),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("cursors", "requests", "events", "job_labels", "specs", "jobs"):
        op.drop_table(table)


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", _text(63), nullable=False),
        sa.Column("display_name", _text(200), nullable=False),
        sa.Column("experiment", _text(200), nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("spec_digest", _text(64), nullable=False),
        sa.Column("state", _text(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("progress", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("mlflow_experiment_id", sa.Text),
        sa.Column("mlflow_run_id", sa.Text),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("start_time", sa.BigInteger),
        sa.Column("end_time", sa.BigInteger),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("deleted", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_create_time", "jobs", ["create_time", "id"])
    op.create_index("ix_jobs_state", "jobs", ["state", "create_time", "id"])
    _create_partial_index("ix_jobs_deleted", "jobs", "id", where="deleted = 1")


def _create_parts_of_jobs() -> None:
    op.create_table(
        "specs",
        sa.Column("job_id", _text(63), nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_specs"),
        _job_key("specs"),
    )
    op.create_table(
        "job_labels",
        sa.Column("job_id", _text(63), nullable=False),
        sa.Column("key", _text(63), nullable=False),
        sa.Column("value", _text(63), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "key", name="pk_job_labels"),
        _job_key("job_labels"),
    )
    op.create_index("ix_job_labels_key", "job_labels", ["key", "value", "job_id"])
    op.create_table(
        "requests",
        sa.Column("request_id", _text(128), nullable=False),
        sa.Column("digest", _text(64), nullable=False),
        sa.Column("job_id", _text(63), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_requests"),
        _job_key("requests"),
    )
    op.create_index("ix_requests_job_id", "requests", ["job_id"])


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column(
            "position",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("job_id", _text(63), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("kind", _text(16), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_events"),
        sa.UniqueConstraint("job_id", "sequence", name="uq_events_job_id"),
        _job_key("events"),
        sqlite_autoincrement=True,
    )
    _create_partial_index("ix_events_evaluation", "events", "job_id", where="kind = 'evaluation'")


def _text(length: int) -> sa.String:
    """Sorts by its characters on every database."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _job_key(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["job_id"], ["jobs.id"], name=f"fk_{table}_job_id", ondelete="CASCADE"
    )


def _create_partial_index(name: str, table: str, column: str, *, where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, [column], sqlite_where=condition, postgresql_where=condition)
