"""Which commands the server has, and how each is treated: read from the server when a guard opens.

Rules:
- Flags of the server say what reads; that a command has no write flag says nothing.
- A write is counted by a rule of ours; one without a rule (a module's) is looked at before and
  after, where its keys are known.
- A command that is in no table of ours and does not only read is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from handrail.wire.redis import keys, members, streams, strings
from handrail.wire.redis.plan import Asked, MalformedError, Rule, UnjudgedError, whole
from handrail.wire.redis.replies import Reply, words

Kind = Literal[
    "read",  # changes nothing
    "pass",  # about the connection or the server, changes no data
    "publish",  # reaches other clients, changes no data
    "write",  # `rule` says what it does
    "script",  # nobody knows before it ran
    "flush",  # takes every key of a database, or of all
    "special",  # the session itself sees to it
    "admin",  # changes the server, or reaches round the guard
    "unknown",
]
RULES: Mapping[str, Rule] = {**strings.RULES, **members.RULES, **streams.RULES, **keys.RULES}
SUBSCRIBING = {
    "SUBSCRIBE": "channel",
    "UNSUBSCRIBE": "channel",
    "PSUBSCRIBE": "pattern",
    "PUNSUBSCRIBE": "pattern",
    "SSUBSCRIBE": "shard",
    "SUNSUBSCRIBE": "shard",
}
_SPECIAL = frozenset(
    {
        *("AUTH", "HELLO", "SELECT", "RESET", "QUIT", "MULTI", "EXEC", "DISCARD", "WATCH"),
        *("UNWATCH", "MONITOR", "CONFIG GET", "CLIENT REPLY", "SYNC", "PSYNC", *SUBSCRIBING),
    }
)
_PASS = frozenset(
    {
        "PING",
        "ECHO",
        "INFO",
        "TIME",
        "LASTSAVE",
        "WAIT",
        "WAITAOF",
        "ROLE",
        "READONLY",
        "READWRITE",
        "ASKING",
    }
)
_SCRIPTS = frozenset({"EVAL", "EVALSHA", "FCALL"})
# Commands in several words: what each second word is. One that is not here is `admin`.
_SECOND: Mapping[str, tuple[Kind, str]] = {
    "CLIENT": (
        "pass",
        "SETNAME GETNAME ID INFO LIST SETINFO GETREDIR TRACKING TRACKINGINFO CACHING NO-TOUCH HELP",
    ),
    "CONFIG": ("pass", "HELP"),
    "ACL": ("pass", "WHOAMI CAT GENPASS HELP"),
    "OBJECT": ("read", "ENCODING FREQ IDLETIME REFCOUNT HELP"),
    "MEMORY": ("read", "USAGE DOCTOR STATS MALLOC-STATS HELP"),
    "XINFO": ("read", "STREAM GROUPS CONSUMERS HELP"),
    "XGROUP": ("write", "CREATE CREATECONSUMER DELCONSUMER DESTROY SETID"),
    "COMMAND": ("pass", "COUNT DOCS GETKEYS GETKEYSANDFLAGS INFO LIST HELP"),
    "PUBSUB": ("pass", "CHANNELS NUMPAT NUMSUB SHARDCHANNELS SHARDNUMSUB HELP"),
    "LATENCY": ("pass", "LATEST HISTORY GRAPH HISTOGRAM DOCTOR HELP"),
    "SLOWLOG": ("pass", "GET LEN HELP"),
    "SCRIPT": ("pass", "EXISTS LOAD HELP"),
    "FUNCTION": ("pass", "LIST DUMP STATS HELP"),
    "MODULE": ("pass", "LIST HELP"),
    "CLUSTER": (
        "pass",
        "INFO NODES SLOTS SHARDS KEYSLOT MYID MYSHARDID COUNTKEYSINSLOT GETKEYSINSLOT LINKS "
        "REPLICAS SLAVES COUNT-FAILURE-REPORTS HELP",
    ),
}
# Known, and never to be had behind a guard that holds.
_ADMIN = frozenset(
    {
        "REPLICAOF",
        "SLAVEOF",
        "MIGRATE",
        "DEBUG",
        "SHUTDOWN",
        "FAILOVER",
        "SAVE",
        "BGSAVE",
        "BGREWRITEAOF",
        "SWAPDB",
        "REPLCONF",
        "RESTORE-ASKING",
        "PFDEBUG",
        "PFSELFTEST",
    }
)
_WAITING = frozenset(
    {
        *("BLPOP", "BRPOP", "BLMOVE", "BRPOPLPUSH", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP"),
        *("WAIT", "WAITAOF", "XREAD", "XREADGROUP"),
    }
)
# Second words that change the server, for one that does not list them.
_HARMFUL = frozenset(
    {
        *("KILL", "PAUSE", "UNPAUSE", "UNBLOCK", "NO-EVICT", "SET", "REWRITE", "RESETSTAT"),
        *("SETUSER", "DELUSER", "LOAD", "SAVE", "LOG", "LIST", "GETUSER", "USERS", "FLUSH"),
        *("DEBUG", "PURGE", "RESET", "DELETE", "RESTORE", "UNLOAD", "LOADEX", "REPLY"),
        *("ADDSLOTS", "DELSLOTS", "SETSLOT", "FLUSHSLOTS", "MEET", "FORGET", "REPLICATE"),
        *("FAILOVER", "BUMPEPOCH", "SAVECONFIG", "SET-CONFIG-EPOCH"),
    }
)
_WHERE_SECOND = 9
_NUMBERED = frozenset({"ZUNION", "ZINTER", "ZDIFF", "ZINTERCARD", "SINTERCARD"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One command.

    Attributes:
        name: in capital letters, with its second word where it has one.
        kind: how it is treated.
        arity: words with the name; negative for at least so many; 0 where it is not known.
        first: index of the first key among the words with the name; 0 for none.
        last: of the last key; negative from the end.
        step: from one key to the next.
        rule: what a write does.
        second: its second words; None where it has none.
        is_plain: it passes in every mode, and its one reply comes at once.
        passes_observed: it passes where nothing is held, and its one reply comes at once.
    """

    name: str
    kind: Kind
    arity: int = 0
    first: int = 0
    last: int = 0
    step: int = 1
    rule: Rule | None = None
    second: Mapping[bytes, Entry] | None = None
    is_plain: bool = False
    passes_observed: bool = False

    @property
    def only_reads(self) -> bool:
        """Whether it changes no data, in every mode."""
        return self.kind in {"read", "pass"}

    @property
    def reads_one(self) -> bool:
        """Whether it reads one key, which is its second word, and changes nothing."""
        return self.kind == "read" and self.first == self.last == 1

    def may_block(self, words: Sequence[bytes]) -> bool:
        """Whether it may wait for somebody else."""
        if self.name in {"XREAD", "XREADGROUP"}:
            return any(word.upper() == b"BLOCK" for word in words)
        return self.name in _WAITING

    def keys(self, words: Sequence[bytes]) -> Sequence[bytes]:
        """Return the keys among `words` (the name is the first), as far as positions tell."""
        if self.name in _NUMBERED or self.kind == "script" or self.name.endswith("_RO"):
            return self._numbered(words)
        if self.name == "XREAD":
            upper = [word.upper() for word in words]
            rest = words[upper.index(b"STREAMS") + 1 :] if b"STREAMS" in upper else []
            return rest[: len(rest) // 2]
        if not self.first:
            return ()
        last = self.last if self.last >= 0 else len(words) + self.last
        return words[self.first : last + 1 : max(self.step, 1)]

    def _numbered(self, words: Sequence[bytes]) -> Sequence[bytes]:
        at = 1 if self.name in _NUMBERED else 2
        if self.name == "SORT_RO" or self.name.startswith("GEORADIUS"):
            return words[1:2]
        count = words[at] if len(words) > at else b""
        return words[at + 1 : at + 1 + int(count)] if count.isdigit() else ()

    def accepts(self, count: int) -> bool:
        """Whether the command may have so many words."""
        if not self.arity:
            return True
        return count == self.arity if self.arity > 0 else count >= -self.arity


UNKNOWN = Entry("", "unknown")


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every command of one server."""

    entries: dict[bytes, Entry] = field(default_factory=dict)

    def find(self, words: Sequence[bytes]) -> Entry:
        """Return what is known of a command."""
        entry = self.entries.get(words[0]) or self.entries.get(words[0].upper(), UNKNOWN)
        if entry.second is None:
            return entry
        if len(words) < 2:  # noqa: PLR2004  a name and a second word
            return entry
        return entry.second.get(words[1].upper(), UNKNOWN)

    def knows(self, words: Sequence[bytes]) -> bool:
        """Whether the server has a command of that name, and of that second word."""
        entry = self.entries.get(words[0].upper())
        return entry is not None and entry.second is None


def read(told: Sequence[Reply]) -> Catalog:
    """Return the catalog that an answer of COMMAND makes."""
    entries: dict[bytes, Entry] = {}
    for item in told:
        if not isinstance(item, list) or not isinstance(item[0], bytes):
            continue
        entry = _entry(item[0].decode("ascii", "backslashreplace").upper(), item)
        # Both spellings that clients use are found at the first try.
        entries[item[0].upper()] = entries[item[0].lower()] = entry
    # Servers before 7 know it, and do not list it.
    entries.setdefault(b"QUIT", _made("QUIT", "special", -1, 0, 0, 1, None))
    return Catalog(entries)


def _entry(name: str, item: Sequence[Reply]) -> Entry:
    flags = _flags(item[2])
    arity, first, last, step = (n if isinstance(n, int) else 0 for n in (item[1], *item[3:6]))
    rule = RULES.get(name)
    kind = _kind(name, flags, has_keys=first > 0)
    second = _second(name, item) if name in _SECOND else None
    return _made(name, kind, arity, first, last, step, rule, second)


def _made(
    name: str,
    kind: Kind,
    arity: int,
    first: int,
    last: int,
    step: int,
    rule: Rule | None,
    second: Mapping[bytes, Entry] | None = None,
) -> Entry:
    waits = name in _WAITING
    plain = kind in {"read", "pass"} and not waits
    observed = kind not in {"special", "admin"} and not waits and second is None
    return Entry(name, kind, arity, first, last, step, rule, second, plain, observed)


def _flags(value: Reply) -> set[bytes]:
    return set(words(value)) if isinstance(value, list) else set()


_OF_OURS: Mapping[str, Kind] = {
    **dict.fromkeys(RULES, "write"),
    **dict.fromkeys(_PASS, "pass"),
    **dict.fromkeys(_SECOND, "admin"),  # without its second word
    "COMMAND": "pass",
    **dict.fromkeys(_SCRIPTS, "script"),
    **dict.fromkeys(_ADMIN, "admin"),
    **dict.fromkeys(_SPECIAL, "special"),
    **dict.fromkeys(("FLUSHALL", "FLUSHDB"), "flush"),
    **dict.fromkeys(("PUBLISH", "SPUBLISH"), "publish"),
}


def _kind(name: str, flags: set[bytes], *, has_keys: bool) -> Kind:
    if name in _OF_OURS:
        return _OF_OURS[name]
    if b"admin" in flags:
        return "admin"
    if b"write" not in flags:
        return "read" if b"readonly" in flags else "unknown"
    return "script" if has_keys and b"movablekeys" not in flags else "unknown"


def _second(name: str, item: Sequence[Reply]) -> dict[bytes, Entry]:
    """Return the second words of a command: what is not known to be harmless is `admin`."""
    kind, told = _SECOND[name]
    listed = item[9] if len(item) > _WHERE_SECOND else []
    known = {word.partition(b"|")[2].upper().decode() for word in _names(listed)}
    found = {word: _made(f"{name} {word}", "admin", 0, 0, 0, 1, None) for word in known | _HARMFUL}
    for word in told.split():
        first = 2 if kind in {"read", "write"} and word not in {"HELP", "DOCTOR"} else 0
        found[word] = _made(f"{name} {word}", kind, 0, first, first, 1, RULES.get(name))
    for full in _SPECIAL:
        if full.startswith(f"{name} "):
            found[full.split()[1]] = _made(full, "special", 0, 0, 0, 1, None)
    return {word.encode(): entry for word, entry in found.items()}


def _names(listed: Reply) -> Iterator[bytes]:
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, list) and isinstance(item[0], bytes):
            yield item[0]


def scripted_keys(entry: Entry, words: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the keys that a script, or a module's command, declares.

    Raises:
        MalformedError: it declares more than it has.
        UnjudgedError: none can be told.
    """
    if entry.name not in _SCRIPTS:
        found = entry.keys(words)
        if not found:
            raise UnjudgedError(f"{entry.name} does not say which keys it touches")
        return tuple(found)
    count = whole(words[2])
    if count < 0 or count > len(words) - 3:
        raise MalformedError("ERR Number of keys can't be greater than number of args")
    return tuple(words[3 : 3 + count])


def asked_of(entry: Entry, words: Sequence[bytes], database: int, *, apart: bool = False) -> Asked:
    """Return a write command as its rule reads it."""
    return Asked(entry.name.split()[0], tuple(words[1:]), database, apart)
