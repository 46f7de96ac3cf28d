"""The graph of needs: who depends on what, by which path, and where needs form a circle."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from handrail.estate.model import Estate


@dataclass(frozen=True)
class Dependant:
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
    """Return what depends on `ref`, hard ones first, then nearest first.

    A dependant that is reached by a hard path and by a soft one counts as hard.
    """
    needed_by = _needed_by(estate)
    hard = _reach(needed_by, ref, hard_only=True)
    soft = _reach(needed_by, ref, hard_only=False)
    found = [Dependant(at, path, hard=True) for at, path in hard.items()]
    found += [Dependant(at, path, hard=False) for at, path in soft.items() if at not in hard]
    return tuple(sorted(found, key=lambda d: (not d.hard, len(d.path), d.ref)))


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


def _needed_by(estate: Estate) -> Mapping[str, list[tuple[str, bool]]]:
    found: dict[str, list[tuple[str, bool]]] = {}
    for ref, resource in estate.resources.items():
        for need, _ in resource.needs:
            found.setdefault(need.target, []).append((ref, need.hard))
    return found


def _reach(
    needed_by: Mapping[str, list[tuple[str, bool]]], start: str, *, hard_only: bool
) -> dict[str, tuple[str, ...]]:
    paths: dict[str, tuple[str, ...]] = {start: (start,)}
    queue = deque([start])
    while queue:
        at = queue.popleft()
        for ref, hard in needed_by.get(at, ()):
            if ref not in paths and (hard or not hard_only):
                paths[ref] = (*paths[at], ref)
                queue.append(ref)
    del paths[start]
    return paths
