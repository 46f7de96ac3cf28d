"""How clients come in, speak, wait and leave."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from handrail.errors import StoreError
from handrail.plans.budget import from_effects
from handrail.plans.holding import Limits
from handrail.wire.redis.replies import ErrorReply
from support.redis_guarding import PATIENCE_S, Client, Guarded, direct, encoded, guarding
from support.redis_server import RedisServer

OpenGuard = Callable[..., AbstractContextManager[Guarded]]
MEGABYTE = 1024 * 1024


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for a condition of another process; fail when it never comes."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)


def text_of(reply: object) -> str:
    assert isinstance(reply, ErrorReply), reply
    return reply.text.decode()


# --- coming in -------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["handrail", "default", ""])
def test_the_secret_opens_the_guard_by_any_usual_name(user: str, guard: OpenGuard) -> None:
    """AUTH with the name that is handed out, with `default`, and with an empty one."""
    with guard("observe") as guarded:
        secret = guarded.guard.connection().parts["password"]
        assert guarded.stranger().ask("AUTH", user, secret) == b"OK"
        assert guarded.stranger().ask("AUTH", secret) == b"OK"


def test_who_has_no_secret_reaches_nothing(guard: OpenGuard) -> None:
    """Without the run's secret nothing is answered; the server's own password opens nothing."""
    with guard("observe") as guarded:
        client = guarded.stranger()
        for words in (("PING",), ("GET", "k"), ("NOSUCH",), ("EVAL", "return 1", "0")):
            assert text_of(client.ask(*words)) == "NOAUTH Authentication required."
        assert text_of(client.ask("HELLO", 3)).startswith("NOAUTH HELLO")
        for password in (guarded.server.password, "wrong"):
            assert text_of(client.ask("AUTH", password)).startswith("WRONGPASS")
        assert text_of(client.ask("HELLO", 3, "AUTH", "handrail", "x")).startswith("WRONGPASS")
        assert guarded.kinds() == ["bypass"] * 3


def test_who_guesses_is_sent_away(guard: OpenGuard) -> None:
    """After ten wrong secrets the connection is closed."""
    with guard("observe") as guarded:
        client = guarded.stranger()
        for _ in range(10):
            client.send(encoded("AUTH", "wrong"))
        for _ in range(10):
            text_of(client.reply())
        assert client.is_closed()


def test_hello_signs_in_and_chooses_the_protocol(guard: OpenGuard) -> None:
    """HELLO 3 AUTH answers as the server does, with a map, and names the connection."""
    with guard("measure") as guarded:
        parts = guarded.guard.connection().parts
        client = guarded.stranger()
        client.send(encoded("HELLO", 3, "AUTH", parts["user"], parts["password"], "SETNAME", "me"))
        assert client.raw().startswith(b"%")
        assert client.ask("CLIENT", "GETNAME") == b"me"
        client.send(encoded("GET", "nothing"))
        assert client.raw() == b"_\r\n"


def test_libraries_use_the_address_as_it_is_handed_out(guard: OpenGuard) -> None:
    """redis-py reaches the guard by its URL, with both protocols, and by the environment."""
    with guard("measure") as guarded:
        connection = guarded.guard.connection()
        for protocol in (2, 3):
            url = connection.environment["REDIS_URL"]
            with closing(cast("Any", redis.Redis.from_url(url, protocol=protocol))) as client:
                assert client.set("k", "v")
                with client.pipeline(transaction=True) as pipe:
                    pipe.get("k")
                    pipe.incr("n")
                    assert pipe.execute()[0] == b"v"
        assert guarded.report().stop is None
    assert connection.parts["user"] == connection.environment["REDIS_USERNAME"]
    assert connection.environment["REDISCLI_AUTH"] == connection.parts["password"]


def test_reset_forgets_who_it_was(guard: OpenGuard) -> None:
    """RESET ends transaction, database and sign-in; after a new AUTH all is as new."""
    with guard("measure") as guarded:
        client = guarded.client(3)
        client.ask("SELECT", 1)
        client.ask("MULTI")
        assert client.ask("RESET") == b"RESET"
        assert text_of(client.ask("SET", "k", "x")).startswith("NOAUTH")
        assert client.ask("AUTH", guarded.guard.connection().parts["password"]) == b"OK"
        assert client.ask("SET", "k", "x") == b"OK"
        assert guarded.amounts() == {("insert", "key", "k"): 1}


def test_quit_answers_and_closes(guard: OpenGuard) -> None:
    """QUIT answers after everything before it, and the connection ends."""
    with guard("measure") as guarded:
        client = guarded.client()
        client.send(encoded("SET", "k", "x") + encoded("QUIT"))
        assert [client.reply(), client.reply()] == [b"OK", b"OK"]
        assert client.is_closed()


def test_a_server_that_does_not_answer_is_told(tmp_path: Path, redis_server: RedisServer) -> None:
    """Without a server, or with a wrong password, no guard is opened; no error has the secret."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        for url, code in (
            (f"redis://:secret@127.0.0.1:{free.getsockname()[1]}/0", "store.unreachable"),
            (f"redis://:secret@127.0.0.1:{redis_server.port}/0", "store.denied"),
            ("http://:secret@127.0.0.1/", "store.url"),
            (f"unix://:secret@{tmp_path}/none.sock", "store.unreachable"),
        ):
            with pytest.raises(StoreError) as caught:
                with guarding(redis_server, Limits(), tmp_path, url=url):
                    pass
            assert caught.value.code == code
            assert "secret" not in str(caught.value)


