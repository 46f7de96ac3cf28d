"""The script was run on a clone: as it is now, not long ago, on data that has hardly moved."""

from __future__ import annotations

from datetime import datetime, timedelta

from handrail.plans.effect import ROW_VERBS
from handrail.plans.facts import Measure
from handrail.plans.judging import Case
from handrail.plans.model import Decision, Rehearsal

name = "rehearsed"
_SKEW = timedelta(minutes=-5)


def judge(case: Case) -> Decision:
    """Refuse what was not rehearsed at this version, or not well."""
    rehearsal = case.plan.facts.rehearsal
    declared = str(case.operation.place)
    remedy = f"handrail rehearse {case.plan.request.asked}"
    if rehearsal is None:
        return Decision(name, "refuse", "not at this version", declared, remedy)
    if rehearsal.unlisted:
        files = ", ".join(rehearsal.unlisted[:3])
        because = f"it read {files}, which the plan does not cover"
        return Decision(name, "refuse", because, declared, f"add to `uses`: {files}")
    reason = _reason(rehearsal, case)
    if reason:
        return Decision(name, "refuse", reason, declared, remedy)
    return Decision(name, "allow", f"by {rehearsal.person} on {rehearsal.made_at[:16]}", declared)


def _reason(rehearsal: Rehearsal, case: Case) -> str:
    """Return why the rehearsal does not count; empty when it does."""
    age = datetime.fromisoformat(case.plan.facts.now) - datetime.fromisoformat(rehearsal.made_at)
    if age > timedelta(seconds=case.policy.rehearsal_age_s):
        return f"the rehearsal is {_said(age)} old; {case.policy.rehearsal_age_s // 3600} h count"
    if age < _SKEW:
        return f"the rehearsal is dated {rehearsal.made_at[:16]}, which is still to come"
    if rehearsal.ended != "exited" or rehearsal.exit_code != 0:
        return f"it failed in rehearsal ({rehearsal.ended}, exit {rehearsal.exit_code})"
    if case.policy.confine == "require" and rehearsal.confined:
        return f"it was not confined: {rehearsal.confined}"
    return _drift(rehearsal, case)


def _drift(rehearsal: Rehearsal, case: Case) -> str:
    now = case.plan.facts.measure
    if now is None:
        return "how far the data has moved since could not be read"
    touched = {
        (e.resource, e.name) for e in rehearsal.effects if e.verb in ROW_VERBS or e.kind == "table"
    }
    for resource, table in sorted(touched):
        before, after = (_rows(m, resource, table) for m in (rehearsal.measure, now))
        moved = abs(after - before)
        if moved > max(before * case.policy.drift, case.policy.drift_rows):
            return f"table {table} had {before:,} rows when rehearsed and has {after:,} now"
    return ""


def _rows(measure: Measure, resource: str, table: str) -> int:
    # Where several stores are measured together, each table is named after its own.
    names = {table, f"{resource} {table}"}
    return next((t.rows for t in measure.tables if t.name in names), 0)


def _said(age: timedelta) -> str:
    return f"{age.days} days" if age.days > 1 else f"{age.total_seconds() / 3600:.0f} h"
