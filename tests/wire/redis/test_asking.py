"""What the rehearsal did not run waits for somebody's word."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from handrail.plans.budget import from_effects
from handrail.plans.holding import Event, Limits
from handrail.wire import redis as wire
from handrail.wire.redis.replies import ErrorReply
from support.redis_guarding import PATIENCE_S, Guarded, GuardedStore, encoded, guarding
from support.redis_server import RedisServer

NOT_REHEARSED = "which the rehearsal did not"


class Asked:
    """Somebody who hears events, and answers when told to; never, where nobody tells."""

    def __init__(self, *, answer: bool | None = None) -> None:
        self.heard: list[Event] = []
        self.statements: list[str] = []
        self.ended: list[bool] = []
        self._answer = answer
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        self.heard.append(event)

    def ask(self, statement: str, why: str, is_over: Callable[[], bool]) -> bool:
        """Wait for the answer, or until nobody needs one."""
        assert why == "not in the rehearsal"
        with self._changed:
            self.statements.append(statement)
            self._changed.notify_all()
            while self._answer is None and not is_over():
                self._changed.wait(0.01)
            self.ended.append(is_over())
            return bool(self._answer)

    def answer(self, *, answer: bool) -> None:
        with self._changed:
            self._answer = answer
            self._changed.notify_all()

    def wait_for_questions(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.statements) >= count, PATIENCE_S)


@contextmanager
def asking(server: RedisServer, limits: Limits, folder: Path, asked: Asked) -> Iterator[Guarded]:
    """Open a guard whose events somebody hears that can be asked."""
    store: Any = GuardedStore(server.url)
    with wire.guarded(store, limits, folder, asked) as guard:
        run = Guarded(guard, server, asked.heard)
        try:
            yield run
        finally:
            for client in run.clients:
                client.close()


@pytest.fixture
def limits(redis_server: RedisServer, tmp_path: Path) -> Limits:
    """Of a run whose rehearsal read `key:*`, and deleted five of these and of `job:*`."""
    names = [f"{name}:{number}" for name in ("key", "job") for number in range(5)]
    values = dict.fromkeys(names, "x")
    with closing(redis_server.client()) as direct:
        direct.mset(values)
    with guarding(redis_server, Limits(mode="measure"), tmp_path) as guarded:
        client = guarded.client()
        client.ask("GET", "key:1")
        client.ask("DEL", *names)
        client.ask("DEL", "key:1")
        report = guarded.report()
    budget = from_effects(report.effects, relative=0, absolute=0)
    with closing(redis_server.client()) as direct:
        direct.mset(values)
    return Limits(mode="hold", budget=budget, trace=report.trace, divergence="hold")


def text(reply: object) -> str:
    assert isinstance(reply, ErrorReply), reply
    return reply.text.decode()


def test_what_was_rehearsed_asks_nobody(
    limits: Limits, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A command of the trace begins at once."""
    asked = Asked()
    with asking(redis_server, limits, tmp_path, asked) as guarded:
        client = guarded.client()
        assert client.ask("GET", "key:3") == b"x"
        assert client.ask("DEL", "key:3") == 1
        assert client.ask("PING") == b"PONG"
    assert asked.statements == []
    assert asked.heard == []


