# ruff: noqa: S608 - every part of these queries is a constant of this file
"""The queries behind `catalog`: each gives kind, key, name, parent and attributes.

Rules:
- They run with an empty `search_path` (so `format_type` and the like qualify names), one snapshot.
- Every text they give is the same on every server of the same shape: no object ids, sorted lists,
  grants made whole by the default where none were given.
"""

from __future__ import annotations

import re
from typing import Final, LiteralString

_USER: Final = (
    "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"
)
_NAME: Final = "CASE WHEN n.nspname = 'public' THEN '' ELSE quote_ident(n.nspname) || '.' END || "
_TABLE: Final = _NAME + "quote_ident(c.relname)"


def _acl(column: LiteralString, kind: LiteralString, owner: LiteralString) -> LiteralString:
    """Return SQL for a sorted list of grants: `role: PRIVILEGE`, `*` where it can be passed on."""
    return (
        "(SELECT coalesce(jsonb_agg(g ORDER BY g COLLATE \"C\"), '[]') FROM (SELECT DISTINCT"
        " coalesce(r.rolname, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::text END)"
        " || ': ' || a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END AS g"
        f" FROM aclexplode(coalesce({column}, acldefault({kind}, {owner}))) a"
        # PostgreSQL 17 gave owners one more, which says nothing about who did what.
        " LEFT JOIN pg_roles r ON r.oid = a.grantee WHERE a.privilege_type <> 'MAINTAIN') x)"
    )


def _member(catalog: LiteralString, oid: LiteralString) -> LiteralString:
    """Return SQL that is true for what does not belong to an extension."""
    return (
        "NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e'"
        f" AND d.classid = 'pg_catalog.{catalog}'::regclass AND d.objid = {oid})"
    )


_SORTED_OPTIONS: Final = '(SELECT jsonb_agg(o ORDER BY o COLLATE "C") FROM unnest(c.reloptions) o)'

_SCHEMAS: Final[LiteralString] = f"""
SELECT 'schema', n.oid::text, quote_ident(n.nspname), '', jsonb_build_object(
    'owner', pg_get_userbyid(n.nspowner), 'grants', {_acl("n.nspacl", "'n'", "n.nspowner")})
FROM pg_namespace n WHERE {_USER} AND {_member("pg_namespace", "n.oid")}"""

_RELATIONS: Final[LiteralString] = f"""
SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
        WHEN 'f' THEN 'foreign table' ELSE 'table' END,
    c.oid::text, {_TABLE}, '', jsonb_build_object(
    'owner', pg_get_userbyid(c.relowner), 'grants', {_acl("c.relacl", "'r'", "c.relowner")},
    'partitioned', c.relkind = 'p', 'persistence', c.relpersistence,
    'row security', c.relrowsecurity, 'forced row security', c.relforcerowsecurity,
    'options', {_SORTED_OPTIONS}, 'bound', pg_get_expr(c.relpartbound, c.oid),
    'key', CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
    'parents', (SELECT jsonb_agg(i.inhparent::regclass::text ORDER BY i.inhseqno)
        FROM pg_inherits i WHERE i.inhrelid = c.oid),
    'replica identity', c.relreplident, 'populated', c.relispopulated,
    'access method', (SELECT am.amname FROM pg_am am WHERE am.oid = c.relam),
    'tablespace', (SELECT t.spcname FROM pg_tablespace t WHERE t.oid = c.reltablespace),
    'definition', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
    'foreign', (SELECT jsonb_build_array(s.srvname, f.ftoptions) FROM pg_foreign_table f
        JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid),
    '_file', c.relfilenode::bigint)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_USER} AND {_member("pg_class", "c.oid")}"""

_COLUMNS: Final[LiteralString] = f"""
SELECT 'column', c.oid || '.' || a.attnum, {_TABLE} || '.' || quote_ident(a.attname), c.oid::text,
    jsonb_build_object('type', format_type(a.atttypid, a.atttypmod), 'not null', a.attnotnull,
    'default', pg_get_expr(d.adbin, d.adrelid), 'identity', a.attidentity,
    'generated', a.attgenerated, 'storage', a.attstorage, 'compression', a.attcompression,
    'collation', (SELECT co.collname FROM pg_collation co WHERE co.oid = a.attcollation),
    'grants', CASE WHEN a.attacl IS NOT NULL THEN {_acl("a.attacl", "'c'", "c.relowner")} END,
    'options', (SELECT jsonb_agg(o ORDER BY o COLLATE "C") FROM unnest(a.attoptions) o
        WHERE o !~ '^pg_attver='),
    '~position', row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum))
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f') AND {_USER}
    AND {_member("pg_class", "c.oid")}"""

