"""Which store this is, and how many services have begun to write it."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Give the store an identity."""
    text = sa.String(36).with_variant(sa.String(36, collation="C"), "postgresql")
    service = op.create_table(
        "service",
        sa.Column("id", text, nullable=False),
        sa.Column("tenure", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_service"),
    )
    op.bulk_insert(service, [{"id": str(uuid.uuid4()), "tenure": 0}])


def downgrade() -> None:
    """Take it away."""
    op.drop_table("service")
