"""Notifying: an outbox in the journal, and those who are told of what is in it.

Chains: `notice-<id>` is one notice: `queued`, `sent`, `failed`, `given-up`, and closed once
everybody was told or given up. `notices` has how far the journal was read, `notices-lost` who was
given up.

Rules:
- At least once: what is queued is told, also after a crash; whoever hears it twice knows by its id.
- Queued once: a notice's chain is opened with it, and there is one chain of a name.
- Nothing here runs inside of a run. A destination that is down holds up neither a run nor another
  destination; it is tried five times in an hour, and what is a day old is given up.
- What happened before anybody was to be told is history, and told to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from handrail.core import noticing, records
from handrail.core.world import Declared, World
from handrail.errors import FencedError, NotifyError, RefusedError, UsageError
from handrail.estate.shapes import nearest
from handrail.plans.canonical import plain, time_text
from handrail.plans.notice import Destination, Notice
from handrail.ports import Entry, Notifier, Record

CHAIN = "notices"
LOST = "notices-lost"
LOOK_S = 10
# Waits before the second try and those after it: five tries in an hour.
RETRY_S = (60, 240, 900, 2400)
_LONGEST_S = 3600
_OLDEST_S = 86400
_ATTEMPTS = 3
_PREFIX = "notice-"


@dataclass
class Pending:
    """A notice that not everybody has been told of.

    Attributes:
        queued_at: since when it is to be told.
        left: names of those who have not been told, to how often that was tried.
        again_at: when the next try is worth it, by name.
        why: what the last try failed by, by name.
    """

    chain: str
    notice: Notice
    queued_at: datetime
    left: dict[str, int]
    again_at: dict[str, datetime] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)


def queue(
    world: World, declared: Declared, notices: Sequence[Notice], entries: Sequence[Entry] = ()
) -> None:
    """Record notices to be told, all in one transaction with `entries`. Twice equals once.

    A notice that nobody wants is not recorded.

    Raises:
        FencedError: a chain of `entries` has gone on; nothing was written.
        JournalError: it could not be made durable. Nothing was written.
    """
    wanted = {one.id: one for one in notices if declared.notifications.routed(one)}
    for attempt in range(_ATTEMPTS):
        new = [one for one in wanted.values() if world.journal.last(_PREFIX + one.id) is None]
        every = [*entries, *(_queued(declared, one) for one in new)]
        if not every:
            return
        try:
            world.journal.write(every)
        except FencedError:
            # Another process may have queued the same in this moment.
            if attempt + 1 == _ATTEMPTS or not new:
                raise
        else:
            return


def _queued(declared: Declared, notice: Notice) -> Entry:
    body = {"notice": plain(notice), "to": list(declared.notifications.routed(notice))}
    return Entry(_PREFIX + notice.id, "queued", body, after="new")


def deliver(world: World, declared: Declared) -> datetime:
    """Read on in the journal, tell what is to be told, and return when to come again.

    For one process at a time: another finds it being done, and comes again. Takes as long as the
    destinations do: not for a thread that has something else to do.

    Raises:
        JournalError: it cannot be read or written.
    """
    soon = world.clock.now() + timedelta(seconds=LOOK_S)
    try:
        with world.locks.hold(CHAIN, "telling people outside"):
            _gather(world, declared)
            return min(soon, _send(world, declared) or soon)
    except RefusedError as error:
        if error.code != "run.locked":
            raise
        return soon


def _gather(world: World, declared: Declared) -> None:
    last = world.journal.last(CHAIN)
    if last is None or not declared.notifications.to:
        _skip(world, declared, last)
        return
    seen = records.body(last)["seen"]
    found, reached = noticing.since(world, declared, seen)
    notices = [*found, *noticing.hanging(world, declared)]
    entry = Entry(CHAIN, "seen", {"seen": dict(reached)}, after=last.hash)
    queue(world, declared, notices, [entry] if reached != seen else [])


def _skip(world: World, declared: Declared, last: Record | None) -> None:
    """Leave to history what is there: nobody was to be told of it when it happened."""
    seen = {"seen": dict(noticing.present(world))}
    if last is None and declared.notifications.to:
        world.journal.write([Entry(CHAIN, "seen", seen, after="new")])
    elif last is not None and records.body(last) != seen:
        world.journal.write([Entry(CHAIN, "seen", seen, after=last.hash)])


def pending(world: World) -> tuple[Pending, ...]:
    """Return what is still to be told, the oldest first."""
    found = (_read(world, chain) for chain in world.journal.open_chains(_PREFIX))
    return tuple(one for one in found if one is not None)


def given_up(world: World, most: int = 20) -> tuple[Mapping[str, Any], ...]:
    """Return who could not be told of what, the newest last."""
    last = world.journal.last(LOST)
    beyond = max(0, last.sequence - most) if last else 0
    return tuple(
        {"time": record.time, **records.body(record)}
        for record in world.journal.records(LOST, beyond)
    )


def _read(world: World, chain: str) -> Pending | None:
    found: Pending | None = None
    for record in world.journal.records(chain):
        body = records.body(record)
        if record.kind == "queued":
            notice = records.decode(body["notice"], Notice)
            since = datetime.fromisoformat(record.time)
            found = Pending(chain, notice, since, dict.fromkeys(body["to"], 0))
        elif found is not None and record.kind == "failed":
            found.left[body["to"]] += 1
            found.again_at[body["to"]] = datetime.fromisoformat(body["again_at"])
            found.why[body["to"]] = str(body["why"])
        elif found is not None:
            found.left.pop(body["to"], None)
    return found


def _send(world: World, declared: Declared) -> datetime | None:
    """Try what is due, and return when the next try is worth it; None where nothing is left."""
    notifiers: dict[str, Notifier] = {}
    left = pending(world)
    # Whoever could not be told of one notice is left alone with the others, too.
    down = {
        name: at
        for one in left
        for name, at in one.again_at.items()
        if name in one.left and not _is_due(world, at)
    }
    for one in left:
        if _is_old(world, one):
            for name in tuple(one.left):
                _give_up(world, one, name, one.why.get(name, "it could not be told for a day"))
        for name in tuple(one.left):
            if name in down:
                continue
            again_at = _try(world, declared, one, name, notifiers)
            if again_at is not None:
                down[name] = again_at
        if not one.left:
            world.journal.close(one.chain)
    return min(down.values(), default=None)


def _is_due(world: World, again_at: datetime) -> bool:
    now = world.clock.now()
    # A clock that was set back must not keep a notice for a year.
    return not now < again_at <= now + timedelta(seconds=_LONGEST_S)


def _is_old(world: World, one: Pending) -> bool:
    return world.clock.now() - one.queued_at > timedelta(seconds=_OLDEST_S)


def _try(
    world: World, declared: Declared, one: Pending, name: str, notifiers: dict[str, Notifier]
) -> datetime | None:
    """Tell one destination of one notice; return when to try again where it may help."""
    destination = declared.notifications.to.get(name)
    if destination is None:
        _give_up(world, one, name, "it is not declared any more")
        return None
    try:
        if name not in notifiers:
            notifiers[name] = world.open_notifier(destination)
        _tell(notifiers[name], one.notice)
    except NotifyError as error:
        return _failed(world, one, name, error)
    world.journal.append(one.chain, "sent", {"to": name})
    del one.left[name]
    return None


def _tell(notifier: Notifier, notice: Notice) -> None:
    body = plain(notice)
    try:
        notifier.send(body if isinstance(body, dict) else {})
    except NotifyError:
        raise
    except Exception as error:  # a defect of one adapter must not keep the others' notices
        raise NotifyError("notify.failed", f"a defect: {type(error).__name__}") from error


def _failed(world: World, one: Pending, name: str, error: NotifyError) -> datetime | None:
    tried = one.left[name]
    if not error.is_passing or tried >= len(RETRY_S):
        _give_up(world, one, name, error.message)
        return None
    wait_s = min(max(RETRY_S[tried], error.retry_after_s), _LONGEST_S)
    again_at = world.clock.now() + timedelta(seconds=wait_s)
    said = {"to": name, "why": error.message, "again_at": time_text(again_at)}
    world.journal.append(one.chain, "failed", said)
    return again_at


def _give_up(world: World, one: Pending, name: str, why: str) -> None:
    told = {"to": name, "why": why, "title": one.notice.title, "id": one.notice.id}
    world.journal.write(
        [Entry(one.chain, "given-up", {"to": name, "why": why}), Entry(LOST, "given-up", told)]
    )
    del one.left[name]


def find(declared: Declared, name: str) -> Destination:
    """Return the destination of that name.

    Raises:
        UsageError: there is none.
    """
    known = declared.notifications.to
    if name in known:
        return known[name]
    raise UsageError(
        "notify.unknown",
        f"`{name}` is no destination of notifications.yaml",
        hint=nearest(name, tuple(known)) or "declare it: see docs/how-to/notifications.md",
    )


def try_out(world: World, declared: Declared, name: str) -> Notice:
    """Send one notice to a destination now, and return it. Leaves nothing in the outbox.

    Raises:
        UsageError: there is no such destination.
        NotifyError: it was not taken.
    """
    destination = find(declared, name)
    now = time_text(world.clock.now())
    notice = noticing.make(
        declared,
        (name, world.ids.new()),
        "test",
        title=f"Handrail can tell `{name}`",
        text=f"{world.person or 'somebody'} tried this destination; nothing has happened",
        time=now,
        person=world.person,
    )
    _tell(world.open_notifier(destination), notice)
    return notice
