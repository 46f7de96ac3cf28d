"""Web hooks: a push that was taken is planned, judged, and deployed where nobody is asked for.

Rules:
- Asked for by `ci@hooks/<app>`: nobody's key, so it can approve nothing, and anybody else may.
- The commit is on the branch that is named, or is refused. Of a forge's pushes, which may come in
  another order than they were made, only the branch's head counts; who signs a time may mean an
  older one.
- One at a time of an app, and the newest: what an earlier push waits for is of no use any more.
- Begun at most once: its run is found by what it was asked for as, whoever died in between.
- What waits for an approval goes on by itself once it has it, where its plan is still the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from handrail.core import deciding, kit_beginning, noticing, notifying, records, standing
from handrail.core.deciding import Decided
from handrail.core.kit_beginning import Engines
from handrail.core.outcome import Outcome
from handrail.core.world import Declared, World
from handrail.errors import (
    HandrailError,
    JournalError,
    PlatformError,
    RefusedError,
    UsageError,
    WaitingError,
)
from handrail.estate.model import Address, Resource
from handrail.kits.deploys import branches, hook_records
from handrail.kits.deploys.branches import Placed
from handrail.kits.deploys.declared import KIT
from handrail.kits.deploys.hook_records import Delivery
from handrail.kits.deploys.ports import Sources
from handrail.plans.canonical import time_text
from handrail.plans.notice import Notice
from handrail.plans.schedule import said
from handrail.ports import Entry

OPERATION = "deploy"
_ATTEMPTS = 3
_AGAIN = timedelta(seconds=60)


@dataclass(frozen=True)
class Auto:
    """What an app declares for its web hook.

    Attributes:
        branches: that it deploys.
        secret: that it is signed with.
        tokens: whether GitLab's header, which is the secret itself, counts.
    """

    branches: tuple[str, ...]
    secret: Address
    tokens: bool = False


def auto_of(resource: Resource | None) -> Auto | None:
    """Return what an app declares; None where it has no web hook, or is no app."""
    found = resource.settings.get("auto") if resource and resource.kind == "app" else None
    if not isinstance(found, Mapping) or not isinstance(found.get("secret"), Address):
        return None
    return Auto(tuple(found["branches"]), found["secret"], bool(found.get("tokens")))


def person_of(app: str) -> str:
    """Return who asks for what the web hook of an app begins."""
    return f"{noticing.HOOKS}{app}"


def lock_of(app: str) -> str:
    """Return what is held while a push is carried out."""
    return f"hook/{app}"


def request_of(one: Delivery) -> str:
    """Return what an engine knows the run of a push by."""
    return kit_beginning.request_id("hook", one.app, one.id)


def ready(world: World) -> tuple[Delivery, ...]:
    """Return what is to be carried out now; notes what has ended meanwhile."""
    return tuple(one for one in hook_records.open_ones(world) if _is_ready(world, one))


def _is_ready(world: World, one: Delivery) -> bool:
    if world.locks.holder(lock_of(one.app)) is not None:
        return False
    if one.state == "begun":
        _note_end(world, one)
        return False
    app = f"app/{one.app}"
    if world.locks.holder(app) is not None or records.unfinished(world.journal, app):
        return False
    if one.state == "waiting":
        approvals = records.approvals(world.journal, str(one.body["plan"]))
        return len(approvals) > int(one.body["approvals"])
    return one.state == "taken" or world.clock.now() - datetime.fromisoformat(one.at) > _AGAIN


def _note_end(world: World, one: Delivery) -> None:
    outcome = kit_beginning.ended(world, one.run)
    if outcome is not None:
        _ended(world, one, outcome)


def _ended(world: World, one: Delivery, outcome: Outcome) -> Delivery:
    return hook_records.note(
        world, one, "ended", run=outcome.run, outcome=outcome.outcome, why=outcome.why
    )


def carry_out(
    world: World,
    declared: Declared,
    app: str,
    name: str,
    engines: Engines,
    sources: Sources,
    opened: Callable[[int], None] = lambda _: None,
) -> Outcome | None:
    """Plan, judge and run one push to its end; None where it did not come to a run.

    Whatever becomes of it is recorded. Called again, also after a crash, it goes on from there;
    while another process is at it, it does nothing.

    Args:
        world: the ports.
        declared: the team's declarations.
        app: its name.
        name: of the delivery.
        engines: gives what runs it.
        sources: apps' repositories.
        opened: told the number of its run.

    Raises:
        JournalError: it cannot be written.
    """
    asking = replace(world, person=person_of(app))
    try:
        with world.locks.hold(lock_of(app), f"web hook of {app}"):
            one = hook_records.find(world, app, name)
            if one is None or one.is_over:
                return None
            return _Turn(asking, declared, one, engines, sources, opened).take()
    except RefusedError as error:
        if error.code != "run.locked":
            raise
        return None


class _Turn:
    """One push in the hands of whoever holds its app's lock."""

    def __init__(
        self,
        world: World,
        declared: Declared,
        one: Delivery,
        engines: Engines,
        sources: Sources,
        opened: Callable[[int], None],
    ) -> None:
        self._sources = sources
        self._world = world
        self._declared = declared
        self._one = one
        self._engines = engines
        self._opened = opened

    def take(self) -> Outcome | None:
        """Begin it, where it is the newest and nobody has."""
        if self._recover():
            return None
        others = tuple(hook_records.open_ones(self._world, self._one.app))
        if others and others[-1].id != self._one.id and others[-1].state != "begun":
            self._note("superseded", by=others[-1].commit)
            return None
        for other in others:
            if other.id != self._one.id and other.state != "begun":
                hook_records.note(self._world, other, "superseded", by=self._one.commit)
        if self._one.attempts >= _ATTEMPTS:
            why = str(self._one.body.get("why", "the process that was to begin it died"))
            self._refuse(PlatformError("platform.failed", f"{why}: {_ATTEMPTS} times"))
            return None
        self._note("tried", attempt=self._one.attempts + 1)
        return self._begin()

    def _recover(self) -> bool:
        """Find the run that a process which died had begun; return whether there is one."""
        number = self._one.run or kit_beginning.found(self._world, request_of(self._one))
        if not number:
            return False
        if not self._one.run:
            self._note("begun", run=number)
        _note_end(self._world, self._one)
        return True

    def _begin(self) -> Outcome | None:
        try:
            placed = self._place()
            if self._one.by != "own" and placed.head != self._one.commit:
                self._note("superseded", by=placed.head)
                return None
            decided = self._decide()
            # Beyond what an approval stands for: it stands no more.
            standing.settle(self._world, decided.plan, runs=True)
            if decided.plan.verdict == "allow":
                return self._run(decided)
            self._not_allowed(decided)
        except JournalError:
            raise
        except HandrailError as error:
            if self._one.run:
                raise  # its run says itself how it stands
            if isinstance(error, PlatformError) and error.is_passing:
                self._note("postponed", why=error.message, held=False)
            elif error.code == "run.locked":
                self._note("postponed", why=error.message, held=True)
            else:
                self._refuse(error)
        return None

    def _place(self) -> Placed:
        """Return where the commit is on its branch.

        Raises:
            UsageError: it is not on it: whoever told of it told something else.
        """
        one = self._one
        app = self._declared.estate.resources.get(f"app/{one.app}")
        if app is None:
            raise UsageError("deploys.hook", f"app/{one.app} is not declared any more")
        repository = str(app.settings["repository"])
        placed = branches.place(self._sources, repository, one.branch, one.commit)
        if not placed.is_on:
            raise UsageError(
                "deploys.hook",
                f"{one.commit[:10]} is not on {one.branch}, or that cannot be told",
                hint=f"handrail deploy {one.app} --ref {one.commit[:10]} --plan",
            )
        return placed

    def _decide(self) -> Decided:
        one = self._one
        operation = self._declared.operations.get(OPERATION)
        if operation is None or operation.kit != KIT:
            said = f"`{OPERATION}` is an operation of the team's own: no web hook begins it"
            raise UsageError("operations.target", said, at=operation.place if operation else None)
        images = ",".join(f"{task}={image}" for task, image in sorted(one.images.items()))
        given = {"ref": one.commit} | ({"images": images} if images else {})
        return deciding.decide(
            self._world,
            self._declared,
            OPERATION,
            on=f"app/{one.app}",
            parameters=given,
            because=f"push to {one.branch}",
        )

    def _run(self, decided: Decided) -> Outcome | None:
        plan = decided.plan

        def begun(number: int) -> None:
            self._note("begun", run=number, plan=plan.digest, verdict=plan.verdict)
            self._opened(number)

        outcome = kit_beginning.run(self._world, plan, self._engines, request_of(self._one), begun)
        if outcome is not None:
            self._one = _ended(self._world, self._one, outcome)
        return outcome

    def _not_allowed(self, decided: Decided) -> None:
        plan = decided.plan
        refusing = [d for d in plan.decisions if d.binding and d.verdict == "refuse"]
        if refusing and all(d.guard == "lock" for d in refusing):
            self._note("postponed", why=refusing[0].because, held=True)
            return
        try:
            deciding.insist(plan)
        except WaitingError as error:
            self._wait(plan.digest, error)
        except RefusedError as error:
            self._refuse(error, plan.digest)

    def _wait(self, digest: str, error: HandrailError) -> None:
        approvals = len(records.approvals(self._world.journal, digest))
        body = {"plan": digest, "verdict": "require", "approvals": approvals, "why": error.message}
        notice = self._notice("waiting", "waits", error, digest)
        entry = Entry(self._one.chain, "waiting", body)
        notifying.queue(self._world, self._declared, [notice], [entry])

    def _refuse(self, error: HandrailError, digest: str = "") -> None:
        body = {"code": error.code, "why": error.message, "hint": error.hint}
        body |= {"plan": digest, "verdict": "refuse"} if digest else {}
        notice = self._notice("refused", "is refused", error, digest)
        entry = Entry(self._one.chain, "refused", body)
        notifying.queue(self._world, self._declared, [notice], [entry])
        self._world.journal.close(self._one.chain)

    def _notice(self, kind: str, what: str, error: HandrailError, digest: str) -> Notice:
        one = self._one
        taken = said(datetime.fromisoformat(one.taken_at))
        return noticing.make(
            self._declared,
            ("hook", one.app, one.id, digest),
            kind,
            title=f"{OPERATION} of {one.app} at {one.commit[:10]} {what}",
            text=f"pushed to {one.branch}, told at {taken}: {error.message}",
            time=time_text(self._world.clock.now()),
            operation=OPERATION,
            resource=f"app/{one.app}",
            person=self._world.person,
            next=error.hint.partition("\n")[0],
        )

    def _note(self, kind: str, **body: object) -> None:
        self._one = hook_records.note(self._world, self._one, kind, **body)