def test_a_server_at_a_socket_is_guarded(redis_server: RedisServer, tmp_path: Path) -> None:
    """A Unix socket behind the guard is a TCP port before it."""
    url = f"unix://:{redis_server.password.replace('%', '%25').replace('#', '%23')}"
    url = url.replace("?", "%3F").replace("/@", "%2F%40").replace(":/", ":%2F", 0)
    from urllib.parse import quote

    url = f"unix://default:{quote(redis_server.password, safe='')}@{redis_server.socket}?db=1"
    with guarding(redis_server, Limits(mode="measure"), tmp_path, url=url, database=1) as guarded:
        assert guarded.guard.connection().parts["url"].endswith("/1")
        assert guarded.client().ask("PING") == b"PONG"


# --- order -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["observe", "measure"])
def test_replies_keep_their_order(mode: str, guard: OpenGuard) -> None:
    """Whatever the guard answers itself comes where it belongs among the server's replies."""
    with guard(mode) as guarded:
        client = guarded.client()
        sent = [("ECHO", "1"), ("CLIENT", "REPLY", "OFF"), ("SET", "a", "2"), ("GET",)]
        sent += [("AUTH", "wrong"), ("GET", "a"), ("MULTI",), ("GET", "a"), ("EXEC",)]
        sent += [("MONITOR",), ("ECHO", "9")]
        client.send(b"".join(encoded(*words) for words in sent))
        found = [client.reply() for _ in sent]
    errors = [at for at, reply in enumerate(found) if isinstance(reply, ErrorReply)]
    assert errors == [1, 3, 4, 9]
    assert [found[at] for at in (0, 2, 5, 6, 7, 8, 10)] == [
        *(b"1", b"OK", b"2", b"OK", b"QUEUED", [b"2"], b"9")
    ]


@pytest.mark.parametrize("mode", ["observe", "measure"])
def test_messages_come_between_replies(mode: str, guard: OpenGuard) -> None:
    """With RESP3 a subscriber goes on asking; messages come between, and belong to no command."""
    with guard(mode) as guarded:
        client, other = guarded.client(3), guarded.client()
        client.send(encoded("SUBSCRIBE", "a", "b") + encoded("SET", "k", "x"))
        assert client.raw().startswith(b">3\r\n$9\r\nsubscribe\r\n$1\r\na")
        assert client.raw().startswith(b">3\r\n$9\r\nsubscribe\r\n$1\r\nb")
        assert client.reply() == b"OK"
        for number in range(20):
            assert other.ask("PUBLISH", "a", number) == 1
            client.send(encoded("GET", "k"))
            assert sorted((client.raw(), client.raw())) == [
                b"$1\r\nx\r\n",
                b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$%d\r\n%d\r\n" % (len(str(number)), number),
            ]
        client.send(encoded("UNSUBSCRIBE") + encoded("GET", "k"))
        assert {client.raw()[:23], client.raw()[:23]} == {b">3\r\n$11\r\nunsubscribe\r\n$"[:23]}
        assert client.reply() == b"x"


