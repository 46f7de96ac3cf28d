"""A limited role can do what the budget says as the real role would, nothing else, and it goes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors

from handrail.errors import StoreError
from handrail.plans.model import Allowance, Budget
from handrail.wire.postgres.roles import hindrances, limited
from support.postgres_server import OWNER, Server

pytestmark = pytest.mark.postgres

STORE = "store/pilot-db"
BASE = """
CREATE TABLE city (id serial PRIMARY KEY, name text);
INSERT INTO city (name) SELECT 'x' FROM generate_series(1, 10);
CREATE TABLE street (id integer PRIMARY KEY, city integer REFERENCES city ON DELETE CASCADE);
INSERT INTO street SELECT i, i FROM generate_series(1, 10) i;
CREATE TABLE log (day integer, word text) PARTITION BY LIST (day);
CREATE TABLE log_1 PARTITION OF log FOR VALUES IN (1);
CREATE VIEW cities AS SELECT * FROM city;
CREATE FUNCTION secret() RETURNS integer LANGUAGE sql AS 'SELECT 4711';
REVOKE EXECUTE ON FUNCTION secret() FROM PUBLIC;
CREATE SCHEMA "Deep"; CREATE TABLE "Deep"."Odd one" (id integer);
"""


def budget(*allowed: tuple[str, str, str]) -> Budget:
    """Return a budget of a thousand rows each, by verb, kind and name."""
    return Budget(tuple(Allowance(STORE, *what, 1000, 0) for what in allowed), "rehearsal")


DELETES = budget(("delete", "table", "city"), ("delete", "table", "street"))


@pytest.fixture
def database(postgres_server: Server) -> Iterator[str]:
    """A database of the tests' role, which may make roles."""
    postgres_server.execute(f"ALTER ROLE {OWNER} CREATEROLE")
    name = postgres_server.make_database()
    with psycopg.connect(postgres_server.url(name), autocommit=True) as session:
        session.execute(BASE.encode())
    yield name
    postgres_server.execute(f"ALTER ROLE {OWNER} NOCREATEROLE")
    postgres_server.drop_database(name)


@pytest.fixture
def url(postgres_server: Server, database: str) -> str:
    """How the real role reaches it: an ordinary one, not a superuser."""
    return postgres_server.url(database)


class Login:
    """A limited role's connection."""

    def __init__(self, server: Server, database: str, user: str, password: str) -> None:
        url = server.url(database, user, password)
        self.session = psycopg.connect(url, autocommit=True)

    def __enter__(self) -> Login:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def do(self, statement: str) -> int:
        """Run a statement, and return what its tag says."""
        return self.session.execute(statement.encode()).rowcount

    def one(self, query: str) -> object:
        """Return the first value of a query."""
        row = self.session.execute(query.encode()).fetchone()
        return row[0] if row else None

    def is_denied(self, statement: str) -> bool:
        """Whether a statement may not be run."""
        try:
            self.do(statement)
        except errors.InsufficientPrivilege:
            return True
        return False


def token() -> str:
    """Return a run's token."""
    return secrets.token_hex(16)


def test_can(postgres_server: Server, database: str, url: str) -> None:
    """What the budget names can be done, with its cascades, and everything can be read."""
    with (
        limited(url, DELETES, STORE, token()) as (user, password),
        Login(postgres_server, database, user, password) as role,
    ):
        assert role.do("DELETE FROM city WHERE id < 4") == 3
        assert role.one("SELECT count(*) FROM street") == 7
        assert role.one("SELECT count(*) FROM cities") == 7
        assert role.one('SELECT count(*) FROM "Deep"."Odd one"') == 0
        assert role.one("SELECT secret()") == 4711
        assert role.one("SELECT last_value FROM city_id_seq") == 10


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO city (name) VALUES ('new')",
        "UPDATE city SET name = 'y'",
        "TRUNCATE street",
        'DELETE FROM "Deep"."Odd one"',
        "DROP TABLE street",
        "ALTER TABLE city ADD more text",
        "CREATE TABLE mine (id integer)",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "SELECT nextval('city_id_seq')",
        f"SET ROLE {OWNER}",
        "COPY city TO '/tmp/x'",
        "COPY city TO PROGRAM 'cat'",
        "CREATE DATABASE mine",
        "SELECT pg_read_file('PG_VERSION')",
    ],
)
def test_cannot(postgres_server: Server, database: str, url: str, statement: str) -> None:
    """What the budget does not name is refused by the server itself."""
    if "mine (id" in statement:
        postgres_server.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database)
    with (
        limited(url, DELETES, STORE, token()) as (user, password),
        Login(postgres_server, database, user, password) as role,
    ):
        assert role.is_denied(statement)


