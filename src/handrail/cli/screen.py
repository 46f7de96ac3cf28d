"""What a person sees: plans, effects, decisions and runs as text. No decisions are made here.

Rules:
- Lines fit in 100 columns; numbers have separators and units; the worst comes first.
- Marks are words or ASCII; colour adds nothing that is not said.
- Whatever came from outside passes `sanitise`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

from handrail.errors import sanitise
from handrail.plans.amounts import duration, size
from handrail.plans.deeds import next_deeds
from handrail.plans.effect import Effect
from handrail.plans.model import Breach, Consequence, Decision, Plan, Section

WIDTH = 100
# The digest of an image or a file, as much of it as people compare; `--json` has all.
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
MARKS = {"allow": "ok", "require": ".", "refuse": "x"}
_MANY = 12
# What is left of a cell when everything else is too wide as well.
_LEAST = 12


def write(text: str) -> None:
    """Write to stdout, every line sanitised."""
    sys.stdout.write(sanitise(text, keep_lines=True).rstrip("\n") + "\n")


def write_json(value: object) -> None:
    """Write one JSON object to stdout; what would move a cursor is written as its JSON escape."""
    lines = json.dumps(value, ensure_ascii=False, indent=2).split("\n")
    sys.stdout.write("\n".join(map(_escaped, lines)) + "\n")


def _escaped(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def short(digest: str) -> str:
    """Return a digest as people type it: `7f3a-91c2`."""
    return f"{digest[:4]}-{digest[4:8]}"


def columns(
    rows: Iterable[Sequence[str]], indent: str = "  ", gap: str = "  ", right: Sequence[int] = ()
) -> list[str]:
    """Return rows as aligned lines; columns in `right` are right-aligned.

    Where that is too wide, the middle of the longest cells is left out.
    """
    listed = [[sanitise(cell) for cell in row] for row in rows]
    if not listed:
        return []
    widths = [max(len(row[i]) for row in listed) for i in range(len(listed[0]))]
    over = sum(widths) + len(indent) + len(gap) * (len(widths) - 1) - WIDTH
    while over > 0 and max(widths) > _LEAST:
        widths[widths.index(max(widths))] -= 1
        over -= 1
    lines = []
    for row in listed:
        cells = [
            shorten(cell, w).rjust(w) if i in right else shorten(cell, w).ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + gap.join(cells)).rstrip())
    return lines


def shorten(text: str, width: int) -> str:
    """Return `text` in at most `width` characters: its middle is left out."""
    if len(text) <= width:
        return text
    tail = (width - 2) // 2
    return f"{text[: width - 2 - tail]}..{text[len(text) - tail :]}"


def wrap(text: str, indent: str) -> str:
    """Return `text` in lines of at most `WIDTH`, the later ones indented.

    A word is never broken: somebody copies it. Line ends in `text` are made visible.
    """
    words, lines, line = sanitise(text).split(" "), [], ""
    for word in words:
        if line and len(indent) + len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    lines.append(line)
    return ("\n" + indent).join(lines)


def effect_lines(effects: Sequence[Effect]) -> list[str]:
    """Return one aligned line an effect, the worst first; long lists are cut with a count."""
    rows = [(e.verb, f"{e.kind} {e.name}", _amount(e), e.detail) for e in effects[:_MANY]]
    lines = columns(rows, right=(2,))
    if len(effects) > _MANY:
        lines.append(f"  and {len(effects) - _MANY} more: --json shows all")
    return lines


def _amount(effect: Effect) -> str:
    if effect.rows is None:
        return ""
    net = "" if effect.net is None or effect.net == effect.rows else f" ({effect.net:,} net)"
    return f"{effect.rows:,} rows{net}"


def breach_lines(breaches: Sequence[Breach]) -> list[str]:
    """Return one line a breach: what was done, and what the budget allows."""
    rows = []
    for breach in breaches[:_MANY]:
        allowed = breach.allowed
        said = (
            "not in rehearsal"
            if allowed is None
            else (f"budget {allowed.rows or 0:,}, tolerance {allowed.tolerance:,}")
        )
        effect = breach.effect
        rows.append((effect.verb, f"{effect.kind} {effect.name}", _amount(effect), said))
    return columns(rows, right=(2,))


def plan_lines(plan: Plan, *, with_next: bool = True) -> list[str]:
    """Return a plan on one screen: verdict, where, what, consequences, decisions, what is next."""
    if plan.is_of_kit and plan.effects == () and plan.verdict != "refuse":
        title = f"nothing to do: {plan.request.operation} on {plan.target.resource}"
        said = ["  " + wrap(plan.summary, "    "), "  nothing would change, and nothing is run"]
        return [titled(title, plan.risk), *said]
    head = {"refuse": "refused", "require": "waiting", "allow": "ready"}[plan.verdict]
    title = titled(f"{head}: {plan.request.operation} on {plan.target.resource}", plan.risk)
    if plan.verdict == "allow" and plan.risk in {"none", "low"}:
        return [title, f"  {shorten(sanitise(_what_short(plan)), WIDTH - 2)}", *next_lines(plan)]
    lines = [title, ""]
    lines += _where(plan)
    lines += _what(plan)
    lines += consequence_lines(plan)
    lines += ["", *decision_lines(plan.decisions)]
    return [*lines, "", *next_lines(plan)] if with_next else lines


def titled(title: str, risk: str) -> str:
    """Return a plan's first line, with its risk at the right."""
    text, said = sanitise(title), f"risk {risk}"
    if len(text) + 2 + len(said) > WIDTH:
        return wrap(f"{title}  {said}", "  ")
    return text + said.rjust(max(WIDTH - 10 - len(text), len(said) + 2))


