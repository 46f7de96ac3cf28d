"""The user that a run connects as where it shall have no more than it needs.

Rules:
- Its name carries the prefix that we sweep by; one that nobody is connected as is left over.
- It has what the rehearsal ran, the keys that it touched, and what the guard itself looks with.
- It is made for one run, and removed when that ends; the guard's own connection is open as it so
  long, so that no other guard takes it for a leftover.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace

from handrail.errors import StoreError
from handrail.plans.holding import Limits
from handrail.wire.redis.replies import ErrorReply, Reply
from handrail.wire.redis.server import Control, Server

PREFIX = "handrail-run-"
# What the guard looks with, and what belongs to every connection.
_ALWAYS = (
    *("+@connection", "+@transaction", "+@pubsub", "-client", "-reset", "+reset"),
    *("+client|setname", "+client|getname", "+client|id", "+client|info", "+client|setinfo"),
    *("+client|tracking", "+client|caching", "+client|no-touch"),
    *("+exists", "+type", "+pttl", "+ttl", "+time", "+dbsize", "+info", "+scan", "+strlen"),
    *("+llen", "+scard", "+hlen", "+zcard", "+xlen", "+sismember", "+hexists", "+zscore"),
    *("+zcount", "+zlexcount", "+lpos", "+xrange", "+command", "+select", "+script|load"),
    *("+script|exists", "+sinter", "+sunion", "+sdiff", "+zunion", "+zinter", "+zdiff"),
    *("+zrange", "+geosearch", "+georadius_ro", "+georadiusbymember_ro"),
)
_EVERYTHING = ("+@all", "-@admin", "-@dangerous", "+keys", "+sort", "+flushall", "+flushdb")
_STAR = re.compile(r"\\?\*|\\\\")


async def make(control: Control, server: Server, limits: Limits) -> Server:
    """Make a user for this run, and return the server as it is reached by that.

    Raises:
        StoreError: the store's own user may not make one.
    """
    await sweep(control)
    name, password = f"{PREFIX}{secrets.token_hex(6)}", secrets.token_hex(24)
    rules = ["reset", "on", f">{password}", "&*", *_rules(limits)]
    told: list[Reply] = []
    while rules:
        told = await control.ask(
            (b"ACL", b"SETUSER", name.encode(), *(rule.encode() for rule in rules))
        )
        if not isinstance(told[0], ErrorReply):
            return replace(server, user=name, password=password)
        unknown = _unknown_rule(told[0], rules)
        if unknown is None:
            break
        # A command of a newer, or an older server: nothing is lost without it.
        rules.remove(unknown)
    text = told[0].text.decode() if told and isinstance(told[0], ErrorReply) else ""
    raise StoreError(
        "store.denied",
        f"no user can be made for this run: {text}",
        hint="let the guard connect as the store's own user: `role: own`",
    )


def _unknown_rule(error: ErrorReply, rules: Sequence[str]) -> str | None:
    found = re.search(r"ACL SETUSER modifier '([^']*)'", error.text.decode("utf-8", "replace"))
    if found is None or found[1] not in rules or not found[1].startswith(("+", "-")):
        return None
    return found[1]


def _rules(limits: Limits) -> Iterable[str]:
    if not limits.trace:
        return (*_EVERYTHING, *_ALWAYS, "~*")
    names: dict[str, None] = {}
    patterns: dict[str, None] = {}
    for template in limits.trace:
        command, places = _split(template)
        names[command] = None
        patterns.update(dict.fromkeys(places))
    return (*_ALWAYS, *names, *patterns)


def _split(template: str) -> tuple[str, list[str]]:
    """Return the rule of a template's command, and those of its keys."""
    name, _, rest = template.partition(" ")
    words = name.lower()
    if name in {"EVAL", "EVALSHA"}:
        return "+@scripting", _places(rest.partition(" ")[2])
    if name == "FCALL":
        return "+fcall", _places(rest.partition(" ")[2])
    return f"+{words}", _places(rest)


def _places(rest: str) -> list[str]:
    """Return the key rules of the patterns in a template.

    Patterns stand one beside the other, and may have spaces in them: where they have, every key
    that begins like the first is allowed, which is more than needed and never less.
    """
    if not rest:
        return []
    if " " in rest or "(" in rest or not rest.isascii():
        return ["~*"]
    return [f"~{_glob(rest)}"]


def _glob(pattern: str) -> str:
    """Return a pattern as the server matches it: `*` for what varies, the rest as it stands."""
    return re.sub(r"([\[\]?])", r"\\\1", pattern)


async def remove(control: Control, name: str) -> None:
    """Remove a user, and with it every connection that is its. Twice equals once."""
    await control.ask((b"ACL", b"DELUSER", name.encode()))


async def sweep(control: Control) -> None:
    """Remove the users of runs that were killed: those that nobody is connected as."""
    users, clients = await control.ask((b"ACL", b"USERS"), (b"CLIENT", b"LIST"))
    if not isinstance(users, list) or not isinstance(clients, bytes):
        return
    for user in users:
        ours = isinstance(user, bytes) and user.startswith(PREFIX.encode())
        if isinstance(user, bytes) and ours and b" user=%s " % user not in clients:
            await remove(control, user.decode())
