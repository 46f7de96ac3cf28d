"""Answers one question of a check: a command that reads, and nothing else.

Rules:
- The server itself says what a command does: only one that it flags `readonly` is sent.
- A question is one command line, as `redis-cli` takes it: `GET "last run"`.
- The first value of the reply is the answer.
"""

from __future__ import annotations

import shlex

from handrail.adapters.redis.connecting import Address, Reply, Session, connected
from handrail.errors import StoreError


def ask(address: Address, query: str, timeout_s: float) -> str:
    """Return the first value of the reply as text; empty for nil and for an empty one."""
    try:
        words = shlex.split(query)
    except ValueError as error:
        raise _refused(address, str(error)) from error
    if not words:
        raise _refused(address, "it is empty")
    with connected(address, timeout_s) as session:
        if not _is_reading(session, words):
            raise _refused(address, f"`{words[0]}` is no command that only reads")
        return _first(session.ask(*words))


def _is_reading(session: Session, words: list[str]) -> bool:
    names = [words[0].lower(), *([f"{words[0]}|{words[1]}".lower()] if words[1:] else [])]
    # From 7.0 on a subcommand has flags of its own, and its command has none that say so.
    for told in reversed([_flags(session, name) for name in names]):
        if told:
            return b"readonly" in told and b"blocking" not in told
    return False


def _flags(session: Session, name: str) -> frozenset[bytes]:
    told = session.may("COMMAND", "INFO", name)
    return frozenset(told[0][2]) if told and told[0] else frozenset()


def _first(reply: Reply) -> str:
    if isinstance(reply, list):
        return _first(reply[0]) if reply else ""
    if reply is None:
        return ""
    return reply.decode("utf-8", "backslashreplace") if isinstance(reply, bytes) else str(reply)


def _refused(address: Address, why: str) -> StoreError:
    return StoreError(
        "store.failed",
        f"Redis at {address}: the question was refused: {why}",
        hint="a question of a check is one command that reads, such as `GET version`",
    )