@pytest.mark.parametrize("mode", ["observe", "measure"])
def test_a_subscriber_with_the_older_protocol(mode: str, guard: OpenGuard) -> None:
    """With RESP2 messages, confirmations and PING's own reply are told apart."""
    with guard(mode) as guarded:
        client, other = guarded.client(), guarded.client()
        client.send(encoded("SET", "k", "x") + encoded("PSUBSCRIBE", "a*"))
        assert client.reply() == b"OK"
        assert client.reply() == [b"psubscribe", b"a*", 1]
        other.ask("PUBLISH", "abc", "hello")
        assert client.reply() == [b"pmessage", b"a*", b"abc", b"hello"]
        assert client.ask("PING") == [b"pong", b""]
        assert "Can't execute" in text_of(client.ask("GET", "k"))
        assert client.ask("PUNSUBSCRIBE") == [b"punsubscribe", b"a*", 0]
        assert client.ask("PUNSUBSCRIBE") == [b"punsubscribe", None, 0]
        assert client.ask("GET", "k") == b"x"


def test_invalidations_come_as_they_are(guard: OpenGuard) -> None:
    """Client-side caching works through the guard: the push for a changed key arrives."""
    with guard("measure") as guarded:
        client, other = guarded.client(3), guarded.client()
        assert client.ask("CLIENT", "TRACKING", "ON") == b"OK"
        client.ask("GET", "k")
        other.ask("SET", "k", "x")
        assert client.reply() == [b"invalidate", [b"k"]]
        assert client.ask("GET", "k") == b"x"


def test_inline_commands_in_fragments(guard: OpenGuard) -> None:
    """What a person types is judged and counted like anything else, byte by byte."""
    with guard("measure") as guarded:
        client = guarded.client()
        for byte in b'SET "a b" x\r\nGET "a b"\n':
            client.send(bytes([byte]))
        assert [client.reply(), client.reply()] == [b"OK", b"x"]
        assert guarded.amounts() == {("insert", "key", "a b"): 1}


def test_a_bad_frame_ends_with_a_word(guard: OpenGuard) -> None:
    """What is no request is answered with the server's own words, after all that came before."""
    with guard("measure") as guarded:
        client = guarded.client()
        client.send(encoded("ECHO", "before") + b"*1\r\n$+4\r\nPING\r\n")
        assert client.reply() == b"before"
        assert text_of(client.reply()) == "ERR Protocol error: invalid bulk length"
        assert client.is_closed()


def test_redirects_are_not_followed() -> None:
    """What a cluster says of another node reaches the client as a refusal, not as a redirect."""
    from handrail.wire.redis.pairing import Pairing

    emitted: list[bytes] = []
    pairing = Pairing(emitted.append)
    pairing.plain(3)
    pairing.feed(b"+OK\r\n-MOVED 3999 10.0.0.7:6381\r\n-ASK 3999 10.0.0.7:6381\r\n")
    told = b"".join(emitted).split(b"\r\n")
    assert told[0] == b"+OK"
    for line in told[1:3]:
        assert line.startswith(b"-HANDRAIL this key is on another node of the cluster")
    assert not pairing.pending


# --- waiting ---------------------------------------------------------------------------------


def test_what_waits_is_answered_when_it_comes(guard: OpenGuard) -> None:
    """A waiting client gets what another one pushes; both are counted."""
    with guard("measure") as guarded:
        client, other = guarded.client(), guarded.client()
        client.send(encoded("BLPOP", "a", "b", 0) + encoded("ECHO", "next"))
        wait_until(lambda: b"cmd=blpop" in cast("bytes", other.ask("CLIENT", "LIST")))
        assert other.ask("RPUSH", "b", "x") == 1
        assert client.reply() == [b"b", b"x"]
        assert client.reply() == b"next"
        found = guarded.amounts()
    assert found["delete", "member", "b"] == 1
    assert found["insert", "member", "b"] == 1
    assert ("delete", "member", "a") not in found


def test_who_waits_and_leaves_holds_nothing_up(guard: OpenGuard) -> None:
    """A client that hangs up while it waits is gone at once, at the server too."""
    with guard("measure") as guarded:
        client = guarded.client()
        client.send(encoded("BLPOP", "a", 0))
        with direct(guarded.server) as other:
            wait_until(lambda: b"cmd=blpop" in cast("bytes", other.ask("CLIENT", "LIST")))
            client.close()
            wait_until(lambda: b"cmd=blpop" not in cast("bytes", other.ask("CLIENT", "LIST")))
        assert guarded.amounts() == {}


