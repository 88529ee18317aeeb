"""For how long a job is kept, and which data set it uses."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; the data sets of the jobs that are there stand in their specs."""
    text = sa.String(63).with_variant(sa.String(63, collation="C"), "postgresql")
    op.add_column("jobs", sa.Column("dataset", text, nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("ttl", sa.BigInteger))
    op.add_column("jobs", sa.Column("expire_time", sa.BigInteger))
    op.create_index("ix_jobs_dataset", "jobs", ["dataset"])
    op.create_index("ix_jobs_expire_time", "jobs", ["expire_time"])
    specs = sa.table("specs", sa.column("job_id", sa.String), sa.column("spec", sa.Text))
    jobs = sa.table("jobs", sa.column("id", sa.String), sa.column("dataset", sa.String))
    connection = op.get_bind()
    for job_id, spec in connection.execute(sa.select(specs.c.job_id, specs.c.spec)).all():
        dataset = json.loads(spec)["data"]["dataset"]
        connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(dataset=dataset))


def downgrade() -> None:
    """Take them away."""
    for index in ("ix_jobs_expire_time", "ix_jobs_dataset"):
        op.drop_index(index, "jobs")
    for column in ("expire_time", "ttl", "dataset"):
        op.drop_column("jobs", column)
