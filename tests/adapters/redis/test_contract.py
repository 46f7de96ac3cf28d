"""Redis keeps the contract of a store: the sentences of `support.store_contract`, for keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from handrail.adapters.redis import RedisStore
from handrail.errors import StoreError
from handrail.plans.effect import worst_first
from support.redis_stores import MARKER, RESOURCE, Made, client_of, quiet, said

KEY = "key"
WHOLE_DAYS_S = 5 * 86400


@pytest.fixture(autouse=True)
def content(client: Any) -> None:
    """Some keys, and an identity."""
    for number in range(12):
        client.set(f"reading:{number}", f"value {number}", ex=WHOLE_DAYS_S if number % 2 else None)
    client.hset("device:1", mapping={"name": "pump", "room": "naïve"})
    client.rpush("loose", "same", "same", "other", "")
    client.set("handrail:identity", "0" * 32)


def test_identity_is_kept(store: RedisStore) -> None:
    """Adopting a store twice gives the identity that it already has, and no marker."""
    first = store.identify()
    assert store.adopt("1" * 32) == first
    assert store.identify() == first
    assert first.id == "redis:" + "0" * 32
    assert first.endpoint.endswith("/0")
    assert first.version.startswith("Redis ")
    assert first.marker == ""


def test_adopt(store: RedisStore, client: Any) -> None:
    """A store that nobody adopted says so, and is adopted under the id that it is given."""
    client.delete("handrail:identity")
    before = store.fingerprint()
    assert store.identify().id == "redis:unadopted"
    assert store.adopt("a" * 32).id == "redis:" + "a" * 32
    assert store.identify().id == "redis:" + "a" * 32
    assert store.fingerprint() == before


def test_missing() -> None:
    """A store that is not there is an error with a hint, never an empty store."""
    store = RedisStore(RESOURCE, "redis://127.0.0.1:1/0")
    for _ in range(2):
        with pytest.raises(StoreError) as raised:
            store.identify()
        assert raised.value.code == "store.unreachable"
        assert raised.value.hint


def test_nobody_else(store: RedisStore) -> None:
    """A store that nobody uses has no others."""
    assert store.others() == ()


def test_somebody_else(store: RedisStore) -> None:
    """Who else is connected is told with name, user and address."""
    other = client_of(store)
    other.client_setname("worker")
    assert store.others() == ("worker as default from 127.0.0.1",)
    other.close()


def test_measure(store: RedisStore) -> None:
    """Measuring gives exact keys a pattern, and a size; Handrail's own key is not among them."""
    measure = store.measure()
    rows = {table.name: table.rows for table in measure.tables}
    assert rows == {"reading:*": 12, "device:*": 1, "loose": 1}
    assert measure.size_bytes > 0


def test_fingerprint_ignores_order(store: RedisStore, client: Any) -> None:
    """A key deleted and written again leaves the fingerprint as it was."""
    before = store.fingerprint()
    client.delete("device:1", "reading:2")
    client.hset("device:1", mapping={"room": "naïve", "name": "pump"})
    client.set("reading:2", "value 2")
    assert store.fingerprint().differences(before) == ()


@pytest.mark.parametrize(
    ("command", "where"),
    [
        (("SET", "reading:2", "value 3"), "reading:*"),
        (("RENAME", "reading:2", "reading:99"), "reading:*"),
        (("PERSIST", "reading:1"), "reading:*"),
        (("EXPIRE", "reading:2", 9 * WHOLE_DAYS_S), "reading:*"),
        (("HSET", "device:1", "room", ""), "device:*"),
        (("HSET", "device:1", "more", ""), "device:*"),
        (("RPOPLPUSH", "loose", "loose"), "loose"),
        (("RPUSH", "loose", ""), "loose"),
    ],
)
def test_fingerprint_sees_content(
    store: RedisStore, client: Any, command: tuple[Any, ...], where: str
) -> None:
    """A changed value, name, order or expiry changes that pattern's checksum and no other's."""
    before = store.fingerprint()
    client.execute_command(*command)
    assert store.fingerprint().differences(before) == (f"table {where}",)


