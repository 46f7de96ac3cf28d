# ruff: noqa: S608 - every part of these queries is a constant of this file
"""A role for one run: it may read what the real one may, and write only what the budget says.

Rules:
- It owns nothing, is a member of nothing, and has a random password that nobody writes down; the
  server gets a verifier of it.
- It has the real role's settings, and its `search_path` with the real role's name for `$user`: the
  same words mean the same tables.
- A view on a table of the budget, and what a partition is part of, may be written like the table:
  the budget names the tables that rows are in.
- It ends with the run. One whose guard was killed cannot log in any more, and is removed by the
  next guard that comes by.
- Where a limited role would see other rows or could not do it at all, `hindrances` says why.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import errors, sql

from handrail.errors import StoreError
from handrail.plans.model import Allowance, Budget

CONNECT_TIMEOUT_S = 10
CONNECTIONS = 100
VALID_H = 24
ENDING_MS = 5000
# One guard at a time changes rights: two that change those of one table disturb each other.
TURN = 7239401
PRIVILEGES = {"insert": "INSERT", "update": "UPDATE", "delete": "DELETE", "truncate": "TRUNCATE"}
TOKEN = re.compile(r"[0-9a-f]{16,40}")

Session = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class _Relation:
    """What a budget may be about; `may` are the privileges that the real role can pass on."""

    schema: str
    name: str
    spelled: str
    kind: str
    secured: bool
    reads: bool
    may: frozenset[str]
    above: tuple[str, ...]

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)


def hindrances(admin_url: str, budget: Budget, resource: str) -> tuple[str, ...]:
    """Return why a limited role could not do what the budget says; empty when it could.

    Raises:
        StoreError: the server does not answer.
    """
    with _entered(admin_url) as session:
        relations = _relations(session)
        found = list(_of_the_role(session))
        found += _of_what_is_read(relations)
        found += _of_the_budget(relations, (a for a in budget.allowances if a.resource == resource))
    return tuple(found)


@contextmanager
def limited(
    admin_url: str, budget: Budget, resource: str, run_token: str
) -> Iterator[tuple[str, str]]:
    """Give the name and password of a role with what `budget` allows, while this is held.

    Args:
        admin_url: the store as the real role reaches it.
        budget: of the run.
        resource: the store, as the budget names it.
        run_token: of this run alone: 16 to 40 lower-case hexadecimal digits.

    Raises:
        StoreError: something hinders, or the server does not answer.
    """
    if not TOKEN.fullmatch(run_token):
        raise ValueError("a run's token has 16 to 40 hexadecimal digits")
    found = hindrances(admin_url, budget, resource)
    if found:
        raise StoreError(
            "store.denied",
            f"no limited role can be made for {resource}: {found[0]}",
            hint="let the guard use the store's own role",
        )
    name, password = f"handrail_{run_token}", secrets.token_hex(24)
    with _entered(admin_url) as session:
        _sweep(session)
        _create(session, name, password)
    try:
        with _entered(admin_url) as session:
            session.execute("SELECT pg_advisory_xact_lock(%s)", [TURN])
            _settle(session, name)
            _grant(session, name, [a for a in budget.allowances if a.resource == resource])
        yield name, password
    finally:
        with _entered(admin_url) as session:
            is_there = _one(
                session, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", name
            )
            if is_there:
                session.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(name)))
        if is_there:
            with _entered(admin_url) as session:
                _remove(session, name)


# --- why not -----------------------------------------------------------------------------------


def _of_the_role(session: Session) -> Iterator[str]:
    row = session.execute(_ROLE).fetchone() or (False, None)
    creates, assumed = row
    if not creates:
        yield "this role may not make roles: it needs CREATEROLE"
    if assumed:
        yield f"this role becomes another by a setting of its own: role = {assumed}"


def _of_what_is_read(relations: Mapping[str, _Relation]) -> Iterator[str]:
    for relation in relations.values():
        if relation.secured and relation.reads:
            yield f"row security of table {relation.spelled} would show it other rows"
        elif relation.reads and "SELECT" not in relation.may:
            yield f"this role may read {relation.spelled}, and may not let another do so"


def _of_the_budget(
    relations: Mapping[str, _Relation], allowances: Iterable[Allowance]
) -> Iterator[str]:
    for allowed in allowances:
        what = f"{allowed.verb} {allowed.kind} {allowed.name}"
        relation = relations.get(allowed.name)
        wanted = _privilege(allowed)
        if not wanted:
            yield f"to {what} takes its owner"
        elif relation is None:
            yield f"there is no {allowed.kind} {allowed.name} in this database"
        elif wanted not in relation.may:
            yield f"this role may not let another {what}"


def _privilege(allowed: Allowance) -> str:
    """Return what it takes to do what is allowed; empty where only the owner may."""
    if allowed.kind == "sequence":
        return {"advance": "USAGE", "alter": "UPDATE"}.get(allowed.verb, "")
    return PRIVILEGES.get(allowed.verb, "") if allowed.kind == "table" else ""


# --- making it ---------------------------------------------------------------------------------


def _create(session: Session, name: str, password: str) -> None:
    verifier = session.pgconn.encrypt_password(
        password.encode(), name.encode(), b"scram-sha-256"
    ).decode()
    session.execute(
        sql.SQL(
            "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOINHERIT"
            " NOBYPASSRLS CONNECTION LIMIT {} PASSWORD {} VALID UNTIL {}"
        ).format(
            sql.Identifier(name),
            sql.Literal(CONNECTIONS),
            sql.Literal(verifier),
            sql.Literal(str(_one(session, f"SELECT now() + '{VALID_H} hours'"))),
        )
    )


def _settle(session: Session, name: str) -> None:
    """Give a role the settings of the real one."""
    role = sql.Identifier(name)
    database = sql.Identifier(str(_one(session, "SELECT current_database()")))
    for everywhere, setting, value in session.execute(_SETTINGS).fetchall():
        place = sql.SQL("") if everywhere else sql.SQL(" IN DATABASE {}").format(database)
        if setting != "search_path":
            _set(session, role, place, setting, value)
    # As it is when the real role has just come in, whoever set it.
    path = str(_one(session, "SELECT reset_val FROM pg_settings WHERE name = %s", _PATH))
    own = str(_one(session, "SELECT quote_ident(session_user)"))
    path = path.replace('"$user"', own).replace("$user", own)
    _set(session, role, sql.SQL(" IN DATABASE {}").format(database), _PATH, path)


_PATH = "search_path"


def _set(
    session: Session,
    role: sql.Identifier,
    place: sql.Composable,
    setting: str,
    value: str,
) -> None:
    try:
        with session.transaction():
            # FROM CURRENT: what a list is, the server knows, and quotes it.
            session.execute("SELECT set_config(%s, %s, true)", [setting, value])
            text = sql.SQL("ALTER ROLE {}{} SET {} FROM CURRENT")
            session.execute(text.format(role, place, sql.SQL(_setting_name(setting))))
    except errors.Error as error:
        raise StoreError(
            "store.denied",
            f"the setting {setting} of this role cannot be given to a limited one:"
            f" {error.diag.message_primary}",
            hint="let the guard use the store's own role",
        ) from None


def _setting_name(setting: str) -> LiteralString:
    """Return a setting's name as SQL: two words with a dot are not one quoted name."""
    parts = [sql.Identifier(part).as_string() for part in setting.split(".")]
    return ".".join(parts)


