"""The classifier: what a statement is, its template and text, and that remembering is safe."""

from __future__ import annotations

import random
import re
import string
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from handrail.wire.postgres import classify as module
from handrail.wire.postgres import classify_effects, classify_nodes
from handrail.wire.postgres.classify import Classifier, blanked, classify, codec, decode
from handrail.wire.postgres.classify_text import SAFE_CODECS
from handrail.wire.postgres.classify_tokens import grammar
from handrail.wire.postgres.statement import Statement


def one(sql: str) -> Statement:
    """Return the only statement of a text."""
    (found,) = classify(sql)
    return found


# --- every statement of the grammar --------------------------------------------------------------


def test_every_statement_of_the_grammar_is_decided() -> None:
    """No statement type of the parser is left to chance."""
    types = {f.name for f in grammar().Node.DESCRIPTOR.oneofs[0].fields if f.message_type}
    statements = {name for name in types if name.endswith("_stmt")} | {"query"}
    decided = set(classify_nodes.TABLE) | classify_nodes.NEVER_ALONE
    assert statements == decided
    assert not set(classify_nodes.TABLE) & classify_nodes.NEVER_ALONE


def test_a_node_that_is_not_in_the_table_is_unknown() -> None:
    """What the grammar does not know as a statement is the most destructive thing there is."""
    for node in (grammar().Node(), grammar().Node(query=grammar().Query())):
        assert classify_nodes.judge(node, "x", "x").kind == "unknown"


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("REINDEX TABLE t", "write"),
        ("REINDEX (CONCURRENTLY) INDEX i", "alone"),
        ("REINDEX SCHEMA s", "alone"),
        ("REINDEX DATABASE d", "alone"),
        ("CLUSTER t USING i", "write"),
        ("ANALYZE", "write"),
        ("VACUUM (FULL) t", "alone"),
        ("ALTER DATABASE d SET TABLESPACE x", "alone"),
        ("ALTER DATABASE d CONNECTION LIMIT 3", "write"),
        ("ALTER DATABASE d SET work_mem = 1", "write"),
        ("ALTER ROLE r SET search_path = x", "write"),
        ("IMPORT FOREIGN SCHEMA x FROM SERVER s INTO y", "write"),
        ("DISCARD TEMP", "setting"),
        ("SET ROLE x", "setting"),
        ("SET SESSION AUTHORIZATION DEFAULT", "setting"),
        ("RESET session_replication_role", "setting"),
        ("SET session_replication_role TO DEFAULT", "setting"),
        ("EXPLAIN (ANALYZE off) DELETE FROM t", "read"),
        ("EXPLAIN (ANALYZE) SELECT 1", "read"),
        ("EXPLAIN SELECT pg_terminate_backend(1)", "read"),
        ("EXPLAIN ANALYZE SELECT pg_terminate_backend(1)", "forbidden"),
        ("SELECT lo_get(1)", "read"),
        ("SELECT lo_unlink(1)", "write"),
        ("TABLE t", "read"),
        ("MOVE 3 FROM c", "read"),
        ("ROLLBACK PREPARED 'x'", "two-phase"),
        ("ABORT", "rollback"),
    ],
)
def test_kinds(sql: str, kind: str) -> None:
    """Statements are what PostgreSQL makes of them, with their options."""
    assert one(sql).kind == kind


def test_modes_and_transactions_say_what_they_ask_for() -> None:
    """READ ONLY and READ WRITE, AND CHAIN and names are told."""
    assert one("BEGIN").reads_only is None
    assert one("BEGIN READ ONLY").reads_only is True
    assert one("START TRANSACTION READ ONLY, READ WRITE").reads_only is False
    assert one("SET TRANSACTION READ WRITE").reads_only is False
    assert one("SET transaction_read_only = 'tru'").reads_only is True
    assert one("SET default_transaction_read_only TO 0").reads_only is False
    assert one("SET default_transaction_read_only TO DEFAULT").reads_only is None
    assert one("SELECT set_config('transaction_read_only', 'off', true)").reads_only is False
    assert one("SELECT set_config('transaction_read_only', $1, true)").reads_only is False
    assert one("COMMIT AND CHAIN").chains
    assert one("COMMIT AND NO CHAIN").chains is False
    assert one('ROLLBACK TO SAVEPOINT "A b"').name == "A b"
    assert one("SET Client_Encoding = 'x'").name == "client_encoding"
    assert one("PREPARE x AS DELETE FROM t WHERE id = $1").inner == Statement(
        "PREPARE x AS DELETE FROM t WHERE id = $1",
        "PREPARE x AS DELETE FROM t WHERE id = $1",
        "write", table=("", "t"), verb="delete", plain=True,
    )  # fmt: skip