def test_passes_nothing_on(postgres_server: Server, database: str, url: str) -> None:
    """It may not give what it has to others."""
    with (
        limited(url, DELETES, STORE, token()) as (user, password),
        Login(postgres_server, database, user, password) as role,
    ):
        role.do("SET client_min_messages = error; GRANT DELETE ON city TO PUBLIC")
        assert not role.one(
            "SELECT EXISTS (SELECT FROM pg_class, aclexplode(relacl) a"
            " WHERE relname = 'city' AND a.grantee = 0)"
        )


def test_through_views_and_parents(postgres_server: Server, database: str, url: str) -> None:
    """A budget names the tables that rows are in; a script may name a view or the whole table."""
    rows = budget(("delete", "table", "city"), ("insert", "table", "log_1"))
    with (
        limited(url, rows, STORE, token()) as (user, password),
        Login(postgres_server, database, user, password) as role,
    ):
        assert role.do("DELETE FROM cities WHERE id = 1") == 1
        assert role.do("INSERT INTO log VALUES (1, 'x')") == 1
        assert role.is_denied("DELETE FROM log")


def test_sequences(postgres_server: Server, database: str, url: str) -> None:
    """A sequence gives numbers where it did so in rehearsal."""
    rows = budget(("insert", "table", "city"), ("advance", "sequence", "city_id_seq"))
    with (
        limited(url, rows, STORE, token()) as (user, password),
        Login(postgres_server, database, user, password) as role,
    ):
        assert role.do("INSERT INTO city (name) VALUES ('new')") == 1


