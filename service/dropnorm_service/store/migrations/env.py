"""Alembic's entry: runs the migrations on the connection that `store.migrate` hands over.

A new migration is a file in `versions/`, named by its date; a test compares what all of them make with the tables in
`store.schema`.
"""

from __future__ import annotations

from alembic import context

from dropnorm_service.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters few things in place
)
with context.begin_transaction():
    context.run_migrations()