_INDEXES: Final[LiteralString] = f"""
SELECT 'index', i.indexrelid::text, {_TABLE}, i.indrelid::text, jsonb_build_object(
    'definition', substring(pg_get_indexdef(i.indexrelid) from ' USING .*$'),
    'unique', i.indisunique, 'valid', i.indisvalid, 'clustered', i.indisclustered,
    'replica identity', i.indisreplident, 'table', i.indrelid::regclass::text,
    'options', {_SORTED_OPTIONS})
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {_USER} AND {_member("pg_class", "i.indrelid")} AND NOT EXISTS (SELECT FROM pg_constraint k
    WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))"""

_CONSTRAINTS: Final[LiteralString] = f"""
SELECT 'constraint', k.oid::text, {_TABLE} || '.' || quote_ident(k.conname), k.conrelid::text,
    jsonb_build_object('definition', pg_get_constraintdef(k.oid), 'validated', k.convalidated,
    'inherited', k.coninhcount > 0)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype IN ('c', 'f', 'p', 'u', 'x', 't') AND {_USER}
    AND {_member("pg_class", "c.oid")}"""

_SEQUENCES: Final[LiteralString] = f"""
SELECT 'sequence', c.oid::text, {_TABLE}, coalesce((SELECT d.refobjid::text FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
        AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0), ''),
    jsonb_build_object('owner', pg_get_userbyid(c.relowner), 'start', s.seqstart,
    'grants', {_acl("c.relacl", "'s'", "c.relowner")}, 'increment', s.seqincrement,
    'minimum', s.seqmin, 'maximum', s.seqmax, 'cycle', s.seqcycle, 'cache', s.seqcache,
    'type', format_type(s.seqtypid, NULL), 'persistence', c.relpersistence)
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_USER} AND {_member("pg_class", "c.oid")}"""

_FUNCTIONS: Final[LiteralString] = f"""
SELECT CASE p.prokind WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'function' END,
    p.oid::text, {_NAME} quote_ident(p.proname)
        || '(' || pg_get_function_identity_arguments(p.oid) || ')', '',
    jsonb_build_object('owner', pg_get_userbyid(p.proowner),
    'grants', {_acl("p.proacl", "'f'", "p.proowner")},
    'definition', CASE WHEN p.prokind <> 'a' THEN md5(pg_get_functiondef(p.oid))
        ELSE (SELECT md5(concat_ws('|', g.aggtransfn, g.aggfinalfn, g.agginitval)) FROM
            pg_aggregate g WHERE g.aggfnoid = p.oid) END)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE {_USER} AND {_member("pg_proc", "p.oid")}"""

_TRIGGERS: Final[LiteralString] = f"""
SELECT 'trigger', t.oid::text, {_TABLE} || '.' || quote_ident(t.tgname), c.oid::text,
    jsonb_build_object('definition', pg_get_triggerdef(t.oid), 'enabled', t.tgenabled)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND {_USER} AND {_member("pg_class", "c.oid")}"""

# Internal ones are the work of constraints; a disabled one still lets bad rows in.
_SILENCED: Final[LiteralString] = f"""
SELECT 'constraint trigger', t.oid::text,
    {_TABLE} || '.' || quote_ident(k.conname) || ' ' || t.tgtype, c.oid::text,
    jsonb_build_object('enabled', t.tgenabled)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_constraint k ON k.oid = t.tgconstraint
WHERE t.tgisinternal AND t.tgenabled <> 'O' AND {_USER}"""

_RULES: Final[LiteralString] = f"""
SELECT 'rule', r.oid::text, {_TABLE} || '.' || quote_ident(r.rulename), c.oid::text,
    jsonb_build_object('definition', pg_get_ruledef(r.oid), 'enabled', r.ev_enabled)
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND {_USER} AND {_member("pg_class", "c.oid")}"""

