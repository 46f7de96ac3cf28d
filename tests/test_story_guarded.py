"""Story 1 behind the guard: what the script does is held to what it did in rehearsal.

bash calls bash, which calls psql, whose function calls a function that deletes, or drops; and
redis-cli, and rm. The script goes on after a refusal, and says that it is complete.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from support import redis_server as redis_servers
from support.postgres_server import Server
from support.redis_server import RedisServer
from support.story_guarded import (
    COMPLETE,
    DEVICES,
    DROPS,
    FILES,
    KEPT,
    KEYS,
    LEFT,
    NEW,
    OLD,
    PURGES_ALL,
    SESSIONS,
    Story,
    make_story,
)

FULL = (SESSIONS, DEVICES, OLD + NEW)
FIRST = (0, 0, OLD + NEW)  # the first transaction alone
DONE = (0, 0, NEW)
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'readings'::regclass"
IDENTITY = 1  # the key in which an adopted Redis keeps who it is


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """A real Redis of this module alone."""
    yield from redis_servers.run_server()


@pytest.fixture
def pilot(postgres_server: Server, tmp_path: Path) -> Story:
    """The story with its database alone."""
    return make_story(tmp_path, server=postgres_server)


@pytest.fixture
def whole(postgres_server: Server, redis_server: RedisServer, tmp_path: Path) -> Story:
    """The story among all three stores."""
    return make_story(tmp_path, server=postgres_server, redis=redis_server, files=True)


def has(screen: str, *lines: str) -> None:
    """Check that a screen has these words, however it is wrapped and aligned."""
    text = " ".join(screen.split())
    missing = [line for line in lines if line not in text]
    assert not missing, f"{missing} not in:\n{screen}"


def has_not(screen: str, *lines: str) -> None:
    """Check that a screen has none of these words."""
    text = " ".join(screen.split())
    assert not [line for line in lines if line in text], screen


def wait_until_it_waits(story: Story, process: subprocess.Popen[str]) -> None:
    """Wait until a script waits for the lock that the test holds."""
    deadline = time.monotonic() + 60
    while not story.query(WAITING):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- a database ---------------------------------------------------------------------------------


@pytest.mark.postgres
def test_second_transaction_is_refused(pilot: Story) -> None:
    """The unmodified script's second transaction is refused before COMMIT, and undo takes the
    first back."""
    pilot.declare("database")
    pilot.make_ready()
    pilot.query(PURGES_ALL)

    answer = pilot.call("run", "reset-pilot")
    assert answer.code == 5, answer.screen
    assert pilot.tables == FIRST
    has(
        answer.out,
        "stopped before COMMIT: ./scripts/reset_pilot.sh would have deleted more than it did in",
        f"table readings {OLD + NEW} deleted so far; budget {OLD}, tolerance 6",
        "statement select reset_all()",
        "nothing of this transaction was kept; one earlier one was: handrail runs show 1",
        f"delete table sessions {SESSIONS} rows",
        "next: handrail undo 1",
        "handrail rehearse reset-pilot if that is what you meant",
    )
    has(answer.err, COMPLETE, "./scripts/reset_pilot.sh", "exit 0")

    undone = pilot.call("undo", "1")
    assert undone.code == 0, undone.screen
    has(undone.screen, "nothing left over")
    assert pilot.tables == FULL
    assert pilot.call("log", "verify", "--json").json["problems"] == []


@pytest.mark.postgres
def test_refused_without_an_estate(pilot: Story) -> None:
    """A budget of what was seen once stops the drop two calls deep the next time."""
    seen = pilot.guard("--write-budget", "reset.yaml")
    assert (seen.code, pilot.tables) == (0, DONE), seen.screen
    has((pilot.root / "reset.yaml").read_text(), f'name: "readings", rows: {OLD}')
    again = f"INSERT INTO sessions (device) SELECT i FROM generate_series(1, {SESSIONS}) i"
    pilot.query(f"{again}; UPDATE devices SET registered = true; {DROPS}")

    answer = pilot.guard("--budget", "reset.yaml")
    assert answer.code == 5, answer.screen
    assert pilot.tables == (0, 0, NEW)
    assert answer.out.strip().endswith(COMPLETE)
    has(
        answer.err,
        "stopped before COMMIT: reset_pilot.sh would have dropped table readings",
        "statement select reset_all()",
        "nothing of this transaction was kept; one earlier one was",
        f"delete table sessions {SESSIONS} rows",
        "the command ended with exit 0",
        "next: allow it in reset.yaml, if that is what you meant",
    )
    stop = pilot.guard("--budget", "reset.yaml", "--json").json["stop"]
    assert (stop["effect"]["verb"], stop["effect"]["name"]) == ("drop", "readings")
    assert stop["allowed"] is None


@pytest.mark.postgres
def test_killed_while_a_transaction_is_open(pilot: Story) -> None:
    """kill -9 of handrail leaves the database as before the open transaction; undo goes on."""
    # It waits for a lock that somebody else holds: on the clone nobody does.
    waits = "#!/bin/bash\npsql -qXAt -c 'BEGIN' -c 'SELECT reset_all()' -c 'COMMIT'\n"
    pilot.declare("database", files={"scripts/reset_pilot.sh": waits})
    pilot.make_ready()
    with psycopg.connect(pilot.url) as other:
        other.execute("LOCK TABLE readings IN SHARE MODE")
        process = pilot.spawn("run", "reset-pilot")
        wait_until_it_waits(pilot, process)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL

    assert pilot.tables == FULL
    cut_off = pilot.call("resume", "1")
    assert cut_off.code == 4, cut_off.screen
    has(
        cut_off.screen,
        "run 1 was cut off while its script ran",
        "handrail resume 1 --undo",
        "handrail resume 1 --accept",
    )
    undone = pilot.call("resume", "1", "--undo")
    assert undone.code == 1, undone.screen
    has(undone.screen, "undone: run 1")
    assert pilot.tables == FULL
    assert pilot.query("SELECT count(*) FROM pg_locks WHERE relation = 'readings'::regclass") == 0


@pytest.mark.postgres
def test_stopped_by_hand_in_the_middle(pilot: Story) -> None:
    """Ctrl-C ends the command, its open transaction rolls back, and the report still comes."""
    pilot.write({"slow.sh": "#!/bin/sh\npsql -qXAt -c begin -c 'select reset_all()' -c commit\n"})
    with psycopg.connect(pilot.url) as other:
        other.execute("LOCK TABLE readings IN SHARE MODE")
        process = pilot.spawn("guard", "--postgres", pilot.url, "--", "./slow.sh")
        wait_until_it_waits(pilot, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    has(err, "the command ended: interrupted.")
    assert pilot.tables == FULL
    assert pilot.query(WAITING) == 0
    assert list((pilot.root / ".handrail/guards").iterdir()) == []


# --- all three ----------------------------------------------------------------------------------


def counts(story: Story) -> tuple[object, int, int]:
    """Return what all three stores hold; in Redis without its identity."""
    identity = IDENTITY if (story.root / "estate").exists() else 0
    return story.tables, story.cached - identity, story.uploaded


ALL = (FULL, KEYS + LEFT, FILES + KEPT)


@pytest.mark.postgres
def test_one_rehearsal_one_approval_one_undo(whole: Story) -> None:
    """One rehearsal and one approval are for all three; so is the report, and so is the undo."""
    whole.declare("database", "cache", "uploads")
    plan = whole.make_ready("pilot-db+cache+uploads")
    assert {(e["resource"], e["verb"], e["name"], e["rows"]) for e in plan["effects"]} == {
        ("store/pilot-db", "delete", "sessions", SESSIONS),
        ("store/pilot-db", "update", "devices", DEVICES),
        ("store/pilot-db", "delete", "readings", OLD),
        ("store/cache", "delete", "session:*", KEYS),
        ("store/uploads", "delete", "tmp/*.png", FILES),
        ("store/uploads", "delete", "tmp", 1),
    }
    assert plan["facts"]["rehearsal"]["residue"] == []
    assert counts(whole) == ALL

    answer = whole.call("run", "reset-pilot")
    assert answer.code == 0, answer.screen
    assert counts(whole) == (DONE, LEFT, KEPT)
    has(
        answer.out,
        "store/pilot-db held before COMMIT; 2 transactions kept",
        "store/cache held before each command; 1 command kept",
        "store/uploads worked on a copy: swapped in",
    )
    undone = whole.call("undo", "1")
    assert undone.code == 0, undone.screen
    has(undone.screen, "nothing left over")
    assert counts(whole) == ALL


def more_readings(story: Story) -> None:
    """Let the second transaction do more."""
    story.query(PURGES_ALL)


def more_keys(story: Story) -> None:
    """Let the cache be emptied of more."""
    story.fill(KEYS, 20)


def more_files(story: Story) -> None:
    """Let more be removed from the disk."""
    story.upload("tmp", FILES, 20)


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("more", "kept", "said"),
    [
        (
            more_readings,
            (FIRST, KEYS + LEFT, FILES + KEPT),
            (
                "stopped before COMMIT",
                "store/pilot-db held before COMMIT; 1 transaction kept; stopped",
                "store/cache held before each command; nothing kept; stopped with store/pilot-db",
                "store/uploads worked on a copy: nothing of it was kept",
            ),
        ),
        (
            more_keys,
            (DONE, KEYS + LEFT + 20, FILES + KEPT),
            (
                "stopped before the command",
                f"key session:* {KEYS + 20} deleted so far; budget {KEYS}",
                "store/pilot-db held before COMMIT; 2 transactions kept; stopped with store/cache",
                "store/cache held before each command; nothing kept; stopped",
                "store/uploads worked on a copy: nothing of it was kept",
            ),
        ),
        (
            more_files,
            (DONE, LEFT, FILES + KEPT + 20),
            (
                "stopped before the swap",
                f"file tmp/*.png {FILES + 20} deleted so far; budget {FILES}",
                "store/pilot-db held before COMMIT; 2 transactions kept",
                "store/cache held before each command; 1 command kept",
                "store/uploads worked on a copy: nothing of it was kept",
            ),
        ),
    ],
)
def test_over_budget_in_one_of_three(
    whole: Story, more: object, kept: tuple[object, int, int], said: tuple[str, ...]
) -> None:
    """What is over budget in one store stops all; what each kept is said, and undone together."""
    whole.declare("database", "cache", "uploads")
    whole.make_ready("pilot-db+cache+uploads")
    assert callable(more)
    more(whole)
    before = counts(whole)

    answer = whole.call("run", "reset-pilot")
    assert answer.code == 5, answer.screen
    has(answer.out, *said)
    has_not(answer.out, "written by others")
    assert counts(whole) == kept

    undone = whole.call("undo", "1")
    assert undone.code == 0, undone.screen
    assert counts(whole) == before


@pytest.mark.postgres
def test_three_without_an_estate(whole: Story) -> None:
    """One budget file is for all three; where Redis is over it, the swap does not happen."""
    seen = whole.guard("--write-budget", "reset.yaml")
    assert (seen.code, counts(whole)) == (0, (DONE, LEFT, KEPT)), seen.screen
    whole.fill(0, KEYS + 1)
    whole.upload("tmp", 0, FILES)

    answer = whole.guard("--budget", "reset.yaml")
    assert answer.code == 5, answer.screen
    assert counts(whole) == (DONE, KEYS + 1 + LEFT, FILES + KEPT)
    has(
        answer.err,
        f"key session:* {KEYS + 1} deleted so far; budget {KEYS}, tolerance 0",
        "store/redis: each command was held before it ran",
        "store/uploads: it worked on a copy, of which nothing was kept",
    )


# --- Redis alone, files alone -------------------------------------------------------------------

PYTHON = """\
#!/usr/bin/env python3
import os, redis
client = redis.Redis.from_url(os.environ["REDIS_URL"])
with client.pipeline(transaction=True) as pipe:
    for key in client.scan_iter("session:*"):
        pipe.delete(key)
    try:
        pipe.execute()
    except redis.RedisError as error:
        print(error)