def _where(plan: Plan) -> list[str]:
    facts = plan.facts
    identity = facts.identity
    indent = " " * 10
    if identity is None:
        why = "; ".join(f"{name}: {reason}" for name, reason in facts.unreadable)
        return ["  where   " + wrap(f"{plan.target.resource}, which cannot be read: {why}", indent)]
    adopted = ", the one that was adopted" if str(identity) == plan.target.declared_identity else ""
    first = f"{identity.version}, {identity.id.partition(':')[2]} at {identity.endpoint}{adopted}"
    lines = ["  where   " + wrap(first, indent)]
    if plan.is_of_kit:
        lines += _environment(plan, indent)
    if plan.runs_on:
        lines.append(indent + f"its script runs on {plan.runs_on}, and is not confined there")
    if facts.measure is not None:
        measure = facts.measure
        oldest = f", the oldest from {measure.oldest[:10]}" if measure.oldest else ""
        environment = (
            f"; declared as environment `{plan.target.environment}`"
            if plan.target.environment
            else ""
        )
        lines.append(
            indent
            + wrap(
                f"{measure.rows:,} rows in {len(measure.tables)} tables, "
                f"{size(measure.size_bytes)}{oldest}{environment}",
                indent,
            )
        )
    if facts.proof is not None and facts.proof.equal:
        proven = ago(facts.proof.proven_at, facts.now)
        lines.append(
            f"{indent}last proven backup {proven}: restored in {duration(facts.proof.restore_s)}"
        )
    if facts.others:
        some = ", ".join(facts.others[:3])
        who = "1 other" if len(facts.others) == 1 else f"{len(facts.others)} others"
        lines.append(indent + wrap(f"{who} connected: {some}", indent))
    return lines


def _environment(plan: Plan, indent: str) -> list[str]:
    """Return which platform a kit acts on, and in which environment its target is declared."""
    environment = plan.target.environment
    real = plan.target.production and "prod" not in environment
    said = [f"{plan.target.platform}"] if plan.target.platform else []
    said += (
        [f"declared as environment `{environment}`{', which is production' if real else ''}"]
        if environment
        else []
    )
    return [indent + wrap("; ".join(said), indent)] if said else []


def _what_short(plan: Plan) -> str:
    if plan.effects is None:
        return "nobody has rehearsed it"
    if not plan.effects:
        return "it changed nothing in rehearsal"
    if plan.is_of_kit:
        return plan.summary
    return "; ".join(f"{e.verb} {e.kind} {e.name} {_amount(e)}".rstrip() for e in plan.effects[:3])