def test_forbidden_statements_say_why() -> None:
    """Each refusal has a reason that an operator can read."""
    for sql in ("COPY t TO PROGRAM 'x'", "LOAD 'x'", "SET track_counts = off", "SELECT dblink('')"):
        assert one(sql).kind == "forbidden"
        assert re.fullmatch(r"[a-z][^.]+\(.+\)", one(sql).why), one(sql).why


def test_the_servers_own_functions_that_reach_beyond_it_are_forbidden() -> None:
    """Of the functions that a read-only transaction does not stop, none is taken for reading."""
    far = [
        "pg_terminate_backend",
        "pg_cancel_backend",
        "pg_reload_conf",
        "pg_rotate_logfile",
        "pg_promote",
        "pg_switch_wal",
        "pg_wal_replay_pause",
        "pg_wal_replay_resume",
        "pg_create_restore_point",
        "pg_backup_start",
        "pg_backup_stop",
        "pg_stat_reset",
        "pg_stat_reset_shared",
        "pg_stat_reset_slru",
        "pg_stat_reset_single_table_counters",
        "pg_create_physical_replication_slot",
        "pg_create_logical_replication_slot",
        "pg_drop_replication_slot",
        "pg_copy_physical_replication_slot",
        "pg_copy_logical_replication_slot",
        "pg_replication_slot_advance",
        "pg_logical_emit_message",
        "pg_logical_slot_get_changes",
        "pg_logical_slot_get_binary_changes",
        "pg_replication_origin_create",
        "pg_replication_origin_drop",
        "pg_replication_origin_advance",
        "pg_replication_origin_session_setup",
        "lo_import",
        "lo_export",
        "pg_log_backend_memory_contexts",
        "pg_import_system_collations",
        "binary_upgrade_set_record_init_privs",
        "dblink_exec",
        "dblink_connect",
        "pg_file_write",
        "pg_file_unlink",
    ]
    for name in far:
        assert one(f"SELECT {name}(1)").kind == "forbidden", name
        assert one(f"SELECT pg_catalog.{name.upper()}()").kind == "forbidden", name
    near = [
        "now",
        "random",
        "pg_sleep",
        "pg_notify",
        "pg_export_snapshot",
        "setseed",
        "version",
        "pg_read_file",
    ]
    for name in near:
        assert classify_effects.forbidden_function("", name) == "", name


# --- plain ---------------------------------------------------------------------------------------

