"""Print what may stand at the end of a command line, a line each: for the completion scripts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from handrail.errors import HandrailError

if TYPE_CHECKING:
    from handrail.cli.call import Call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("words", nargs="*", help="the command line so far, without `handrail`")


def run(call: Call) -> int:
    """Print the candidates; nothing where the declarations are broken."""
    words = call.options.words or [""]
    try:
        found = [word for word in _candidates(call, words) if word.startswith(words[-1])]
    except HandrailError:
        found = []
    if found:
        from handrail.cli import screen

        screen.write("\n".join(found))
    return 0


def _candidates(call: Call, words: list[str]) -> Iterable[str]:
    from handrail.cli.main import GROUPS

    if len(words) == 1:
        return [command for group in GROUPS.values() for command in group]
    if words[0] in _KINDS:
        return _of_verb(call, words)
    if words[0] == "adopt":
        return [one.ref for one in call.declared.estate.of_kinds(("store", "platform"))]
    if words[-2] in {"--on", "--store"}:
        many = ["all"] if words[0] in {"plan", "rehearse", "run"} else []
        return [*sorted(call.declared.estate.stores), *many]
    if words[0] == "runs" and len(words) == 2:  # noqa: PLR2004  `runs` and the word to complete
        return ["show"]
    return [word for kind in _AFTER.get(words[0], ()) for word in kind(call)]


def _of_verb(call: Call, words: list[str]) -> list[str]:
    """Return what may follow a verb of the deploys kit: its targets, or what they are found on."""
    kinds = _KINDS[words[0]]
    if words[-2] == "--on" or (words[0] == "deploy" and words[-2] == "--from"):
        return [one.ref for one in call.declared.estate.of_kinds(("group", "platform"))]
    if words[-2].startswith("--") and words[-2] not in _FLAGS:
        return []
    names = [one.name for one in call.declared.estate.of_kinds(kinds)]
    refs = [one.ref for one in call.declared.estate.of_kinds(kinds)]
    is_first = words[0] == "deploy" and len(words) == 2  # noqa: PLR2004  the word after it
    more = ["status", "history", "rollback", "import"] if is_first else []
    return [*(names if words[0] in {"deploy", "restart"} else ()), *refs, *more]


def _plans(call: Call) -> list[str]:
    from handrail.core import records

    return [records.short(plan.digest) for plan in records.plans(call.world.journal)]


def _runs(call: Call) -> list[str]:
    from handrail.core import records

    journal = call.world.journal
    return [str(number) for number in sorted({*records.runs(journal), *records.walks(journal)})]


def _held(call: Call) -> list[str]:
    from handrail.core import holding

    return [held.id for held in holding.standing(call.world)]


def _approvals(call: Call) -> list[str]:
    from handrail.core import withdrawing

    return [approval.id for _, approval in withdrawing.living(call.world)]


def _unreviewed(call: Call) -> list[str]:
    from handrail.core import breaking

    return [one.glass.id for one in breaking.breaks(call.world) if one.review is None]


def _asking(call: Call) -> list[str]:
    """Return runs that ask something, and what they ask."""
    from handrail.core import asking

    found = asking.open_questions(call.world)
    return [word for one in found for word in (str(one.run), one.question.name)]


def _operations(call: Call) -> list[str]:
    return sorted(call.declared.operations)


# Kinds of what a verb is for, and its options without a value.
_KINDS: dict[str, tuple[str, ...]] = {
    "deploy": ("app",),
    "restart": ("app",),
    "scale": ("app", "group"),
    "drain": ("node",),
    "detach": ("node",),
    "terminate": ("node",),
}
_FLAGS = frozenset({"--plan", "--all", "--alternative", "--replace", "--no-replace", "--json"})
# What may follow a command.
_AFTER: dict[str, tuple[Callable[[Call], list[str]], ...]] = {
    "plan": (_operations,),
    "rehearse": (_operations,),
    "run": (_operations, _plans),
    "approve": (_plans,),
    "withdraw": (_approvals, _plans),
    "review": (_unreviewed,),
    "answer": (_asking,),
    "release": (_held,),
    "resume": (_runs,),
    "undo": (_runs,),
    "explain": (_runs, _plans),
    "runs": (_runs,),
    "log": (lambda _: ["verify", "export", "import"],),
    "schema": (lambda _: ["estate", "operation", "policy"],),
}
