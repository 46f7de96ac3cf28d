"""A server says who it is, or why it cannot be used; a password is in no message."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from handrail.adapters.postgres import PostgresStore, backups, scratch
from handrail.adapters.postgres.binaries import choose, installed
from handrail.adapters.postgres.connecting import read_address
from handrail.errors import StoreError
from handrail.plans.facts import Identity
from support.postgres_server import PASSWORD, RESOURCE, Server, tools

pytestmark = pytest.mark.postgres


def refusal(url: str) -> StoreError:
    """Return the error that identifying raises."""
    with pytest.raises(StoreError) as raised:
        PostgresStore(RESOURCE, url).identify()
    assert raised.value.hint
    return raised.value


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def database(postgres_server: Server) -> Iterator[str]:
    """An empty database."""
    name = postgres_server.make_database()
    yield name
    postgres_server.drop_database(name)


def test_endpoints(postgres_server: Server, database: str) -> None:
    """By network and by socket the identity is one, and each endpoint names its server."""
    by_network = postgres_server.store(database).identify()
    address = postgres_server.cluster.address(database)
    by_socket = type(address)(
        {**address.parameters, "host": str(postgres_server.cluster.place.run)}
    )
    other = PostgresStore(RESOURCE, by_socket.url()).identify()
    assert other.id == by_network.id
    assert by_network.endpoint == f"127.0.0.1:{postgres_server.cluster.port}"
    run = postgres_server.cluster.place.run.resolve()
    assert other.endpoint == f"{run}:{postgres_server.cluster.port}"


def test_service(
    postgres_server: Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service of pg_service.conf is an address, and a script gets what it stands for."""
    given = postgres_server.cluster.address(database).parameters
    lines = [f"{key}={value}" for key, value in given.items() if key != "passfile"]
    file = tmp_path / "services"
    file.write_text("[pilot]\n" + "\n".join(lines) + "\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    connection = PostgresStore(RESOURCE, "service=pilot").connection()
    assert connection.parts["port"] == given["port"]
    assert connection.environment["PGPASSWORD"] == given["password"]
    with psycopg.connect(connection.environment["DATABASE_URL"]) as session:
        assert session.info.dbname == database


def test_down() -> None:
    """A port where nobody listens is unreachable."""
    with silent_server() as port:
        pass
    assert refusal(f"postgresql://ana@127.0.0.1:{port}/x").code == "store.unreachable"


def test_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and says nothing is unreachable, after a time."""
    monkeypatch.setattr("handrail.adapters.postgres.connecting.CONNECT_TIMEOUT_S", 2)
    with silent_server() as port:
        assert refusal(f"postgresql://ana@127.0.0.1:{port}/x").code == "store.unreachable"


def test_wrong_password(postgres_server: Server, database: str) -> None:
    """A wrong password is denied, and is not in the message."""
    error = refusal(postgres_server.url(database, password="geheim-77"))
    assert error.code == "store.denied"
    assert "geheim-77" not in str(error) + error.hint


def test_wrong_role(postgres_server: Server, database: str) -> None:
    """A role that is not there is denied like a wrong password."""
    assert refusal(postgres_server.url(database, user="nobody")).code == "store.denied"


def test_missing_database(postgres_server: Server) -> None:
    """A database that is not there is missing."""
    assert refusal(postgres_server.url("nowhere")).code == "store.missing"


@pytest.mark.parametrize("url", ["postgresql://ana:geheim-77@[::1", "ana geheim-77", "host"])
def test_unreadable_url(url: str) -> None:
    """An address that cannot be read is an error that does not repeat it."""
    with pytest.raises(StoreError) as raised:
        read_address(url)
    assert raised.value.code == "store.url"
    assert "geheim-77" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_url_round_trip(postgres_server: Server, database: str) -> None:
    """A password of odd characters survives in the URL that a script gets, and is a secret."""
    connection = postgres_server.store(database).connection()
    assert connection.parts["password"] == PASSWORD
    assert PASSWORD in connection.secrets
    assert connection.parts["url"] in connection.secrets
    with psycopg.connect(connection.parts["url"]) as session:
        assert session.info.user == connection.parts["user"]
    assert "PGPASSFILE" in connection.environment


def test_password_is_not_shown(postgres_server: Server, database: str) -> None:
    """The text of an address has no password."""
    address = read_address(postgres_server.url(database))
    assert PASSWORD not in f"{address} {address!r}"


def test_read_only(postgres_server: Server, database: str) -> None:
    """A database whose transactions are read-only by default is refused as such."""
    postgres_server.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    error = refusal(postgres_server.url(database))
    assert (error.code, "read-only" in str(error)) == ("store.recovering", True)


def test_in_recovery(postgres_server: Server, tmp_path: Path) -> None:
    """A standby is refused as one."""
    binaries = choose(15, tools())
    (tmp_path / "copy").mkdir()
    argv = [binaries.program("pg_basebackup"), "-D", str(tmp_path / "copy"), "-X", "stream"]
    address = postgres_server.cluster.address()
    process = backups.Running([*argv, "-c", "fast", "--no-sync"], address)
    process.wait(lambda: None)
    place = scratch.prepare(tmp_path / "at")
    try:
        (tmp_path / "copy").rename(place.data) if place.home == place.at else None
        if not place.data.exists():
            scratch.own_folder(place, place.data)
            for path in (tmp_path / "copy").iterdir():
                path.rename(place.data / path.name)
        (place.data / "standby.signal").touch()
        place.data.chmod(0o700)
        scratch.hand_over(place, place.data)
        # A standby does not start with less than its server has.
        settings = {"max_connections": "200", "max_prepared_transactions": "5"}
        port = scratch.start(place, place.data, binaries, settings)
        url = type(address)({**address.parameters, "port": str(port)}).url()
        error = refusal(url)
        assert (error.code, "standby" in str(error)) == ("store.recovering", True)
    finally:
        scratch.discard(place.at)


def test_pooler_is_said(postgres_server: Server, database: str) -> None:
    """A server behind something that hands out connections is said to be."""

    def relay(source: socket.socket, target: socket.socket, *, change: bool) -> None:
        while data := source.recv(65536):
            if change and (at := data.find(b"K\x00\x00\x00")) >= 0:
                # BackendKeyData: a pooler answers with numbers of its own.
                data = data[: at + 5] + b"\x00\x00\x00\x07" + data[at + 9 :]
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", postgres_server.cluster.port))
            with client, server:
                back = threading.Thread(
                    target=relay, args=(server, client), kwargs={"change": True}
                )
                back.start()
                relay(client, server, change=False)
                back.join()

        thread = threading.Thread(target=serve)
        thread.start()
        given = postgres_server.cluster.address(database).parameters
        port = str(listener.getsockname()[1])
        url = type(postgres_server.cluster.address())({**given, "port": port}).url()
        found: Identity = PostgresStore(RESOURCE, url).identify()
        thread.join()
    assert "pooler" in found.version


def test_others(postgres_server: Server, database: str) -> None:
    """Who else is connected is said by program, role and machine; we are not among them."""
    url = postgres_server.url(database)
    with psycopg.connect(url, application_name="psql"):
        assert postgres_server.store(database).others() == ("psql as ana from 127.0.0.1",)


def test_lock_is_not_waited_for(
    postgres_server: Server, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading does not queue behind a lock, and in front of everybody else, for long."""
    monkeypatch.setattr("handrail.adapters.postgres.connecting.LOCK_TIMEOUT_S", 1)
    with psycopg.connect(postgres_server.url(database)) as session:
        session.execute("CREATE TABLE t (i int)")
        session.commit()
        session.execute("LOCK TABLE t")
        with pytest.raises(StoreError) as raised:
            postgres_server.store(database).measure()
    assert "lock" in raised.value.hint


def test_row_security_is_no_smaller_number(postgres_server: Server, database: str) -> None:
    """A role that may not see every row gets an error, not fewer rows."""
    postgres_server.execute(
        "CREATE TABLE t (i int); INSERT INTO t VALUES (1), (2); GRANT SELECT ON t TO ana;"
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (i = 1)",
        database,
    )
    with pytest.raises(StoreError) as raised:
        postgres_server.store(database).measure()
    assert raised.value.code == "store.denied"


@pytest.mark.usefixtures("postgres_server")
def test_binaries_by_version() -> None:
    """The same major version is preferred, then the next newer, never an older one."""
    here = installed(tools())
    assert choose(here[0].major, tools()) == here[0]
    with pytest.raises(StoreError) as raised:
        choose(99, tools())
    assert raised.value.code == "store.tools-missing"
    assert here[0].version in str(raised.value)


def test_import_is_cheap() -> None:
    """Importing the package loads no database driver."""
    program = "import sys, handrail.adapters.postgres; sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
