"""Jobs and journals in a database: SQLAlchemy 2, asynchronous; SQLite or PostgreSQL."""

from dropnorm_service.store.errors import InvalidDatabaseUrl, StoreInUse
from dropnorm_service.store.migrate import StoreTooNew
from dropnorm_service.store.store import SqlJobStore

__all__ = ["InvalidDatabaseUrl", "SqlJobStore", "StoreInUse", "StoreTooNew"]
