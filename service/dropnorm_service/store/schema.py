"""The tables. Times are whole microseconds since 1970 in UTC; migrations make what stands here.

What a list reads and filters by is in `jobs`, in rows that stay small; specs, and the evaluations
(in `events`), are read only for the jobs that a page really shows.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# Literal, not parameters: a database must see at once that a partial index covers a query.
IS_DELETED = text("deleted = 1")
IS_EVALUATION = text("kind = 'evaluation'")


def _partial_index(name: str, column: str, *, where: TextClause) -> Index:
    return Index(name, column, sqlite_where=where, postgresql_where=where)


jobs = Table(
    "jobs",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("display_name", String(200), nullable=False),
    Column("experiment", String(200), nullable=False),
    Column("labels", Text, nullable=False),  # JSON, to show; job_labels is to search
    Column("priority", Integer, nullable=False),
    Column("spec_digest", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("progress", Text),  # JSON
    Column("error", Text),  # JSON
    Column("mlflow_experiment_id", Text),
    Column("mlflow_run_id", Text),
    Column("create_time", BigInteger, nullable=False),
    Column("start_time", BigInteger),
    Column("end_time", BigInteger),
    Column("update_time", BigInteger, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("deleted", Integer, nullable=False),  # 1: hidden
    Index("ix_jobs_create_time", "create_time", "id"),
    Index("ix_jobs_state", "state", "create_time", "id"),
    _partial_index("ix_jobs_deleted", "id", where=IS_DELETED),
)

specs = Table(
    "specs",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("spec", Text, nullable=False),  # JSON
)

job_labels = Table(
    "job_labels",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(63), primary_key=True),
    Column("value", String(63), nullable=False),
    Index("ix_job_labels_key", "key", "value", "job_id"),
)

events = Table(
    "events",
    metadata,
    # Positions are never reused, so a cursor never skips what was written behind a purged event.
    Column(
        "position",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("payload", Text, nullable=False),  # JSON
    UniqueConstraint("job_id", "sequence"),
    _partial_index("ix_events_evaluation", "job_id", where=IS_EVALUATION),
    sqlite_autoincrement=True,
)

requests = Table(
    "requests",
    metadata,
    Column("request_id", String(128), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
)

cursors = Table(
    "cursors",
    metadata,
    Column("consumer", String(63), primary_key=True),
    Column("position", BigInteger, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("digest", String(64), nullable=False),  # SHA-256 of the whole token
    Column("user_name", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger),
    Column("revoke_time", BigInteger),
)