def test_ask(store: RedisStore) -> None:
    """Asking gives the first value of the reply as text, empty where there is none."""
    assert store.ask("GET 'reading:1'", 20.0) == "value 1"
    assert store.ask("lrange loose 1 2", 20.0) == "same"
    assert store.ask("HLEN device:1", 20.0) == "2"
    assert store.ask("GET nothing", 20.0) == ""
    assert store.ask("OBJECT ENCODING reading:1", 20.0) == "embstr"


@pytest.mark.parametrize(
    "query",
    [
        "DEL loose",
        "GETDEL reading:1",
        'EVAL \'return redis.call("DEL", "loose")\' 0',
        "FLUSHALL",
        "CONFIG SET maxmemory 1",
        "CONFIG GET requirepass",
        "SORT loose STORE loose2",
        "XREAD BLOCK 0 STREAMS log $",
        "SHUTDOWN",
        "GET reading:1\r\nDEL loose",
        "nothing",
        "GET 'unclosed",
        "",
    ],
)
def test_ask_cannot_write(store: RedisStore, query: str) -> None:
    """What is not one command that reads is refused, and nothing is written."""
    before = store.fingerprint()
    with pytest.raises(StoreError):
        store.ask(query, 5.0)
    assert store.fingerprint() == before


def test_connection(store: RedisStore, redis_server: Any) -> None:
    """A script gets the address, as environment variables and as parts."""
    connection = store.connection()
    assert connection.environment["REDIS_URL"] == connection.parts["url"] == redis_server.url
    assert connection.environment["REDISCLI_AUTH"] == redis_server.password
    assert connection.environment["REDIS_PORT"] == str(redis_server.port)
    assert connection.parts["user"] == "default"
    assert connection.sockets == (("127.0.0.1", redis_server.port),)
    assert redis_server.password in connection.secrets


def test_backup(store: RedisStore, made: Made) -> None:
    """A backup says what it holds, is private, and making one leaves the store as it was."""
    before = store.fingerprint()
    backup = made.backup()
    assert backup.id == "b1"
    assert backup.form == "redis-rdb"
    assert Path(backup.path).is_absolute()
    files = sorted(path.name for path in Path(backup.path).iterdir())
    assert files == ["notes.json", "store.rdb"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in Path(backup.path).iterdir())
    assert backup.identity == store.identify()
    assert backup.fingerprint == before
    assert store.fingerprint() == before


def test_clone(store: RedisStore, client: Any, made: Made) -> None:
    """A clone holds the backup's content, is provably another store, and ends whole."""
    before, original = store.fingerprint(), store.identify()
    backup = made.backup()
    client.delete("loose")
    clone = made.clone(backup)
    who = clone.identify()
    assert clone.fingerprint().differences(before) == ()
    assert clone.resource == store.resource
    assert who.marker == MARKER
    assert who.id == original.id
    assert who.endpoint != original.endpoint
    assert store.identify() == original
    assert clone.connection().parts["url"] != store.connection().parts["url"]
    assert made.at.stat().st_mode & 0o077 == 0
    script = client_of(clone)
    script.delete("device:1")
    script.close()
    assert store.ask("EXISTS device:1", 20.0) == "1"
    store.discard(made.at)
    assert not made.at.exists()
    store.discard(made.at)
    with pytest.raises(StoreError):
        clone.identify()
    assert store.ask("EXISTS device:1", 20.0) == "1"


def test_discard_nothing(store: RedisStore, tmp_path: Path) -> None:
    """A clone that was never begun is discarded like any other, and needs no address."""
    store.discard(tmp_path / "never")
    empty = tmp_path / "empty"
    empty.mkdir()
    RedisStore(RESOURCE, "/nonexistent").discard(empty)
    assert not empty.exists()


