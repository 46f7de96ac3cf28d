"""What a dry run means: effects for the plan, counts, and how much is at risk. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from handrail.kits.deploys.model import DryRun, GroupFate
from handrail.plans.effect import Effect

_VERBS = {
    "destructive": "replace",
    "stop": "stop",
    "in-place": "update",
    "migrate": "move",
    "place": "start",
    "canary": "start",
}
# Those that are there afterwards; canaries come besides.
_THERE = ("place", "in-place", "destructive", "ignore", "migrate")
# What changes something that runs; a canary takes over from it in the end.
_CHANGING = ("destructive", "stop", "in-place", "migrate", "canary")
_KEPT = ("ignore", "in-place", "migrate", "canary")


def effects_of(app: str, job: str, dry: DryRun) -> tuple[Effect, ...]:
    """Return what a dry run says that would happen; empty where nothing would change."""
    found = tuple(
        Effect(app, _VERBS[fate], "instances", _name(group, fate), detail=_many(group, fate, count))
        for group in dry.groups
        for fate, count in group.counts.items()
        if fate in _VERBS and count
    )
    if found or not dry.changes:
        return found
    return (Effect(app, "update", "job", job, detail="no instance is touched"),)


def told(dry: DryRun) -> tuple[str, ...]:
    """Return one line a group: `web: 1 destructive, 2 ignore`."""
    lines = [
        f"{group.group}: " + ", ".join(f"{n} {fate}" for fate, n in group.counts.items() if n)
        for group in dry.groups
        if any(group.counts.values())
    ]
    lines += [f"warning: {one}" for one in dry.warnings]
    return (*lines, *(f"no place: {one}" for one in dry.unplaced))


def count_after(groups: Sequence[GroupFate]) -> int:
    """Return how many instances there should be afterwards."""
    return sum(group.counts.get(fate, 0) for group in groups for fate in _THERE)


def goes_at_once(group: GroupFate) -> bool:
    """Whether every instance of a group goes away at the same time."""
    replaced, stopped = group.counts.get("destructive", 0), group.counts.get("stop", 0)
    if replaced > group.at_once > 0:
        return False
    return replaced + stopped > 0 and not any(group.counts.get(fate, 0) for fate in _KEPT)


def risk_of(dry: DryRun, *, production: bool, needed: Sequence[str]) -> tuple[str, str]:
    """Return the risk and the one reason that set it.

    Args:
        dry: what would happen.
        production: whether real users live there.
        needed: what cannot do without the app.
    """
    if not dry.changes:
        return "none", "nothing changes"
    if not production:
        return "low", "it is outside of production"
    lost = [
        group
        for group in dry.groups
        if group.counts.get("destructive", 0) or group.counts.get("stop", 0)
    ]
    changed = [group for group in dry.groups if any(group.counts.get(one, 0) for one in _CHANGING)]
    if not changed:
        return "low", "nothing that runs in production is changed"
    if not lost:
        return "high", f"instances of {changed[0].group} in production are changed"
    at_once = [group.group for group in lost if goes_at_once(group)]
    if at_once and needed:
        return "critical", f"{needed[0]} needs it, and all of {at_once[0]} goes at once"
    return "high", f"instances of {lost[0].group} in production are replaced or stopped"


def restart_risk(
    counts: Mapping[str, int], *, production: bool, needed: Sequence[str]
) -> tuple[str, str]:
    """Return the risk of a restart a few at a time, and why: one alone is gone meanwhile."""
    if not any(counts.values()):
        return "none", "nothing runs that could be restarted"
    if not production:
        return "low", "it is outside of production"
    alone = [group for group, count in counts.items() if count == 1]
    if alone and needed:
        return "high", f"{needed[0]} needs it, and {alone[0]} has one instance"
    return "low", "a few instances at a time"


def _name(group: GroupFate, fate: str) -> str:
    return f"{group.group} (canary)" if fate == "canary" else group.group


def _many(group: GroupFate, fate: str, count: int) -> str:
    if fate == "destructive" and count > group.at_once > 0:
        return f"{count} of them, {group.at_once} at a time"
    return f"{count} as canary" if fate == "canary" else f"{count} of them"