PLAIN = [
    ("INSERT INTO t VALUES (1, 'x', NULL, true, DEFAULT, -5, $1)", ("", "t"), "insert"),
    ("INSERT INTO s.t (a, b) VALUES ($1, $2), ($3, $4) RETURNING a", ("s", "t"), "insert"),
    ("INSERT INTO t DEFAULT VALUES", ("", "t"), "insert"),
    ("UPDATE t SET a = a + 1, b = CURRENT_TIMESTAMP WHERE id = 5", ("", "t"), "update"),
    ("UPDATE ONLY t SET a = $1 WHERE id IN (1, 2) AND NOT b IS NULL", ("", "t"), "update"),
    ("UPDATE t SET a = coalesce(b, 0) WHERE c BETWEEN 1 AND 2", ("", "t"), "update"),
    ("DELETE FROM t WHERE id = ANY($1) OR a || 'x' <> $2", ("", "t"), "delete"),
    ("DELETE FROM \"T x\" WHERE a = '1'::integer", ("", "T x"), "delete"),
    ("DELETE FROM t WHERE a IS NOT DISTINCT FROM 3 RETURNING *", ("", "t"), "delete"),
]
NOT_PLAIN = [
    "INSERT INTO t SELECT 1",
    "INSERT INTO t VALUES (f())",
    "INSERT INTO t VALUES ((SELECT 1))",
    "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
    "INSERT INTO t VALUES (1) RETURNING a + 1",
    "INSERT INTO t VALUES (1) RETURNING f()",
    "INSERT INTO t VALUES (1) ORDER BY 1",
    "INSERT INTO t VALUES (now())",
    "INSERT INTO t VALUES ('x'::odd)",
    "INSERT INTO t VALUES (odd '1')",
    "INSERT INTO t VALUES ('x'::text)",
    "INSERT INTO t VALUES ('x'::other.int4)",
    "INSERT INTO t VALUES (ROW(1, 2))",
    "INSERT INTO t VALUES (ARRAY[1])",
    "INSERT INTO t (a[1]) VALUES (1)",
    "INSERT INTO db.s.t VALUES (1)",
    "INSERT INTO größe VALUES (1)",
    "WITH x AS (SELECT 1) INSERT INTO t VALUES (1)",
    "WITH x AS (SELECT 1) DELETE FROM t",
    "UPDATE t SET a = 1 FROM u",
    "UPDATE t SET (a, b) = (SELECT 1, 2)",
    "UPDATE t SET a = 1 WHERE b LIKE 'x'",
    "UPDATE t SET a = 1 WHERE b ~ 'x'",
    "UPDATE t SET a = 1 WHERE b === 1",
    "UPDATE t SET a = 1 WHERE b OPERATOR(public.=) 1",
    "UPDATE t SET a = 1 WHERE b = ALL($1)",
    "UPDATE t SET a = 1 WHERE (t).b",
    "UPDATE t SET a = 1 WHERE EXISTS (SELECT 1)",
    "UPDATE t SET a = b[1]",
    'UPDATE t SET a = b COLLATE "C"',
    "UPDATE t SET a = CASE WHEN true THEN 1 END",
    "DELETE FROM t USING u",
    "DELETE FROM t WHERE CURRENT OF c",
    "DELETE FROM t WHERE a = lower('x')",
    "DELETE FROM t WHERE a = $1::uuid",
    "DELETE FROM t WHERE nullif(a, 1) = 1",
    "DELETE FROM t WHERE ünder = 1",
    "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
    "EXPLAIN ANALYZE DELETE FROM t",
    "SELECT 1",
]


@pytest.mark.parametrize(("sql", "table", "verb"), PLAIN)
def test_what_only_its_table_decides_is_plain(sql: str, table: tuple[str, str], verb: str) -> None:
    """Constants, parameters, columns and common operators are plain."""
    found = one(sql)
    assert (found.plain, found.table, found.verb) == (True, table, verb)


@pytest.mark.parametrize("sql", NOT_PLAIN)
def test_what_something_else_may_decide_is_not_plain(sql: str) -> None:
    """Functions, subqueries, unusual operators, casts and names are not plain."""
    found = one(sql)
    assert (found.plain, found.dotted, found.verb) == (False, (), "")


def test_a_column_with_its_table_is_plain_only_if_it_is_a_column() -> None:
    """`t.f` may be a function of the row: whoever knows the columns decides."""
    found = one('UPDATE "t" SET "a" = 1 WHERE "t"."id" = 2 AND t.b = 1 RETURNING "t"."id"')
    assert (found.plain, found.dotted, found.table) == (False, ("id", "b"), ("", "t"))


# --- texts and templates -------------------------------------------------------------------------