def test_what_is_let_begins_and_is_asked_about_once(
    limits: Limits, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A read, a write and a command of a transaction run once somebody lets them; then freely."""
    asked = Asked(answer=True)
    with asking(redis_server, limits, tmp_path, asked) as guarded:
        client = guarded.client()
        assert client.ask("GET", "job:1") == b"x"
        assert client.ask("GET", "job:2") == b"x"
        assert client.ask("DEL", "job:1") == 1
        assert client.ask("MULTI") == b"OK"
        assert client.ask("UNLINK", "job:2") == b"QUEUED"
        assert client.ask("EXEC") == [1]
        assert client.ask("SET", "job:3", "y") != b"OK"  # that is the budget's, as before
    assert asked.statements == ["GET job:*", "DEL job:*", "UNLINK job:*", "SET job:*"]
    assert asked.heard[0].kind == "diverged"


def test_what_is_not_let_is_refused(
    limits: Limits, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A no stops the run: the command, every other one like it, and whatever else writes."""
    asked = Asked(answer=False)
    with asking(redis_server, limits, tmp_path, asked) as guarded:
        client, other = guarded.client(), guarded.client()
        for one in (client, client, other):
            assert NOT_REHEARSED in text(one.ask("GET", "job:1"))
        assert "stopped" in text(other.ask("DEL", "key:1"))
        stop = guarded.report().stop
    assert stop is not None
    assert stop.statement == "GET job:*"
    assert asked.statements == ["GET job:*"]
    with closing(redis_server.client()) as direct:
        assert direct.dbsize() == 10


def test_a_no_spoils_the_transaction(
    limits: Limits, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Of a transaction with a command that nobody lets, nothing runs."""
    with asking(redis_server, limits, tmp_path, Asked(answer=False)) as guarded:
        client = guarded.client()
        client.ask("MULTI")
        assert client.ask("DEL", "key:1") == b"QUEUED"
        assert NOT_REHEARSED in text(client.ask("DEL", "job:1"))
        assert text(client.ask("EXEC")).startswith("EXECABORT")
    with closing(redis_server.client()) as direct:
        assert direct.dbsize() == 10


def test_order_is_kept_while_somebody_thinks(
    limits: Limits, redis_server: RedisServer, tmp_path: Path
) -> None:
    """What a client sends meanwhile waits its turn; others go on, and share the answer."""
    asked = Asked()
    with asking(redis_server, limits, tmp_path, asked) as guarded:
        client, same, other = guarded.client(), guarded.client(), guarded.client()
        assert client.ask("GET", "key:1") == b"x"
        pipeline = encoded("GET", "key:1") + encoded("STRLEN", "key:1") + encoded("GET", "key:1")
        client.send(pipeline + encoded("ECHO", "after"))
        assert client.reply() == b"x"
        same.send(encoded("STRLEN", "key:2") + encoded("ECHO", "after"))
        asked.wait_for_questions(1)
        assert other.ask("DEL", "key:4") == 1
        asked.answer(answer=True)
        assert [client.reply() for _ in range(3)] == [1, b"x", b"after"]
        assert [same.reply() for _ in range(2)] == [1, b"after"]
    assert asked.statements == ["STRLEN key:*"]


def test_nobody_is_waited_for_after_the_end(
    limits: Limits, redis_server: RedisServer, tmp_path: Path
) -> None:
    """When the guard is settled while somebody is asked, the command is not run, and it ends."""
    asked = Asked()
    with asking(redis_server, limits, tmp_path, asked) as guarded:
        client = guarded.client()
        client.send(encoded("DEL", "job:1"))
        asked.wait_for_questions(1)
        started_s = time.monotonic()
        assert guarded.report().effects == ()
        assert time.monotonic() - started_s < PATIENCE_S / 4
    assert asked.ended == [True]
    with closing(redis_server.client()) as direct:
        assert direct.dbsize() == 10


def test_a_stop_elsewhere_ends_the_question(
    limits: Limits, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A run that another store has stopped asks nobody any more."""
    asked = Asked()
    with asking(redis_server, limits, tmp_path, asked) as guarded:
        client = guarded.client()
        client.send(encoded("DEL", "job:1"))
        asked.wait_for_questions(1)
        guarded.guard.halt("store/other")
        assert "store/other" in text(client.reply())
    assert asked.ended == [True]


def test_where_nobody_can_be_asked_it_is_refused(
    limits: Limits, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Without somebody to ask, what was not rehearsed is refused."""
    with guarding(redis_server, limits, tmp_path) as guarded:
        assert NOT_REHEARSED in text(guarded.client().ask("GET", "job:1"))


def test_whoever_fails_to_answer_has_said_no(
    limits: Limits, redis_server: RedisServer, tmp_path: Path
) -> None:
    """An error where somebody is asked lets nothing begin."""

    class Failing(Asked):
        def ask(self, statement: str, why: str, is_over: Callable[[], bool]) -> bool:
            raise RuntimeError(f"{statement} {why} {is_over()}")

    with asking(redis_server, limits, tmp_path, Failing()) as guarded:
        assert NOT_REHEARSED in text(guarded.client().ask("DEL", "job:1"))


def test_what_is_let_is_looked_at_before_it_runs(
    limits: Limits, redis_server: RedisServer, tmp_path: Path
) -> None:
    """A command that is let, and of which the worst is too much, keeps its turn while it is."""
    names = [f"job:{number}" for number in (0, 1, 2, 3, 4, 90, 91, 92)]
    asked = Asked()
    with asking(redis_server, limits, tmp_path, asked) as guarded:
        client = guarded.client()
        client.send(encoded("DEL", *names) + encoded("GET", "key:1") + encoded("ECHO", "after"))
        asked.wait_for_questions(1)
        asked.answer(answer=True)
        assert [client.reply() for _ in range(3)] == [5, b"x", b"after"]
        assert guarded.amounts() == {("delete", "key", "job:*"): 5}


def test_the_question_names_the_database(
    limits: Limits, redis_server: RedisServer, tmp_path: Path
) -> None:
    """After SELECT, in a transaction too, the same command is another one."""
    asked = Asked(answer=True)
    with asking(redis_server, limits, tmp_path, asked) as guarded:
        client = guarded.client()
        for words in (("MULTI",), ("SELECT", 1), ("GET", "key:1"), ("EXEC",), ("GET", "job:1")):
            client.ask(*words)
    assert asked.statements == ["GET db1 key:*", "GET db1 job:*"]
