"""Facts of a store: what a port observed, as values that plans and guards read.

Rules:
- A fact is what the store itself says, never what somebody declared.
- Row counts are exact. Times are ISO 8601 in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """Who a store says it is.

    Attributes:
        id: stays with the data: `pg:7412233445566778899/pilot`, `sqlite:5d0c...`; a physical copy
            has the same one.
        endpoint: where it was reached: `10.0.3.7:5432`, or a real path; differs for a copy.
        version: of the server or library, for people: `PostgreSQL 15.8`.
        marker: the secret that Handrail wrote into a clone when it made it; empty elsewhere.
    """

    id: str
    endpoint: str
    version: str = ""
    marker: str = ""

    def __str__(self) -> str:
        return f"{self.id}@{self.endpoint}"


@dataclass(frozen=True)
class TableMeasure:
    """One table: its exact rows, and the oldest and newest time found in its time columns."""

    name: str
    rows: int
    oldest: str | None = None
    newest: str | None = None


@dataclass(frozen=True)
class Measure:
    """A store's content in numbers. Tables by name."""

    tables: tuple[TableMeasure, ...]
    size_bytes: int

    @property
    def rows(self) -> int:
        """Rows of all tables together."""
        return sum(table.rows for table in self.tables)

    @property
    def oldest(self) -> str | None:
        """The oldest time in any table, ISO 8601; None where no table has a time column."""
        return min((t.oldest for t in self.tables if t.oldest), default=None)


@dataclass(frozen=True)
class Fingerprint:
    """Order-independent checksums: equal content gives equal text, in any row order.

    Attributes:
        tables: name of the table (or sequence) to the checksum of its rows, by name.
        schema: checksum over everything that is not rows: columns, indexes, views, functions,
            triggers, constraints, owners, grants.
    """

    tables: tuple[tuple[str, str], ...]
    schema: str

    def differences(self, other: Fingerprint) -> tuple[str, ...]:
        """Return what differs, as nouns: `table readings`, `schema`; empty when equal."""
        mine, theirs = dict(self.tables), dict(other.tables)
        names = sorted(set(mine) | set(theirs))
        found = [f"table {name}" for name in names if mine.get(name) != theirs.get(name)]
        return tuple(found if self.schema == other.schema else [*found, "schema"])


@dataclass(frozen=True)
class Backup:
    """A backup as it lies on disk; it counts only once it has been restored.

    Attributes:
        id: unique, made by the caller.
        path: absolute path of the file or directory.
        form: how it was made and is to be read: `sqlite`, `pg_dump`, `pg_basebackup`; with `+age`
            when it is encrypted.
        size_bytes: on disk.
        made_at: when it was begun, ISO 8601 UTC.
        identity: the store's id and endpoint at that time.
        fingerprint: of the content that it holds, where that was read in the same snapshot.
        inner: of an encrypted backup, the path of the backup inside of what is unpacked.
    """

    id: str
    path: str
    form: str
    size_bytes: int
    made_at: str
    identity: Identity
    fingerprint: Fingerprint | None = None
    inner: str = ""
