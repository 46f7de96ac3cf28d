"""What a kit gives the core for each of its operations: how it is planned, done and put back.

Rules:
- `draft` reads the world and changes nothing; what it returns fixes all that is done later.
- What is done is compare-and-set: where the world is not as drafted any more, nothing is done.
- What was begun is followed look by look: nothing waits in a thread while nothing happens.
- After a crash, `found` tells what became of it from the world itself, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from handrail.errors import UsageError
from handrail.estate.model import Estate

if TYPE_CHECKING:
    from handrail.core.world import Declared, World
    from handrail.estate.model import Resource
    from handrail.plans.drafted import Draft
    from handrail.plans.model import Request

State = Literal["going", "done", "failed", "never", "unknown"]


@dataclass(frozen=True)
class Stage:
    """Where an operation stands.

    Attributes:
        state: `going`: look again; `done`: it is there and healthy as the platform sees it;
            `failed`; of `found` alone also `never` (it has not begun to act) and `unknown`.
        why: one sentence for people.
        body: JSON values that the next look needs, and that stay in the journal; no secret.
        again_s: seconds until the next look, where it is going.
    """

    state: State
    why: str = ""
    body: Mapping[str, object] = field(default_factory=dict)
    again_s: float = 1.0


@dataclass(frozen=True)
class Job:
    """One operation on one resource to be done, or put back.

    Attributes:
        resource: as declared now.
        body: of the draft that was approved.
        run: number of the run, for what is written down on the platform.
        person: who asked for it.
        before: body of the stage before; empty at the beginning.
        say: told one line of progress for people.
        is_over: asked between looks: return soon once it is true.
        estate: as declared now, for what the resource refers to.
    """

    resource: Resource
    body: Mapping[str, object]
    run: int
    person: str
    before: Mapping[str, object] = field(default_factory=dict)
    say: Callable[[str], None] = lambda _: None
    is_over: Callable[[], bool] = lambda: False
    estate: Estate = field(default_factory=Estate)


class KitAct(Protocol):
    """One operation of a kit. From any thread. Errors are those of `handrail.errors`."""

    def draft(self, resource: Resource, request: Request, declared: Declared) -> Draft:
        """Say what it would do, from the world as it is now. Changes nothing.

        Raises:
            HandrailError: it cannot even be said: no such ref, a specification that does not parse.
        """

    def apply(self, job: Job) -> Stage:
        """Begin it, compare-and-set, and return soon: `going` or `done`.

        Raises:
            RefusedError: the world is not as drafted any more. Nothing was done.
        """

    def follow(self, job: Job) -> Stage:
        """Look once at what `apply` began; `failed` where it is ill, stuck or silent."""

    def found(self, job: Job) -> Stage:
        """Say what became of `apply`, after whoever called it died. Changes nothing."""

    def undo(self, job: Job) -> Stage:
        """Put back what was there, and wait until it is: `done` or `failed`. Twice equals once.

        `never` was applied is `done`.
        """


def act_of(world: World, name: str) -> KitAct:
    """Return how the operations whose `act` is `name` are planned and done.

    Raises:
        UsageError: no kit that is installed has it.
    """
    for kit in world.kits:
        found = kit.acts(world).get(name)
        if found is not None:
            return found
    raise UsageError(
        "operations.unknown", f"no kit that is installed here does `{name}`", hint="install it"
    )