def test_settling_does_not_wait_for_who_waits(guard: OpenGuard) -> None:
    """A report comes although a client still waits for what will never come."""
    with guard("measure") as guarded:
        client = guarded.client()
        client.ask("SET", "k", "x")
        client.send(encoded("BLPOP", "a", 0) + encoded("SET", "m", "x"))
        with direct(guarded.server) as other:
            wait_until(lambda: b"cmd=blpop" in cast("bytes", other.ask("CLIENT", "LIST")))
        assert guarded.amounts()["insert", "key", "k"] == 1
        assert guarded.report().stop is None


# --- leaving ---------------------------------------------------------------------------------


def test_half_closed_is_still_answered(guard: OpenGuard) -> None:
    """A client that has said everything gets every reply before the connection ends."""
    for mode in ("observe", "measure"):
        with guard(mode) as guarded:
            client = guarded.client()
            client.send(b"".join(encoded("SET", f"k:{n}", "x") for n in range(2000)))
            client.send(b"SET last x\r\n")
            client.socket.shutdown(socket.SHUT_WR)
            assert all(client.reply() == b"OK" for _ in range(2001))
            assert client.is_closed()


def test_who_leaves_early_is_counted_to_the_end(guard: OpenGuard) -> None:
    """What was sent before a client hung up has happened, and is counted."""
    with guard("measure") as guarded:
        client = guarded.client()
        client.send(b"".join(encoded("SET", f"k:{n}", "x") for n in range(500)))
        client.close()
        with direct(guarded.server) as other:
            wait_until(lambda: other.ask("DBSIZE") == 500)
        assert guarded.amounts() == {("insert", "key", "k:*"): 500}


def test_a_server_that_goes_takes_the_client_along(guard: OpenGuard) -> None:
    """When the server closes a connection, its client's is closed; others go on."""
    with guard("measure") as guarded:
        client, other = guarded.client(), guarded.client()
        number = client.ask("CLIENT", "ID")
        assert isinstance(number, int)
        with direct(guarded.server) as admin:
            assert admin.ask("CLIENT", "KILL", "ID", number) == 1
        assert client.is_closed()
        assert other.ask("PING") == b"PONG"


def test_nobody_comes_in_after_settling(guard: OpenGuard) -> None:
    """Once a run is settled its address is closed, and the second report is the first."""
    with guard("measure") as guarded:
        client = guarded.client()
        client.ask("SET", "k", "x")
        report = guarded.report()
        assert client.is_closed()
        with pytest.raises(OSError, match="refused"):
            guarded.stranger()
        assert guarded.report() is report