def _grant(session: Session, name: str, allowances: Iterable[Allowance]) -> None:
    role = sql.Identifier(name)
    relations = _relations(session)
    granted: dict[str, set[str]] = {}
    for relation in relations.values():
        if "SELECT" in relation.may and relation.reads:
            granted.setdefault("SELECT", set()).add(relation.spelled)
    for allowed in allowances:
        privilege = _privilege(allowed)
        for spelled in (allowed.name, *relations[allowed.name].above):
            if spelled in relations and privilege in relations[spelled].may:
                granted.setdefault(privilege, set()).add(spelled)
    for privilege, spelled_names in sorted(granted.items()):
        for sequences in (True, False):
            chosen = [relations[n] for n in sorted(spelled_names)]
            chosen = [r for r in chosen if (r.kind == "S") is sequences]
            _grant_on(session, privilege, "SEQUENCE" if sequences else "TABLE", chosen, role)
    for query, text in _ELSEWHERE:
        for (identity,) in session.execute(query).fetchall():
            session.execute(sql.SQL(text).format(sql.SQL(identity), role))


def _grant_on(
    session: Session, privilege: str, noun: str, chosen: list[_Relation], role: sql.Identifier
) -> None:
    for start in range(0, len(chosen), 200):
        names = sql.SQL(", ").join(r.identifier for r in chosen[start : start + 200])
        text: LiteralString = "GRANT {} ON {} {} TO {}"
        words = (sql.SQL(privilege), sql.SQL(noun))
        session.execute(sql.SQL(text).format(*words, names, role))


