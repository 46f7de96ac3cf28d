"""Backing up: a store's declared backups are made when they are due, and proven.

The chain `backups-<store>` has `declared` (first seen), `begun`, `made`, `ended`, `failed`,
`postponed` (a run held the store) and `skipped`. `expected-backups-<store>` has `absent` (once an
absence) and `resolved`.

Rules:
- A look changes nothing but the record; `carry_out` does what takes time, for one process at a
  time. What a process left that died is begun anew, three times at most before that is a failure.
- The store's lock is held while the backup is made, so that no run changes it meanwhile, and not
  while it is restored and compared. While a run holds the store, the backup waits.
- Nothing is removed unless the new backup was made and, where that was its turn, came back equal.
- A rehearsal's backup counts as well: it was made, restored and compared in the same manner.
- What fails is told once a time, and tried again: in an hour where it could not be made, in a
  day where it did not come back equal; sooner where the next one is due sooner.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from handrail.core import backups, clones, noticing, notifying, proving, records
from handrail.core.world import Declared, Talk, World
from handrail.errors import FencedError, HandrailError, JournalError, RefusedError, StoreError
from handrail.estate.model import BackupRule, Resource
from handrail.plans import backup_times
from handrail.plans.amounts import duration, size
from handrail.plans.backup_times import Wanted
from handrail.plans.canonical import plain, time_text
from handrail.plans.facts import Backup
from handrail.plans.model import Proof
from handrail.plans.notice import Notice
from handrail.plans.schedule import said
from handrail.ports import Entry, Record, Store

_LOOK = timedelta(seconds=60)
_AGAIN_S, _DAY_S = 3600, 86400
_ATTEMPTS = 3
_TAIL = 100
_PROOFS = 50
# What was begun and has not come to its end.
_OPEN = frozenset({"begun", "made"})


@dataclass(frozen=True)
class Task:
    """A backup that is to be made now; `time` is what it is known by."""

    store: str
    time: datetime


@dataclass(frozen=True)
class Standing:
    """Where the backups of one store stand, for people. Times are empty where there are none.

    Attributes:
        every_s: as declared, like `keep` and `prove_s`.
        next_at: when the next one is made; None before the first look.
        last: what the newest time came to: a kind of the chain, or `running`.
        last_time: the time that it was due.
        why: more about it.
        made_at: of the newest good backup, ISO 8601 UTC; `backup` is its id.
        proven_at: when one last came back equal.
        due_by: from when on it is overdue.
    """

    store: str
    every_s: int
    keep: int
    prove_s: int
    next_at: datetime | None
    last: str
    last_time: str
    why: str
    made_at: str
    backup: str
    proven_at: str
    due_by: datetime | None
    overdue: bool


@dataclass(frozen=True)
class _Past:
    """What the journal has of a store's backups, newest records last."""

    told: tuple[tuple[str, dict[str, Any], Record], ...]
    fence: str
    seen_at: datetime | None
    made: tuple[datetime, str] | None
    proof: Proof | None

    @property
    def last(self) -> tuple[str, dict[str, Any]]:
        """Kind and body of the newest record; of none empty."""
        return self.told[-1][:2] if self.told else ("", {})

    def died(self, time: str) -> int:
        """Return how often in a row `time` was begun by a process that died."""
        found = 0
        for kind, body, _ in reversed(self.told):
            if kind not in _OPEN or body.get("time") != time:
                break
            found += kind == "begun"
        return found

    def wanted(self, rule: BackupRule, now: datetime) -> Wanted | None:
        """Return what is next; None before the first look."""
        if self.seen_at is None:
            return None
        proven_at = datetime.fromisoformat(self.proof.proven_at) if self.proof else None
        made_at = self.made[0] if self.made else None
        return backup_times.look(rule, min(self.seen_at, now), made_at, proven_at, now)


def chain_of(store: str) -> str:
    """Return the chain of a store's backups."""
    return f"backups-{store}"


def lock_of(store: str) -> str:
    """Return what is held while a backup of a store is made and proven."""
    return f"backups/{store}"