def test_an_interrupt_leaves_nothing_behind(redis_server: RedisServer, tmp_path: Path) -> None:
    """Ctrl-C in the main thread ends the guard's thread and every connection, without a word."""
    program = f"""
import os, signal, sys, threading, warnings
from pathlib import Path
warnings.simplefilter("error")
from handrail.plans.holding import Limits
from support.redis_guarding import guarding
server = type("S", (), {{"url": sys.argv[1]}})()
try:
    with guarding(server, Limits(mode="measure"), Path({str(tmp_path)!r})) as guarded:
        client = guarded.client()
        assert client.ask("SET", "k", "x") == b"OK"
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(20)
except KeyboardInterrupt:
    print(threading.active_count(), "left")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, redis_server.url],
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("1 left\n", "")


# --- much ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["observe", "measure"])
def test_much_is_written_before_anything_is_read(mode: str, guard: OpenGuard) -> None:
    """A client that sends 60 MB before it reads a byte is neither hung nor kept in memory."""
    value, count = b"x" * 3000, 10_000
    with guard(mode) as guarded:
        client = guarded.client()
        piece = b"".join(
            encoded("SET", f"k:{n}", value) + encoded("GET", f"k:{n}") for n in range(100)
        )
        before = _memory_bytes()
        for _ in range(count // 100):
            client.send(piece)
        assert _memory_bytes() - before < 64 * MEGABYTE
        for _ in range(count):
            assert client.raw() == b"+OK\r\n"
            assert len(client.raw()) == len(value) + 9


def _memory_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def test_a_large_value_passes_in_pieces(guard: OpenGuard, redis_server: RedisServer) -> None:
    """100 MB go in and come out through the guard, and never lie in its memory."""
    size = 100 * MEGABYTE
    piece = bytes(range(256)) * 4096
    with guard("measure") as guarded:
        client = guarded.client()
        before = _memory_bytes()
        client.send(b"*5\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n" % size)
        for _ in range(size // len(piece)):
            client.send(piece)
        client.send(b"\r\n$2\r\nEX\r\n$4\r\n1000\r\n")
        assert client.reply() == b"OK"
        client.send(encoded("GET", "big"))
        assert _received(client, b"$%d\r\n" % size, size) == size
        assert _memory_bytes() - before < 32 * MEGABYTE
        assert guarded.amounts() == {("insert", "key", "big"): 1}
    with direct(redis_server) as other:
        assert other.ask("GETRANGE", "big", size - 256, -1) == bytes(range(256))


def _received(client: Client, header: bytes, size: int) -> int:
    """Read one bulk in pieces, and return how many bytes of content it had."""
    data = b""
    while len(data) < len(header):
        data += client.socket.recv(65536)
    assert data.startswith(header)
    got = len(data) - len(header)
    while got < size + 2:
        got += len(client.socket.recv(MEGABYTE))
    return got - 2


def test_a_slow_reader_rests_the_server(guard: OpenGuard, redis_server: RedisServer) -> None:
    """A client that does not read what it asked for keeps it at the server, not in the guard."""
    with direct(redis_server) as other:
        other.ask("SET", "big", b"x" * (4 * MEGABYTE))
    with guard("observe") as guarded:
        client = guarded.client()
        before = _memory_bytes()
        client.send(encoded("GET", "big") * 20)
        with direct(redis_server) as other:
            wait_until(lambda: b"omem=0 " not in _line(other, b"cmd=get"))
        assert _memory_bytes() - before < 16 * MEGABYTE
        for _ in range(20):
            assert len(client.raw()) == 4 * MEGABYTE + 12


def _line(client: Client, word: bytes) -> bytes:
    told = client.ask("CLIENT", "LIST")
    assert isinstance(told, bytes)
    return b"".join(line for line in told.splitlines() if word in line) or b"omem=0 "


def test_a_connection_costs_little(guard: OpenGuard) -> None:
    """An idle connection takes less than 64 KB of the guard."""
    with guard("measure") as guarded:
        for _ in range(20):
            guarded.client().ask("SET", "k", "x")
        before = _memory_bytes()
        for _ in range(200):
            guarded.client().ask("SET", "k", "x")
        assert (_memory_bytes() - before) / 200 < 64 * 1024


# --- the user of a run -----------------------------------------------------------------------


def test_a_limited_run_is_its_own_user(guard: OpenGuard, redis_server: RedisServer) -> None:
    """The run connects as a user with what the rehearsal ran and no more; it is gone afterwards."""
    with guard("measure") as guarded:
        client = guarded.client()
        client.ask("SET", "session:1", "x")
        client.ask("DEL", "session:1")
        known = guarded.report()
    budget = from_effects(known.effects, relative=0, absolute=0)
    with (
        guard("hold", budget=budget, trace=known.trace, role="limited") as guarded,
        direct(redis_server) as admin,
    ):
        client = guarded.client()
        assert client.ask("SET", "session:5", "x") == b"OK"
        (user,) = [u for u in cast("list[bytes]", admin.ask("ACL", "USERS")) if u != b"default"]
        assert user.startswith(b"handrail-run-")
        assert text_of(client.ask("GET", "other")).startswith("NOPERM")
        assert guarded.report().role == "limited"
        assert admin.ask("ACL", "USERS") == [b"default"]


def test_a_user_that_was_left_over_is_swept(guard: OpenGuard, redis_server: RedisServer) -> None:
    """What a killed run left is removed by the next; a run that is alive keeps its own."""
    with direct(redis_server) as admin:
        admin.ask("ACL", "SETUSER", "handrail-run-dead", "on", "nopass", "~*", "+@all")
        with guard("measure", role="limited") as alive:
            assert b"handrail-run-dead" not in cast("list[bytes]", admin.ask("ACL", "USERS"))
            with guard("measure", role="limited"):
                assert alive.client().ask("PING") == b"PONG"
        assert admin.ask("ACL", "USERS") == [b"default"]
