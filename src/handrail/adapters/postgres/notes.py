"""What a dump leaves out and a restore needs: roles, the database's own properties, settings.

Rules:
- Notes lie beside the dump, in `notes.json`, readable by their owner alone: settings may be secret.
- Passwords are not among them: nothing that is made from notes can log in where the original can.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from psycopg import sql

from handrail.adapters.postgres.catalog import Item, read_cluster
from handrail.adapters.postgres.connecting import Session, one, rows
from handrail.errors import StoreError
from handrail.plans import decoding

FILE = "notes.json"
# Settings whose value is a list of names, each of which is quoted by itself.
NAME_LISTS = frozenset(
    {
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    }
)
# Of libraries that a clone need not have: a missing one would refuse every connection.
PRELOADS = frozenset({"local_preload_libraries", "session_preload_libraries"})


@dataclass(frozen=True)
class Role:
    """A role without its password. `member_of` is role and options, as `WITH ...` spells them."""

    name: str
    attributes: dict[str, bool]
    connections: int
    member_of: tuple[tuple[str, dict[str, bool]], ...]


@dataclass(frozen=True)
class Setting:
    """A default setting of a role, of a database, or of both. Empty: of all."""

    role: str
    database: str
    name: str
    value: str


@dataclass(frozen=True)
class Notes:
    """All that `notes.json` holds.

    Attributes:
        form: `pg_dump` or `pg_basebackup`.
        major: of the server.
        version: of the server, for people.
        user: who made the backup; the script's role in a clone.
        database: its name.
        properties: the row of `pg_database`, as JSON, with the owner's name as `owner`.
        grants: on the database, as (role, privilege, can be passed on); None for the default.
        databases: names of the other databases, with their owners.
        roles: of the whole cluster.
        settings: of roles and databases.
        configuration: settings of the server's files that change what a script does.
        extensions: names of those that the database uses.
        cluster: what the cluster consisted of, for saying what a restore left as it is.
        salt: of the digests in `cluster`.
    """

    form: str
    major: int
    version: str
    user: str
    database: str
    properties: dict[str, Any]
    grants: tuple[tuple[str, str, bool], ...] | None
    databases: tuple[tuple[str, str], ...]
    roles: tuple[Role, ...]
    settings: tuple[Setting, ...]
    configuration: dict[str, str]
    extensions: tuple[str, ...]
    cluster: tuple[Item, ...]
    salt: str
    format: int = 1


def read_notes(session: Session, form: str) -> Notes:
    """Return the notes of the database that `session` is connected to."""
    salt = secrets.token_hex(8)
    properties = one(
        session,
        "SELECT to_jsonb(d) || jsonb_build_object('owner', pg_get_userbyid(d.datdba), 'encoding',"
        " pg_encoding_to_char(d.encoding)) FROM pg_database d WHERE datname = current_database()",
    )
    return Notes(
        form=form,
        major=int(one(session, "SHOW server_version_num")) // 10000,
        version=str(one(session, "SHOW server_version")),
        user=str(one(session, "SELECT session_user")),
        database=str(one(session, "SELECT current_database()")),
        properties=properties,
        grants=_grants(session) if properties["datacl"] else None,
        databases=_other_databases(session),
        roles=tuple(_roles(session)),
        settings=tuple(Setting(*row) for row in rows(session, _SETTINGS)),
        configuration=dict(rows(session, _CONFIGURATION)),
        extensions=tuple(n for (n,) in rows(session, "SELECT extname FROM pg_extension")),
        cluster=read_cluster(session, salt),
        salt=salt,
    )


_SETTINGS = """
SELECT coalesce(r.rolname, ''), coalesce(d.datname, ''), split_part(c, '=', 1),
    substr(c, strpos(c, '=') + 1)
FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) c
LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
ORDER BY 1, 2, 3"""

_CONFIGURATION = """
SELECT name, setting FROM pg_settings
WHERE source = 'configuration file' AND context IN ('user', 'superuser') AND vartype <> 'string'
    AND name !~ '^(log_|debug_|track_|fsync|ssl)' AND strpos(name, '.') = 0
UNION ALL SELECT name, setting FROM pg_settings WHERE source = 'configuration file' AND name IN
    ('search_path', 'TimeZone', 'DateStyle', 'default_text_search_config', 'lc_monetary',
    'lc_numeric', 'lc_time', 'default_table_access_method', 'client_encoding')
