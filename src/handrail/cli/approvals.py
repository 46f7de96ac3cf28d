"""List the approvals that count: those for one run, and those that stand for every run of the same.

examples:
  handrail approvals
  handrail approvals --json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.core.standing import Living
    from handrail.plans.model import Approval, Bounds

_ALLOWANCES = 4


def configure(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""
    del parser


def run(call: Call) -> int:
    """List, from the record alone: no store is asked, and no signature is checked."""
    from handrail.core import standing, withdrawing
    from handrail.plans.canonical import time_text

    now = time_text(call.world.clock.now())
    stands = standing.living(call.world)
    once = [
        approval
        for _, approval in withdrawing.living(call.world)
        if approval.bounds is None and approval.made_at <= now < approval.expires_at
    ]
    return show(call, once, stands)


def show(call: Call, once: Sequence[Approval], stands: Sequence[Living]) -> int:
    """Write what counts."""
    from handrail.cli import screen

    if call.options.json:
        from handrail.plans.canonical import plain

        screen.write_json({"format": 1, "once": plain(once), "standing": plain(stands)})
        return 0
    lines = []
    if once:
        lines += ["for one run:"]
        lines += screen.columns(
            [(screen.short(a.digest), a.person, f"until {_until(a)}", a.because) for a in once]
        )
    for one in stands:
        lines += ["", *_standing_lines(one)] if lines else _standing_lines(one)
    if not lines:
        lines = ["no approval counts now."]
    screen.write("\n".join(lines))
    return 0


def _standing_lines(one: Living) -> list[str]:
    """Return what an approval that stands is for, within what, until when, and how often used."""
    from handrail.cli.screen import wrap

    approval, bounds = one.approval, one.approval.bounds
    if bounds is None:
        return []
    given = "".join(f" -p {name}={value}" for name, value in bounds.parameters.items())
    last = one.uses[-1].removeprefix("run-") if one.uses else ""
    often = "once" if len(one.uses) == 1 else f"{len(one.uses)} times, last"
    used = f"used {often} by run {last}" if one.uses else "not used yet"
    because = f', "{approval.because}"' if approval.because else ""
    return [
        wrap(f"standing {approval.id}: {bounds.operation}{given} on {bounds.target}", "  "),
        "  at      " + wrap(f"{bounds.endpoint}, risk {bounds.risk} at most", " " * 10),
        "  covers  " + wrap(f"{_covers(bounds)}; undo {bounds.undo}", " " * 10),
        "  by      " + wrap(f"{approval.person}, until {_until(approval)}{because}", " " * 10),
        f"  {used}; to end it: handrail withdraw {approval.id}",
    ]


def _covers(bounds: Bounds) -> str:
    allowances = bounds.budget.allowances
    said = []
    for one in allowances[:_ALLOWANCES]:
        rows = "" if one.rows is None else f" {one.rows + one.tolerance:,} rows"
        said.append(f"{one.verb} {one.kind} {one.name}{rows}")
    more = f", and {len(allowances) - _ALLOWANCES} more" if len(allowances) > _ALLOWANCES else ""
    return ("; ".join(said) or "no change at all") + more


def _until(approval: Approval) -> str:
    return f"{approval.expires_at[:16].replace('T', ' ')} UTC"
