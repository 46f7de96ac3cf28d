"""Acts for workers: the same walk may act on several machines at once.

Rules:
- What is declared is read when a step needs it: a worker lives longer than a commit.
- The walk's approvals are claimed by one worker at a time: two that did it together would each
  take them for another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

from handrail.core import acts, covering
from handrail.core.covering import Cover
from handrail.core.world import Declared, Talk, World
from handrail.errors import RefusedError
from handrail.plans import fan_out as fan_outs
from handrail.ports import Act, ActCall, Acted, Locks

_AGAIN_S = 0.1


def working(
    world: World, declared: Callable[[], Declared], talk_to: Callable[[str], Talk]
) -> Mapping[str, Act]:
    """Return the acts by name; `declared` is asked whenever something declared is looked up."""
    live = cast("Declared", _Live(declared))
    found = dict(acts.acts(world, live, talk_to))
    found[fan_outs.ACT] = _Claiming(world, found[fan_outs.ACT])
    return found


class _Live:
    """`core.world.Declared`, as the repository has it whenever it is looked at."""

    def __init__(self, declared: Callable[[], Declared]) -> None:
        self._declared = declared

    def __getattr__(self, name: str) -> object:
        return getattr(self._declared(), name)


class _Claiming:
    """An act that claims the walk's approvals before it begins a child."""

    def __init__(self, world: World, act: Act) -> None:
        self._world = world
        self._act = act

    def do(self, call: ActCall) -> Acted:
        """See `ports.Act`."""
        if not call.before:
            cover = Cover(str(call.body["fan_out"]), call.run)
            with _alone(self._world, f"claim-{call.run}"):
                covering.claim(self._world, cover)
        return self._act.do(call)

    def check(self, call: ActCall) -> Acted:
        """See `ports.Act`."""
        return self._act.check(call)

    def undo(self, call: ActCall) -> Acted:
        """See `ports.Act`."""
        return self._act.undo(call)


@contextmanager
def _alone(world: World, resource: str) -> Iterator[None]:
    """Hold a lock that others hold for a moment, waiting for them."""
    locks: Locks = world.locks
    while True:
        held = locks.hold(resource, "a worker")
        try:
            held.__enter__()
        except RefusedError:
            if locks.holder(resource) is None:
                raise
            world.clock.sleep(_AGAIN_S)
        else:
            break
    try:
        yield
    finally:
        held.__exit__(None, None, None)