_POLICIES: Final[LiteralString] = f"""
SELECT 'policy', p.oid::text, {_TABLE} || '.' || quote_ident(p.polname), c.oid::text,
    jsonb_build_object('for', p.polcmd, 'permissive', p.polpermissive,
    'to', (SELECT jsonb_agg(coalesce(a.rolname, 'PUBLIC') ORDER BY a.rolname)
        FROM unnest(p.polroles) r LEFT JOIN pg_roles a ON a.oid = r),
    'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid))
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_USER}"""

_TYPES: Final[LiteralString] = f"""
SELECT CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END, t.oid::text,
    {_NAME} quote_ident(t.typname), '', jsonb_build_object('owner', pg_get_userbyid(t.typowner),
    'grants', {_acl("t.typacl", "'T'", "t.typowner")},
    'labels', (SELECT jsonb_agg(e.enumlabel ORDER BY e.enumsortorder) FROM pg_enum e
        WHERE e.enumtypid = t.oid),
    'fields', (SELECT jsonb_agg(quote_ident(a.attname) || ' '
        || format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) FROM pg_attribute a
        WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
    'base', CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END,
    'not null', t.typnotnull, 'default', t.typdefault,
    'checks', (SELECT jsonb_agg(k.conname || ' ' || pg_get_constraintdef(k.oid)
        ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'))
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typtype IN ('e', 'd', 'c', 'r', 'b') AND (c.oid IS NULL OR c.relkind = 'c')
    AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
    AND {_USER} AND {_member("pg_type", "t.oid")}"""

_EXTENSIONS: Final[LiteralString] = """
SELECT 'extension', e.oid::text, quote_ident(e.extname), '', jsonb_build_object(
    '_version', e.extversion, 'schema', n.nspname)
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql'"""

_PUBLICATIONS: Final[LiteralString] = """
SELECT 'publication', p.oid::text, quote_ident(p.pubname), '', jsonb_build_object(
    'owner', pg_get_userbyid(p.pubowner), 'all tables', p.puballtables,
    'operations', jsonb_build_array(p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate),
    'tables', (SELECT jsonb_agg(r.prrelid::regclass::text ORDER BY r.prrelid::regclass::text)
        FROM pg_publication_rel r WHERE r.prpubid = p.oid))
FROM pg_publication p"""

_SUBSCRIPTIONS: Final[LiteralString] = """
SELECT 'subscription', s.oid::text, quote_ident(s.subname), '', jsonb_build_object(
    'owner', pg_get_userbyid(s.subowner), '_enabled', s.subenabled,
    'publications', s.subpublications)
FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
WHERE d.datname = current_database()"""

_EVENT_TRIGGERS: Final[LiteralString] = f"""
SELECT 'event trigger', t.oid::text, quote_ident(t.evtname), '', jsonb_build_object(
    'owner', pg_get_userbyid(t.evtowner), 'event', t.evtevent, 'enabled', t.evtenabled,
    'tags', t.evttags, 'function', t.evtfoid::regproc::text)
FROM pg_event_trigger t WHERE {_member("pg_event_trigger", "t.oid")}"""

_SERVERS: Final[LiteralString] = f"""
SELECT 'server', s.oid::text, quote_ident(s.srvname), '', jsonb_build_object(
    'owner', pg_get_userbyid(s.srvowner), 'grants', {_acl("s.srvacl", "'S'", "s.srvowner")},
    'wrapper', w.fdwname, 'options', s.srvoptions)
FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw"""

# The database's own properties: of its checksum, and of its effects.
_PROPERTIES: Final[LiteralString] = f"""
SELECT 'database properties', d.oid::text, '', '', jsonb_build_object(
    'owner', pg_get_userbyid(d.datdba), 'grants', {_acl("d.datacl", "'d'", "d.datdba")},
    'encoding', pg_encoding_to_char(d.encoding), 'collate', d.datcollate, 'ctype', d.datctype,
    'connections', d.datconnlimit,
    '~settings', (SELECT jsonb_agg(jsonb_build_array(r.rolname, c) ORDER BY r.rolname, c)
        FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) c
        LEFT JOIN pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = d.oid))
FROM pg_database d WHERE d.datname = current_database()"""

DATABASE: Final[tuple[LiteralString, ...]] = (
    _SCHEMAS,
    _RELATIONS,
    _COLUMNS,
    _INDEXES,
    _CONSTRAINTS,
    _SEQUENCES,
    _FUNCTIONS,
    _TRIGGERS,
    _SILENCED,
    _RULES,
    _POLICIES,
    _TYPES,
    _EXTENSIONS,
    _PUBLICATIONS,
    _SUBSCRIPTIONS,
    _EVENT_TRIGGERS,
    _SERVERS,
    _PROPERTIES,
)