def test_each_statement_of_a_text_is_given_alone() -> None:
    """The texts of several statements are what the client wrote, characters of any length apart."""
    sql = "SELECT 'ä;日' ; /* c; */ UPDATE t SET ü = '🚀';;\n DELETE FROM t -- end;\n;COMMIT"
    assert [(s.text, s.kind) for s in classify(sql)] == [
        ("SELECT 'ä;日'", "read"),
        ("UPDATE t SET ü = '🚀'", "write"),
        ("DELETE FROM t -- end", "write"),
        ("COMMIT", "commit"),
    ]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("SELECT 1", "SELECT   -2 -- x"),
        ("SELECT * FROM t WHERE a IN (1, 2, 3)", "SELECT * FROM t WHERE a IN (4)"),
        ("DELETE FROM t WHERE a IN ('a'::uuid,'b'::uuid)", "DELETE FROM t WHERE a IN ('c'::uuid)"),
        ("INSERT INTO t VALUES (1, 'a'), (2, NULL), (3,'c')", "INSERT INTO t VALUES (-9, 'z')"),
        ("INSERT INTO t VALUES (1) RETURNING a", "INSERT INTO t VALUES (1), (2) RETURNING a"),
        ("SELECT f(ARRAY[1,2,3])", "SELECT f(ARRAY[1])"),
        ("SELECT a FROM t WHERE b = 'x'", "SELECT a FROM t WHERE b = E'\\n'"),
        ("UPDATE t SET a = 'x', b = NULL", "UPDATE t SET a = NULL, b = 5"),
        ("SELECT 1;", "SELECT 1"),
        ("SELECT a /* b */ FROM t", "SELECT a\nFROM t"),
        ("CREATE ROLE r PASSWORD 'a'", "CREATE ROLE r PASSWORD 'b'"),
        ("SET x.y = 'a'", "SET x.y = 'b'"),
    ],
)
def test_other_values_give_the_same_template(left: str, right: str) -> None:
    """Statements that differ in nothing but values and the length of lists are one."""
    assert one(left).template == one(right).template


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("SELECT f(1)", "SELECT f(1, 2)"),
        ("SELECT a - 1", "SELECT - 1"),
        ("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1, 2)"),
        ("DELETE FROM t WHERE a IS NULL", "DELETE FROM t WHERE a IS NOT NULL"),
        ("DELETE FROM t WHERE a IN (1)", "DELETE FROM t WHERE a NOT IN (1)"),
        ("DELETE FROM t WHERE a IN (1, b)", "DELETE FROM t WHERE a IN (1)"),
        ("DO 'BEGIN DELETE FROM a; END'", "DO 'BEGIN DELETE FROM b; END'"),
        ("DO $$ x $$ LANGUAGE plpgsql", "DO $$ y $$ LANGUAGE plpgsql"),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
        ),
        ('DELETE FROM "a 1"', 'DELETE FROM "a 2"'),
        ("DELETE FROM a1", "DELETE FROM a2"),
    ],
)
def test_other_statements_give_other_templates(left: str, right: str) -> None:
    """What differs in more than values is another statement."""
    assert one(left).template != one(right).template


SECRETS = st.text(string.ascii_letters + string.digits, min_size=6, max_size=12).map(
    lambda text: f"Zq{text}"
)
HOLDERS = [
    "SELECT '{}'",
    "SELECT E'\\\\{}'",
    "SELECT $${}$$, $x${}$x$",
    "SELECT U&'{}'",
    "SELECT N'{}', interval '{}', date '{}'",
    "INSERT INTO t VALUES ('{}', 1), ('{}', NULL)",
    "CREATE ROLE r LOGIN PASSWORD '{}'",
    "ALTER ROLE r ENCRYPTED PASSWORD '{}' VALID UNTIL '{}'",
    "CREATE USER MAPPING FOR r SERVER s OPTIONS (password '{}')",
    "SET app.secret = '{}'",
    "COPY t FROM '{}' DELIMITER '{}'",
    "DO $$ BEGIN PERFORM '{}'; END $$",
    "DO '{}' LANGUAGE 'plpgsql'",
    "CREATE FUNCTION f(a text DEFAULT '{}') RETURNS int LANGUAGE sql SET x.y = '{}' AS '{}'",
    "CREATE FUNCTION f() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT '{}'; END",
    "COMMENT ON TABLE t IS '{}'",
    "NOTIFY c, '{}'",
    "PREPARE p AS SELECT '{}'",
    "EXECUTE p('{}')",
    "SELECT 1 /* {} */ -- {}",
    "CREATE SUBSCRIPTION s CONNECTION 'password={}' PUBLICATION p",
    "ALTER SYSTEM SET primary_conninfo = 'password={}'",
    "CREATE TABLE t (a text DEFAULT '{}' CHECK (a <> '{}'))",
    "SELEC '{}'",
    "SELECT '{}",
    "SELECT '{}' /* ",
    "SELECT '{}'; SELEC '{}'",
]


