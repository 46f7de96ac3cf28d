"""What two states of a database say beside rows: sequences, new files, and the system's own tables.

Rules:
- The rehearsal and the gate of a run say it by these functions: in the same words.
- Nothing here reads from a server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from handrail.adapters.postgres.state import Counters, State
from handrail.plans.effect import Effect

# The system's tables that `catalog` reads, and those that only follow: the rest is a net below it.
FOLLOWED = frozenset(
    {
        "pg_aggregate",
        "pg_attrdef",
        "pg_attribute",
        "pg_auth_members",
        "pg_authid",
        "pg_class",
        "pg_constraint",
        "pg_database",
        "pg_db_role_setting",
        "pg_depend",
        "pg_enum",
        "pg_event_trigger",
        "pg_extension",
        "pg_foreign_data_wrapper",
        "pg_foreign_server",
        "pg_foreign_table",
        "pg_index",
        "pg_inherits",
        "pg_init_privs",
        "pg_largeobject",
        "pg_namespace",
        "pg_partitioned_table",
        "pg_policy",
        "pg_proc",
        "pg_publication",
        "pg_publication_namespace",
        "pg_publication_rel",
        "pg_range",
        "pg_replication_origin",
        "pg_rewrite",
        "pg_sequence",
        "pg_shdepend",
        "pg_statistic",
        "pg_statistic_ext_data",
        "pg_subscription",
        "pg_subscription_rel",
        "pg_tablespace",
        "pg_trigger",
        "pg_type",
    }
)
NOUNS = {
    "pg_largeobject_metadata": ("large object", "large objects"),
    "pg_description": ("comment", "comments"),
    "pg_shdescription": ("comment", "comments"),
    "pg_default_acl": ("default grant", "default grants"),
    "pg_operator": ("operator", "operators"),
    "pg_cast": ("cast", "casts"),
}


def of_sequences(resource: str, before: State, after: State) -> Iterator[Effect]:
    """Yield the sequences that are still there and have another value."""
    for oid, (name, value, called) in before.sequences.items():
        now = after.sequences.get(oid)
        if now is None or now[1:] == (value, called):
            continue
        back = (now[1], now[2]) < (value, called)
        detail = f"{'set back ' if back else ''}from {value} to {now[1]}"
        yield Effect(resource, "alter" if back else "advance", "sequence", name, detail=detail)


def is_reshaped(before: State, after: State, oid: str) -> bool:
    """Whether a table has other columns, or columns of other types."""
    return _columns(before, oid) != _columns(after, oid)


def _columns(state: State, oid: str) -> dict[str, object]:
    return {
        item.key: item.attributes.get("type")
        for item in state.items
        if item.kind == "column" and item.parent == oid
    }


def of_new_file(
    resource: str, kind: str, name: str, rows: int | None, *, reshaped: bool, emptied: bool
) -> Effect:
    """Return why a table has another file.

    Args:
        resource: the store.
        kind: `table`, or `materialized view`, which is never emptied.
        name: as effects spell it.
        rows: that it had before.
        reshaped: see `is_reshaped`.
        emptied: whether the rows that it had are gone.
    """
    if kind != "table":
        return Effect(resource, "alter", kind, name, detail="refreshed")
    if emptied:
        return Effect(resource, "truncate", kind, name, rows=rows)
    if reshaped:
        return Effect(resource, "rewrite", kind, name, rows=rows)
    return Effect(resource, "alter", kind, name, detail="written anew, with the same rows")


def of_catalogs(resource: str, written: Mapping[str, Counters]) -> Iterator[Effect]:
    """Yield what no reading of the catalogs shows, by what was written to the system's tables."""
    for name, counters in written.items():
        if name in FOLLOWED or not counters.any:
            continue
        kind, called = NOUNS.get(name, ("catalog entry", name))
        amounts = (
            ("drop", counters.deleted),
            ("alter", counters.updated),
            ("create", counters.inserted),
        )
        for verb, amount in amounts:
            if amount > 0:
                yield Effect(resource, verb, kind, called, rows=amount)
    yield from _large_object_pages(resource, written)


def _large_object_pages(resource: str, written: Mapping[str, Counters]) -> Iterator[Effect]:
    """Yield the rewriting of large objects that are still there."""
    pages = written.get("pg_largeobject", Counters())
    objects = written.get("pg_largeobject_metadata", Counters())
    changed = pages.updated + (0 if objects.deleted else pages.deleted)
    if changed > 0:
        noun = NOUNS["pg_largeobject_metadata"]
        yield Effect(resource, "update", *noun, rows=changed, detail="pages of 2 kB written anew")
