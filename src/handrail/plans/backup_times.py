"""When a store is backed up next, whether that backup is proven, and when it is overdue. Pure.

Rules:
- Counted from the newest good backup, whoever made it; where there is none, from the first look.
- A backup is proven where the proof would be too old before the next one; the first one always.
- However many times have passed, one backup makes up for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from handrail.estate.model import BackupRule

_GRACE_LEAST_S = 3600
# Longer is for ever: a date has to come out of it.
_LONGEST_S = 100 * 366 * 86400


@dataclass(frozen=True)
class Wanted:
    """What is next of one store's backups.

    Attributes:
        time: the newest time that has come, by which it is known; else the one to come.
        first: the oldest of those that have come; the same where none was missed.
        is_due: whether it has come.
        proves: whether the backup is to be restored and compared, too.
        deadline: from when on it is overdue.
    """

    time: datetime
    first: datetime
    is_due: bool
    proves: bool
    deadline: datetime

    def missed(self, rule: BackupRule) -> int:
        """Return how many times have passed for which none was made."""
        return round((self.time - self.first).total_seconds() / rule.every_s)


def bounded(rule: BackupRule) -> BackupRule:
    """Return a rule whose times can be reckoned with."""
    every_s, prove_s = min(rule.every_s, _LONGEST_S), min(rule.prove_s, _LONGEST_S)
    return replace(rule, every_s=every_s, prove_s=prove_s)


def look(
    rule: BackupRule,
    seen_at: datetime,
    made_at: datetime | None,
    proven_at: datetime | None,
    now: datetime,
) -> Wanted:
    """Return what is next.

    Args:
        rule: as `bounded` gives it; `every` is more than nothing.
        seen_at: when the declaration was first looked at.
        made_at: when the newest good backup was begun; None where there is none.
        proven_at: when a backup last came back equal; None for never.
        now: the wall clock.
    """
    every = timedelta(seconds=rule.every_s)
    # A proof of no age at all is had by none: then each backup is proven.
    prove = timedelta(seconds=rule.prove_s) if rule.prove_s else every
    backup_due = (made_at or seen_at) + every
    first = min(backup_due, proven_at + prove) if proven_at else backup_due
    time = first + max((now - first) // every, 0) * every
    proof_until = proven_at + prove if proven_at else seen_at + every
    return Wanted(
        time=time,
        first=first,
        is_due=first <= now,
        proves=proven_at is None or proven_at + prove <= max(now, time) + every,
        deadline=min(backup_due, proof_until) + grace(rule),
    )


def grace(rule: BackupRule) -> timedelta:
    """Return how long after its time a backup may take until it is overdue."""
    return timedelta(seconds=max(_GRACE_LEAST_S, rule.every_s // 4))
