"""PostgreSQL, 15 and newer: real servers, and throw-away clusters as their clones.

Rules:
- Importing this loads no database driver: `PostgresStore` is loaded when it is first asked for.
- On a server that is not ours every statement is qualified or runs with an empty `search_path`, in
  a transaction, with settings that end with it: a pooler must not hand our settings to others.
- A clone is a cluster of its own, never a database beside the original: roles, passwords, settings,
  slots and DROP DATABASE belong to the cluster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handrail.adapters.postgres.store import PostgresStore

__all__ = ["PostgresStore"]


def __getattr__(name: str) -> Any:
    if name == "PostgresStore":
        from handrail.adapters.postgres.store import (  # noqa: PLC0415 - start-up time
            PostgresStore,
        )

        return PostgresStore
    raise AttributeError(name)
