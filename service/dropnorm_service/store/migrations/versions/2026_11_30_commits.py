"""The newest transaction of each writer, by which a commit that was not answered is found again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    text = sa.String(63).with_variant(sa.String(63, collation="C"), "postgresql")
    op.create_table(
        "commits",
        sa.Column("writer", text, nullable=False),
        sa.Column("mark", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("writer", name="pk_commits"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("commits")
