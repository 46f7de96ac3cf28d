"""The corpora on a real server: nothing of a bypass takes effect, and nothing ordinary is changed.

A bypass is held to an empty budget: after it, no row, declaration, role, setting or large object is
another. Whatever leaves the database as it was leaves it to the next one, so a few databases serve
them all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg import sql

from handrail.adapters.postgres import gate
from handrail.plans.holding import Limits, Report
from handrail.ports import Store, StoreGuard
from handrail.wire import postgres
from handrail.wire.postgres import frames
from support.guarding import TABLES, budget, hold
from support.postgres_server import OWNER, Server
from support.raw_postgres import (
    Client,
    Heard,
    bind,
    call,
    cancel,
    copied,
    execute,
    extended,
    parse,
    query,
)

HERE = Path(__file__).parent / "corpus"
REFUSED, READ_ONLY = "HR000", "25006"
Entry = dict[str, Any]


def read(name: str) -> list[Entry]:
    """Return the entries of a corpus."""
    entries: list[Entry] = yaml.safe_load((HERE / name).read_text("utf-8"))
    return entries


BYPASSES = read("bypasses.yaml")
FALSE_ALARMS = read("false_alarms.yaml")


def texts(entry: Entry) -> list[bytes]:
    """Return the simple queries of an entry without messages."""
    if "hex" in entry:
        return [bytes.fromhex(entry["hex"])]
    given = entry["sql"]
    return [text.encode() for text in ([given] if isinstance(given, str) else given)]


# --- databases -----------------------------------------------------------------------------------

# Of pg_class, what only estimates, ages, or is set in place and stays after a rollback.
_VOLATILE = {
    "pg_class": "relpages reltuples relallvisible relallfrozen relhasindex relfrozenxid relminmxid"
}
# A temporary schema stays when its session has gone; and other databases are made meanwhile.
_WHICH = {
    "pg_namespace": "WHERE nspname !~ '^pg_(toast_)?temp_'",
    "pg_shdepend": "WHERE dbid IN (0, (SELECT oid FROM pg_catalog.pg_database"
    " WHERE datname = current_database()))",
}
_CATALOGS = """
SELECT relname FROM pg_catalog.pg_class
WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND relisshared = %s
    AND relname !~ '^pg_statistic' AND relname NOT IN ('pg_database', 'pg_largeobject')