def _rules(declared: Declared) -> Iterator[tuple[Resource, BackupRule]]:
    """Yield the stores that are backed up by the clock: with `every: 0s` one is not."""
    for resource in declared.estate.resources.values():
        rule = resource.store.backups if resource.store is not None else None
        if rule is not None and rule.every_s:
            yield resource, backup_times.bounded(rule)


def _past(world: World, store: str) -> _Past:
    chain, now = chain_of(store), world.clock.now()
    last, first = world.journal.last(chain), next(world.journal.records(chain), None)
    if last is None or first is None:
        return _Past((), "new", None, None, None)
    count = _TAIL
    while True:
        beyond = max(0, last.sequence - count)
        found = world.journal.records(chain, beyond)
        told = tuple((record.kind, records.body(record), record) for record in found)
        if beyond == 0 or any(kind == "made" for kind, _, _ in told):
            break
        count *= 10  # it has failed for long
    proofs = _proofs(world, store)
    bad = {one.backup for one in proofs if not one.equal}
    proof = next(
        (p for p in proofs if p.equal and datetime.fromisoformat(p.proven_at) <= now), None
    )
    made = [
        (datetime.fromisoformat(body["at"]), str(body["backup"]["id"]))
        for kind, body, _ in told
        if kind == "made" and body["backup"]["id"] not in bad
    ]
    if proof is not None:
        made.append((datetime.fromisoformat(proof.made_at), proof.backup))
    # A clock that was a year ahead for a moment must not silence a store's backups for that year.
    newest = max((one for one in made if one[0] <= now), default=None)
    seen_at = datetime.fromisoformat(records.body(first)["time"])
    return _Past(told, told[-1][2].hash, seen_at, newest, proof)


def _proofs(world: World, store: str) -> tuple[Proof, ...]:
    """Return the newest proofs of a store's backups, the last one first."""
    chain = f"proofs-{store}"
    last = world.journal.last(chain)
    beyond = max(0, last.sequence - _PROOFS) if last else 0
    found = [records.body(one) for one in world.journal.records(chain, beyond)]
    return tuple(records.decode(body, Proof) for body in reversed(found))


def standings(world: World, declared: Declared) -> Iterator[Standing]:
    """Yield where every store's backups stand, by the journal; changes nothing."""
    now = world.clock.now()
    for resource, rule in _rules(declared):
        known = _past(world, resource.ref)
        wanted = known.wanted(rule, now)
        kind, body = known.last
        is_busy = world.locks.holder(lock_of(resource.ref)) is not None
        yield Standing(
            store=resource.ref,
            every_s=rule.every_s,
            keep=rule.keep,
            prove_s=rule.prove_s,
            next_at=_next_at(known, wanted, rule, now) if wanted else None,
            last="running" if is_busy else "" if kind == "declared" else kind,
            last_time="" if kind == "declared" else str(body.get("time", "")),
            why=str(body.get("why", "")),
            made_at=time_text(known.made[0]) if known.made else "",
            backup=known.made[1] if known.made else "",
            proven_at=known.proof.proven_at if known.proof else "",
            due_by=wanted.deadline if wanted else None,
            overdue=wanted is not None and wanted.deadline <= now,
        )


def _next_at(known: _Past, wanted: Wanted, rule: BackupRule, now: datetime) -> datetime:
    """Return when a backup is begun next: a failed one when it is tried again.

    Also where the backup itself was made: then it could not be restored.
    """
    kind, body = known.last
    if kind != "failed":
        return wanted.time
    again_at = datetime.fromisoformat(body["again_at"])
    is_sane = again_at <= now + timedelta(seconds=max(rule.every_s, _AGAIN_S))
    if not is_sane:
        return wanted.time
    return again_at if wanted.is_due else min(again_at, wanted.time)


