"""The guard beside others: who write at the same time, who look on, and servers behind TLS."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from handrail.errors import StoreError
from handrail.plans.budget import from_effects
from handrail.plans.effect import Effect
from handrail.plans.holding import Limits
from handrail.plans.model import Budget
from support.redis_guarding import RESOURCE, Guarded, direct, encoded, guarding
from support.redis_server import PASSWORD, RedisServer, running, server_program

OpenGuard = Callable[..., AbstractContextManager[Guarded]]


def budget_of(*amounts: tuple[str, str, str, int]) -> Budget:
    effects = [Effect(RESOURCE, verb, kind, name, rows) for verb, kind, name, rows in amounts]
    return from_effects(effects, relative=0, absolute=0)


def test_others_that_write_change_no_count(guard: OpenGuard, redis_server: RedisServer) -> None:
    """While somebody else changes a list all the time, what is taken is held to the last item."""
    allowed = budget_of(("delete", "member", "l", 60), ("update", "key", "l", 60))
    stop = threading.Event()

    def refill() -> None:
        with direct(redis_server) as other:
            while not stop.is_set():
                other.ask("RPUSH", "l", "a", "b", "c")
                other.ask("LTRIM", "l", 0, 1000)

    with direct(redis_server) as other:
        other.ask("RPUSH", "l", *("x" * 900))
    writer = threading.Thread(target=refill)
    writer.start()
    try:
        with guard("hold", budget=allowed) as guarded:
            client = guarded.client()
            taken = 0
            for _ in range(40):
                reply = client.ask("LPOP", "l", 2)
                taken += len(reply) if isinstance(reply, list) else 0
            amounts = guarded.amounts()
            assert guarded.report().stop is not None
    finally:
        stop.set()
        writer.join()
    assert taken == 60
    assert amounts["delete", "member", "l"] == 60


def test_a_watch_of_the_guard_is_nobodys_business(
    guard: OpenGuard, redis_server: RedisServer
) -> None:
    """A transaction near its budget gets its replies although others changed what it looks at."""
    allowed = budget_of(("insert", "member", "s", 100), ("update", "key", "s", 100))
    stop = threading.Event()

    def disturb() -> None:
        with direct(redis_server) as other:
            while not stop.is_set():
                other.ask("SADD", "s", "x")
                other.ask("SREM", "s", "x")

    with direct(redis_server) as other:
        other.ask("SADD", "s", "kept")
    writer = threading.Thread(target=disturb)
    writer.start()
    try:
        with guard("hold", budget=allowed) as guarded:
            client = guarded.client()
            for number in range(50):
                client.ask("MULTI")
                client.ask("SADD", "s", f"m{number}")
                client.ask("SADD", "s", f"n{number}")
                assert client.ask("EXEC") == [1, 1]
            assert guarded.amounts()["insert", "member", "s"] == 100
    finally:
        stop.set()
        writer.join()


def test_the_own_client_of_redis_works(guard: OpenGuard) -> None:
    """redis-cli reaches the guard by its environment and by its URL, and reads its replies."""
    program = shutil.which("redis-cli")
    if program is None:
        pytest.skip("no redis-cli on this machine")
    with guard("measure") as guarded:
        given = dict(guarded.guard.connection().environment)
        address = ["-h", given["REDIS_HOST"], "-p", given["REDIS_PORT"]]
        url = given["REDIS_URL"].replace("redis://handrail:", "redis://:")
        for argv, environment in (
            ([program, *address, "SET", "k", "v"], given),
            ([program, "-u", url, "--no-auth-warning", "SET", "k", "v"], {}),
            ([program, "-3", *address, "SET", "k", "v"], given),
        ):
            done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
            assert done.stdout.strip() == "OK"
        script = "\n".join(f"SET k:{n} x" for n in range(500))
        argv = [program, *address]
        done = subprocess.run(
            argv, env=given, input=script, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["OK"] * 500
        assert guarded.amounts()["insert", "key", "k:*"] == 500


# --- TLS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, str]]:
    """A server that also speaks TLS, and its address."""
    if server_program() is None:
        pytest.skip("no redis-server on this machine")
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = _certificate(folder)
    port = _free_port()
    try:
        with running(
            None,
            tls_port=str(port),
            tls_cert_file=str(certificate),
            tls_key_file=str(key),
            tls_auth_clients="no",
        ) as server:
            address = f"rediss://default:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/0"
            yield server, f"{address}?ssl_ca_certs={certificate}"
    except AssertionError:
        pytest.skip("this redis-server was built without TLS")


def _free_port() -> int:

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, private


def test_a_server_behind_tls_is_guarded(
    tls_server: tuple[RedisServer, str], tmp_path: Path
) -> None:
    """The guard speaks TLS to the server, and the script speaks plainly to the guard."""
    server, url = tls_server
    with guarding(server, Limits(mode="measure"), tmp_path, url=url) as guarded:
        client = guarded.client()
        client.send(b"".join(encoded("SET", f"k:{n}", b"x" * 1000) for n in range(500)))
        assert all(client.reply() == b"OK" for _ in range(500))
        assert guarded.amounts() == {("insert", "key", "k:*"): 500}


def test_a_server_that_is_not_trusted_is_not_spoken_to(
    tls_server: tuple[RedisServer, str], tmp_path: Path
) -> None:
    """A certificate that nobody vouches for opens no guard, and gets no password."""
    server, url = tls_server
    untrusting = url.partition("?")[0]
    with pytest.raises(StoreError) as caught:
        with guarding(server, Limits(mode="measure"), tmp_path, url=untrusting):
            pass
    assert caught.value.code == "store.unreachable"
