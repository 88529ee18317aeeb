"""Jobs and journals in a database: SQLAlchemy 2, asynchronous; SQLite now."""

from dropnorm_service.store.engines import InvalidDatabaseUrl
from dropnorm_service.store.migrate import StoreTooNew
from dropnorm_service.store.store import SqlJobStore

__all__ = ["InvalidDatabaseUrl", "SqlJobStore", "StoreTooNew"]