def tick(world: World, declared: Declared, begin: Callable[[Task], None]) -> datetime:
    """Look at every store once, and return when to look again, at the latest in a minute.

    Args:
        world: the ports.
        declared: the team's declarations.
        begin: is given what is due, and sees that `carry_out` is called with it: here and now, or
            in another process. Given the same again while that has not come to its end; that does
            no harm.

    Raises:
        JournalError: it cannot be read or written.
    """
    wakes = [world.clock.now() + _LOOK]
    for resource, rule in _rules(declared):
        with suppress(FencedError):  # another server looks in this moment
            wakes += _look_at(world, declared, resource, rule, begin)
    return min(wakes)


def _look_at(
    world: World,
    declared: Declared,
    resource: Resource,
    rule: BackupRule,
    begin: Callable[[Task], None],
) -> list[datetime]:
    now, known = world.clock.now(), _past(world, resource.ref)
    wanted = known.wanted(rule, now)
    if wanted is None:
        body = {"time": time_text(now)}
        world.journal.write([Entry(chain_of(resource.ref), "declared", body, after="new")])
        return []
    _judge(world, declared, resource, known, wanted)
    if world.locks.holder(lock_of(resource.ref)) is not None:
        return []
    task = _task(world, resource, rule, known, wanted)
    if task is None:
        wakes_at = _next_at(known, wanted, rule, now)
        return [wakes_at] if wakes_at > now else []
    begin(task)
    return []


def _task(
    world: World, resource: Resource, rule: BackupRule, known: _Past, wanted: Wanted
) -> Task | None:
    """Return what is to be made now; None where nothing is, or it has to wait."""
    now = world.clock.now()
    kind, body = known.last
    if kind in _OPEN:
        return Task(resource.ref, datetime.fromisoformat(body["time"]))
    if _next_at(known, wanted, rule, now) > now:
        return None
    if not wanted.is_due:
        return Task(resource.ref, datetime.fromisoformat(body["time"]))  # it failed
    time = time_text(wanted.time)
    if any(told == "ended" and said["time"] == time for told, said, _ in known.told):
        return None  # made before, when the clock said otherwise
    is_told = kind == "postponed" and body["time"] == time
    if is_told and world.locks.holder(resource.ref) is not None:
        return None
    return Task(resource.ref, wanted.time)


def carry_out(world: World, declared: Declared, task: Task, talk: Talk) -> str:
    """Make one backup, and prove it where that is its turn; return what it came to.

    Whatever becomes of it is recorded. Called again, also after a crash, it begins anew; while
    another process is at it, or it was made already, it does nothing.

    Returns:
        `ended`, `failed`, `postponed`, or nothing where there was nothing to do.

    Raises:
        JournalError: it cannot be written.
    """
    found = {resource.ref: (resource, rule) for resource, rule in _rules(declared)}
    if task.store not in found:
        return ""
    resource, rule = found[task.store]
    try:
        with world.locks.hold(lock_of(task.store), f"backup of {task.store}"):
            return _Turn(world, declared, resource, rule, talk).take()
    except FencedError:
        return ""  # another server is at it
    except RefusedError as error:
        if error.code != "run.locked":
            raise
        return ""


