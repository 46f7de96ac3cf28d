"""Clones: as like the original as can be, shut away from it, and ended whatever happened."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from handrail.adapters.redis import RedisStore, scratch
from handrail.errors import StoreError
from support.redis_server import PASSWORD, RedisServer, server_program, server_version
from support.redis_stores import MARKER, RESOURCE, Made, client_of, quiet, said

MAKER = """
    import sys
    from pathlib import Path
    from handrail.adapters.redis import RedisStore
    store = RedisStore("store/cache", sys.argv[1])
    folder = Path(sys.argv[2])
    (folder / "b").mkdir()
    backup = store.backup("b1", folder / "b", lambda *_: None)
    clone = store.clone(backup, folder / "clone", "ab" * 16, lambda *_: None)
    print(clone.connection().parts["url"], flush=True)
    sys.stdin.read()
"""


def answers(url: str) -> bool:
    """Return whether a server answers at `url`."""
    try:
        with redis.Redis.from_url(url) as client:
            return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_alike(store: RedisStore, client: Any, made: Made) -> None:
    """Settings that change what commands do, the databases and every user are the original's."""
    client.config_set("maxmemory", "123mb")
    client.config_set("maxmemory-policy", "volatile-ttl")
    client.config_set("notify-keyspace-events", "KEA")
    client.execute_command("ACL", "SETUSER", "ben", "on", ">s3cret", "~ben:*", "+get", "+set")
    try:
        clone = client_of(made.clone())
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("notify-keyspace-events", "")
    assert clone.config_get("maxmemory")["maxmemory"] == str(123 * 1024 * 1024)
    assert clone.config_get("maxmemory-policy")["maxmemory-policy"] == "volatile-ttl"
    assert set(clone.config_get("notify-keyspace-events")["notify-keyspace-events"]) == set("AKE")
    ben = clone.acl_getuser("ben")
    assert ben["passwords"] == []
    assert "+get" in ben["commands"]
    assert "ben:*" in str(ben["keys"])
    clone.close()


def test_same_user(store: RedisStore, client: Any, made: Made, redis_server: RedisServer) -> None:
    """The script is the same user on the clone, with the same rights and another password."""
    client.set("app:1", 1)
    client.set("other:1", 1)
    client.execute_command("ACL", "SETUSER", "ana", "on", ">s3cret", "~app:*", "+@all", "-flushall")
    url = f"redis://ana:s3cret@127.0.0.1:{redis_server.port}/0"
    admin_backup = made.backup()
    at = made.directory("ana")
    clone = RedisStore(RESOURCE, url).clone(admin_backup, at, MARKER, quiet)
    script = client_of(clone)
    assert script.acl_whoami() == "ana"
    assert script.get("app:1") == b"1"
    with pytest.raises(redis.exceptions.NoPermissionError):
        script.get("other:1")
    with pytest.raises(redis.exceptions.NoPermissionError):
        script.flushall()
    assert "s3cret" not in clone.connection().parts["url"]
    script.close()
    store.discard(at)


def test_no_other_way_in(store: RedisStore, made: Made, redis_server: RedisServer) -> None:
    """A clone takes neither the original's password nor none, and keeps no password in a file."""
    clone = made.clone()
    parts = clone.connection().parts
    for password in (PASSWORD, None):
        once = Retry(NoBackoff(), 0)
        with redis.Redis(port=int(parts["port"]), password=password, retry=once) as client:
            with pytest.raises(redis.RedisError):
                client.ping()
    text = b"".join(path.read_bytes() for path in made.at.rglob("*") if path.is_file())
    assert parts["password"].encode() not in text
    for process in scratch.inside(made.at):
        command = Path(f"/proc/{process}/cmdline").read_bytes()
        assert parts["password"].encode() not in command


@pytest.mark.skipif(os.geteuid() != 0, reason="says something about root alone")
def test_not_as_root(made: Made) -> None:
    """Started by root, a clone runs as somebody who can write nobody's files."""
    made.clone()
    (process,) = scratch.inside(made.at)
    assert Path(f"/proc/{process}").stat().st_uid != 0


@pytest.mark.skipif(server_version() < (7,), reason="settings are protected since Redis 7.0")
def test_cannot_write_elsewhere(made: Made) -> None:
    """A script cannot make the clone write its files anywhere else."""
    script = client_of(made.clone())
    with pytest.raises(redis.ResponseError):
        script.config_set("dir", "/tmp")
    script.close()


def test_ended_by_another(redis_server: RedisServer, client: Any, tmp_path: Path) -> None:
    """A clone whose maker was killed is found and ended by any process."""
    client.set("a", 1)
    maker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(MAKER), redis_server.url, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert maker.stdout
    assert maker.stdin
    url = maker.stdout.readline().strip()
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    maker.stdin.close()
    maker.stdout.close()
    assert answers(url)
    RedisStore(RESOURCE, "/nonexistent").discard(tmp_path / "clone")
    assert not answers(url)
    assert not (tmp_path / "clone").exists()


@pytest.mark.parametrize("when", ["claimed", "placed", "removing"])
def test_ended_half_way(store: RedisStore, made: Made, when: str) -> None:
    """A clone whose making or ending was cut off is removed whole."""
    at = made.directory("half")
    folder = scratch.claim(at, MARKER)
    if when == "placed":
        (folder / "dump.rdb").write_bytes(b"REDIS")
    if when == "removing":
        folder.rmdir()
    store.discard(at)
    assert not at.exists()


def test_only_what_works_there(store: RedisStore, made: Made) -> None:
    """Discarding ends no process but those in the clone's own directory."""
    made.clone()
    (made.at / "data" / "redis.pid").write_text(f"{os.getpid()}\n")
    at = made.at
    store.discard(at)
    assert not at.exists()
    assert store.identify().marker == ""