# --- removing it -------------------------------------------------------------------------------


def _sweep(session: Session) -> None:
    """Remove the roles of guards that were killed."""
    for (name,) in session.execute(_LEFT_OVER).fetchall():
        # In another database it may have rights still: a guard of that one will remove it.
        with suppress(StoreError):
            _remove(session, name)


def _remove(session: Session, name: str) -> None:
    """Remove a role and all its rights here; its sessions are ended."""
    role = sql.Identifier(name)
    try:
        with session.transaction():
            session.execute("SELECT pg_advisory_xact_lock(%s)", [TURN])
            if not _one(session, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
                # To drop what a role has takes its rights.
                session.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))
            session.execute(_END_SESSIONS, [ENDING_MS, name])
            session.execute(sql.SQL("DROP OWNED BY {}").format(role))
            session.execute(sql.SQL("DROP ROLE {}").format(role))
    except errors.Error as error:
        raise StoreError(
            "store.failed",
            f"the role {name} of this run could not be removed: {error.diag.message_primary}",
            hint=f"it cannot log in any more; in each database: DROP OWNED BY {name}, then"
            f" DROP ROLE {name}",
        ) from None


# --- asking ------------------------------------------------------------------------------------


@contextmanager
def _entered(url: str) -> Iterator[Session]:
    try:
        session: Session = psycopg.connect(
            url, connect_timeout=CONNECT_TIMEOUT_S, application_name="handrail", autocommit=True
        )
    except psycopg.Error as error:
        said = str(error).strip().splitlines()
        raise StoreError(
            "store.unreachable",
            f"the server does not let this role in: {said[-1] if said else type(error).__name__}",
            hint="check that the server runs, and that this role may connect",
        ) from None
    with session:
        try:
            with session.transaction():
                # Nobody's operator or table stands for one of the system's.
                session.execute("SET LOCAL search_path = pg_catalog, pg_temp")
                session.execute("SET LOCAL lock_timeout = '5s'")
                yield session
        except psycopg.Error as error:
            denied = isinstance(error, errors.InsufficientPrivilege)
            raise StoreError(
                "store.denied" if denied else "store.failed",
                f"a limited role cannot be made: {error.diag.message_primary or error}",
                hint="let the guard use the store's own role",
            ) from None


def _one(session: Session, query: LiteralString, *values: object) -> Any:
    row = session.execute(query, values or None).fetchone()
    return row[0] if row else None


def _relations(session: Session) -> dict[str, _Relation]:
    """Return every user's relation by the name that effects spell."""
    found = (
        _Relation(schema, name, spelled, kind, secured, reads, frozenset(may), tuple(above))
        for schema, name, spelled, kind, secured, reads, may, above in session.execute(_RELATIONS)
    )
    return {relation.spelled: relation for relation in found}


_SPELLED: LiteralString = """CASE WHEN n.nspname = 'public' THEN ''
    ELSE quote_ident(n.nspname) || '.' END || quote_ident(c.relname)"""