@given(st.sampled_from(HOLDERS), SECRETS)
def test_no_literal_survives_in_a_template(holder: str, secret: str) -> None:
    """Whatever holds a value, its template does not."""
    for statement in classify(holder.replace("{}", secret)):
        assert secret not in statement.template
        assert statement.inner is None or secret not in statement.inner.template


@given(st.sampled_from([*HOLDERS, *NOT_PLAIN, *(sql for sql, _, _ in PLAIN)]), SECRETS)
def test_the_template_of_a_template_is_itself(holder: str, secret: str) -> None:
    """A template is blanked once and for all."""
    for statement in classify(holder.replace("{}", secret)):
        if statement.template and not statement.template.startswith("("):
            assert [s.template for s in classify(statement.template)] == [statement.template]


# --- what cannot be read -------------------------------------------------------------------------


@given(st.one_of(st.binary(), st.text().map(lambda t: t.encode(errors="surrogatepass"))))
@example(b"\x00")
@example(b"SELECT '\xff")
def test_any_bytes_are_classified(sql: bytes) -> None:
    """Nothing that a client can send makes the classifier fail."""
    classifier = Classifier()
    for encoding in ("UTF8", "SJIS", "SQL_ASCII", "JOHAB", "nonsense"):
        found = classifier.of(sql, encoding)
        assert found
        assert all(isinstance(statement, Statement) for statement in found)


@given(st.text())
@example("\ud800")
@example("SELECT '\ud800'")
def test_any_text_is_classified(sql: str) -> None:
    """Nothing that is a text makes it fail either."""
    assert classify(sql)
    assert Classifier().of(sql)
    assert classify(sql, standard_strings=False)