def _what(plan: Plan) -> list[str]:
    if plan.is_of_kit:
        return _drafted(plan)
    script = plan.steps[0].argv[0]
    version = f"{plan.material.digest[:7]}"
    change = plan.facts.change
    changed = f", changed {ago(change.when, plan.facts.now)} by {change.author}" if change else ""
    indent = " " * 10
    if plan.effects is None:
        text = f"unknown: {script} has not been rehearsed as it is now ({version}{changed})"
        return ["  what    " + wrap(text, indent), _risk(plan)]
    source = "measured in rehearsal" if plan.effects_from == "rehearsal" else "as declared"
    lines = ["  what    " + wrap(f"{script} ({version}{changed}), {source}", indent), _risk(plan)]
    lines.append("")
    return [*lines, *measured_lines(plan)]


def _drafted(plan: Plan) -> list[str]:
    """Return what a kit says that it would do: effects, its own sections, and the undo."""
    indent = " " * 10
    change = plan.facts.change
    lines = ["  what    " + wrap(plan.summary, indent)]
    if change is not None:
        seen = f", reviewed by {', '.join(change.reviewers)}" if change.reviewers else ""
        by = f"{change.commit[:7]} by {change.author}, {ago(change.when, plan.facts.now)}{seen}"
        lines.append("  commit  " + wrap(by, indent))
    lines += [_risk(plan), "  undo    " + wrap(plan.undo_said, indent), ""]
    return [*lines, *_drafted_effects(plan)]


def _drafted_effects(plan: Plan) -> list[str]:
    lines: list[str] = []
    if plan.effects:
        lines.append(f"{plan.request.operation} would, on {plan.target.resource}:")
        lines += columns([(e.verb, f"{e.kind} {e.name}", e.detail) for e in plan.effects])
    else:
        lines.append(f"{plan.request.operation} would change nothing on {plan.target.resource}.")
    for section in plan.sections:
        lines += _section(section)
    return lines


def _section(section: Section) -> list[str]:
    """Return what a kit says besides: on the title's own line where it is one, cut where many."""
    shown = [_DIGEST.sub(r"\1", line) for line in section.lines[:_MANY]]
    if len(section.lines) == 1:
        return [wrap(f"{section.title}: {shown[0]}", "  ")]
    lines = ["  " + wrap(line, "    ") for line in shown]
    more = len(section.lines) - _MANY
    tail = [f"  and {more:,} more: --json shows all"] if more > 0 else []
    return [f"{section.title}:", *lines, *tail]


def _risk(plan: Plan) -> str:
    return "  risk    " + wrap(f"{plan.risk}: {plan.risk_because}", " " * 10)


def _rehearsed(plan: Plan) -> list[str]:
    rehearsal = plan.facts.rehearsal
    if rehearsal is None:
        return []
    lines = []
    if rehearsal.answers:
        said = ", ".join(f"{name} with {value}" for name, value in rehearsal.answers)
        lines.append(wrap(f"it asked, and was answered there: {said}", "  "))
    if rehearsal.reached:
        lines.append(
            wrap(
                "also reached: "
                + ", ".join(f"{what} (not declared)" for what in rehearsal.reached[:6]),
                "  ",
            )
        )
    if rehearsal.traced:
        lines.append(wrap(f"what else it reaches is not known: {rehearsal.traced}", "  "))
    if rehearsal.confined:
        lines.append(wrap(f"it was not confined: {rehearsal.confined}", "  "))
    if rehearsal.residue:
        lines.append(wrap("its undo leaves different: " + ", ".join(rehearsal.residue[:6]), "  "))
    return lines


def consequence_lines(plan: Plan) -> list[str]:
    """Return what it means for others; empty when for nobody."""
    if not plan.consequences:
        return []
    rows = [(c.resource, c.outcome, _path(c)) for c in plan.consequences[:_MANY]]
    more = len(plan.consequences) - _MANY
    tail = [f"  and {more} more: --json shows all"] if more > 0 else []
    return ["and so:", *columns(rows), *tail]


def _path(consequence: Consequence) -> str:
    """Return what leads to a consequence: what it needs, or through whom."""
    between = consequence.path[1:-1]
    strength = "hard" if consequence.hard else "soft"
    if not between:
        return f"needs {consequence.path[0]} ({strength})"
    return f"through {', '.join(reversed(between))} ({strength})"