def test_discard_refuses(store: RedisStore, tmp_path: Path) -> None:
    """A directory that is no clone is not removed, and no link to one is followed."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError):
        store.discard(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(StoreError):
        store.discard(link)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_clone_needs_an_empty_directory(store: RedisStore, made: Made) -> None:
    """A clone is not made where anything lies."""
    at = made.directory("taken")
    (at / "file").touch()
    with pytest.raises(StoreError) as raised:
        store.clone(made.backup(), at, MARKER, quiet)
    assert raised.value.code == "clone.not-distinct"
    assert [path.name for path in at.iterdir()] == ["file"]


def test_restore(store: RedisStore, client: Any, made: Made) -> None:
    """Restoring puts keys, values, expiries and settings back, and twice equals once."""
    before = store.fingerprint()
    backup = made.backup()
    client.execute_command("FLUSHALL")
    client.set("new", 1)
    client.hset("loose", "now", "a hash")
    client.config_set("maxmemory-policy", "allkeys-lru")
    assert store.identify().id == "redis:unadopted"
    for _ in range(2):
        assert store.restore(backup, quiet) == ()
        assert store.fingerprint().differences(before) == ()
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert store.identify() == backup.identity
    assert not client.exists("new")


def test_restore_of_a_clone(made: Made, store: RedisStore) -> None:
    """An undo on a clone leaves nothing over, whatever the script did there."""
    before = store.fingerprint()
    backup = made.backup()
    clone = made.clone(backup)
    script = client_of(clone)
    script.execute_command("SWAPDB", 0, 1)
    script.config_set("maxmemory", "100mb")
    script.set("more", 1)
    script.close()
    assert clone.restore(backup, quiet) == ()
    assert clone.fingerprint().differences(before) == ()
    assert clone.identify().marker == MARKER


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_restore_of_a_damaged_backup(
    store: RedisStore, client: Any, made: Made, damage: str
) -> None:
    """A backup that is not as it was written is refused, and the store is left as it was."""
    backup = made.backup()
    file = Path(backup.path) / "store.rdb"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[:-9])
    elif damage == "changed":
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    else:
        file.unlink()
    client.set("more", 1)
    before = store.fingerprint()
    with pytest.raises(StoreError) as raised:
        store.restore(backup, quiet)
    assert raised.value.code in {"backup.damaged", "backup.not-restorable"}
    assert store.fingerprint() == before


def test_can_restore(store: RedisStore) -> None:
    """A server whose user may write, with a program for it here, can be restored."""
    assert store.can_restore() == ""


def test_effects_of_nothing(store: RedisStore, made: Made) -> None:
    """What nobody touched has no effects."""
    before = made.directory("before")
    store.observe(before)
    assert store.effects(before) == ()


def test_effects(store: RedisStore, client: Any, made: Made) -> None:
    """On the server itself, effects are what differs afterwards, worst first."""
    before = made.directory("before")
    store.observe(before)
    client.set("reading:1", "other", ex=WHOLE_DAYS_S, keepttl=False)
    client.delete("reading:2", "reading:3")
    client.set("new:1", 1)
    client.rpop("loose", 2)
    client.expire("device:1", WHOLE_DAYS_S)
    client.config_set("maxmemory", "200mb")
    effects = store.effects(before)
    assert effects == worst_first(effects)
    assert all(effect.resource == RESOURCE for effect in effects)
    found = said(effects)
    assert found.pop(("expire", KEY, "reading:*"), None) in {None, (1, None)}
    assert found == {
        ("delete", KEY, "reading:*"): (2, None),
        ("delete", "member", "loose"): (2, None),
        ("expire", KEY, "device:*"): (1, None),
        ("update", KEY, "reading:*"): (1, None),
        ("update", KEY, "loose"): (1, None),
        ("insert", KEY, "new:*"): (1, None),
        ("alter", "setting", "maxmemory"): (None, None),
    }


def test_effects_among_others(store: RedisStore, client: Any, made: Made) -> None:
    """Where others are connected, what differs is a ceiling of what the script did."""
    other = client_of(store)
    other.client_setname("worker")
    before = made.directory("before")
    store.observe(before)
    other.delete("loose")
    (effect,) = store.effects(before)
    other.close()
    assert effect.is_ceiling
    assert "worker as default" in effect.detail


def test_lost_identity(store: RedisStore, client: Any, made: Made) -> None:
    """The identity that a script deletes is told as an effect, and counts as no pattern."""
    before = made.directory("before")
    store.observe(before)
    client.delete("handrail:identity")
    assert said(store.effects(before)) == {("delete", KEY, "handrail:identity"): (1, 1)}


def test_damaged_observation(store: RedisStore, made: Made) -> None:
    """What was observed and cannot be read any more is an error, never "nothing changed"."""
    before = made.directory("before")
    store.observe(before)
    (before / "keys.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError):
        store.effects(before)
