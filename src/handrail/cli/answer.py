"""Answer what a run asks, from wherever you are; signed with an SSH key.

`handrail` alone shows what is asked. The first answer counts; the script goes on with it.

examples:
  handrail answer 412                       show what run 412 asks
  handrail answer 412 size 3
  handrail answer 412 size --refuse --because "not today"
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.core.asking import Answer, Asked


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("run", type=int, metavar="RUN", help="number of the run")
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="of the question")
    parser.add_argument("value", nargs="?", metavar="VALUE", help="what you answer")
    parser.add_argument("--refuse", action="store_true", help="there will be no answer")
    parser.add_argument("--key", metavar="FILE", help="SSH key to sign with")
    parser.add_argument("--because", default="", metavar="TEXT", help="why, for the record")


def run(call: Call) -> int:
    """Answer, or show what is asked."""
    from handrail.cli.approve import key_of
    from handrail.core import asking

    options = call.options
    if not options.name:
        found = [one for one in asking.open_questions(call.world) if one.run == options.run]
        return show(call, found)
    insist(call)
    said = asking.answer(
        call.world,
        call.declared,
        options.run,
        options.name,
        options.value or "",
        lambda: key_of(call),
        refused=options.refuse,
        because=options.because,
    )
    return tell(call, said)


def insist(call: Call) -> None:
    """Raise unless the options are a value, or a refusal.

    Raises:
        UsageError: they are neither, or both.
    """
    options = call.options
    if (options.value is None) != options.refuse:
        hint = f"handrail answer {options.run} {options.name} VALUE, or --refuse"
        raise UsageError("usage", "an answer is a value, or --refuse", hint=hint)


def show(call: Call, found: list[Asked]) -> int:
    """Write what a run asks."""
    from handrail.cli import screen

    if call.options.json:
        from handrail.plans.canonical import plain

        screen.write_json({"format": 1, "questions": plain(found)})
        return 0
    lines = [line for asked in found for line in _lines(asked)]
    screen.write("\n".join(lines) or f"run {call.options.run} asks nothing now.")
    return 0


def _lines(asked: Asked) -> list[str]:
    from handrail.cli.screen import wrap
    from handrail.operations.questions import wanted

    question, until = asked.question, asked.expires_at[:16].replace("T", " ")
    who = f", by one of `{question.by}`" if question.by else ""
    lines = [wrap(f"{question.name}: {question.text}", "  ")]
    if asked.note:
        lines.append("  it says: " + wrap(asked.note, " " * 11))
    lines.append("  " + wrap(f"{wanted(question)}{who}, until {until} UTC", "  "))
    return [*lines, f"  handrail answer {asked.run} {question.name} ..."]


def tell(call: Call, said: Answer) -> int:
    """Write what was answered."""
    from handrail.cli import screen

    if call.options.json:
        from handrail.plans.canonical import plain

        screen.write_json({"format": 1, "answer": plain(said)})
        return 0
    done = "refused" if said.refused else f"answered with {said.value}"
    screen.write(f"{said.name} of run {said.run} is {done}, says {said.person}.")
    return 0
