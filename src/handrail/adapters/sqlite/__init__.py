"""SQLite, the database in a file: `SqliteStore` is the adapter of `handrail.ports.Store`."""

from handrail.adapters.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
