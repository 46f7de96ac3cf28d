"""Do one errand for a server: called by `handrail serve` alone."""

from __future__ import annotations

import argparse
import io
import json
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from handrail.cli.call import Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from handrail.api.errand import Ask, Say, SayingTalk
    from handrail.core.world import Declared, World


def configure(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""
    del parser


def run(call: Call) -> int:
    """Read what to do from stdin, and do it."""
    from handrail.api.errand import main

    del call
    return main(many)


def many(
    world: World, declared: Declared, asked: Ask, talk: SayingTalk, say: Say
) -> dict[str, Any] | None:
    """Do what is over many targets as the command line does it; None where it is of one.

    Returns:
        `exit_code`, and of what was planned `plan` and `fan_out`.
    """
    from handrail.cli import walks
    from handrail.core import records

    call = _call(world, declared, asked, talk)

    def opened(number: int) -> None:
        say({"event": "begun", "run": number})

    printed = io.StringIO()
    if asked.kind in {"resume", "undo"}:
        if not records.is_walk(world.journal, asked.number):
            return None
        opened(asked.number)
        with redirect_stdout(printed):
            act = walks.resume if asked.kind == "resume" else walks.undo
            return {"exit_code": act(call, asked.number), "walk": asked.number}
    if asked.kind not in {"rehearse", "run"}:
        return None
    if not (walks.are_meant(call) or walks.recorded(call)):
        return _of_a_kit(call, say, opened) if asked.kind == "run" and _is_kits(call) else None
    with redirect_stdout(printed):
        code = walks.rehearse(call) if asked.kind == "rehearse" else walks.run(call, opened)
    told = json.loads(printed.getvalue())
    if "walk" in told:
        return {"exit_code": code, "walk": told["walk"]["run"]}
    return {"exit_code": code, "plan": told["fan_out"]["plan"], "fan_out": told["fan_out"]}


def _is_kits(call: Call) -> bool:
    """Whether what is asked for is no script's but a kit's: by its name, or by a plan of it."""
    from handrail.core import records

    name, known = call.options.operation, call.declared.operations
    if name not in known and records.DIGEST.fullmatch(name):
        name = records.find_plan(call.world.journal, name).request.operation
    return name in known and bool(known[name].act)


def _of_a_kit(call: Call, say: Say, opened: Callable[[int], None]) -> dict[str, Any]:
    """Run an operation of a kit on one target: a walk of one lane."""
    from handrail.cli import choosing, walks
    from handrail.core import repeating, standing

    options = call.options
    decided = repeating.decide(
        call.world,
        call.declared,
        options.operation,
        on=options.on,
        parameters=choosing.parameters(call),
        because=options.because,
    )
    say({"event": "planned", "plan": decided.plan.shown})
    standing.settle(call.world, decided.plan, runs=True)
    if decided.plan.verdict != "allow":
        return {
            "exit_code": 3 if decided.plan.verdict == "refuse" else 4,
            "plan": decided.plan.shown,
        }
    numbers: list[int] = []

    def begun(number: int) -> None:
        numbers.append(number)
        opened(number)

    with redirect_stdout(io.StringIO()):
        code = walks.run_one(call, decided.plan, begun)
    return {"exit_code": code, "walk": numbers[0], "plan": decided.plan.shown}


def _call(world: World, declared: Declared, asked: Ask, talk: SayingTalk) -> Call:
    """Return the call of the command line that asks for the same."""
    choices = {name: asked.choice == name for name in ("undo", "accept", "rerun", "leave")}
    options = argparse.Namespace(
        json=True,
        plain=True,
        root=None,
        all=False,
        operation=asked.operation,
        on=asked.on,
        parameter=[f"{name}={value}" for name, value in asked.parameters.items()],
        because=asked.because,
        without=list(asked.without),
        break_glass=None,
        number=asked.number,
        lose_newer=asked.lose_newer,
        **choices,
    )
    call = Call(options)
    # What it would make for itself is here already.
    vars(call).update(world=world, declared=declared, talk=talk, root=world.root, state=world.state)
    return call
