"""The ledger: one budget over every connection of a run, what was used of it, and what it refused.

Rules:
- An amount is reserved before it may take effect, and settled after: two transactions that are
  each inside the budget and together beyond it cannot both pass.
- After the first refusal everything else of the run is refused too: a script that ignores errors
  does not get to its next statement.
- It decides by numbers alone, and does no waiting, reading or writing.
- Its methods may be called from several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from threading import Lock

from handrail.errors import sanitise
from handrail.plans import budget as budgets
from handrail.plans.effect import Effect, worst_first
from handrail.plans.holding import Event, Limits, Stop
from handrail.plans.model import Breach

MOST_EVENTS = 1000
MOST_TEMPLATES = 20_000

# (verb, kind, name) of an effect on the ledger's store.
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Refusal:
    """Why something may not be done, as the script is told: a message, a detail and a hint."""

    message: str
    detail: str = ""
    hint: str = ""


class Ledger:
    """What a run has used of its limits on one store.

    Args:
        resource: the store, as effects name it.
        limits: what the run is held to.
        hear: told each event as it happens; from the thread that caused it.
        remedy: what an operator does after a refusal.
    """

    def __init__(
        self,
        resource: str,
        limits: Limits,
        hear: Callable[[Event], None] = lambda _: None,
        remedy: str = "rehearse again, if that is what you meant",
    ) -> None:
        self.resource = resource
        self.limits = limits
        self._hear = hear
        self._remedy = remedy
        self._lock = Lock()
        self._settled: dict[Key, int] = {}
        self._reserved: dict[Hashable, dict[Key, int]] = {}
        self._used: dict[Key, int] = {}  # settled and reserved; a sum over holders would be slow
        self._shapes: tuple[Effect, ...] = ()
        self._events: list[Event] = []
        self._trace: dict[str, None] = dict.fromkeys(())
        self._unheld: dict[str, None] = {}
        self._known = frozenset(limits.trace)
        self.kept = 0
        self.stop: Stop | None = None

    # --- what was run --------------------------------------------------------------------------

    def follow(self, template: str) -> bool:
        """Note a statement; return False where it is new, and the rehearsal did not have it.

        Always True where there was no rehearsal to compare with. The first one is an event.
        """
        with self._lock:
            is_new = template not in self._trace
            if is_new and len(self._trace) < MOST_TEMPLATES:
                self._trace[template] = None
        if not is_new or not self._known or template in self._known:
            return True
        if not any(event.kind == "diverged" for event in self._events):
            self.tell("diverged", f"not in the rehearsal: {template[:200]}")
        return False

    def leave_unheld(self, template: str) -> None:
        """Note that a statement took effect as it ran."""
        with self._lock:
            new = template not in self._unheld
            self._unheld[template] = None
        if new:
            self.tell("unheld", f"took effect as it ran: {template[:200]}")

    def tell(self, kind: str, text: str) -> None:
        """Note an event."""
        event = Event(kind, sanitise(text))
        with self._lock:
            if len(self._events) >= MOST_EVENTS:
                return
            self._events.append(event)
        self._hear(event)

    # --- amounts -------------------------------------------------------------------------------

    def reserve(
        self,
        holder: Hashable,
        amounts: Mapping[Key, int],
        *,
        statement: str = "",
        shapes: Iterable[Effect] | None = None,
    ) -> Refusal | None:
        """Set aside what `holder` is about to let take effect; say why it may not.

        Args:
            holder: whose it is: a session, a transaction. An earlier reservation is replaced.
            amounts: rows (keys, members) by verb, kind and name.
            statement: template of what is about to take effect, for people.
            shapes: everything that is not counted in rows (tables dropped, columns altered), of
                the whole run so far; None where nothing of that sort happened.
        """
        with self._lock:
            if self.stop is not None:
                return self._stopped()
            self._give_back(holder)
            self._reserved[holder] = dict(amounts)
            self._use(amounts, +1)
            # What is only counted needs no total: it is asked for with each command.
            held = self.limits.mode in {"hold", "read-only"}
            breaches = self._breaches(self._total(amounts, shapes)) if held else ()
            if not breaches:
                if shapes is not None:
                    self._shapes = tuple(shapes)
                return None
            self._give_back(holder)
            self.stop = self._stop_for(breaches[0], statement)
        self.tell("refused", self.stop.what)
        return self._stopped()

    def settle(
        self, holder: Hashable, *, kept: bool, amounts: Mapping[Key, int] | None = None
    ) -> None:
        """Count what `holder` reserved as done, or give it back. Twice equals once.

        Args:
            holder: as it was given to `reserve`.
            kept: whether it took effect.
            amounts: what it came to, where less was done than reserved; nothing, when all are 0.
        """
        with self._lock:
            reserved = self._give_back(holder)
            if reserved is None or not kept:
                return
            done = reserved if amounts is None else {k: n for k, n in amounts.items() if n}
            if amounts is not None and not done:
                return
            self.kept += 1
            self._use(done, +1)
            for key, amount in done.items():
                self._settled[key] = self._settled.get(key, 0) + amount

    def used(self, key: Key) -> int:
        """Return how much was done and is reserved of one effect."""
        with self._lock:
            return self._used.get(key, 0)

    def fits(self, amounts: Mapping[Key, int]) -> bool:
        """Whether `reserve` would allow these too; stops nothing."""
        with self._lock:
            if self.stop is not None:
                return False
            total = {key: self._used.get(key, 0) + amount for key, amount in amounts.items()}
            return not self._breaches(self._rows(total))

    def refuse(self, what: str, statement: str = "", remedy: str = "") -> Refusal:
        """Stop the run because it would do `what`; a run that is stopped stays so."""
        what = f"would {what}"
        with self._lock:
            if self.stop is None:
                self.stop = Stop(
                    sanitise(what), statement, kept=self.kept, remedy=remedy or self._remedy
                )
                fresh = True
            else:
                fresh = False
        if fresh:
            self.tell("refused", what)
        return self._stopped()

    def halt(self, elsewhere: str) -> None:
        """Refuse everything from now on: the run was stopped at another store. No event yet."""
        with self._lock:
            if self.stop is None:
                what = f"the run was stopped at {sanitise(elsewhere)}"
                self.stop = Stop(what, "", kept=self.kept, elsewhere=elsewhere)

    def stopped(self) -> Refusal | None:
        """Return why nothing more may be done; None while it may."""
        return self._stopped() if self.stop else None

    # --- what came of it -----------------------------------------------------------------------

    @property
    def effects(self) -> tuple[Effect, ...]:
        """What took effect, worst first."""
        with self._lock:
            return worst_first((*self._rows(self._settled), *self._shapes))

    @property
    def events(self) -> tuple[Event, ...]:
        """Every event so far."""
        with self._lock:
            return tuple(self._events)

    @property
    def trace(self) -> tuple[str, ...]:
        """Every template, in the order of its first appearance."""
        with self._lock:
            return tuple(self._trace)

    @property
    def unheld(self) -> tuple[str, ...]:
        """Templates of what took effect as it ran."""
        with self._lock:
            return tuple(self._unheld)

    def _rows(self, amounts: Mapping[Key, int]) -> tuple[Effect, ...]:
        return tuple(Effect(self.resource, *key, rows=n) for key, n in amounts.items() if n > 0)

    def _use(self, amounts: Mapping[Key, int], sign: int) -> None:
        for key, amount in amounts.items():
            self._used[key] = self._used.get(key, 0) + sign * amount

    def _give_back(self, holder: Hashable) -> dict[Key, int] | None:
        reserved = self._reserved.pop(holder, None)
        if reserved is not None:
            self._use(reserved, -1)
        return reserved

    def _total(
        self, amounts: Mapping[Key, int], shapes: Iterable[Effect] | None
    ) -> tuple[Effect, ...]:
        """Return what all have used of these amounts: of others, nothing has changed."""
        rows = self._rows({key: self._used[key] for key in amounts})
        return (*rows, *(self._shapes if shapes is None else shapes))

    def _breaches(self, total: tuple[Effect, ...]) -> tuple[Breach, ...]:
        if self.limits.mode == "read-only" and total:
            return (Breach(worst_first(total)[0], None),)
        if self.limits.mode != "hold" or self.limits.budget is None:
            return ()
        return budgets.breaches(self.limits.budget, worst_first(total))

    def _stop_for(self, breach: Breach, statement: str) -> Stop:
        return Stop(
            sanitise(f"would {budgets.sentence(breach)}"),
            statement,
            replace(breach.effect, name=sanitise(breach.effect.name)),
            breach.allowed,
            self.kept,
            self._remedy,
        )

    def _stopped(self) -> Refusal:
        stop = self.stop
        if stop is None:  # pragma: no cover  only asked once there is one
            raise AssertionError("nothing was refused")
        kept = f"{stop.kept} earlier transactions of this run were kept"
        if stop.kept < 2:  # noqa: PLR2004  grammar
            one = "1 earlier transaction of this run was kept"
            kept = one if stop.kept else "nothing of this run was kept before"
        return Refusal(f"handrail: stopped before it took effect: {stop.what}", kept, stop.remedy)
