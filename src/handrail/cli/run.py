"""Run an operation: backed up, measured, watched, and undone when it was wrong.

It is planned anew first, and held to its guards.

examples:
  handrail run reset-pilot
  handrail run trim-sessions -p days=30 --on store/pilot-db
  handrail run 7f3a-91c2            the plan of that digest, and no other
  handrail run trim-sessions --on all    every target of it, in waves
  handrail run reset-pilot --break-glass "nobody else is awake, and the disk is full"

Exit code: 0 confirmed, 1 failed or undone, 3 refused, 4 waiting for somebody, 5 stopped before it
went over its budget, or over budget and undone, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import TYPE_CHECKING

from handrail.cli import choosing
from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.core.deciding import Decided
    from handrail.core.outcome import Outcome
    from handrail.plans.holding import Report, Stop
    from handrail.plans.model import Plan


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    choosing.configure(parser)
    parser.add_argument(
        "--break-glass",
        metavar="WHY",
        help="wait for nobody, in an emergency; another person reviews it afterwards",
    )


def run(call: Call) -> int:
    """Plan anew, and run what was planned."""
    from handrail.cli import walks

    glass = call.options.break_glass
    if walks.are_meant(call) or walks.recorded(call) is not None:
        if glass is not None:
            raise UsageError(
                "break-glass.denied",
                "the glass is broken for one target at a time, and this is over several",
                hint="choose one: --on store/NAME",
            )
        return walks.run(call)
    # Whoever breaks the glass has said why.
    call.options.because = call.options.because or glass or ""
    return go(call, _decide(call))


def go(call: Call, decided: Decided) -> int:
    """Run what was planned just now, or show what keeps it from running."""
    from handrail.cli import plan as plans
    from handrail.cli import walks
    from handrail.core import running, standing

    if call.options.break_glass is not None:
        decided = _break_glass(call, decided)
    if decided.operation.act and not decided.plan.effects and decided.plan.verdict != "refuse":
        # What is there already needs nobody's approval, and no run.
        plans.show(call, decided.plan, with_next=False)
        return 0
    # Asked to run beyond what an approval stands for: it stands no more.
    standing.settle(call.world, decided.plan, runs=True)
    if decided.plan.verdict != "allow":
        plans.show(call, decided.plan)
        return 3 if decided.plan.verdict == "refuse" else 4
    if decided.operation.act:
        return walks.run_one(call, decided.plan)
    outcome = running.begin(call.world, decided, call.talk)
    return show(call, outcome, decided)


def _decide(call: Call) -> Decided:
    """Return the plan for an operation's name, or the one of a digest, made anew and compared."""
    from handrail.core import repeating

    options = call.options
    return repeating.decide(
        call.world,
        call.declared,
        options.operation,
        on=options.on,
        parameters=choosing.parameters(call),
        because=options.because,
    )


def _break_glass(call: Call, decided: Decided) -> Decided:
    """Break the glass, and say so to everybody who is near."""
    from handrail.cli import screen
    from handrail.core import breaking

    broken = breaking.through(call.world, decided, call.options.break_glass)
    glass = broken.plan.facts.glass
    if glass is not None:
        passed = {d.guard for d in broken.plan.decisions if d.because.startswith("glass broken")}
        call.talk.end(
            "GLASS",
            screen.wrap(
                f'broken by {glass.person}: "{glass.because}"; passes '
                f"{', '.join(sorted(passed))}; all of it is journalled ({glass.id})",
                " " * 14,
            ),
            ok=False,
        )
    return broken


def _glass_lines(outcome: Outcome, plan: Plan) -> list[str]:
    """Return what is left to do where the glass was broken; empty where it was not."""
    if plan.facts.glass is None:
        return []
    who = plan.facts.glass.person
    return [
        f"the glass was broken, and cannot be again until it is reviewed by somebody but {who}:",
        f'next: handrail review {outcome.run} --because "what was found"',
    ]


def show(call: Call, outcome: Outcome, decided: Decided, exit_code: int | None = None) -> int:
    """Write how a run ended, and return the command's exit code: the run's, unless given."""
    code = outcome.exit_code if exit_code is None else exit_code
    from handrail.cli import screen

    if call.options.json:
        from handrail.plans.canonical import plain

        screen.write_json({"format": 1, "run": plain(outcome), "exit_code": code})
        return code
    lines = [*_lines(call, outcome, decided.plan), *_glass_lines(outcome, decided.plan)]
    screen.write("\n".join(lines))
    return code


def _stopped(outcome: Outcome, plan: Plan, report: Report, stop: Stop) -> list[str]:
    """Return how a run ended that its guard stopped, with nothing beyond its budget done."""
    from handrail.cli import held, screen
    from handrail.core import guarding

    script = plan.steps[0].argv[0]
    state = held.state_of(stop, outcome.run)
    if outcome.effects and guarding.is_dropped(report):
        state = (
            "nothing of its copy was kept; this was written by others meanwhile, or past the copy"
        )
    how = held.stopped_part(report).how
    lines = held.stop_lines(stop, how, script, "it did in rehearsal", state)
    if report.parts:
        lines += ["", *held.part_lines(report)]
    again = f"handrail rehearse {plan.request.asked}"
    if outcome.effects:
        lines += ["", *screen.effect_lines(outcome.effects), ""]
        lines.append(f"next: handrail undo {outcome.run}     puts back what was kept, or")
        return [*lines, f"      {again}     if that is what you meant"]
    return [*lines, "", f"next: {again}     if that is what you meant"]


def _lines(call: Call, outcome: Outcome, plan: Plan) -> list[str]:
    from handrail.cli import held, screen

    number, request = outcome.run, plan.request
    left = ", ".join(outcome.residue[:6]) or "nothing left over"
    report = outcome.report
    if outcome.outcome == "over-budget" and report and report.stop and not outcome.breaches:
        return _stopped(outcome, plan, report, report.stop)
    if outcome.outcome == "over-budget":
        return [
            f"over budget: {request.operation} did more than it did in rehearsal",
            "",
            *screen.breach_lines(outcome.breaches),
            "",
            screen.wrap(f"undone: run {number}; {left}.     handrail runs show {number}", "  "),
            f"next: handrail rehearse {request.asked}     if that is what you meant",
        ]
    lines = [screen.wrap(f"{outcome.outcome}: run {number}. {outcome.why}.", "  ")]
    if report and report.parts:
        lines += held.part_lines(report)
    if outcome.residue:
        lines.append(screen.wrap(f"left different: {left}", "  "))
    if outcome.outcome in {"confirmed", "stopped", "failed"} and outcome.effects:
        until = call.world.clock.now() + timedelta(seconds=call.declared.policy.undo_age_s)
        lines.append(f"undo until {until:%Y-%m-%d %H:%M} UTC: handrail undo {number}")
    else:
        lines.append(f"more: handrail runs show {number}")
    return lines