ORDER BY 1"""
_TABLES = """
SELECT quote_ident(nspname) || '.' || quote_ident(relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
ORDER BY 1"""
_OF_THE_SERVER = """
SELECT 'databases', (SELECT string_agg(datname || datdba || datallowconn, ' ' ORDER BY datname)
    FROM pg_catalog.pg_database)
UNION ALL SELECT 'prepared', (SELECT string_agg(gid, ' ') FROM pg_catalog.pg_prepared_xacts)
UNION ALL SELECT 'slots', (SELECT string_agg(slot_name, ' ') FROM pg_catalog.pg_replication_slots)
UNION ALL SELECT 'settings', (SELECT string_agg(name || '=' || setting, ' ' ORDER BY name)
    FROM pg_catalog.pg_file_settings)"""
# How far a sequence went on is nobody's loss; going back is.
_OF_THE_DATABASE = """
SELECT 'large objects', (SELECT md5(string_agg(l::text, ' ' ORDER BY loid, pageno))
    FROM pg_catalog.pg_largeobject l)
UNION ALL SELECT 'sequences', (SELECT string_agg(seqrelid::regclass::text, ' ' ORDER BY 1)
    FROM pg_catalog.pg_sequence WHERE pg_catalog.pg_sequence_last_value(seqrelid) >= 500)"""
_OTHERS = """
SELECT count(*) FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()"""


def _digest(catalog: str) -> str:
    """Return a query for a checksum of one catalog."""
    row = "to_jsonb(t)" if catalog in _VOLATILE else "t"
    for name in _VOLATILE.get(catalog, "").split():
        row += f" - '{name}'"
    rows = f"SELECT ({row})::text AS said FROM pg_catalog.{catalog} t {_WHICH.get(catalog, '')}"
    return f"SELECT '{catalog}', (SELECT md5(string_agg(said, ' ' ORDER BY said)) FROM ({rows}) x)"


class Watched:
    """A database that entries share as long as nothing in it changes.

    Args:
        server: where it lies.
        name: its own.
        folder: for what was observed of it.
        sees_all: whether it is observed as the superuser.
    """

    def __init__(self, server: Server, name: str, folder: Path, *, sees_all: bool) -> None:
        self.store = server.store(name)
        self._url = self.store.connection().parts["url"]
        self._folder = folder
        self._numbers = itertools.count()
        self._session = psycopg.connect(
            server.superuser_url(name), autocommit=True, prepare_threshold=None
        )
        self._shared, self._own = (
            " UNION ALL ".join(_digest(n) for (n,) in self._ask(_CATALOGS, [shared]))
            for shared in (True, False)
        )
        # Rows that a policy hides from their owner cannot be observed as that owner.
        self._before = self._observed(server.store(name, superuser=sees_all))
        self.picture = self.own_picture()

    def _observed(self, store: Store) -> Path:
        before = self._folder / "before"
        before.mkdir(parents=True)
        store.observe(before)
        return before

    def _ask(self, query: str, values: list[object] | None = None) -> list[tuple[Any, ...]]:
        return self._session.execute(query.encode(), values).fetchall()

    def own_picture(self) -> dict[str, str]:
        """Return what the database holds, once nobody else is connected to it."""
        self._wait_for_others()
        tables = [
            f"SELECT '{n}', md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM ONLY {n} t"
            for (n,) in self._ask(_TABLES)
        ]
        asked = " UNION ALL ".join([self._own, _OF_THE_DATABASE, *tables])
        return {str(name): str(value) for name, value in self._ask(asked)}

    def shared_picture(self) -> dict[str, str]:
        """Return what is the server's: roles, settings, databases."""
        asked = f"{self._shared} UNION ALL {_OF_THE_SERVER}"
        return {str(name): str(value) for name, value in self._ask(asked)}

    def _wait_for_others(self) -> None:
        """Wait until no other session is connected to it: each ends what it began."""
        for _ in range(2000):
            if self._ask(_OTHERS) == [(0,)]:
                return
            self._session.execute("SELECT pg_sleep(0.005)")
        pytest.fail("a session of the guard is still connected to the server")

    @contextmanager
    def guarded(self, limits: Limits) -> Iterator[StoreGuard]:
        """Give a guard of it."""
        folder = self._folder / f"guard-{next(self._numbers)}"
        folder.mkdir()
        look = gate.looker(self.store.resource, self._before, self._url)
        with postgres.guarded(self.store, limits, folder, lambda _: None, look) as guard:
            yield guard

    def close(self) -> None:
        """Leave it."""
        self._session.close()


class Shelf:
    """The databases of this test process, by how they were prepared."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._template = server.make_database()
        self._run(server.url(self._template), TABLES)
        self._watched: dict[tuple[str, str], Watched] = {}
        self._names: list[str] = []
        self._pair: tuple[Watched, Watched] | None = None
        self._ordinary = ""

    def _run(self, url: str, script: str) -> None:
        with psycopg.connect(url, autocommit=True) as session:
            session.execute(script.encode())

    def make(self, setup: str = "", superuser: str = "", template: str = "") -> str:
        """Return the name of a new database."""
        name = f"shelf{len(self._names)}"
        self._names.append(name)
        with psycopg.connect(self._server.superuser_url("postgres"), autocommit=True) as session:
            made = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}")
            session.execute(
                made.format(*map(sql.Identifier, (name, OWNER, template or self._template)))
            )
        if superuser:
            self._run(self._server.superuser_url(name), superuser)
        if setup:
            self._run(self._server.url(name), setup)
        return name

    def of(self, entry: Entry) -> Watched:
        """Return a database that is prepared for an entry."""
        how = entry.get("setup", ""), entry.get("superuser", "")
        if how not in self._watched:
            name = self.make(*how)
            sees_all = "FORCE ROW LEVEL SECURITY" in how[0]
            folder = self._folder / name
            self._watched[how] = Watched(self._server, name, folder, sees_all=sees_all)
        return self._watched[how]

    def pair(self) -> tuple[Watched, Watched]:
        """Return two equal databases that nothing was done to."""
        if self._pair is None or any(one.own_picture() != one.picture for one in self._pair):
            for one in self._pair or ():
                one.close()
            # Copies of one template: their tables have the same object ids.
            self._ordinary = self._ordinary or self.make(ORDINARY)
            names = [self.make(template=self._ordinary) for _ in range(2)]
            straight, watched = (
                Watched(self._server, name, self._folder / name, sees_all=False) for name in names
            )
            self._pair = straight, watched
        return self._pair

    def forget(self, entry: Entry) -> None:
        """Make another one for the next entry: this one was changed."""
        self._watched.pop((entry.get("setup", ""), entry.get("superuser", ""))).close()

    def close(self) -> None:
        """Remove the databases."""
        for one in (*self._watched.values(), *(self._pair or ())):
            one.close()
        for name in (*self._names, self._template):
            self._server.drop_database(name)


@pytest.fixture(scope="module")
def shelf(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """Databases that entries share."""
    made = Shelf(postgres_server, tmp_path_factory.mktemp("corpus"))
    yield made
    made.close()


# --- bypasses ------------------------------------------------------------------------------------


def settings(entry: Entry) -> dict[str, str]:
    """Return what a client of an entry begins with."""
    given: dict[str, str] = {}
    if "encoding" in entry:
        given["client_encoding"] = entry["encoding"]
    if entry.get("strings") == "off":
        given["options"] = "-c standard_conforming_strings=off"
    for message in entry.get("messages", []):
        given |= message.get("startup", {})
    return given


def run_simply(entry: Entry, url: str) -> list[Heard]:
    """Send each text by itself, and wait for its answer."""
    with Client(url, settings=settings(entry)) as client:
        return [client.query(text) for text in texts(entry)]


def run_at_once(entry: Entry, url: str) -> list[Heard]:
    """Send all of it in one piece, without waiting for anything."""
    with Client(url, settings=settings(entry)) as client:
        client.send(*map(query, texts(entry)))
        return [client.answer() for _ in texts(entry)]


def run_extended(entry: Entry, url: str) -> list[Heard]:
    """Send each text by the extended protocol, parsed and bound."""
    with Client(url, settings=settings(entry)) as client:
        return [client.ask(extended(text)) for text in texts(entry)]


def run_pipeline(entry: Entry, url: str) -> list[Heard]:
    """Send all of it as one pipeline before one Sync."""
    with Client(url, settings=settings(entry)) as client:
        return [client.ask(*(extended(t)[: -len(frames.SYNC)] for t in texts(entry)), frames.SYNC)]


def run_messages(entry: Entry, url: str) -> list[Heard]:
    """Send what an entry says below SQL."""
    with Client(url, opens=False) as client:
        heard = [client.open(settings(entry))]
        for message in entry["messages"]:
            if not heard[-1].closed and "startup" not in message:
                heard.append(say(client, message))
        return heard


def say(client: Client, message: Entry) -> Heard:
    """Send one message of an entry; return its answer where it has one."""
    if "cancel" in message:
        pid, key = message["cancel"]
        with Client(client_url(client), opens=False) as other:
            other.send(cancel(pid, key.to_bytes(4)))
            return other.answer()
    if "hang-up" in message:
        client.hang_up()
        return Heard((), closed=True)
    built = build(message)
    client.send(built)
    if {"query", "copy", "sync", "call", "length", "terminate"} & set(message):
        return client.answer("G")
    return Heard(())


def build(message: Entry) -> bytes:
    """Return the bytes of one message of an entry."""
    if "parse" in message:
        return parse(message["parse"].encode(message.get("as", "utf-8")), message["name"])
    if "call" in message:
        return call(message["call"], *(n.to_bytes(4) for n in message["arguments"]))
    if "length" in message:
        size: int = message["length"] % 2**32
        return str(message["kind"]).encode() + size.to_bytes(4)
    plain = {"sync": frames.SYNC, "flush": frames.FLUSH, "terminate": frames.TERMINATE}
    found = plain.keys() & message.keys()
    if found:
        return plain[found.pop()]
    kind, text = next(iter(message.items()))
    of_text: dict[str, Callable[[str], bytes]] = {
        "query": query,
        "bind": bind,
        "execute": execute,
        "copy": _copy,
        "raw": _raw,
    }
    return of_text[kind](text)


def _copy(lines: str) -> bytes:
    return copied(lines) + frames.build(b"c")


def _raw(text: str) -> bytes:
    return text.encode("latin-1")


def client_url(client: Client) -> str:
    """Return where another client of the same guard connects to."""
    there = client.place
    return psycopg.conninfo.make_conninfo(
        "",
        host=there.host,
        port=str(there.port),
        user=there.user,
        password=there.password,
        dbname=there.database,
    )


def check(entry: Entry, way: str, heard: list[Heard], report: Report) -> None:
    """Check that an entry came to the end that it promises."""
    codes = [code for one in heard for code in one.codes]
    refused = report.stop is not None or REFUSED in codes or READ_ONLY in codes
    cut = any(event.kind == "bypass" for event in report.events)
    gone = any({"hang-up", "terminate"} & set(m) for m in entry.get("messages", []))
    said = (way, codes, report.stop, report.events)
    if entry["end"] == "harmless":
        assert not refused, said
        return
    assert not report.effects, said
    if entry["end"] == "held":
        assert refused or cut or gone or codes, said
    else:
        assert codes or cut, said
        assert report.stop is None, said


WAYS = {
    "simple": run_simply,
    "at once": run_at_once,
    "extended": run_extended,
    "pipeline": run_pipeline,
    "messages": run_messages,
}


def ways(entry: Entry) -> list[str]:
    """Return the ways in which an entry can be sent."""
    if "messages" in entry:
        return ["messages"]
    count = len(texts(entry))
    one_each = count == len(entry["kinds"])
    if count == 1:
        return ["simple", "extended"] if one_each else ["simple"]
    return ["simple", "at once", "extended", "pipeline"] if one_each else ["simple", "at once"]


@pytest.mark.parametrize("entry", BYPASSES, ids=lambda entry: entry["id"])
def test_nothing_of_a_bypass_takes_effect(shelf: Shelf, entry: Entry) -> None:
    """Whatever a trick tries, and however it is sent, the database is what it was."""
    watched = shelf.of(entry)
    shared = watched.shared_picture()
    ends = []
    for way in ways(entry):
        with watched.guarded(hold(budget())) as guard:
            heard = WAYS[way](entry, guard.connection().parts["url"])
            ends.append((way, heard, guard.settle()))
    after = watched.own_picture()
    changed = [name for name, value in watched.picture.items() if after.get(name) != value]
    changed += after.keys() - watched.picture.keys()
    if changed:
        shelf.forget(entry)
    assert not changed, ends
    assert shared == watched.shared_picture(), ends
    for way, heard, report in ends:
        check(entry, way, heard, report)


# --- false alarms --------------------------------------------------------------------------------

# What the entries speak of, where it is not made by an entry itself.
ORDINARY = """
CREATE TABLE audit (id int, "update" int, "drop" int, "truncate" int, delete int);
INSERT INTO audit VALUES (1, 2, 3, 4, 5);
CREATE TABLE t (a int, b int, c int, d int, e text, f int[], g int[], h boolean, i int, j int,
    truncate int, copy int, execute int, commit int, drops int, data jsonb);
INSERT INTO t VALUES (1, 2, 3, 4, 'x', '{1}', '{1}', true, 1, 2, 5, 6, 7, 8, 9, '{"commit": 1}');
CREATE TABLE "delete" ("commit" text);
CREATE TABLE log (line text);
INSERT INTO log VALUES ('DROP TABLE x');
CREATE TABLE pg_terminate (canceled int, terminated int);
CREATE FUNCTION delete_count(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION http(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION schedule(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
CREATE TABLE auth_user (id bigint PRIMARY KEY, password text, email text, is_active boolean);
INSERT INTO auth_user VALUES (1, 'x', 'a@b.c', true);
CREATE TABLE old (a int);
CREATE TABLE django_migrations (id serial, app text, name text, applied timestamptz);
CREATE TABLE blog_post2 (a int);
CREATE TABLE b (id int, n int);
INSERT INTO b VALUES (1, 1), (2, 2), (3, 3);
CREATE TABLE schema_migrations (version text);
CREATE TABLE account (name varchar(10));
CREATE SEQUENCE hibernate_sequence;
CREATE TABLE pgbench_accounts (aid int, abalance int);
INSERT INTO pgbench_accounts VALUES (91234, 0);
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime date);
CREATE TABLE jobs (id int, state text);
INSERT INTO jobs SELECT g, 'new' FROM generate_series(1, 9) g;
CREATE TABLE "länder" (name text, "größe" int);
INSERT INTO "länder" VALUES ('İstanbul', 1);
"""
# Their answers differ from one moment, session or database to the next.
CHANGING = {"prometheus-exporter", "pgadmin", "show", "trigger-function"}


def compared(entry: Entry, heard: list[Heard]) -> list[tuple[object, ...]]:
    """Return what two runs of an entry have in common."""
    found: list[tuple[object, ...]] = []
    for one in heard:
        for letter, body in one.frames:
            if letter in "EN":
                found.append((letter, frames.said(body)))
            elif letter == "D" and entry["id"] in CHANGING:
                found.append((letter, len(frames.columns(body))))
            else:
                found.append((letter, body))
    return found


@pytest.mark.parametrize("entry", FALSE_ALARMS, ids=lambda entry: entry["id"])
def test_what_only_looks_dangerous_is_done_as_without_a_guard(shelf: Shelf, entry: Entry) -> None:
    """What ordinary clients send has the same answers, and does the same, as without a guard."""
    for way in ("simple", "extended") if len(texts(entry)) == len(entry["kinds"]) else ("simple",):
        straight, watched = shelf.pair()
        directly = WAYS[way](entry, straight.store.connection().parts["url"])
        with watched.guarded(Limits("measure")) as guard:
            guarded = WAYS[way](entry, guard.connection().parts["url"])
            report = guard.settle()
        assert compared(entry, guarded) == compared(entry, directly), way
        assert report.stop is None
        assert rows_of(watched) == rows_of(straight)


def rows_of(watched: Watched) -> dict[str, str]:
    """Return the checksums of a database's tables: object ids differ."""
    return {n: v for n, v in watched.own_picture().items() if not n.startswith("pg_")}
