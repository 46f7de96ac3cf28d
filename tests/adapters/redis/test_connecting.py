"""Addresses, and what a server says when it will not."""

from __future__ import annotations

import subprocess
from contextlib import closing
from typing import Any

import pytest

from handrail.adapters.redis import RedisStore
from handrail.adapters.redis.connecting import read_address
from handrail.errors import StoreError
from support.redis_server import RedisServer, running, server_program, server_version
from support.redis_stores import RESOURCE


@pytest.mark.parametrize(
    ("url", "handed_out"),
    [
        ("redis://:pw@db.internal", "redis://default:pw@db.internal:6379/0"),
        ("redis://ana:p%2Fw@db.internal:7000/3", "redis://ana:p%2Fw@db.internal:7000/3"),
        ("redis://db.internal", "redis://db.internal:6379/0"),
        ("rediss://:pw@[::1]:1/2", "rediss://default:pw@[::1]:1/2"),
        ("unix://:pw@/run/redis.sock?db=4", "unix://default:pw@/run/redis.sock?db=4"),
    ],
)
def test_no_empty_user(url: str, handed_out: str) -> None:
    """An address without a user is handed out with the server's default one, never an empty one."""
    address = read_address(url)
    assert address.url == handed_out
    assert read_address(address.url) == read_address(handed_out)


def test_tls_options_stay() -> None:
    """What a URL says about TLS reaches the script."""
    address = read_address("rediss://db:1/0?ssl_cert_reqs=none")
    assert address.url == "rediss://db:1/0?ssl_cert_reqs=none"


@pytest.mark.parametrize("url", ["/nonexistent", "http://db", "db:6379", "redis://db:port/0", ""])
def test_no_address(url: str) -> None:
    """What is no address is an error when it is used, that shows how one is written."""
    store = RedisStore(RESOURCE, url)
    with pytest.raises(StoreError) as raised:
        store.identify()
    assert raised.value.code == "store.url"


def test_redis_cli(redis_server: RedisServer, store: RedisStore) -> None:
    """redis-cli gets in with the address, and with the environment alone."""
    program = (server_program() or "").replace("redis-server", "redis-cli")
    connection = store.connection()
    parts, environment = connection.parts, dict(connection.environment)
    try:
        by_url = subprocess.run(
            [program, "-u", parts["url"], "PING"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("no redis-cli beside the tests' redis-server")
    by_names = subprocess.run(
        [program, "-h", parts["host"], "-p", parts["port"], "PING"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert by_url.stdout.strip() == "PONG"
    assert by_names.stdout.strip() == "PONG"


def test_wrong_password(redis_server: RedisServer) -> None:
    """A wrong password is refused as such, and never repeated in the error."""
    url = f"redis://:wr0ng@127.0.0.1:{redis_server.port}/0"
    with pytest.raises(StoreError) as raised:
        RedisStore(RESOURCE, url).identify()
    assert raised.value.code == "store.denied"
    assert "wr0ng" not in str(raised.value.as_json())


def test_by_socket(redis_server: RedisServer, client: Any) -> None:
    """A server is reached through its Unix socket as well, with the folder that a script needs."""
    client.set("a", 1)
    password = redis_server.url.split("default:")[1].split("@")[0]
    store = RedisStore(RESOURCE, f"unix://:{password}@{redis_server.socket}?db=0")
    assert store.identify().endpoint == f"{redis_server.socket}/0"
    assert store.connection().paths == (redis_server.path,)
    assert store.connection().sockets == ()
    assert store.ask("GET a", 5.0) == "1"


def test_cluster() -> None:
    """A cluster is refused in one sentence, before anything is read."""
    with running(cluster_enabled="yes") as server, pytest.raises(StoreError) as raised:
        RedisStore(RESOURCE, server.url).identify()
    assert raised.value.code == "store.unsupported"


def test_replica(redis_server: RedisServer) -> None:
    """A replica is refused, and the primary is named."""
    with running() as server, closing(server.client()) as client:
        client.replicaof("127.0.0.1", 1)
        with pytest.raises(StoreError) as raised:
            RedisStore(RESOURCE, server.url).identify()
    assert raised.value.code == "store.recovering"
    assert "127.0.0.1" in raised.value.hint


@pytest.mark.skipif(server_version() < (7,), reason="DEBUG SLEEP is switched on since 7.0")
def test_slow_answer(redis_server: RedisServer, client: Any, store: RedisStore) -> None:
    """A question to a server that is busy ends at its time limit."""
    with client.pipeline(transaction=False) as busy:
        link = busy.connection_pool.get_connection()
        link.send_command("DEBUG", "SLEEP", "1.5")
        with pytest.raises(StoreError) as raised:
            store.ask("GET a", 0.2)
        assert raised.value.code == "store.unreachable"
        link.read_response()
        busy.connection_pool.release(link)