def test_settings(postgres_server: Server, database: str, url: str) -> None:
    """The real role's settings are its own, and the same words mean the same tables."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"""
            ALTER ROLE {OWNER} IN DATABASE {database} SET work_mem = '5MB';
            ALTER ROLE {OWNER} SET application_name = 'it''s "odd", a';
            CREATE SCHEMA {OWNER}; CREATE TABLE {OWNER}.city (id integer);""")
    try:
        with (
            limited(url, DELETES, STORE, token()) as (user, password),
            Login(postgres_server, database, user, password) as role,
        ):
            assert role.one("SHOW work_mem") == "5MB"
            assert role.one("SHOW application_name") == 'it\'s "odd", a'
            assert role.one("SELECT 'city'::regclass::oid = 'ana.city'::regclass") is True
            assert role.one("SELECT count(*) FROM city") == 0
        with psycopg.connect(url, autocommit=True) as session:
            session.execute(
                f'ALTER ROLE {OWNER} IN DATABASE {database} SET search_path = "Deep", public'
            )
        with (
            limited(url, DELETES, STORE, token()) as (user, password),
            Login(postgres_server, database, user, password) as role,
        ):
            assert role.one('SELECT count(*) FROM "Odd one"') == 0
            assert role.do("DELETE FROM city") == 10
    finally:
        postgres_server.execute(f"ALTER ROLE {OWNER} RESET ALL")


def test_setting_of_a_superuser(postgres_server: Server, database: str, url: str) -> None:
    """A setting that the real role may not pass on is named, and no role is left."""
    del database
    postgres_server.execute(f"ALTER ROLE {OWNER} SET session_replication_role = replica")
    try:
        before = roles(postgres_server)
        with (
            pytest.raises(
                StoreError, match="session_replication_role of this role cannot be given"
            ),
            limited(url, DELETES, STORE, token()),
        ):
            pass
        assert roles(postgres_server) == before
    finally:
        postgres_server.execute(f"ALTER ROLE {OWNER} RESET ALL")


def roles(server: Server) -> set[str]:
    """Return every role of a run that is there."""
    with psycopg.connect(server.superuser_url("postgres")) as session:
        found = session.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^handrail_.{16}'")
        return {name for (name,) in found.fetchall()}


def test_goes(postgres_server: Server, database: str, url: str) -> None:
    """After the run nothing of the role is there: no session, no right, no name."""
    with limited(url, DELETES, STORE, token()) as (user, password):
        assert user in roles(postgres_server)
        role = Login(postgres_server, database, user, password)
        role.do("BEGIN")
        role.do("DELETE FROM street")
        role.do("CREATE TEMP TABLE mine (id integer)")
    assert user not in roles(postgres_server)
    with pytest.raises(psycopg.OperationalError):
        role.do("COMMIT")
    role.session.close()
    with psycopg.connect(url) as session:
        counted = session.execute("SELECT count(*) FROM street").fetchone()
        query = "SELECT relname FROM pg_class WHERE strpos(relacl::text, %s) > 0"
        assert counted == (10,)
        assert session.execute(query, [user]).fetchall() == []


def test_left_over(postgres_server: Server, database: str, url: str) -> None:
    """A role whose guard was killed is removed by a later one, once its time is over."""
    old, young = (limited(url, DELETES, STORE, token()) for _ in range(2))
    expired, _ = old.__enter__()
    valid, _ = young.__enter__()
    postgres_server.execute(f"ALTER ROLE {expired} VALID UNTIL '2001-01-01'")
    with limited(url, DELETES, STORE, token()):
        assert expired not in roles(postgres_server)
        assert valid in roles(postgres_server)
    for entered in (old, young):
        entered.__exit__(None, None, None)
    assert valid not in roles(postgres_server)


def test_password(postgres_server: Server, database: str, url: str) -> None:
    """The server keeps a verifier of the password, for a day, and another password is refused."""
    with limited(url, DELETES, STORE, token()) as (user, password):
        with psycopg.connect(postgres_server.superuser_url(database)) as session:
            row = session.execute(
                "SELECT rolpassword LIKE 'SCRAM-SHA-256$%%', rolconnlimit > 0,"
                " rolvaliduntil BETWEEN now() + '23h' AND now() + '25h'"
                " FROM pg_authid WHERE rolname = %s",
                [user],
            ).fetchone()
        assert row == (True, True, True)
        with pytest.raises(psycopg.OperationalError):
            Login(postgres_server, database, user, password[::-1])


@pytest.mark.parametrize(
    ("done", "wanted", "said"),
    [
        ("", ("drop", "table", "city"), "to drop table city takes its owner"),
        ("", ("alter", "column", "city.name"), "to alter column city.name takes its owner"),
        ("", ("drop", "large object", "large objects"), "to drop large object large objects takes"),
        ("", ("delete", "table", "gone"), "there is no table gone in this database"),
        (
            "ALTER TABLE log ENABLE ROW LEVEL SECURITY",
            ("delete", "table", "city"),
            "row security of table log would show it other rows",
        ),
    ],
)
def test_hindrances(
    database: str, url: str, done: str, wanted: tuple[str, str, str], said: str
) -> None:
    """What only an owner can do, or what would show other rows, is said before."""
    del database
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(done.encode() or b"SELECT 1")
    found = hindrances(url, budget(wanted), STORE)
    assert len(found) == 1
    assert said in found[0]
    with (
        pytest.raises(StoreError, match="no limited role"),
        limited(url, budget(wanted), STORE, token()),
    ):
        pass


def test_rights_of_the_real_role(postgres_server: Server, database: str, url: str) -> None:
    """A real role that may not make roles, or not pass its rights on, is told so."""
    postgres_server.execute("CREATE ROLE borrower LOGIN CREATEROLE PASSWORD 'b'")
    try:
        postgres_server.execute("GRANT SELECT, DELETE ON city TO borrower", database)
        found = hindrances(postgres_server.url(database, "borrower", "b"), DELETES, STORE)
        assert found == (
            "this role may read city, and may not let another do so",
            "this role may not let another delete table city",
            "this role may not let another delete table street",
        )
        postgres_server.execute(f"ALTER ROLE {OWNER} NOCREATEROLE")
        assert hindrances(url, DELETES, STORE) == (
            "this role may not make roles: it needs CREATEROLE",
        )
    finally:
        postgres_server.execute("DROP OWNED BY borrower; DROP ROLE borrower", database)