DEEP = {
    "plus": "SELECT 1" + "+1" * 100_000,
    "minus": "SELECT " + "- " * 100_000 + "a",
    "union": "SELECT 1,2" + " UNION SELECT 1,2" * 100_000,
    "join": "SELECT 1 FROM a" + " JOIN a ON true" * 100_000,
    "cast": "SELECT 1" + "::int" * 100_000,
    "parentheses": "SELECT " + "(" * 100_000 + "1" + ")" * 100_000,
    "layers": "SELECT " + "(" * 500 + "1" + (" + 1" * 100 + ")") * 500,
    "comments": "/*" * 100_000 + "*/" * 100_000,
    "is null": "SELECT a" + " IS NULL" * 100_000,
    "collate": "SELECT a" + ' COLLATE "C"' * 100_000,
    "not": "SELECT " + "NOT " * 100_000 + "a",
    "commas": "SELECT " + "1," * 100_000 + "1",
    "case": "SELECT " + "CASE WHEN true THEN " * 3000 + "1" + " END" * 3000,
    "arrays": "SELECT " + "ARRAY[" * 5000 + "1" + "]" * 5000,
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_texts_do_not_end_the_process(name: str) -> None:
    """The parser's recursion is bounded before it uses up the stack; in another process."""
    code = (
        "import sys, threading\n"
        "from handrail.wire.postgres.classify import classify\n"
        "sql = sys.stdin.read()\n"
        "thread = threading.Thread(target=lambda: print(classify(sql)[0].kind))\n"
        "thread.start(); thread.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=DEEP[name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ({"read"} if name == "commas" else {"unknown", "forbidden"})


def test_as_deep_as_people_write_is_understood() -> None:
    """Hundreds of operators, joins, branches and rows are no reason not to understand."""
    for sql in (
        "SELECT a" + " || b" * 500,
        "SELECT 1" + " UNION ALL SELECT 1" * 300,
        "SELECT 1 FROM a" + " JOIN a ON true" * 200,
        "SELECT 1 WHERE " + " OR ".join(f"a = {n}" for n in range(400)),
        "SELECT " + "CASE WHEN a THEN 1 ELSE " * 50 + "1" + " END" * 50,
    ):
        assert one(sql).kind == "read"
    rows = ", ".join(f"({n}, -1.5, 'x'::text)" for n in range(5000))
    assert one(f"INSERT INTO t VALUES {rows}").template == "INSERT INTO t VALUES ($1, $2, $3::text)"


def test_a_text_too_long_to_read_is_refused_where_it_could_commit() -> None:
    """Beyond the bound only words decide; they are found wherever they stand."""
    filler = "SELECT 'x' FROM t WHERE a = 'y';\n" * 200_000
    assert one(filler).kind == "unknown"
    for word in ("COMMIT", "end", "Rollback", "ABORT;", "PREPARE TRANSACTION 'x'", "dblink_exec()"):
        assert one(f"{filler}{word}").kind == "forbidden"


def test_a_long_insert_is_read_by_its_first_row() -> None:
    """Rows of constants after the first change nothing, and are not read twice."""
    rows = ",".join(f"({n}, 'name {n}', NULL, -1.5)" for n in range(50_000))
    found = one(f'INSERT INTO t (a, "b", c, d) VALUES {rows} RETURNING a;')
    assert found.template == 'INSERT INTO t (a, "b", c, d) VALUES ($1, $2, $3, $4) RETURNING a'
    assert (found.plain, found.table, found.verb) == (True, ("", "t"), "insert")
    assert found.text.endswith("RETURNING a;")
    assert len(found.text) > 1_000_000
    not_plain = one(f"INSERT INTO t (a, \"b\", c, d) VALUES {rows}, (f(), '', NULL, 1)")
    assert (not_plain.kind, not_plain.plain) == ("write", False)
    with_more = classify(f"INSERT INTO t VALUES {rows}; DELETE FROM t")
    assert [s.kind for s in with_more] == ["write", "write"]


def test_a_syntax_error_is_unknown_and_stays_the_servers() -> None:
    """A mistake is no attempt: it is passed on in a transaction that is gated."""
    for sql in ("SELEC 1", "SELECT 'x", "SELECT CASE WHEN a THEN 1 END FRM t", "COMMIT nothing"):
        assert one(sql).kind == "unknown"


def test_with_escaping_strings_a_backslash_is_not_guessed_at() -> None:
    """Where the server reads strings otherwise than the parser, only texts without are read."""
    (plain,) = classify("SELECT 'x'", standard_strings=False)
    (unsure,) = classify("SELECT '\\n'", standard_strings=False)
    (worse,) = classify("COMMIT /* \\ */", standard_strings=False)
    assert (plain.kind, unsure.kind, worse.kind) == ("read", "unknown", "forbidden")


# --- encodings -----------------------------------------------------------------------------------


def test_encodings_are_read_as_the_server_reads_them() -> None:
    """A byte that is half a character is no quote and no backslash."""
    assert decode(b"\x95\x5c", "SJIS") == "表"
    assert decode("ä".encode("latin-1"), "LATIN1") == "ä"
    assert decode(b"\xe9", "UTF8") is None
    assert decode(b"SELECT \xe9", "SQL_ASCII") == "SELECT é"
    assert decode(b"a\x00b", "UTF8") is None
    assert decode(b"SELECT 1", "WIN1252") == "SELECT 1"
    assert decode(b"\xe9", "NO_SUCH_ENCODING") is None
    assert decode(b"a\x5cb", "JOHAB") == "a\\b"
    assert decode(b"a\x5cb", "SHIFT_JIS_2004") is None
    assert codec("utf-8") == codec("UNICODE") == "utf-8"
    assert codec("ISO_8859_5") == "iso8859_5"


@given(st.sampled_from(sorted(SAFE_CODECS)), st.binary())
def test_in_a_safe_encoding_ascii_stays_where_it_is(name: str, data: bytes) -> None:
    """No byte below 0x80 is part of a character there, and no character becomes one."""
    try:
        text = data.decode(name)
        if text.encode(name) != data:
            return
    except UnicodeError:
        return
    ascii_bytes = bytes(byte for byte in data if byte < 0x80)
    assert "".join(c for c in text if c.isascii()).encode() == ascii_bytes


def test_postgresql_knows_every_encoding_under_the_names_that_are_mapped() -> None:
    """None of the encodings of a server of today is left out."""
    names = [
        "BIG5",
        "EUC_CN",
        "EUC_JP",
        "EUC_JIS_2004",
        "EUC_KR",
        "EUC_TW",
        "GB18030",
        "GBK",
        "ISO_8859_5",
        "ISO_8859_6",
        "ISO_8859_7",
        "ISO_8859_8",
        "JOHAB",
        "KOI8R",
        "KOI8U",
        "LATIN1",
        "LATIN2",
        "LATIN3",
        "LATIN4",
        "LATIN5",
        "LATIN6",
        "LATIN7",
        "LATIN8",
        "LATIN9",
        "LATIN10",
        "MULE_INTERNAL",
        "SJIS",
        "SHIFT_JIS_2004",
        "SQL_ASCII",
        "UHC",
        "UTF8",
        "WIN866",
        "WIN874",
        "WIN1250",
        "WIN1251",
        "WIN1252",
        "WIN1253",
        "WIN1254",
        "WIN1255",
        "WIN1256",
        "WIN1257",
        "WIN1258",
    ]
    for name in names:
        assert codec(name) != "ascii", name
        assert decode(b"SELECT 1", name) == "SELECT 1", name


# --- remembering ---------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "SELECT ", "DELETE FROM ", "UPDATE t SET a = ", "INSERT INTO t VALUES (", ")", " WHERE ",
        "a",
        "a1", "1", "12", "1234567890", "1.5", "1e5", "0x1F", "1_000", "$1", "$12", "$a$", "$$", "'",
        "''", "'1'", "'a1'", "'--'", "'/*'", '"', '"a1"', '"a 1"', '""', "E'", "e'1'", "U&'1'",
        "N'1'",
        "b'1'", "x'1'", "\\", "--", "-", "/*", "*/", "/", "*", "\n", " ", ";", ",", "(", "::",
        "int",
        "IN (1, 2)", " = ", "é", "é1", "\u00a0", "set_config('a1', 'b', false)", "nextval('s1')",
        "float(25)", "date '2020-01-01'", "COMMIT", "BEGIN", ".5", "1.", "[1]", "t1.a2", "@", "?",
        " UNION ", "LIKE 'x1'", "interval '1' day", "1a", "a$1", "\x0b",
    ]
)  # fmt: skip
CONFUSING = st.lists(PIECES, min_size=1, max_size=14).map("".join)
VALUES = re.compile(r"\d+")