class _Turn:
    """One backup in the hands of whoever holds the lock of this store's backups."""

    def __init__(
        self, world: World, declared: Declared, resource: Resource, rule: BackupRule, talk: Talk
    ) -> None:
        self._world = world
        self._declared = declared
        self._resource = resource
        self._rule = rule
        self._talk = talk
        self._time = ""

    def take(self) -> str:
        """Make what is due, unless nothing is, or a run holds the store."""
        now, known = self._world.clock.now(), _past(self._world, self._resource.ref)
        wanted = known.wanted(self._rule, now)
        if wanted is None:
            return ""
        task = _task(self._world, self._resource, self._rule, known, wanted)
        if task is None:
            return ""
        self._time = time_text(task.time)
        kind, body = known.last
        died = known.died(self._time)
        if died >= _ATTEMPTS:
            return self._fail(f"the process that was to make it died, {died} times", "", _AGAIN_S)
        if kind == "postponed" and body["time"] != self._time:
            self._skip(str(body["time"]), str(body["why"]))
            known = _past(self._world, self._resource.ref)
        proves = wanted.proves or bool(kind in _OPEN and body.get("proves"))
        return self._make(known, proves=proves, missed=wanted.missed(self._rule))

    def _make(self, known: _Past, *, proves: bool, missed: int) -> str:
        world, ref = self._world, self._resource.ref
        again_s = min(self._rule.every_s, _AGAIN_S)
        try:
            try:
                with world.locks.hold(ref, f"backup of {ref}"):
                    begun = {"proves": proves, "missed": missed}
                    self._note("begun", begun, after=known.fence)
                    target = self._target()
                    backup, seconds = self._back_up(target, proves=proves)
            except RefusedError as error:
                if error.code != "run.locked":
                    raise
                return self._postpone(known)
            if proves:
                again_s = min(self._rule.every_s, _DAY_S)
                self._prove(target, backup, seconds)
            gone = backups.prune(world, self._declared, self._resource)
            self._end(backup, proven=proves, gone=gone)
        except (JournalError, FencedError):
            raise
        except HandrailError as error:
            return self._fail(error.message, error.hint, again_s)
        except OSError as error:
            return self._fail(f"{type(error).__name__}: {error}", "", again_s)
        return "ended"

    def _target(self) -> Store:
        """Return the store, which is the one that was adopted.

        Raises:
            RefusedError: another one answers, or a clone does.
        """
        target = self._world.open_store(self._resource)
        found, store = target.identify(), self._resource.store
        adopted = store.identity if store is not None else ""
        if found.marker:
            raise RefusedError("clone.not-distinct", f"{self._resource.ref} is itself a clone")
        if adopted and str(found) != adopted:
            raise StoreError(
                "store.failed",
                f"{self._resource.ref} says it is {found}, but {adopted} was adopted",
                hint=f"find out why; if it moved on purpose: handrail adopt {self._resource.ref}",
            )
        return target

    def _back_up(self, target: Store, *, proves: bool) -> tuple[Backup, float]:
        world, talk = self._world, self._talk
        talk.begin("backup", self._resource.ref)
        at, began = time_text(world.clock.now()), world.clock.elapsed_s()
        backup = backups.make(world, self._declared, self._resource, target, talk)
        seconds = world.clock.elapsed_s() - began
        kept = plain(replace(backup, fingerprint=None))
        made = {"proves": proves, "at": at, "backup": kept, "seconds": round(seconds, 3)}
        self._note("made", made)
        talk.end("backup", f"{size(backup.size_bytes)} in {duration(seconds)}")
        return backup, seconds

    def _prove(self, target: Store, backup: Backup, backup_s: float) -> None:
        """Restore it as a clone, which is gone afterwards, and compare.

        Raises:
            StoreError: it could not be restored, or to other content.
        """
        world, talk, policy = self._world, self._talk, self._declared.policy
        clones.sweep(world)
        name = world.ids.new()[:8]
        folder = world.state / "rehearsals" / name
        folder.mkdir(parents=True, mode=0o700)
        try:
            with (
                clones.held(world, name, target, policy) as at,
                backups.opened(world, backup, folder / "opened") as readable,
            ):
                talk.begin("restore", "as a clone")
                began = world.clock.elapsed_s()
                made = proving.clone(world, target, readable, at, talk)
                restore_s = world.clock.elapsed_s() - began
                known = self._comparable(target, made, backup)
                proving.prove(world, talk, self._resource, target, made, known, backup_s, restore_s)
        finally:
            clones.clear(world, name)
            shutil.rmtree(folder, ignore_errors=True)

    def _comparable(self, target: Store, made: Store, backup: Backup) -> Backup:
        """Return the backup with the fingerprint that it has to have.

        Raises:
            StoreError: nobody knows it, for the store was written to while it was backed up. That
                says nothing against the backup: no proof of it is recorded.
        """
        if backup.fingerprint is not None:
            return backup
        now = target.fingerprint()
        if now.differences(made.fingerprint()):
            ref = self._resource.ref
            raise StoreError(
                "store.failed",
                f"{ref} was written to while it was backed up: there is nothing to compare with",
                hint="the backup is kept, unproven; a rehearsal at a quieter hour proves one",
            )
        return replace(backup, fingerprint=now)

    def _end(self, backup: Backup, *, proven: bool, gone: tuple[str, ...]) -> None:
        self._note("ended", {"backup": backup.id, "proven": proven, "removed": list(gone)})
        now, ref = self._world.clock.now(), self._resource.ref
        known = _past(self._world, ref)
        wanted = known.wanted(self._rule, now)
        if wanted is not None:
            _judge(self._world, self._declared, self._resource, known, wanted)

    def _postpone(self, known: _Past) -> str:
        """Wait for whoever holds the store; on record once a reason."""
        ref = self._resource.ref
        why = f"{ref} is held by {self._world.locks.holder(ref) or 'a run that has just ended'}"
        kind, body = known.last
        if (kind, body.get("time"), body.get("why")) != ("postponed", self._time, why):
            self._note("postponed", {"why": why}, after=known.fence)
        return "postponed"

    def _skip(self, time: str, why: str) -> None:
        why = f"{why}, until the next one was due"
        notice = self._notice("skipped", time, "was skipped", why, "handrail schedules")
        entry = Entry(chain_of(self._resource.ref), "skipped", {"time": time, "why": why})
        notifying.queue(self._world, self._declared, [notice], [entry])

    def _fail(self, why: str, hint: str, again_s: int) -> str:
        self._talk.end("backup", why, ok=False)
        again_at = self._world.clock.now() + timedelta(seconds=again_s)
        body = {"time": self._time, "why": why, "hint": hint, "again_at": time_text(again_at)}
        next_ = hint.partition("\n")[0] or "handrail schedules"
        notice = self._notice("failed", self._time, "failed", why, next_)
        entry = Entry(chain_of(self._resource.ref), "failed", body)
        notifying.queue(self._world, self._declared, [notice], [entry])
        return "failed"

    def _notice(self, kind: str, time: str, what: str, why: str, next_: str) -> Notice:
        ref = self._resource.ref
        return noticing.make(
            self._declared,
            ("backup", ref, time),
            kind,
            title=f"the backup of {ref}, due at {said(datetime.fromisoformat(time))}, {what}",
            text=why,
            time=time_text(self._world.clock.now()),
            resource=ref,
            next=next_,
        )

    def _note(self, kind: str, body: dict[str, Any], after: str = "") -> None:
        entry = Entry(chain_of(self._resource.ref), kind, {"time": self._time, **body}, after=after)
        self._world.journal.write([entry])


