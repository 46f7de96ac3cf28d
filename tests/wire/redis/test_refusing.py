"""What is refused, with which words, and what stays possible."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from handrail.plans.budget import from_effects
from handrail.plans.effect import Effect
from handrail.plans.model import Budget
from handrail.wire.redis.replies import ErrorReply
from support.redis_guarding import RESOURCE, Guarded, direct
from support.redis_server import RedisServer, server_program, server_version

OpenGuard = Callable[..., AbstractContextManager[Guarded]]
IS_NEW = server_program() is not None and server_version() >= (7,)

# What changes the server, reaches round the guard, or has effects that no command shows.
ADMIN = [
    "REPLICAOF NO ONE",
    "REPLICAOF 127.0.0.1 1",
    "SLAVEOF NO ONE",
    "MIGRATE 127.0.0.1 1 k 0 10",
    "DEBUG RELOAD",
    "DEBUG SLEEP 0",
    "SHUTDOWN NOSAVE",
    "CONFIG SET maxmemory 1",
    "CONFIG REWRITE",
    "CONFIG RESETSTAT",
    "ACL SETUSER evil on nopass ~* +@all",
    "ACL DELUSER evil",
    "ACL LIST",
    "ACL GETUSER default",
    "CLIENT KILL TYPE normal",
    "CLIENT PAUSE 1",
    "CLIENT UNPAUSE",
    "CLIENT NO-EVICT on",
    "CLIENT UNBLOCK 1",
    "SCRIPT KILL",
    "SCRIPT FLUSH",
    "FAILOVER",
    "MODULE LOAD /tmp/evil.so",
    "CLUSTER RESET",
    "CLUSTER FAILOVER",
    "SAVE",
    "BGSAVE",
    "BGREWRITEAOF",
    "SWAPDB 0 1",
    "LATENCY RESET",
    "SLOWLOG RESET",
    "MEMORY PURGE",
    "PFDEBUG GETREG k",
    "RESTORE-ASKING k 0 x",
    "config set maxmemory 1",
    "CoNfIg SeT maxmemory 1",
]
ADMIN += ["FUNCTION FLUSH", "FUNCTION DELETE f"] if IS_NEW else []
# What would break the pairing of replies, or show what others do; in every mode.
NEVER = ["MONITOR", "SYNC", "PSYNC ? -1", "CLIENT REPLY OFF", "CLIENT REPLY SKIP"]


def budget_of(*amounts: tuple[str, str, str, int]) -> Budget:
    effects = [Effect(RESOURCE, verb, kind, name, rows) for verb, kind, name, rows in amounts]
    return from_effects(effects, relative=0, absolute=0)


def text_of(reply: object) -> str:
    assert isinstance(reply, ErrorReply), reply
    return reply.text.decode()


@pytest.mark.parametrize("mode", ["hold", "measure", "read-only"])
@pytest.mark.parametrize("command", ADMIN)
def test_what_changes_the_server_is_refused(
    mode: str, command: str, guard: OpenGuard, redis_server: RedisServer
) -> None:
    """A command that reaches round the guard is not sent; it is an event, and stops the run."""
    with direct(redis_server) as client:
        client.ask("SET", "k", "x")
    with guard(mode, budget=budget_of()) as guarded:
        assert "stopped" in text_of(guarded.client().ask(*command.split()))
        assert "bypass" in guarded.kinds()
        assert guarded.report().stop is not None
    with direct(redis_server) as client:
        assert client.ask("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"0"]
        assert client.ask("GET", "k") == b"x"


@pytest.mark.parametrize("mode", ["observe", "hold"])
@pytest.mark.parametrize("command", NEVER)
def test_what_breaks_the_pairing_is_refused_in_every_mode(
    mode: str, command: str, guard: OpenGuard
) -> None:
    """Whatever would make a reply come unasked, or none come, is refused; the rest goes on."""
    with guard(mode, budget=budget_of()) as guarded:
        client = guarded.client()
        text_of(client.ask(*command.split()))
        assert client.ask("ECHO", "still here") == b"still here"


def test_observing_passes_what_changes_the_server(
    guard: OpenGuard, redis_server: RedisServer
) -> None:
    """Where nothing is held, it is passed on, and told."""
    with guard("observe") as guarded:
        assert guarded.client().ask("CONFIG", "SET", "maxmemory", "100mb") == b"OK"
        assert guarded.kinds() == ["bypass"]
    with direct(redis_server) as client:
        assert client.ask("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"104857600"]


@pytest.mark.parametrize(
    "command",
    [
        *("SET k x", "DEL k", "FLUSHALL", "EVAL return 0", "EXPIRE k 1", "PUBLISH c m", "GETDEL k"),
        *("RENAME k m", "XREADGROUP GROUP g c STREAMS k >", "RESTORE k 0 x", "BLPOP k 1"),
    ],
)
def test_read_only_refuses_every_write(
    command: str, guard: OpenGuard, redis_server: RedisServer
) -> None:
    """In a run that may only read, nothing that could write is sent; reads go on."""
    with direct(redis_server) as client:
        client.ask("SET", "k", "kept")
    with guard("read-only") as guarded:
        client = guarded.client()
        words = command.split()
        assert "may only read" in text_of(client.ask(*words))
        assert client.ask("GET", "k") == b"kept"
        assert guarded.report().effects == ()
    with direct(redis_server) as client:
        assert client.ask("GET", "k") == b"kept"


def test_a_refusal_says_what_and_what_to_do(guard: OpenGuard, redis_server: RedisServer) -> None:
    """One line: what, how much, the budget, and the way forward."""
    with direct(redis_server) as client:
        client.ask("MSET", *(word for n in range(5) for word in (f"session:{n}", "x")))
    with guard("hold", budget=budget_of(("delete", "key", "session:*", 2))) as guarded:
        client = guarded.client()
        assert client.ask("DEL", "session:0") == 1
        told = text_of(client.ask("DEL", *(f"session:{n}" for n in range(1, 5))))
        assert told.startswith("HANDRAIL stopped before it took effect: would delete key session:*")
        assert "5 rows; budget 2, tolerance 0" in told
        assert told.endswith("rehearse again, if that is what you meant")
        stop = guarded.report().stop
        assert stop is not None
        assert stop.statement == "DEL session:*"
        assert stop.kept == 1
    with direct(redis_server) as client:
        assert client.ask("DBSIZE") == 4


def test_after_a_refusal_nothing_writes(guard: OpenGuard, redis_server: RedisServer) -> None:
    """A script that ignores errors gets no other write through, on any connection; reads go on."""
    with guard("hold", budget=budget_of(("insert", "key", "a", 1))) as guarded:
        first, second = guarded.client(), guarded.client()
        assert first.ask("SET", "a", "x") == b"OK"
        assert "stopped" in text_of(first.ask("SET", "b", "x"))
        assert "stopped" in text_of(first.ask("SET", "a", "y"))
        assert "stopped" in text_of(second.ask("SET", "a", "y"))
        assert second.ask("GET", "a") == b"x"
        assert guarded.kinds().count("refused") == 1
    with direct(redis_server) as client:
        assert client.ask("KEYS", "*") == [b"a"]


def test_deleting_nothing_is_no_false_alarm(guard: OpenGuard) -> None:
    """A command that would do nothing passes with an empty budget."""
    with guard("hold", budget=budget_of()) as guarded:
        client = guarded.client()
        assert client.ask("DEL", "session:1") == 0
        assert client.ask("EXPIRE", "k", 100) == 0
        assert client.ask("SREM", "s", "m") == 0
        assert client.ask("FLUSHALL") == b"OK"
        assert guarded.report().stop is None


@pytest.mark.parametrize("flush", ["FLUSHALL", "FLUSHDB", "FLUSHALL ASYNC", "flushall"])
def test_a_flush_is_refused_before(flush: str, guard: OpenGuard, redis_server: RedisServer) -> None:
    """A flush that takes more than was rehearsed takes nothing."""
    with direct(redis_server) as client:
        client.ask("MSET", "session:1", "x", "license", "y")
    with guard("hold", budget=budget_of(("delete", "key", "session:*", 5))) as guarded:
        told = text_of(guarded.client().ask(*flush.split()))
        assert "delete key license 1 rows, not in rehearsal at all" in told
    with direct(redis_server) as client:
        assert client.ask("DBSIZE") == 2


def test_a_transaction_is_refused_as_a_whole(guard: OpenGuard, redis_server: RedisServer) -> None:
    """Of a transaction that goes beyond the budget, nothing is done; its client is told."""
    budget = budget_of(("insert", "key", "a", 1), ("insert", "key", "b", 1))
    with guard("hold", budget=budget) as guarded:
        client = guarded.client()
        assert client.ask("MULTI") == b"OK"
        for key in "abc":
            assert client.ask("SET", key, "x") == b"QUEUED"
        told = text_of(client.ask("EXEC"))
        assert told.startswith("EXECABORT HANDRAIL stopped")
        assert client.ask("PING") == b"PONG"
    with direct(redis_server) as client:
        assert client.ask("DBSIZE") == 0


def test_a_refused_command_spoils_its_transaction(guard: OpenGuard) -> None:
    """A command that is refused where it is queued aborts the transaction, as an error does."""
    with guard("hold", budget=budget_of()) as guarded:
        client = guarded.client()
        client.ask("MULTI")
        assert "stopped" in text_of(client.ask("CONFIG", "SET", "maxmemory", "1"))
        assert text_of(client.ask("EXEC")).startswith("EXECABORT")
        assert text_of(client.ask("EXEC")) == "ERR EXEC without MULTI"


def test_a_transaction_keeps_its_watch(guard: OpenGuard, redis_server: RedisServer) -> None:
    """A key that somebody changed after WATCH makes EXEC do nothing, held or not."""
    amounts = (("insert", "key", "a", 1), ("update", "key", "w", 1))
    for budget in (budget_of(*amounts), budget_of(("insert", "key", "a", 1))):
        redis_server.clear()
        with guard("hold", budget=budget) as guarded, direct(redis_server) as other:
            client = guarded.client()
            assert client.ask("WATCH", "w") == b"OK"
            other.ask("SET", "w", "changed")
            client.ask("MULTI")
            client.ask("SET", "a", "x")
            assert client.ask("EXEC") is None
            assert client.ask("GET", "a") is None
            assert guarded.amounts() == {}


def test_a_script_that_was_not_rehearsed_is_refused(
    guard: OpenGuard, redis_server: RedisServer
) -> None:
    """Nobody knows what a script does: only one that the rehearsal ran may run, with its keys."""
    script = "return redis.call('set',KEYS[1],'x')"
    with guard("measure") as guarded:
        assert guarded.client().ask("EVAL", script, 1, "named:1") == b"OK"
        known = guarded.report()
    budget = from_effects(known.effects, relative=0, absolute=0)
    redis_server.clear()
    with guard("hold", budget=budget, trace=known.trace) as guarded:
        client = guarded.client()
        assert client.ask("EVAL", script, 1, "named:1") == b"OK"
        assert guarded.kinds() == ["unheld"]
        assert "a script that the rehearsal did not run" in text_of(
            client.ask("EVAL", "return redis.call('flushall')", 0)
        )
    redis_server.clear()
    with guard("hold", budget=budget, trace=known.trace) as guarded:
        assert "stopped" in text_of(guarded.client().ask("EVAL", script, 1, "other:1"))
    with direct(redis_server) as client:
        assert client.ask("DBSIZE") == 0


def test_a_script_by_its_sum_is_the_same_script(guard: OpenGuard) -> None:
    """EVALSHA of a script that was rehearsed by EVAL is that script."""
    script = "return redis.call('incr',KEYS[1])"
    with guard("measure") as guarded:
        guarded.client().ask("EVAL", script, 1, "n")
        known = guarded.report()
    budget = budget_of(("update", "key", "n", 5))
    with guard("hold", budget=budget, trace=known.trace) as guarded:
        client = guarded.client()
        sum_of_it = client.ask("SCRIPT", "LOAD", script)
        assert isinstance(sum_of_it, bytes)
        assert client.ask("EVALSHA", sum_of_it, 1, "n") == 2
        assert client.ask("EVALSHA", sum_of_it.upper(), 1, "n") == 3


def test_a_script_that_does_more_stops_the_run_after_it(guard: OpenGuard) -> None:
    """What only shows afterwards is compared afterwards: nothing follows it."""
    script = "for i=1,tonumber(ARGV[1]) do redis.call('set',KEYS[i],'x') end return 1"
    keys = [f"k:{n}" for n in range(4)]
    with guard("measure") as guarded:
        guarded.client().ask("EVAL", script, 4, *keys, 1)
        known = guarded.report()
    budget = from_effects(known.effects, relative=0, absolute=0)
    with guard("hold", budget=budget, trace=known.trace) as guarded:
        client = guarded.client()
        client.ask("DEL", "nothing")
        assert client.ask("EVAL", script, 4, *keys, 4) == 1
        assert "stopped" in text_of(client.ask("SET", "k:9", "x"))


def test_what_nobody_knows_is_not_sent(guard: OpenGuard) -> None:
    """A name that the server did not tell is answered by the guard, and never sent."""
    with guard("hold", budget=budget_of()) as guarded:
        client = guarded.client()
        assert text_of(client.ask("XFLUSHALL")).startswith("ERR unknown command 'XFLUSHALL'")
        assert text_of(client.ask("CLIENT", "NOSUCH")).startswith("ERR unknown subcommand")
        assert client.ask("PING") == b"PONG"
        assert guarded.report().stop is None


@pytest.mark.parametrize("divergence", ["refuse", "hold"])
def test_a_command_that_the_rehearsal_did_not_have(divergence: str, guard: OpenGuard) -> None:
    """The first command that was not rehearsed is told, and stops the run where it shall."""
    trace = ("SET a", "GET a")
    budget = budget_of(("insert", "key", "a", 9), ("update", "key", "a", 9))
    with guard("hold", budget=budget, trace=trace) as guarded:
        client = guarded.client()
        assert client.ask("GET", "b") is None
        assert guarded.kinds() == ["diverged"]
    with guard("hold", budget=budget, trace=trace, divergence=divergence) as guarded:
        client = guarded.client()
        assert client.ask("GET", "a") is None
        assert "which the rehearsal did not" in text_of(client.ask("GET", "b"))
        assert "stopped" in text_of(client.ask("SET", "a", "x"))


def test_secrets_of_the_server_are_not_told(guard: OpenGuard, redis_server: RedisServer) -> None:
    """CONFIG GET tells settings, and no password, whichever way it is asked."""
    secret = redis_server.password.encode()
    for mode in ("observe", "measure"):
        with guard(mode) as guarded:
            for protocol in (2, 3):
                client = guarded.client(protocol)
                client.send(b"*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$1\r\n*\r\n")
                told = client.raw()
                assert b"maxmemory" in told
                assert secret not in told
                client.ask("MULTI")
                client.ask("CONFIG", "GET", "requirepass")
                client.send(b"EXEC\r\n")
                assert secret not in client.raw()


def test_a_value_too_large_to_look_for_is_refused(guard: OpenGuard) -> None:
    """A member that is too long to be looked for is not written in a run that is held."""
    with guard("hold", budget=budget_of(("insert", "key", "s", 1))) as guarded:
        told = text_of(guarded.client().ask("SADD", "s", b"x" * 300_000))
        assert "too long to look for" in told