def _seen(found: tuple[Statement, ...]) -> list[object]:
    return [
        (s.kind, s.template, s.name, s.table, s.verb, s.plain, s.dotted, s.reads_only, s.text)
        for s in found
    ]


@settings(max_examples=300)
@given(CONFUSING, st.integers(0, 10**12), st.booleans())
@example("SELECT 1", 2, True)
@example("SELECT '1'", 2, True)
@example('SELECT "a1", 1', 2, True)
@example("SELECT 0x1F", 1, True)
@example("SELECT set_config('a1', 'b', false)", 2, True)
def test_what_is_remembered_is_what_would_be_found(sql: str, number: int, standard: bool) -> None:
    """A text that looks like one that was seen is classified as if it had been seen alone."""
    classifier = Classifier()
    classifier.of(sql, standard_strings=standard)
    for other in (sql, VALUES.sub(str(number), sql), VALUES.sub("0", sql), sql.replace("x", "y")):
        remembered = classifier.of(other, standard_strings=standard)
        alone = classify(other, standard_strings=standard)
        if alone[0].kind == "unknown" and remembered[0].kind in {"read", "write"}:
            # The grammar refuses some numbers (`float(99)`): so will the server.
            assert "float" in other
            continue
        assert _seen(remembered) == _seen(alone)


