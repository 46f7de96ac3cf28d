"""What functions and settings do that a read-only transaction does not stop.

Rules:
- A function that is not named here is harmless in a read-only transaction, by PostgreSQL's own
  account or by privilege; it may be called by what is classified as reading.
- Names are compared whole and without their schema: who makes a function of the same name in
  another schema is asked.
- Each reason completes `the script would ...`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FORBIDDEN_FUNCTIONS: tuple[tuple[str, str], ...] = (
    (r"dblink(_.+)?", "reach another server or session"),
    (r"lo_(im|ex)port", "read or write a file of the server"),
    (r"pg_file_.+|pg_logdir_ls", "write files of the server"),
    (r"pg_(terminate|cancel)_backend", "end what other sessions do"),
    (r"pg_(reload_conf|rotate_logfile.*)", "change how the server runs"),
    (r"pg_(promote|wal_replay_(pause|resume)|switch_wal|switch_xlog)", "change how it replicates"),
    (r"pg_(start|stop)_backup|pg_backup_(start|stop)|pg_create_restore_point", "change backups"),
    (r"pg_(create|drop|copy)_\w*replication_slot", "change replication slots"),
    (r"pg_logical_(slot_(get|peek)_.+|emit_message)", "change what is replicated"),
    (r"pg_replication_(slot_advance|origin_.+)|pg_sync_replication_slots", "change replication"),
    (r"pg_stat_(reset|statements_reset).*", "reset what the server has counted"),
    (r"pg_log_(backend_memory_contexts|standby_snapshot)", "signal other sessions"),
    (r"pg_import_system_collations|pg_nextoid|pg_stop_making_pinned_objects", "change catalogs"),
    (r"pg_extension_config_dump|binary_upgrade_.+", "change catalogs"),
    (r"heap_force_.+|pg_truncate_visibility_map", "change tables below their rules"),
    (r"(un)?schedule(_in_database)?|pg_background_.+", "run SQL in another session"),
    (r"http(_(get|post|put|patch|delete|head|list|set_.+))?", "call another server"),
    (r"injection_points_.+", "change how the server runs"),
)
_FORBIDDEN = tuple((re.compile(pattern), why) for pattern, why in _FORBIDDEN_FUNCTIONS)
# Of a scheduler, and of it alone: too ordinary as names.
_ONLY_OF_SCHEMA = {"schedule": "cron", "unschedule": "cron", "schedule_in_database": "cron"}
_ONLY_OF_SCHEMA |= {"http": "net"}

# They fail in a read-only transaction, or should: those on large objects write there before 16.
_WRITES = re.compile(
    r"nextval|setval|lo_(creat|create|unlink|put|from_bytea|truncate|truncate64|open)|lowrite|"
    r"lo_manage|brin_(de)?summarize.*|gin_clean_pending_list|"
    r"pg_(clear|restore)_(relation|attribute)_stats"
)
# Functions that run the SQL that they are given as text.
_RUNS_SQL = re.compile(
    r"(query|cursor|table|schema|database)_to_xml.*|ts_stat|ts_rewrite|crosstab.*|connectby|"
    r"xpath_table"
)
_NAMED_IN_TEXT = re.compile(
    r"\b(?:dblink\w*|lo_(?:im|ex)port|pg_file_\w+|pg_(?:terminate|cancel)_backend|pg_reload_conf|"
    r"pg_rotate_logfile\w*|pg_promote|pg_switch_wal|pg_\w*replication_(?:slot|origin)\w*|"
    r"pg_logical_\w+|pg_stat_reset\w*|heap_force_\w+|session_replication_role|track_counts|"
    r"session\s+authorization|allow_system_table_mods|(?:from|to)\s+program)\b",
    re.IGNORECASE,
)

_FORBIDDEN_SETTINGS = {
    "session_authorization": "become another role",
    "session_replication_role": "turn triggers and rules off",
    "track_counts": "stop the server from counting what it does",
    "allow_system_table_mods": "change system catalogs",
    "event_triggers": "turn event triggers off",
    "zero_damaged_pages": "lose damaged pages",
    "ignore_checksum_failure": "lose damaged pages",
    "ignore_system_indexes": "read catalogs without their indexes",
    "local_preload_libraries": "load a library into the server",
    "session_preload_libraries": "load a library into the server",
    "dynamic_library_path": "load a library into the server",
}
MODE_SETTINGS = frozenset(
    {"transaction_read_only", "default_transaction_read_only", "transaction_isolation"}
    | {"default_transaction_isolation", "transaction_deferrable"}
    | {"default_transaction_deferrable"}
)
READ_ONLY_SETTINGS = frozenset({"transaction_read_only", "default_transaction_read_only"})

# Languages whose functions do what the server's own account may.
UNTRUSTED = frozenset({"c", "internal", "plperlu", "pltclu", "plsh", "plru", "plpythonu"})
_UNTRUSTED_PYTHON = re.compile(r"plpython[23]?u")


def is_untrusted(language: str) -> bool:
    """Whether functions in a language are outside the database's control."""
    return language.lower() in UNTRUSTED or bool(_UNTRUSTED_PYTHON.fullmatch(language.lower()))


def folded(name: str) -> str:
    """Return a name as a server of any locale may fold it: a Turkish one makes i of \u0130."""
    return name.lower().replace("\u0130", "i").replace("i\u0307", "i").replace("\u212a", "k")


def forbidden_function(schema: str, name: str) -> str:
    """Return why a function is never called under a guard; empty where it may be."""
    bare = folded(name)
    if bare in _ONLY_OF_SCHEMA and folded(schema) != _ONLY_OF_SCHEMA[bare]:
        return ""
    return next((f"{why} ({bare})" for rule, why in _FORBIDDEN if rule.fullmatch(bare)), "")


def is_writing(name: str) -> bool:
    """Whether a function of the server's own writes."""
    return bool(_WRITES.fullmatch(folded(name)))


def runs_sql(name: str) -> bool:
    """Whether a function runs SQL that it is given as text."""
    return bool(_RUNS_SQL.fullmatch(folded(name)))


def forbidden_in_text(bodies: Iterable[str]) -> str:
    """Return why SQL inside strings is never run under a guard; empty where nothing is seen.

    What is put together while it runs cannot be seen here; privileges hold it.
    """
    for body in bodies:
        found = _NAMED_IN_TEXT.search(body)
        if found:
            return f"run text that names {' '.join(found.group().lower().split())}"
    return ""


def forbidden_setting(name: str) -> str:
    """Return why a setting is never made under a guard; empty where it may be."""
    why = _FORBIDDEN_SETTINGS.get(folded(name), "")
    return f"{why} ({folded(name)})" if why else ""
