"""The graph of needs: who depends on what, by which path, and where needs form a circle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from handrail.estate.model import Estate


class Dependant(NamedTuple):
    """A resource that depends on another, directly or not.

    Attributes:
        ref: the dependant.
        path: from what is touched to the dependant, both included; the shortest of its strength.
        hard: whether every need on the path is hard.
    """

    ref: str
    path: tuple[str, ...]
    hard: bool


def dependants(estate: Estate, ref: str) -> tuple[Dependant, ...]:
    """Return what depends on `ref`, hard ones first, then nearest first, then by name.

    A dependant that is reached by a hard path and by a soft one counts as hard.
    """
    found, passed = _reach(estate, ref, hard_only=True)
    stopped = {dependant.ref for dependant in found}
    if not passed <= stopped | {ref}:
        reached, _ = _reach(estate, ref, hard_only=False)
        found += [dependant for dependant in reached if dependant.ref not in stopped]
    return tuple(found)


def circles(estate: Estate) -> Iterator[tuple[str, ...]]:
    """Yield each circle of hard needs once, beginning and ending with the same resource."""
    state: dict[str, int] = {}
    for start in estate.resources:
        yield from _circles_from(estate, start, state)


def _circles_from(estate: Estate, start: str, state: dict[str, int]) -> Iterator[tuple[str, ...]]:
    """Walk depth first without recursion: 1 is on the present path, 2 is done."""
    if start in state:
        return
    path = [start]
    pending = [_hard_needs(estate, start)]
    state[start] = 1
    while path:
        following = next(pending[-1], None)
        if following is None:
            pending.pop()
            state[path.pop()] = 2
        elif state.get(following) == 1:
            yield (*path[path.index(following) :], following)
        elif following not in state:
            state[following] = 1
            path.append(following)
            pending.append(_hard_needs(estate, following))


def _hard_needs(estate: Estate, ref: str) -> Iterator[str]:
    resource = estate.resources[ref]
    return (n.target for n, _ in resource.needs if n.hard and n.target in estate.resources)


def _reach(estate: Estate, start: str, *, hard_only: bool) -> tuple[list[Dependant], set[str]]:
    """Return what needs `start` level by level, and what a soft need was not followed to."""
    needed_by = estate.needed_by
    seen, passed = {start}, set()
    found: list[Dependant] = []
    level: list[tuple[str, tuple[str, ...]]] = [(start, (start,))]
    while level:
        following = []
        for at, path in level:
            for ref, hard in needed_by.get(at, ()):
                if hard_only and not hard:
                    passed.add(ref)
                elif ref not in seen:
                    seen.add(ref)
                    following.append((ref, (*path, ref)))
        following.sort()
        found += [Dependant(ref, path, hard_only) for ref, path in following]
        level = following
    return found, passed
