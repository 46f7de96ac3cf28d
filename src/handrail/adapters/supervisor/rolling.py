"""Decides what of an app is replaced next. Pure: it is given what was seen, and the time.

Rules:
- The next ones are replaced only when all that were are healthy; new ones need not wait.
- Where something ran before, canaries go first, and the rest waits until they are promoted.
- An instance that would be the same stays, unless it does not run.
- What is not healthy in time, or gave up, fails the deployment: nothing more is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from handrail.adapters.supervisor.state import Deployment, Place, State
from handrail.adapters.supervisor.tasks import Body, is_same_task, tasks, update

Health = Literal["healthy", "waiting", "dead", "given up"]
Instance = tuple[str, int]


@dataclass(frozen=True)
class Seen:
    """How one instance is.

    Attributes:
        health: `dead` runs nothing and is not about to; `given up` neither, and supervisord tried.
        why: for people, where it is not healthy.
    """

    health: Health
    why: str = ""


ABSENT = Seen("dead", "it does not run")


@dataclass(frozen=True)
class Rolling:
    """A deployment with what was seen of its app.

    Attributes:
        state: with the deployment as its newest.
        body: of the wanted version.
        body_of: any version's number to its body.
        seen: by instance.
        now: seconds since 1970.
    """

    state: State
    body: Body
    body_of: Callable[[int], Body]
    seen: Mapping[Instance, Seen]
    now: float

    @property
    def deployment(self) -> Deployment:
        """The newest one."""
        return self.state.deployments[-1]

    def wanted(self) -> list[Instance]:
        """Return every instance that there should be."""
        known = tasks(self.body).values()
        return [(task.name, number) for task in known for number in range(task.instances)]

    def healthy(self) -> tuple[int, int]:
        """Return how many are where they should be and healthy, and how many there should be."""
        wanted = self.wanted()
        return sum(self._is_arrived(one) and self._is_healthy(one) for one in wanted), len(wanted)

    def place(self, one: Instance) -> Place | None:
        """Return what an instance runs; None where it is not there yet."""
        places = self.state.placed.get(one[0], ())
        return places[one[1]] if one[1] < len(places) else None

    def _is_moved(self, one: Instance) -> bool:
        place = self.place(one)
        return place is not None and place[1] == self.deployment.number

    def stays(self, one: Instance) -> bool:
        """Return whether an instance that was there before may stay as it is."""
        place = self.place(one)
        if place is None or self.deployment.is_whole or place[1] == self.deployment.number:
            return False
        if self.seen.get(one, ABSENT).health in {"dead", "given up"}:
            return False
        return is_same_task(self.body_of(place[0]), self.body, one[0])

    def _is_arrived(self, one: Instance) -> bool:
        return self._is_moved(one) or self.stays(one)

    def _is_healthy(self, one: Instance) -> bool:
        return self.seen.get(one, ABSENT).health == "healthy"

    def why(self) -> str:
        """Return what is waited for, or what is ill: the first of it."""
        for one in self.wanted():
            if self._is_arrived(one) and not self._is_healthy(one):
                return f"{one[0]}-{one[1]}: {self.seen.get(one, ABSENT).why}"
        return ""

    def next(self) -> State:
        """Return the state with the next ones placed, or with where the deployment stands."""
        if self.deployment.stand != "going":
            return self.state
        arrived = [one for one in self.wanted() if self._is_arrived(one)]
        moved = [one for one in arrived if self._is_moved(one)]
        if any(self.seen.get(one, ABSENT).health == "given up" for one in moved):
            return self.state.with_last(stand="failed", why=self._given_up(moved))
        pending = [one for one in self.wanted() if one not in arrived]
        if not all(self._is_healthy(one) for one in (moved if pending else arrived)):
            return self._waited()
        batch = self._batch(pending, moved)
        if pending and not batch:
            return self.state.with_last(stand="canaries", why="its canaries are healthy")
        return self._placed(batch) if batch else self._finished()

    def _batch(self, pending: list[Instance], moved: list[Instance]) -> list[Instance]:
        """Return what is replaced next; nothing where canaries wait to be promoted."""
        settings = update(self.body)
        old = [one for one in pending if self.place(one) is not None]
        new = [one for one in pending if self.place(one) is None]
        has_canaries = settings.canaries and not self.deployment.is_promoted
        if has_canaries and (old or moved) and not self._is_first():
            return [one for one in old if one[1] < settings.canaries][: settings.at_once]
        return new + old[: settings.at_once]

    def _is_first(self) -> bool:
        """Return whether nothing is there that came before."""
        places = [place for places in self.state.placed.values() for place in places]
        return all(number == self.deployment.number for _, number in places)

    def _placed(self, batch: list[Instance]) -> State:
        here = (self.deployment.version, self.deployment.number)
        placed = {name: list(places) for name, places in self.state.placed.items()}
        for name, number in batch:
            places = placed.setdefault(name, [])
            places[number : number + 1] = [here]
        frozen = {name: tuple(places) for name, places in placed.items()}
        return replace(self.state, placed=frozen).with_last(since=self.now, why="")

    def _finished(self) -> State:
        """Return the state without what is too many: healthy, once that is gone too."""
        counts = {task.name: task.instances for task in tasks(self.body).values()}
        placed = {name: self.state.placed[name][:count] for name, count in counts.items() if count}
        if placed != dict(self.state.placed):
            return replace(self.state, placed=placed).with_last(since=self.now)
        return self.state.with_last(stand="healthy", why="")

    def _waited(self) -> State:
        why = self.why()
        deadline_s = update(self.body).deadline_s
        if self.now - self.deployment.since > deadline_s:
            said = f"not healthy within {deadline_s} s: {why}"
            return self.state.with_last(stand="failed", why=said)
        return self.state.with_last(why=why)

    def _given_up(self, moved: list[Instance]) -> str:
        for one in moved:
            seen = self.seen.get(one, ABSENT)
            if seen.health == "given up":
                return f"{one[0]}-{one[1]}: {seen.why}"
        return ""
