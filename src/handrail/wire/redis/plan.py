"""What a write command does to keys, known before it runs: looks, and the count of the answers.

Rules:
- A count comes from what the server says before the command runs, never from the reply alone: so a
  rehearsal and a run count alike, and what is refused was not sent.
- A count is exact where the command's effect can be known, and never too low where it cannot.
- A look touches a key no more than the command itself would; where that is refused, the key's idle
  time may begin anew all the same.
- `worst` needs no look at all: where it fits, looks and command leave together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from handrail.plans.patterns import pattern_of
from handrail.wire.ledger import Key as LedgerKey
from handrail.wire.redis.replies import ErrorReply, Reply

KEY, MEMBER = "key", "member"
INSERT, UPDATE, DELETE, EXPIRE = "insert", "update", "delete", "expire"
# Keys that a script touched without declaring them, in one database: nobody knows their names.
UNDECLARED = b""
UNDECLARED_NAME = "(undeclared)"
SYNTAX = "ERR syntax error"
NOT_WHOLE = "ERR value is not an integer or out of range"
NONE = b"none"
# A number that is a word of its own: whichever it is, the pattern is the same.
_NUMBER = re.compile(rb"(?<![0-9A-Za-z\x80-\xff])[0-9]+(?![0-9A-Za-z\x80-\xff])")

# A database's number, and a key in it.
Place = tuple[int, bytes]
# Verb, kind, where, how many.
Change = tuple[str, str, Place, int]
Look = tuple[bytes, ...]
Count = Callable[[Sequence[Reply]], list[Change]]


class MalformedError(Exception):
    """The server would answer with this error, and do nothing."""


class UnjudgedError(Exception):
    """Nobody can say what this command would do; why, in one sentence."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one command would do.

    Attributes:
        keys: what it depends on, in its own database.
        looks: reading commands whose answers tell what it would do.
        count: what it would do, given the answers in order.
        worst: the most that it could do, whatever is there; None where that is unbounded.
        makes: the type of what it makes or changes.
        adds: members that the first key has afterwards.
        removes: members that the first key has no more.
        after: looks to take when it has run: it is counted by both.
        blocks: whether it may wait for others; its reply then names the key, or is nil.
        sources: keys that it only reads, and depends on.
        obscures: collections of which nobody knows the members afterwards.
        hides: keys of which nobody knows the type afterwards.
        any_type: whether it works although a look finds a key of another type; else it fails then.
        needs_yes: whether a reply of 0 means that nothing was done, which no look could tell.
    """

    keys: tuple[bytes, ...]
    looks: tuple[Look, ...]
    count: Count
    worst: tuple[Change, ...] | None = None
    makes: bytes = b""
    adds: tuple[bytes, ...] = ()
    removes: tuple[bytes, ...] = ()
    after: tuple[Look, ...] = ()
    blocks: bool = False
    sources: tuple[bytes, ...] = ()
    obscures: tuple[Place, ...] = ()
    hides: tuple[Place, ...] = ()
    any_type: bool = False
    needs_yes: bool = False

    def changes(self, answers: Sequence[Reply]) -> list[Change]:
        """Return what the command would do, given what its looks found."""
        if not self.any_type and any(is_wrong_type(answer) for answer in answers):
            return []
        return self.count(answers)


@dataclass(frozen=True, slots=True)
class Asked:
    """A command to be judged.

    Attributes:
        name: in capital letters.
        words: its arguments without the name.
        database: in which it would run.
        apart: whether each look is to be about one key alone.
    """

    name: str
    words: tuple[bytes, ...]
    database: int
    apart: bool = False

    def at(self, key: bytes) -> Place:
        """Return where a key of this command lies."""
        return (self.database, key)

    def upper(self, start: int) -> list[bytes]:
        """Return the words from `start` in capital letters, for options."""
        return [word.upper() for word in self.words[start:]]


Rule = Callable[[Asked], Plan]


def name_of(place: Place) -> str:
    """Return the pattern under which a key is spoken of: `session:*`, `db1 session:*`."""
    database, key = place
    name = pattern(blank(key)) if key != UNDECLARED else UNDECLARED_NAME
    return f"db{database} {name}" if database else name


@lru_cache(maxsize=20_000)
def pattern(blanked: bytes) -> str:
    """Return the pattern of a key whose numbers are blanked."""
    return pattern_of(blanked.decode("utf-8", "backslashreplace"))


def blank(key: bytes) -> bytes:
    """Return a key with its numbers blanked: the pattern stays, and most keys become alike."""
    return _NUMBER.sub(b"0", key)


def amounts_of(changes: Iterable[Change]) -> dict[LedgerKey, int]:
    """Return changes added up by pattern, as the ledger counts them."""
    found: dict[LedgerKey, int] = {}
    for verb, kind, place, number in changes:
        if number > 0:
            key = (verb, kind, name_of(place))
            found[key] = found.get(key, 0) + number
    return found


def whole(word: bytes) -> int:
    """Return a number as the server reads it.

    Raises:
        MalformedError: it is none.
    """
    digits = word[1:] if word[:1] == b"-" else word
    if not digits.isdigit() or (digits[:1] == b"0" and word != b"0"):
        raise MalformedError(NOT_WHOLE)
    return int(word)


def number(answer: Reply) -> int:
    """Return an answer that counts; what is no number counts nothing."""
    return answer if isinstance(answer, int) else 0


def is_there(answer: Reply) -> bool:
    """Whether an answer of EXISTS, HEXISTS, SISMEMBER, TYPE or ZSCORE says yes."""
    if isinstance(answer, int):
        return answer > 0
    return answer is not None and answer != NONE


def is_wrong_type(answer: Reply) -> bool:
    """Whether a look found a key of another type than the command is for."""
    return isinstance(answer, ErrorReply) and answer.text.startswith(b"WRONGTYPE")


def is_wanted_whole(look: Look) -> bool:
    """Whether all of a look's answer is wanted, not its first line."""
    return look[0] in {b"TIME", b"XINFO"}


def distinct(words: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return each word once, in order."""
    return tuple(dict.fromkeys(words))


def touched(place: Place, *, existed: bool) -> list[Change]:
    """Return the change of a key that is there afterwards, with other content."""
    return [(UPDATE if existed else INSERT, KEY, place, 1)]


def touched_worst(place: Place) -> tuple[Change, ...]:
    """Return the most that one changed or made key can count."""
    return ((UPDATE, KEY, place, 1), (INSERT, KEY, place, 1))


def replaced(place: Place, type_before: Reply, type_after: bytes) -> list[Change]:
    """Return the changes of a key that gets another value: another type is another object."""
    if not is_there(type_before):
        return [(INSERT, KEY, place, 1)]
    if type_before == type_after:
        return [(UPDATE, KEY, place, 1)]
    return [(DELETE, KEY, place, 1), (INSERT, KEY, place, 1)]


def shrunk(place: Place, size: int, taken: int) -> list[Change]:
    """Return the changes of a collection that loses members: the last one takes the key along."""
    if taken <= 0:
        return []
    verb = DELETE if taken >= size else UPDATE
    return [(DELETE, MEMBER, place, taken), (verb, KEY, place, 1)]


def shrunk_worst(place: Place, taken: int) -> tuple[Change, ...]:
    """Return the most that taking so many members can count."""
    return (
        (DELETE, MEMBER, place, taken),
        (DELETE, KEY, place, 1),
        (UPDATE, KEY, place, 1),
    )


def nothing(_answers: Sequence[Reply]) -> list[Change]:
    """Return no change."""
    return []