def _judge(
    world: World, declared: Declared, resource: Resource, known: _Past, wanted: Wanted
) -> None:
    """Record that a store's backup is overdue, or no more so, and tell it: each once."""
    ref, chain = resource.ref, f"expected-backups-{resource.ref}"
    last = world.journal.last(chain)
    is_absent = last is not None and last.kind == "absent"
    is_overdue = wanted.deadline <= world.clock.now()
    if is_absent == is_overdue:
        return
    deadline = (
        time_text(wanted.deadline)
        if is_overdue
        else str(records.body(last)["deadline"])
        if last
        else ""
    )
    made = f"the newest is of {said(known.made[0])}" if known.made else "none was ever made"
    proven = f"proven at {known.proof.proven_at[:16]}" if known.proof else "none was ever proven"
    what = f"is overdue since {said(wanted.deadline)}" if is_overdue else "is as expected again"
    notice = noticing.make(
        declared,
        ("backup", ref, deadline, is_overdue),
        "incident" if is_overdue else "resolved",
        title=f"the backup of {ref} {what}",
        text=f"{made}, {proven}",
        time=time_text(world.clock.now()),
        resource=ref,
        next="handrail schedules",
    )
    body = {"deadline": deadline}
    kind, after = "absent" if is_overdue else "resolved", last.hash if last else "new"
    notifying.queue(world, declared, [notice], [Entry(chain, kind, body, after=after)])