UNION ALL SELECT name, setting FROM pg_settings WHERE name IN
    ('max_connections', 'max_prepared_transactions', 'max_locks_per_transaction')"""


def _grants(session: Session) -> tuple[tuple[str, str, bool], ...]:
    return tuple(
        rows(
            session,
            "SELECT coalesce(r.rolname, ''), a.privilege_type, a.is_grantable FROM pg_database d"
            " CROSS JOIN aclexplode(d.datacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee"
            " WHERE d.datname = current_database() AND (a.grantee = 0 OR r.oid IS NOT NULL)"
            " ORDER BY 1, 2",
        )
    )


def _other_databases(session: Session) -> tuple[tuple[str, str], ...]:
    return tuple(
        rows(
            session,
            "SELECT datname, pg_get_userbyid(datdba) FROM pg_database WHERE datname NOT IN"
            " ('postgres', 'template0', 'template1', current_database()) ORDER BY 1",
        )
    )


def _roles(session: Session) -> list[Role]:
    found = rows(
        session,
        """
        SELECT r.rolname, jsonb_build_object('SUPERUSER', r.rolsuper, 'INHERIT', r.rolinherit,
            'CREATEROLE', r.rolcreaterole, 'CREATEDB', r.rolcreatedb,
            'REPLICATION', r.rolreplication, 'BYPASSRLS', r.rolbypassrls), r.rolconnlimit,
            (SELECT coalesce(jsonb_agg(jsonb_build_array(pg_get_userbyid(m.roleid),
                jsonb_strip_nulls(jsonb_build_object('ADMIN', m.admin_option,
                'INHERIT', to_jsonb(m) -> 'inherit_option', 'SET', to_jsonb(m) -> 'set_option'))
            )), '[]') FROM pg_auth_members m WHERE m.member = r.oid)
        FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1
        """,
    )
    return [Role(n, a, limit, tuple((m[0], m[1]) for m in ms)) for n, a, limit, ms in found]


def write(notes: Notes, folder: Path) -> None:
    """Write `notes.json` into `folder`."""
    path = folder / FILE
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(notes))


def read(folder: Path) -> Notes:
    """Return the notes of the backup in `folder`.

    Raises:
        StoreError: they are not there, or not ours.
    """
    try:
        return decoding.decode_json((folder / FILE).read_bytes(), Notes)
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(
            "backup.damaged",
            f"the backup in {folder} has no notes that can be read: {error}",
            hint="use another backup; they lie beside it",
        ) from error


def create_role(role: Role) -> sql.Composed:
    """Return the statement that makes a role that cannot log in."""
    rights = [word if on else f"NO{word}" for word, on in role.attributes.items()]
    options = f" NOLOGIN {' '.join(rights)} CONNECTION LIMIT {int(role.connections)}"
    return sql.SQL("CREATE ROLE {}").format(sql.Identifier(role.name)) + words(options)


def grant_memberships(role: Role, major: int) -> list[sql.Composed]:
    """Return the statements that make a role a member of others."""
    found = []
    for group, options in role.member_of:
        grant = sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(role.name))
        if major >= 16:  # noqa: PLR2004 - where the other options came
            said = [f"{k} {'TRUE' if v else 'FALSE'}" for k, v in options.items()]
            grant += words(f" WITH {', '.join(said)}")
        elif options.get("ADMIN"):
            grant += sql.SQL(" WITH ADMIN OPTION")
        found.append(grant)
    return found


def apply_setting(setting: Setting, database: str) -> sql.Composed:
    """Return the statement that makes a default setting; of `database` instead of its own one."""
    of_role = sql.SQL("ROLE {}").format(sql.Identifier(setting.role))
    of_database = sql.SQL("DATABASE {}").format(sql.Identifier(database))
    if setting.role and setting.database:
        target = of_role + sql.SQL(" IN ") + of_database
    elif setting.role:
        target = of_role
    else:
        target = of_database if setting.database else sql.Composed([sql.SQL("ROLE ALL")])
    values = split_names(setting.value) if setting.name in NAME_LISTS else [setting.value]
    name = sql.SQL(".").join(sql.Identifier(part) for part in setting.name.split("."))
    value = sql.SQL(", ").join(sql.Literal(value) for value in values)
    return sql.SQL("ALTER {} SET {} TO {}").format(target, name, value)


def split_names(text: str) -> list[str]:
    """Return the names in a list such as `"$user", public`, without their quotes."""
    names, current, quoted = [], "", False
    for character in text + ",":
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            names.append(current.strip())
            current = ""
        else:
            current += character
    return names


def apply_grants(notes: Notes, database: str) -> list[sql.Composed]:
    """Return the statements that give a new database the grants of the original."""
    if notes.grants is None:
        return []
    name = sql.Identifier(database)
    found = [sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name)]
    owner = str(notes.properties["owner"])
    found.append(sql.SQL("REVOKE ALL ON DATABASE {} FROM {}").format(name, sql.Identifier(owner)))
    for role, privilege, can_pass_on in notes.grants:
        to = sql.Identifier(role) if role else sql.SQL("PUBLIC")
        statement = sql.SQL("GRANT {} ON DATABASE {} TO {}").format(words(privilege), name, to)
        found.append(statement + sql.SQL(" WITH GRANT OPTION" if can_pass_on else ""))
    return found


def create_database(notes: Notes, name: str, major: int) -> sql.Composed:
    """Return the statement that makes an empty database as the original was made."""
    found = notes.properties
    options = [
        sql.SQL("OWNER {}").format(sql.Identifier(str(found["owner"]))),
        sql.SQL("ENCODING {}").format(sql.Literal(found["encoding"])),
        sql.SQL("LC_COLLATE {}").format(sql.Literal(found["datcollate"])),
        sql.SQL("LC_CTYPE {}").format(sql.Literal(found["datctype"])),
        sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(int(found["datconnlimit"]))),
    ]
    provider = {"i": "icu", "b": "builtin"}.get(str(found.get("datlocprovider")))
    if provider:
        word = "ICU_LOCALE" if provider == "icu" else "BUILTIN_LOCALE"
        locale = found.get("datlocale") or found.get("daticulocale")
        options.append(words(f"LOCALE_PROVIDER {provider} {word} ") + sql.Literal(locale))
    elif major >= 15:  # noqa: PLR2004 - where providers came
        options.append(sql.Composed([sql.SQL("LOCALE_PROVIDER libc")]))
    return sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}").format(
        sql.Identifier(name), sql.SQL(" ").join(options)
    )


def words(text: str) -> sql.Composed:
    """Return `text` as SQL: keywords and constants of ours alone, never a name from outside."""
    return sql.Composed([sql.SQL(text)])