def decision_lines(decisions: Sequence[Decision]) -> list[str]:
    """Return a line for each decision that stops the plan, and one that names the rest."""
    stops = [d for d in decisions if d.binding and d.verdict != "allow"]
    width = max((len(d.guard) for d in stops), default=0)
    lines = []
    for decision in stops:
        head = f"  {MARKS[decision.verdict]:<2} {decision.guard:<{width}}  "
        lines += _with_place(head, decision.because, decision.declared)
    passed = ", ".join(d.guard for d in decisions if d.binding and d.verdict == "allow")
    if passed:
        lines.append("  ok " + wrap(passed, "     "))
    return lines


def _with_place(head: str, because: str, place: str) -> list[str]:
    """Return a decision with its place at the right edge: of its last line, or a line below."""
    lines = (head + wrap(because, " " * len(head))).split("\n")
    if not place:
        return lines
    place = shorten(sanitise(place), WIDTH)
    room = WIDTH - len(lines[-1]) - len(place)
    if room >= 3:  # noqa: PLR2004  what keeps two columns apart
        lines[-1] += " " * room + place
    else:
        lines.append(place.rjust(WIDTH))
    return lines


def next_lines(plan: Plan) -> list[str]:
    """Return what comes next, and what after that."""
    deeds = next_deeds(plan)
    lines = [wrap(f"next: {deeds[0]}", "      ")]
    return lines + [wrap(f"then: {deed}", "      ") for deed in deeds[1:]]


def ago(then: str, now: str) -> str:
    """Return `2 h ago` for a near time, else the date."""
    try:
        seconds = (datetime.fromisoformat(now) - datetime.fromisoformat(then)).total_seconds()
    except (ValueError, TypeError):
        return then
    if 0 <= seconds < 90:  # noqa: PLR2004  a minute and a half
        return "just now"
    if 0 <= seconds < 5400:  # noqa: PLR2004  an hour and a half
        return f"{seconds / 60:.0f} min ago"
    if 0 <= seconds < 172800:  # noqa: PLR2004  two days
        return f"{seconds / 3600:.0f} h ago"
    return f"on {then[:10]}"


def measured_lines(plan: Plan) -> list[str]:
    """Return what a plan would do, and what its rehearsal saw besides."""
    if plan.is_of_kit:
        return _drafted_effects(plan)
    operation, target = plan.request.operation, plan.target.resource
    if plan.effects is None:
        unknown = f"what {operation} would do on {target} is unknown: it has not been rehearsed."
        return [wrap(unknown, "  ")]
    failed = _failed(plan)
    if failed:
        done = ":" if plan.effects else " it had changed nothing."
        head = f"{operation} failed on a clone of {target}, {failed}; until then{done}"
    elif plan.effects:
        head = f"{operation} would, on {target}:"
    else:
        head = f"{operation} would change nothing on {target}."
    from handrail.cli import held

    return [
        wrap(head, "  "),
        *effect_lines(plan.effects),
        *held.plan_lines(plan),
        *_rehearsed(plan),
    ]


def _failed(plan: Plan) -> str:
    """Return how the script failed in rehearsal; empty when it ended well, or was not rehearsed."""
    rehearsal = plan.facts.rehearsal
    if rehearsal is None or (rehearsal.ended == "exited" and rehearsal.exit_code == 0):
        return ""
    return f"exit {rehearsal.exit_code}" if rehearsal.ended == "exited" else rehearsal.ended


def explanation_lines(decisions: Sequence[Decision]) -> list[str]:
    """Return every decision in full: verdict, fact, where it is declared, and what to do."""
    lines = []
    for decision in decisions:
        silent = "" if decision.binding else "   (does not bind at this risk)"
        lines.append(f"  {MARKS[decision.verdict]:<2} {decision.guard}: {decision.verdict}{silent}")
        lines.append("       because   " + wrap(decision.because, " " * 17))
        if decision.declared:
            lines.append("       declared  " + wrap(decision.declared, " " * 17))
        if decision.remedy and decision.verdict != "allow":
            lines.append("       remedy    " + wrap(decision.remedy, " " * 17))
    return lines