# What cannot be read without a lock on the relation that it speaks of.
LOCKING: Final = frozenset({"definition", "default", "bound", "key", "using", "check", "checks"})
_LOCKING_CALLS: Final = re.compile(
    r"pg_get_(?:viewdef|ruledef|functiondef|constraintdef|triggerdef|indexdef|partkeydef|expr)"
    r"\([a-z.]+(?:, [a-z.]+)?\)"
)


def without_locks(query: str) -> str:
    """Return a query of `DATABASE` that locks no user's relation, and leaves `LOCKING` out."""
    return _LOCKING_CALLS.sub("NULL::text", query)


_ROLES: Final[LiteralString] = """
SELECT 'role', r.oid::text, quote_ident(r.rolname), '', jsonb_build_object(
    'superuser', r.rolsuper, 'inherit', r.rolinherit, 'createrole', r.rolcreaterole,
    'createdb', r.rolcreatedb, 'login', r.rolcanlogin, 'replication', r.rolreplication,
    'bypasses row security', r.rolbypassrls, 'connections', r.rolconnlimit,
    'valid until', r.rolvaliduntil,
    'member of', (SELECT jsonb_agg(to_jsonb(m) - 'oid' - 'roleid' - 'member' - 'grantor'
        || jsonb_build_object('role', pg_get_userbyid(m.roleid)) ORDER BY pg_get_userbyid(m.roleid))
        FROM pg_auth_members m WHERE m.member = r.oid))
FROM pg_roles r WHERE r.rolname !~ '^pg_'"""

_DATABASES: Final[LiteralString] = f"""
SELECT 'database', d.oid::text, quote_ident(d.datname), '', jsonb_build_object(
    'owner', pg_get_userbyid(d.datdba), 'grants', {_acl("d.datacl", "'d'", "d.datdba")},
    'connections', d.datconnlimit, 'accepts connections', d.datallowconn,
    '_name', d.datname, 'template', d.datistemplate)
FROM pg_database d"""

_SETTINGS: Final[LiteralString] = """
SELECT 'setting', s.setdatabase || '.' || s.setrole || '.' || split_part(c, '=', 1),
    concat_ws(' ', 'role ' || quote_ident(r.rolname), 'database ' || quote_ident(d.datname))
        || ': ' || split_part(c, '=', 1), '',
    jsonb_build_object('value', substr(c, strpos(c, '=') + 1))
FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) c
LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase"""

_TABLESPACES: Final[LiteralString] = f"""
SELECT 'tablespace', t.oid::text, quote_ident(t.spcname), '', jsonb_build_object(
    'owner', pg_get_userbyid(t.spcowner), 'grants', {_acl("t.spcacl", "'t'", "t.spcowner")},
    'options', t.spcoptions)
FROM pg_tablespace t"""

_SLOTS: Final[LiteralString] = r"""
SELECT 'replication slot', s.slot_name, quote_ident(s.slot_name), '', jsonb_build_object(
    'plugin', s.plugin, 'type', s.slot_type, 'database', s.database)
FROM pg_replication_slots s WHERE s.slot_name !~ '^handrail_' AND NOT s.temporary"""

# What one of them did nobody sees until somebody commits it: it keeps its locks meanwhile.
_PREPARED: Final[LiteralString] = """
SELECT 'prepared transaction', p.transaction::text, quote_ident(p.gid), '', jsonb_build_object(
    'owner', p.owner, 'database', p.database)
FROM pg_prepared_xacts p"""

CLUSTER: Final[tuple[LiteralString, ...]] = (
    _ROLES,
    _DATABASES,
    _SETTINGS,
    _TABLESPACES,
    _SLOTS,
    _PREPARED,
)

PASSWORDS: Final[LiteralString] = """
SELECT a.oid::text, a.rolpassword FROM pg_authid a WHERE a.rolpassword IS NOT NULL"""

SYSTEM_SETTINGS: Final[LiteralString] = r"""
SELECT DISTINCT ON (f.name) 'setting', 'system.' || f.name, 'system: ' || f.name, '',
    jsonb_build_object('value', f.setting)
FROM pg_file_settings f WHERE f.sourcefile ~ 'postgresql\.auto\.conf$'
ORDER BY f.name, f.seqno DESC"""
