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
    PrimaryKeyConstraint,
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


def _text(length: int) -> String:
    """Short text that sorts by its characters on every database, whatever the rules of the database's language."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


# Literal, not parameters: a database must see at once that a partial index covers a query.
IS_DELETED = text("deleted = 1")
IS_EVALUATION = text("kind = 'evaluation'")
IS_SHARED = text("shared = 1")


def _partial_index(name: str, *columns: str, where: TextClause) -> Index:
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


jobs = Table(
    "jobs",
    metadata,
    Column("id", _text(63), primary_key=True),
    Column("display_name", _text(200), nullable=False),
    Column("experiment", _text(200), nullable=False),
    Column("labels", Text, nullable=False),  # JSON, to show; job_labels is to search
    Column("priority", Integer, nullable=False),
    Column("spec_digest", _text(64), nullable=False),
    Column("state", _text(16), nullable=False),
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
    Column("owner", _text(64), nullable=False, server_default="local"),
    Column("shared", Integer, nullable=False, server_default="0"),  # 1: seen by all users
    Column("dataset", _text(63), nullable=False, server_default=""),
    Column("ttl", BigInteger),  # seconds
    Column("expire_time", BigInteger),
    Index("ix_jobs_create_time", "create_time", "id"),
    Index("ix_jobs_state", "state", "create_time", "id"),
    Index("ix_jobs_owner", "owner", "create_time", "id"),
    Index("ix_jobs_dataset", "dataset"),
    Index("ix_jobs_expire_time", "expire_time"),
    _partial_index("ix_jobs_deleted", "id", where=IS_DELETED),
    _partial_index("ix_jobs_shared", "create_time", "id", where=IS_SHARED),
)

specs = Table(
    "specs",
    metadata,
    Column("job_id", _text(63), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("spec", Text, nullable=False),  # JSON
)

job_labels = Table(
    "job_labels",
    metadata,
    Column("job_id", _text(63), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", _text(63), primary_key=True),
    Column("value", _text(63), nullable=False),
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
    Column("job_id", _text(63), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", _text(16), nullable=False),
    Column("payload", Text, nullable=False),  # JSON
    UniqueConstraint("job_id", "sequence"),
    _partial_index("ix_events_evaluation", "job_id", where=IS_EVALUATION),
    sqlite_autoincrement=True,
)

requests = Table(
    "requests",
    metadata,
    Column("request_id", _text(128), nullable=False),
    Column("digest", _text(64), nullable=False),
    Column(
        "job_id", _text(63), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    Column("owner", _text(64), nullable=False, server_default="local"),
    PrimaryKeyConstraint("owner", "request_id"),
)

registered_models = Table(
    "registered_models",
    metadata,
    Column("id", _text(63), primary_key=True),
    Column("owner", _text(64), nullable=False),
    Column("shared", Integer, nullable=False),  # 1: seen by all users
)

registered_versions = Table(
    "registered_versions",
    metadata,
    Column(
        "model_id",
        _text(63),
        ForeignKey("registered_models.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("job_id", _text(63), primary_key=True),  # the job may be gone
    Column("sha256", _text(64), primary_key=True),
)

cursors = Table(
    "cursors",
    metadata,
    Column("consumer", _text(63), primary_key=True),
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

# Its one row says which store this is, and how many services have begun to write it.
service = Table(
    "service",
    metadata,
    Column("id", _text(36), primary_key=True),
    Column("tenure", BigInteger, nullable=False),
)

# The newest transaction of each writer of a PostgreSQL database.
commits = Table(
    "commits",
    metadata,
    Column("writer", _text(63), primary_key=True),
    Column("mark", String(32), nullable=False),
)