print("Database reset complete.")
"""


@pytest.mark.parametrize("client", ["redis-cli", "redis-py"])
def test_redis_alone(redis_server: RedisServer, tmp_path: Path, client: str) -> None:
    """A script of redis-cli, or of redis-py, is rehearsed, held to it, and undone."""
    story = make_story(tmp_path, redis=redis_server)
    files = {}
    if client == "redis-py":
        files = {"scripts/reset_pilot.sh": "#!/bin/sh\nexec python3 scripts/reset.py\n"}
        files["scripts/reset.py"] = PYTHON
    story.declare("cache", files=files)
    story.make_ready("cache")
    assert story.cached == KEYS + LEFT + IDENTITY

    answer = story.call("run", "reset-pilot")
    assert answer.code == 0, answer.screen
    assert story.cached == LEFT + IDENTITY
    assert story.call("undo", "1").code == 0
    assert story.cached == KEYS + LEFT + IDENTITY

    story.make_ready("cache")
    story.fill(KEYS, 10)
    answer = story.call("run", "reset-pilot")
    assert answer.code == 5, answer.screen
    assert story.cached == KEYS + 10 + LEFT + IDENTITY
    has(answer.out, f"key session:* {KEYS + 10} deleted so far; budget {KEYS}", "handrail rehearse")


def test_files_alone(tmp_path: Path) -> None:
    """A script on a tree of files is rehearsed on a copy, held to it, and undone."""
    story = make_story(tmp_path, files=True)
    story.declare("uploads")
    story.make_ready("uploads")
    answer = story.call("run", "reset-pilot")
    assert answer.code == 0, answer.screen
    assert story.uploaded == KEPT
    assert story.call("undo", "1").code == 0
    assert story.uploaded == FILES + KEPT

    story.make_ready("uploads")
    story.upload("tmp", FILES, 20)
    answer = story.call("run", "reset-pilot")
    assert answer.code == 5, answer.screen
    assert story.uploaded == FILES + KEPT + 20
    has(
        answer.out,
        "stopped before the swap",
        f"file tmp/*.png {FILES + 20} deleted so far; budget {FILES}, tolerance 2",
        "handrail rehearse reset-pilot",
    )