@given(st.lists(st.tuples(CONFUSING, st.integers(0, 99)), min_size=2, max_size=8))
def test_texts_that_are_blanked_alike_have_the_same_tokens(pairs: list[tuple[str, int]]) -> None:
    """Two texts share a blanked one only where they differ in values alone."""
    known: dict[bytes, str] = {}
    for sql, number in pairs:
        for text in (sql, VALUES.sub(str(number), sql)):
            blank = blanked(text.encode())
            if blank is None:
                continue
            template = " ".join(s.template for s in classify(text))
            if "unreadable" not in template:
                assert known.setdefault(blank, template) == template


def test_texts_with_uncertain_tokens_are_never_blanked() -> None:
    """Comments, escapes, prefixes, dollar quotes and odd names are read each time."""
    for sql in (
        "SELECT 1 -- 2", "SELECT /* 1 */ 2", "SELECT E'1'", "SELECT U&'1'", "SELECT '\\1'",
        "SELECT $a$1$a$", "SELECT $$1$$", 'SELECT "a 1"', 'SELECT "a""1"', "SELECT 1e5",
        "SELECT 0x1",
        "SELECT a$1", "SELECT 'x", 'SELECT "x', "SELECT b'1'", "SELECT 1_000", "SELECT a @ 1",
    ):  # fmt: skip
        assert blanked(sql.encode()) is None, sql
    assert blanked(b"SELECT \"a1\", t.b2 FROM t WHERE a = 'x1' AND b = 17 AND c = $3") == (
        b"SELECT \"a1\", t.b2 FROM t WHERE a = '' AND b = 0 AND c = $3"
    )


def test_what_is_remembered_is_bounded() -> None:
    """The oldest is forgotten where there are too many, or too long ones."""
    classifier = Classifier(most_entries=50, most_bytes=100_000)
    for number in range(500):
        classifier.of(f"SELECT a{number}")
    assert len(classifier._known) <= 50
    for number in range(100):
        classifier.of(f"SELECT a{number}, '{'x' * 5000}'")
    assert classifier._bytes <= 100_000
    assert classifier._bytes == sum(module._size(key) for key in classifier._known)


def test_a_remembered_statement_has_the_new_text() -> None:
    """Of a text that looks like another the own text is given, in its own encoding."""
    classifier = Classifier()
    classifier.of(b"SELECT 'a', 1", "LATIN1")
    (found,) = classifier.of(b" SELECT '\xe4', 22; ", "LATIN1")
    assert found.text == "SELECT 'ä', 22"
    assert found.template == "SELECT $1, $2"
    (other,) = classifier.of("SELECT 'ä', 22".encode(), "UTF8")
    assert other.text == "SELECT 'ä', 22"


def test_the_same_bytes_in_another_encoding_are_another_text() -> None:
    """What is remembered of one encoding is not used for another."""
    classifier = Classifier()
    sql = b"SELECT E'\x95\x5c'; DELETE FROM notes; --'"
    first = [s.kind for s in classifier.of(sql, "SJIS")]
    assert first == ["read", "write"]
    assert [s.kind for s in classifier.of(sql, "LATIN1")] == ["read"]


def test_many_random_texts_classify_the_same_in_any_order() -> None:
    """The order in which texts are seen changes nothing."""
    choose = random.Random(7)
    templates = [
        "SELECT {0}",
        "SELECT '{0}'",
        "DELETE FROM t WHERE a = {0}",
        "SELECT a{0}",
        "FETCH {0}",
    ]
    texts = [choose.choice(templates).format(choose.randrange(99)) for _ in range(300)]
    classifier = Classifier()
    assert [_seen(classifier.of(t)) for t in texts] == [_seen(classify(t)) for t in texts]