def test_older_program(redis_server: RedisServer, made: Made, tmp_path: Path) -> None:
    """A backup that the programs here are too old for is refused, with what is needed."""
    backup = made.backup()
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=6.0.1 sha=0:0 malloc=libc bits=64'\n")
    old.chmod(0o755)
    store = RedisStore(RESOURCE, redis_server.url, environment={"HANDRAIL_REDIS_BIN": str(old)})
    at = made.directory("clone")
    with pytest.raises(StoreError) as raised:
        store.clone(backup, at, MARKER, quiet)
    assert raised.value.code == "store.tools-missing"
    assert "HANDRAIL_REDIS_BIN" in raised.value.hint
    assert list(at.iterdir()) == []


def test_no_program(store: RedisStore, made: Made, redis_server: RedisServer) -> None:
    """Without a redis-server here a backup is still made; it is proven when it is restored."""
    bare = RedisStore(
        RESOURCE, redis_server.url, environment={"HANDRAIL_REDIS_BIN": "/nonexistent"}
    )
    backup = bare.backup("b2", made.directory("backup"), quiet)
    assert backup.fingerprint is None
    assert "redis-server" in bare.can_restore()
    assert made.clone(backup).fingerprint().differences(store.fingerprint()) == ()


def test_chosen_program(store: RedisStore, made: Made, redis_server: RedisServer) -> None:
    """`HANDRAIL_REDIS_BIN` chooses the program of a clone."""
    program = server_program() or ""
    chosen = RedisStore(RESOURCE, redis_server.url, environment={"HANDRAIL_REDIS_BIN": program})
    at = made.directory("clone")
    chosen.clone(made.backup(), at, MARKER, quiet)
    (process,) = scratch.inside(at)
    assert Path(f"/proc/{process}/exe").samefile(program)
    store.discard(at)


class TestWithoutReplication:
    """A server whose user may not replicate, configure or administer: most managed ones."""

    @pytest.fixture
    def managed(self, client: Any, redis_server: RedisServer) -> RedisStore:
        """The same server, by a user without the rights of an administrator."""
        rights = ("~*", "&*", "+@all", "-@admin", "-@dangerous", "+info", "+keys", "+restore")
        client.execute_command("ACL", "SETUSER", "app", "on", ">s3cret", *rights)
        for number in range(250):
            client.set(f"session:{number}", f"value {number}", ex=5 * 86400)
        client.xadd("log", {"a": 1})
        client.execute_command("SELECT", 2)
        client.hset("user:1", mapping={"a": 1})
        client.execute_command("SELECT", 0)
        client.set("handrail:identity", "0" * 32)
        return RedisStore(RESOURCE, f"redis://app:s3cret@127.0.0.1:{redis_server.port}/0")

    def test_backup_and_clone(self, managed: RedisStore, made: Made) -> None:
        """Every key is saved by itself, and a clone of that has the same content."""
        before = managed.fingerprint()
        backup = made.backup(managed)
        assert backup.form == "redis-dump"
        assert backup.fingerprint == before
        at = made.directory("clone")
        clone = managed.clone(backup, at, MARKER, quiet)
        try:
            assert clone.fingerprint().differences(before) == ()
            assert clone.identify().id == managed.identify().id
            script = client_of(clone)
            assert script.acl_whoami() == "app"
            script.close()
        finally:
            managed.discard(at)

    def test_restore(self, managed: RedisStore, made: Made) -> None:
        """What the user may write is put back."""
        before = managed.fingerprint()
        backup = made.backup(managed)
        script = client_of(managed)
        script.delete("session:1", "log")
        script.set("more", 1)
        script.close()
        assert managed.can_restore() == ""
        assert managed.restore(backup, quiet) == ()
        assert managed.fingerprint().differences(before) == ()

    def test_effects(self, managed: RedisStore, made: Made) -> None:
        """What differs is told from the keys alone."""
        before = made.directory("before")
        managed.observe(before)
        script = client_of(managed)
        script.delete("session:1")
        script.close()
        assert said(managed.effects(before)) == {("delete", "key", "session:*"): (1, None)}


def test_replication_is_let_go(store: RedisStore, client: Any, made: Made) -> None:
    """A backup leaves no replica behind on the server."""
    made.backup()
    assert store.others() == ()
    assert client.info("replication")["connected_slaves"] == 0


def test_cut_off_while_copying(made: Made, redis_server: RedisServer, tmp_path: Path) -> None:
    """A server that goes away amid the copy gives an error, and an empty directory."""
    listener = socket.create_server(("127.0.0.1", 0))
    program = textwrap.dedent(f"""
        import socket, threading
        def carry(link):
            with link, socket.create_connection(("127.0.0.1", {redis_server.port})) as server:
                while asked := link.recv(65536):
                    if b"SYNC" in asked:
                        link.sendall(b"$1000\\r\\nREDIS0010")
                        return
                    server.sendall(asked)
                    link.sendall(server.recv(65536))
        listener = socket.socket(fileno={listener.fileno()})
        while True:
            threading.Thread(target=carry, args=[listener.accept()[0]]).start()
    """)
    proxy = subprocess.Popen(
        [sys.executable, "-c", program], pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL
    )
    port = listener.getsockname()[1]
    listener.close()
    into = made.directory("backup")
    url = redis_server.url.replace(str(redis_server.port), str(port))
    try:
        with pytest.raises(StoreError) as raised:
            RedisStore(RESOURCE, url).backup("b1", into, quiet)
    finally:
        proxy.kill()
        proxy.wait()
    assert raised.value.code == "store.unreachable"
    assert "before the file was whole" in raised.value.message
    assert list(into.iterdir()) == []
