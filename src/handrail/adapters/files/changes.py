"""Says what differs between two manifests, as effects.

Rules:
- Created is `insert`, other content `update`, deleted `delete`; another mode, owner, access list
  or time is `alter`; another kind of thing under the same name is `replace`.
- The noun is `file`, `directory`, `link`, or `special` (FIFO, socket, device); the name is the
  path's pattern, the rows are how many, the detail how many bytes they hold.
- Content is compared by digest, always: what is written through memory changes no time at once,
  and times can be set back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from handrail.adapters.files.manifest import joined
from handrail.adapters.files.tally import Tally
from handrail.adapters.files.tree import Entry
from handrail.plans.amounts import size
from handrail.plans.effect import Effect, worst_first

_SPECIAL = frozenset({"fifo", "socket", "device"})


@dataclass(frozen=True)
class _Amount:
    """How many paths, and how many bytes they hold."""

    rows: int
    size_bytes: int


def effects(resource: str, before: Iterable[Entry], after: Iterable[Entry]) -> tuple[Effect, ...]:
    """Return what has changed from one manifest to the other, worst first."""
    tallies: dict[tuple[str, str], Tally[_Amount]] = {}
    for path, (was, now) in joined(before, after):
        for verb, entry in changes(was, now):
            tally = tallies.setdefault((verb, _noun(entry)), Tally(_sum))
            tally.add(path, _Amount(1, entry.size_bytes))
    return worst_first(
        Effect(resource, verb, noun, name, amount.rows, amount.rows, _detail(noun, verb, amount))
        for (verb, noun), tally in tallies.items()
        for name, amount in tally.items()
    )


def changes(was: Entry | None, now: Entry | None) -> Iterator[tuple[str, Entry]]:
    """Yield the verbs of one path, each with the entry whose bytes it is about."""
    if was is None and now is not None:
        yield "insert", now
    elif was is not None and now is None:
        yield "delete", was
    elif was is not None and now is not None and was.state != now.state:
        if was.kind != now.kind:
            yield "replace", was
            return
        if was.content != now.content:
            yield "update", now
            if was.manner != now.manner:
                yield "alter", now
        else:
            yield "alter", now


def _sum(one: _Amount, other: _Amount) -> _Amount:
    return _Amount(one.rows + other.rows, one.size_bytes + other.size_bytes)


def _noun(entry: Entry) -> str:
    return "special" if entry.kind in _SPECIAL else entry.kind


def _detail(noun: str, verb: str, amount: _Amount) -> str:
    if verb == "alter":
        return "mode, owner or time"
    return size(amount.size_bytes) if noun == "file" else ""
