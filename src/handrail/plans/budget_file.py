"""A budget in a file: what somebody allows a command, or what one was seen to do.

Rules:
- The format has a number; what is not in the file may not be done.
- What is written can be read again, and gives the same budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from handrail.errors import DeclarationError, DeclarationErrors, Place
from handrail.estate.shapes import (
    COUNT,
    REFERENCE,
    TEXT,
    Choice,
    Key,
    ListOf,
    Record,
    Source,
    parse,
)
from handrail.plans.canonical import encode
from handrail.plans.effect import VERBS, Effect
from handrail.plans.model import Allowance, Budget

FORMAT = 1
_HEAD = f"""\
# The most that a command may do: handrail guard --budget THIS-FILE -- COMMAND
format: {FORMAT}
"""


@dataclass(frozen=True)
class BudgetFile:
    """A budget, and the templates of statements that may take effect as they run."""

    budget: Budget
    unheld: tuple[str, ...] = ()


def _allowed(*, place: Place, **values: Any) -> tuple[Place, Mapping[str, Any]]:
    return place, values


_ALLOWED = Record(
    _allowed,
    {
        "verb": Key(Choice(*(v for v in VERBS if v != "unknown")), "what it may do", required=True),
        "kind": Key(TEXT, "the noun: `table`, `key`, `file`, `column` ...", required=True),
        "name": Key(TEXT, "the object's name, as the report spells it", required=True),
        "rows": Key(COUNT, "the most rows, keys or files; left out: any number"),
        "tolerance": Key(COUNT, "how many more", default=0),
        "store": Key(REFERENCE, "of which store; left out: of the only one", default=""),
    },
)


def _file(*, place: Place, format: str, **values: Any) -> tuple[Place, Mapping[str, Any]]:  # noqa: A002  the key's own name
    del format
    return place, values


FILE = Record(
    _file,
    {
        "format": Key(Choice(str(FORMAT)), "of this file", required=True),
        "allow": Key(ListOf(_ALLOWED), "what it may do; nothing else", required=True),
        "unheld": Key(ListOf(TEXT), "statements that may take effect as they run", default=()),
    },
)


def read(text: str, file: str, resources: tuple[str, ...]) -> BudgetFile:
    """Return the budget in `text`.

    Args:
        text: YAML or JSON.
        file: what it is called in errors.
        resources: the stores that it is for; an allowance that names none is for the only one.

    Raises:
        DeclarationErrors: with every problem, and its line.
    """
    source = Source(file)
    node = parse(text, source)
    found = FILE.read(node, source) if node is not None else None
    if node is None and not source.problems:
        source.problems.append(
            DeclarationError("estate.missing-key", "the file is empty", at=Place(file, 1))
        )
    allowances = []
    for place, values in found[1]["allow"] if found else ():
        resource, problem = _resource(values["store"], resources, place)
        source.problems += [problem] if problem else []
        noun = (values["verb"], values["kind"], values["name"], values["rows"])
        allowances.append(Allowance(resource, *noun, values["tolerance"]))
    if source.problems or found is None:
        raise DeclarationErrors(source.problems)
    return BudgetFile(Budget(tuple(allowances), "declaration"), found[1]["unheld"])


def _resource(
    said: str, resources: tuple[str, ...], place: Place
) -> tuple[str, DeclarationError | None]:
    if said in resources:
        return said, None
    if not said and len(resources) == 1:
        return resources[0], None
    what = f"`{said}` is not guarded here" if said else "which store is meant?"
    known = "write `store:` with one of " + ", ".join(resources)
    return said, DeclarationError("estate.unknown-store", what, at=place, hint=known)


def write(effects: Iterable[Effect], unheld: Iterable[str] = ()) -> str:
    """Return the text of a file that allows these effects and no more."""
    lines = [_HEAD + "allow:"]
    listed = [effect for effect in effects if effect.verb != "unknown"]
    for effect in listed:
        values = {"verb": effect.verb, "kind": effect.kind, "name": effect.name}
        rows = "" if effect.rows is None else f", rows: {effect.rows}"
        said = ", ".join(f"{key}: {encode(value)}" for key, value in values.items())
        lines.append(f"  - {{{said}{rows}, store: {effect.resource}}}")
    if not listed:
        lines[-1] += " []"
    statements = [f"  - {encode(statement)}" for statement in unheld]
    return "\n".join([*lines, *(["unheld:", *statements] if statements else [])]) + "\n"