# What a table's rows can be written through: its parents, and views on these, and views on those.
_RELATIONS: LiteralString = f"""
WITH RECURSIVE spelled AS (
    SELECT c.oid, n.nspname, c.relname, {_SPELLED} AS name, c.relkind, c.relrowsecurity
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
        AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
), step AS (
    SELECT inhrelid AS below, inhparent AS above FROM pg_inherits
    UNION
    SELECT d.refobjid, r.ev_class FROM pg_rewrite r JOIN pg_depend d
        ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        AND d.refclassid = 'pg_class'::regclass
    WHERE d.refobjid <> r.ev_class
), above AS (
    SELECT below, above FROM step
    UNION
    SELECT a.below, s.above FROM above a JOIN step s ON s.below = a.above
)
SELECT s.nspname, s.relname, s.name, s.relkind::text, s.relrowsecurity,
    has_any_column_privilege(s.oid, 'SELECT')
        OR (s.relkind = 'S' AND has_sequence_privilege(s.oid, 'SELECT')),
    (SELECT coalesce(array_agg(p), '{{}}')
        FROM unnest(CASE WHEN s.relkind = 'S' THEN ARRAY['SELECT', 'USAGE', 'UPDATE']
            ELSE ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'] END) p
        WHERE CASE WHEN s.relkind = 'S'
            THEN has_sequence_privilege(s.oid, p || ' WITH GRANT OPTION')
            ELSE has_table_privilege(s.oid, p || ' WITH GRANT OPTION') END),
    (SELECT coalesce(array_agg(t.name), '{{}}')
        FROM above a JOIN spelled t ON t.oid = a.above WHERE a.below = s.oid)
FROM spelled s ORDER BY s.name"""
_ROLE: LiteralString = """
SELECT r.rolsuper OR r.rolcreaterole,
    (SELECT substr(c, 6) FROM pg_db_role_setting s,
        unnest(s.setconfig) c WHERE s.setrole = r.oid AND c LIKE 'role=%' LIMIT 1)
FROM pg_roles r WHERE r.rolname = session_user"""
_SETTINGS: LiteralString = """
SELECT s.setdatabase = 0, split_part(c, '=', 1),
    substr(c, strpos(c, '=') + 1)
FROM pg_db_role_setting s
JOIN pg_roles r ON r.oid = s.setrole AND r.rolname = session_user
CROSS JOIN unnest(s.setconfig) c
WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database
    WHERE datname = current_database()))"""
# What is not tables: each gives names that are quoted already.
_ELSEWHERE: tuple[tuple[LiteralString, LiteralString], ...] = (
    (
        """SELECT quote_ident(current_database())
        WHERE has_database_privilege(current_database(),
            'CONNECT WITH GRANT OPTION')""",
        "GRANT CONNECT ON DATABASE {} TO {}",
    ),
    (
        """SELECT quote_ident(current_database())
        WHERE has_database_privilege(current_database(),
            'TEMPORARY WITH GRANT OPTION')""",
        "GRANT TEMPORARY ON DATABASE {} TO {}",
    ),
    (
        """SELECT quote_ident(nspname) FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
            AND has_schema_privilege(oid, 'USAGE WITH GRANT OPTION')""",
        "GRANT USAGE ON SCHEMA {} TO {}",
    ),
    (
        """SELECT p.oid::regprocedure::text FROM pg_proc p
        WHERE p.oid >= 16384 AND p.proacl IS NOT NULL
            AND NOT EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 0)
            AND has_function_privilege(p.oid, 'EXECUTE WITH GRANT OPTION')""",
        "GRANT EXECUTE ON ROUTINE {} TO {}",
    ),
)
_LEFT_OVER: LiteralString = """
SELECT r.rolname FROM pg_roles r
WHERE r.rolname ~ '^handrail_[0-9a-f]{16,40}$' AND r.rolvaliduntil < now()
    AND NOT r.rolsuper
    AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.usesysid = r.oid)"""
_END_SESSIONS: LiteralString = """
SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity
WHERE usename = %s"""
