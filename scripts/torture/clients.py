"""The test suites of clients (psycopg2, asyncpg, redis-py): through the guard they pass as direct.

Rules:
- Each test has an outcome: passed, failed, skipped. Equal outcomes are no difference, also where
  both fail: what a machine lacks, both runs lack.
- A test that differs is run again, direct and guarded: what is only unsteady is no difference.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import psycopg
from bench.rehearsal_clone import server
from scripts.torture import sources
from scripts.torture.comparing import Outcome, compare

from support import guard_process, redis_server

_LONGEST_S = 3600
_TIMES_AGAIN = 2


@dataclass(frozen=True)
class Target:
    """What a suite is run against: words of the command line, and variables."""

    words: tuple[str, ...]
    environment: Mapping[str, str]


def psycopg2(*, short: bool = False) -> Outcome:
    """Run psycopg2's suite; its fixtures want a superuser."""
    del short
    return _both("psycopg2", _postgres_target, ("tests",))


def asyncpg(*, short: bool = False) -> Outcome:
    """Run asyncpg's suite: the extended protocol, binary values, pipelines, cancelling."""
    del short
    return _both("asyncpg", _postgres_target, ("tests",))


def redis_py(*, short: bool = False) -> Outcome:
    """Run redis-py's suite, but for clusters, sentinels, modules and TLS."""
    if redis_server.server_program() is None:
        raise sources.UnavailableError("no redis-server on this machine")
    files = _REDIS_SHORT if short else (*_REDIS_SHORT, *_REDIS_LONG)
    return _both("redis", _redis_target, files)


# What needs neither a cluster, a sentinel, a module nor a server of its own.
_REDIS_SHORT = (
    "tests/test_commands.py",
    "tests/test_encoding.py",
    "tests/test_function.py",
    "tests/test_hash.py",
    "tests/test_pipeline.py",
    "tests/test_scripting.py",
)
_REDIS_LONG = (
    "tests/test_connection.py",
    "tests/test_connection_pool.py",
    "tests/test_lock.py",
    "tests/test_monitor.py",
    "tests/test_multiprocessing.py",
    "tests/test_pubsub.py",
    "tests/test_asyncio/test_commands.py",
    "tests/test_asyncio/test_connection.py",
    "tests/test_asyncio/test_encoding.py",
    "tests/test_asyncio/test_hash.py",
    "tests/test_asyncio/test_lock.py",
    "tests/test_asyncio/test_pipeline.py",
    "tests/test_asyncio/test_pubsub.py",
    "tests/test_asyncio/test_scripting.py",
)


def _both(
    name: str,
    target: Callable[..., object],
    files: Sequence[str],
) -> Outcome:
    """Run a suite direct and guarded, then once more what differs."""
    folder = sources.suite(name)
    python, environment = sources.python()
    present = [file for file in files if (folder / file).exists()]
    with tempfile.TemporaryDirectory(prefix="handrail-torture-") as made:

        def once(only: Sequence[str], *, behind: bool) -> tuple[dict[str, str], float]:
            with target(behind=behind) as aim:  # type: ignore[attr-defined]
                argv = [
                    *python,
                    "-m",
                    "pytest",
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "--timeout=60",
                    "--continue-on-collection-errors",
                ]
                argv += ["-o", "addopts=", "-o", "junit_family=xunit1", *aim.words]
                return _pytest(
                    [*argv, *(only or present)],
                    folder,
                    {**_plain(), **environment, **aim.environment},
                    Path(made) / "results.xml",
                )

        direct, direct_s = once((), behind=False)
        guarded, guarded_s = once((), behind=True)
        for _ in range(_TIMES_AGAIN):
            differing = [n for n in direct if n in guarded and direct[n] != guarded[n]]
            if not differing:
                break
            again = sorted(differing)
            guarded |= _only(once(again, behind=True)[0], again)
            direct |= _only(once(again, behind=False)[0], again)
    passed = sum(outcome == "passed" for outcome in guarded.values())
    return compare(
        f"{name}-suite",
        direct,
        guarded,
        sources.HERE / f"{name}-differences.txt",
        note=f"{passed} passed through the guard",
        duration_s=(direct_s, guarded_s),
    )


def _only(outcomes: dict[str, str], names: Sequence[str]) -> dict[str, str]:
    return {name: outcome for name, outcome in outcomes.items() if name in set(names)}


def _pytest(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str], results: Path
) -> tuple[dict[str, str], float]:
    """Return each test's outcome by its node id, and how long all took."""
    results.unlink(missing_ok=True)
    began = time.monotonic()
    done = subprocess.run(
        [*argv, f"--junitxml={results}"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LONGEST_S,
        check=False,
    )
    took_s = time.monotonic() - began
    if not results.is_file():
        raise sources.UnavailableError(
            f"pytest made no results: {done.stdout[-800:]}{done.stderr[-400:]}"
        )
    return dict(_outcomes(results)), took_s


def _outcomes(results: Path) -> Iterator[tuple[str, str]]:
    for case in ET.parse(results).iter("testcase"):  # noqa: S314 - pytest's own file
        file, group = case.get("file", ""), case.get("classname", "")
        of_file = file.removesuffix(".py").replace("/", ".")
        inside = group.removeprefix(of_file).strip(".").replace(".", "::")
        name = "::".join(part for part in (file, inside, case.get("name", "")) if part)
        failed = case.find("failure") is not None or case.find("error") is not None
        yield (
            name,
            "failed" if failed else "skipped" if case.find("skipped") is not None else "passed",
        )


@contextmanager
def _postgres_target(*, behind: bool) -> Iterator[Target]:
    """Give a database `torture` of a superuser, itself or behind a guard."""
    with server() as (cluster, _):
        with psycopg.connect(cluster.address().url(), autocommit=True) as session:
            session.execute("CREATE DATABASE torture")
            for extension in ("hstore",):
                with psycopg.connect(cluster.address("torture").url(), autocommit=True) as inside:
                    inside.execute(f"CREATE EXTENSION {extension}".encode())
        address = cluster.address("torture")
        if not behind:
            yield Target((), _of_clients(address.environment()))
            return
        with guard_process.running("postgres", address.url()) as guard:
            yield Target((), _of_clients(guard.environment))


def _of_clients(environment: Mapping[str, str]) -> dict[str, str]:
    return {**environment, "PSYCOPG2_TESTDB": environment["PGDATABASE"]}


@contextmanager
def _redis_target(*, behind: bool) -> Iterator[Target]:
    """Give a server, itself or behind a guard.

    The suite changes the password of the user `default`: whoever else is to get in needs its own.
    """
    words = ("-m", "not onlycluster")
    with redis_server.running() as server_:
        with server_.client() as client:
            client.execute_command(*_OWN_USER)
            client.config_set("requirepass", "")
        url = f"redis://torture:torture@{server_.host}:{server_.port}/0"
        if not behind:
            yield Target((*words, f"--redis-url={url}"), {})
            return
        with guard_process.running("redis", url) as guard:
            yield Target((*words, f"--redis-url={guard.url}"), {})


_OWN_USER = ("ACL", "SETUSER", "torture", "on", ">torture", "allkeys", "allchannels", "+@all")


def _plain() -> dict[str, str]:
    return {n: v for n, v in os.environ.items() if not n.startswith(("PG", "REDIS", "PYTHON"))}
