"""Effects: what an operation does to a store, in verbs, nouns and amounts.

Rules:
- One `Effect` a (resource, verb, kind, name); amounts of the same are added up, never listed twice.
- `rows` is the number that a budget holds: every row event where the store can count events
  (a row updated a thousand times is a thousand), else the rows that differ afterwards.
- `net` is what a reader sees: the rows that differ afterwards. None where it was not counted.
- What cannot be classified has the verb `unknown`, and counts as destructive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Worst first: the order in which effects are shown.
VERBS = (
    "unknown",  # something changed and nothing could be read of it
    "drop",
    "terminate",  # a machine, for ever
    "replace",  # the same name, another object: its rows are gone
    "truncate",
    "delete",
    "detach",  # a machine from its group: it lives on, and nobody counts it any more
    "stop",
    "expire",  # will be deleted by time
    "rewrite",  # every row written anew by a change of the table's shape
    "revoke",
    "update",
    "alter",
    "rename",
    "move",  # instances from a machine to others
    "restart",
    "scale",
    "insert",
    "create",
    "start",
    "grant",
    "advance",  # a sequence
)
# How the detail of an effect begins whose rows may be fewer: the store also counts what was taken
# back by ROLLBACK.
CEILING = "at most"
DESTRUCTIVE = frozenset(
    {
        "unknown",
        "drop",
        "terminate",
        "replace",
        "truncate",
        "delete",
        "detach",
        "stop",
        "expire",
        "rewrite",
        "revoke",
    }
)
ROW_VERBS = frozenset({"truncate", "delete", "expire", "update", "insert"})


@dataclass(frozen=True)
class Effect:
    """One thing that was, or would be, done: `drop table readings, 2,913,402 rows`.

    Attributes:
        resource: the resource touched, `kind/name`.
        verb: one of `VERBS`.
        kind: the noun: `table`, `column`, `index`, `sequence`, `view`, `function`, `role`,
            `setting`, `database` ...
        name: the object's name as its store spells it, qualified where that is needed.
        rows: rows lost or changed; None for an object that holds no rows.
        net: rows that differ afterwards, where both were counted.
        detail: what a reader wants to know besides, such as `now integer, was text`.
    """

    resource: str
    verb: str
    kind: str
    name: str
    rows: int | None = None
    net: int | None = None
    detail: str = ""

    @property
    def is_destructive(self) -> bool:
        """Whether something that was there is not there afterwards."""
        return self.verb in DESTRUCTIVE and self.rows != 0

    @property
    def is_ceiling(self) -> bool:
        """Whether `rows` may be fewer, and cannot be more."""
        return self.detail.startswith(CEILING)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What a budget allows amounts of."""
        return (self.resource, self.verb, self.kind, self.name)


def worst_first(effects: Iterable[Effect]) -> tuple[Effect, ...]:
    """Return `effects` in the order of `VERBS`, then most rows first, then by name.

    The order is total: whatever order they came in, they leave in one.
    """
    return tuple(sorted(effects, key=_rank))


def _rank(effect: Effect) -> tuple[object, ...]:
    rows, net = effect.rows or 0, effect.net or 0
    known = (effect.rows is None, -net, effect.net is None)
    named = (effect.kind, effect.name, effect.resource, effect.detail)
    return (VERBS.index(effect.verb), -rows, *named, *known)
