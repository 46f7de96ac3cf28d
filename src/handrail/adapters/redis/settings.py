"""What a server has besides keys: settings, users, functions, and how a clone is made alike.

Rules:
- What may not be read is left out, and told as empty: many a server hides its settings.
- No password is kept, also not its hash: a user is its rules, and a checksum that sees a change.
- Our own users (`handrail-...`) are no content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from handrail.adapters.redis.connecting import Session
from handrail.adapters.redis.content import functions
from handrail.plans.effect import Effect

OUR_USERS = "handrail-"
# Settings that change what a command does to keys: a clone gets its original's.
COPIED = frozenset(
    {
        "active-expire-effort", "busy-reply-threshold", "hash-max-listpack-entries",
        "hash-max-listpack-value", "hash-max-ziplist-entries", "hash-max-ziplist-value",
        "lazyfree-lazy-eviction", "lazyfree-lazy-expire", "lazyfree-lazy-server-del",
        "lazyfree-lazy-user-del", "lazyfree-lazy-user-flush", "list-compress-depth",
        "list-max-listpack-size", "list-max-ziplist-size", "lua-time-limit", "maxmemory",
        "maxmemory-eviction-tenacity", "maxmemory-policy", "maxmemory-samples",
        "notify-keyspace-events", "proto-max-bulk-len", "set-max-intset-entries",
        "set-max-listpack-entries", "set-max-listpack-value", "stream-node-max-bytes",
        "stream-node-max-entries", "timeout", "zset-max-listpack-entries",
        "zset-max-listpack-value", "zset-max-ziplist-entries", "zset-max-ziplist-value",
    }
)  # fmt: skip
_SECRET = ("pass", "auth")
# Said by some versions only, or of a password.
_NO_RULES = frozenset({"nopass", "sanitize-payload"})
_HIDDEN = "(not shown)"


@dataclass(frozen=True)
class Besides:
    """Everything that is stored or set and is no key.

    Attributes:
        settings: name to value, as CONFIG GET says it; secrets are a checksum.
        users: name to rules without passwords; empty where they may not be read.
        marks: name of a user to a checksum over the rules with the passwords' hashes.
        functions: name of a library to a checksum of its code.
    """

    settings: Mapping[str, str]
    users: Mapping[str, str]
    marks: Mapping[str, str]
    functions: Mapping[str, str]


def read_besides(session: Session) -> Besides:
    """Return what the session's user may read."""
    flat = session.may("CONFIG", "GET", "*") or []
    texts = [item.decode("utf-8", "backslashreplace") for item in flat]
    settings = dict(zip(texts[::2], texts[1::2], strict=True))
    settings = {n: _sum(v) if v and _is_secret(n) else v for n, v in settings.items()}
    users, marks = {}, {}
    for line in session.may("ACL", "LIST") or []:
        _, name, *rules = line.decode("utf-8", "backslashreplace").split(" ")
        if not name.startswith(OUR_USERS):
            kept = [rule for rule in rules if rule[:1] not in {"#", ">"} and rule not in _NO_RULES]
            users[name] = " ".join(kept)
            marks[name] = _sum(line.decode("utf-8", "backslashreplace"))
    return Besides(settings, users, marks, functions(session))


def changes(resource: str, was: Besides, now: Besides) -> Iterator[Effect]:
    """Yield what differs between two moments of one server."""
    for name, before in was.settings.items():
        after = now.settings.get(name, "")
        if before != after:
            shown = _HIDDEN if _is_secret(name) else f"now {after or 'empty'}, was {before or '-'}"
            yield Effect(resource, "alter", "setting", name, detail=shown)
    yield from _named(resource, "user", was.marks, now.marks)
    yield from _named(resource, "function", was.functions, now.functions)


def _named(
    resource: str, kind: str, was: Mapping[str, str], now: Mapping[str, str]
) -> Iterator[Effect]:
    for name in sorted(was.keys() | now.keys()):
        if name not in now:
            yield Effect(resource, "drop", kind, name)
        elif name not in was:
            yield Effect(resource, "create", kind, name)
        elif was[name] != now[name]:
            yield Effect(resource, "alter", kind, name)


def make_alike(session: Session, settings: Mapping[str, str]) -> tuple[str, ...]:
    """Give a server the copied settings, and return those that it did not take."""
    left = []
    for name in sorted(COPIED & settings.keys()):
        told = session.may("CONFIG", "GET", name)
        # A setting of another version is no setting of this one.
        if not told or told[1].decode("utf-8", "backslashreplace") == settings[name]:
            continue
        if session.may("CONFIG", "SET", name, settings[name]) is None:
            left.append(f"setting {name}: was {settings[name]}")
    return tuple(left)


def _is_secret(name: str) -> bool:
    return name not in COPIED and any(part in name for part in _SECRET)


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
