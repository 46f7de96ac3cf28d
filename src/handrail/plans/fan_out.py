"""A fan-out: one operation over many targets, in waves, as one value with one digest. Pure.

Rules:
- Each target keeps a plan of its own, with its own facts, budget and guards: a child.
- The digest covers every child's digest, the waves and the bounds: one approval is over all of it.
- Its verdict is the strictest of the children's, its risk the worst: one target that is refused
  refuses all, until it is mended or left out.
- `plan` stands for all of them wherever a plan is shown, approved or waited for.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from handrail.operations.model import Waves
from handrail.plans.canonical import encode, plain, sha256
from handrail.plans.effect import Effect, worst_first
from handrail.plans.model import RISKS, Consequence, Decision, Plan, Verdict
from handrail.plans.walk import Bounds, Lane, Walk, WalkStep, Wave

FORMAT = 1
KIND = "fan-out"
ACT = "run"
KIT_ACT = "kit"
_VERDICTS = ("allow", "require", "refuse")


@dataclass(frozen=True)
class Child:
    """One target of a fan-out, and the digest of its plan.

    Attributes:
        groups: what the target is counted under: `{site: berlin}`.
        undo: whether it can be undone.
    """

    target: str
    digest: str
    verdict: Verdict
    risk: str
    groups: Mapping[str, str]
    undo: bool = True


@dataclass(frozen=True)
class Total:
    """What the plans of several targets do alike, added up; `rows` None where one has no number."""

    verb: str
    kind: str
    name: str
    rows: int | None
    targets: int


@dataclass(frozen=True)
class Said:
    """What one guard says of several targets alike."""

    decision: Decision
    targets: tuple[str, ...]


@dataclass(frozen=True)
class FanOut:
    """One operation over many targets.

    Attributes:
        digest: what is approved.
        plan: stands for all: the worst of the children, under the digest and name of the fan-out.
        totals: effects, added up; the worst first.
        unknown: targets on which nobody knows what it would do.
        said: what stops it, target by target taken together; refusals first.
    """

    format: int
    digest: str
    plan: Plan
    children: tuple[Child, ...]
    waves: tuple[Wave, ...]
    bounds: Bounds
    totals: tuple[Total, ...]
    unknown: tuple[str, ...]
    said: tuple[Said, ...]

    @property
    def title(self) -> str:
        """What people call it, and type: `trim-sessions on 12 stores`."""
        return self.plan.target.resource.partition("/")[2]

    @property
    def verdict(self) -> Verdict:
        """The strictest of the children's."""
        return self.plan.verdict


def title_of(operation: str, count: int, kind: str = "store") -> str:
    """Return what people call a fan-out over so many targets of a kind."""
    return f"{operation} on {count} {kind}{'' if count == 1 else 's'}"


def waves_of(targets: Sequence[str], waves: Waves) -> tuple[Wave, ...]:
    """Return which targets go in which wave: those that go first, then in their order.

    A wave for which none is left is left out; after the last one nothing soaks.
    """
    ordered = list(dict.fromkeys((*waves.first, *targets)))
    found: list[Wave] = []
    for number, size in enumerate(waves.sizes):
        count = _count(size, len(targets))
        some, ordered = ordered[:count], ordered[count:]
        soak_s = waves.soak_s[min(number, len(waves.soak_s) - 1)]
        if some:
            found.append(Wave(_name(size, len(found)), tuple(some), soak_s))
    return (*found[:-1], replace(found[-1], soak_s=0)) if found else ()


def _count(size: str, total: int) -> int:
    if size == "all":
        return total
    if size.endswith("%"):
        # Of hundredths of a percent, so that 10 % of 30 are 3 and not 4.
        return math.ceil(round(float(size.rstrip("% ")) * 10_000) * total / 1_000_000)
    return int(size)


def _name(size: str, before: int) -> str:
    if size == "all":
        return "rest" if before else "all"
    return size if before else f"canary {size}"


def bounds_of(waves: Waves) -> Bounds:
    """Return how much may go at once, and how much may fail."""
    return Bounds(waves.at_once, waves.at_once_per, waves.failures, waves.failures_per, waves.then)


def digest_of(
    operation: str,
    parameters: Mapping[str, str],
    children: Sequence[Child],
    waves: Sequence[Wave],
    bounds: Bounds,
) -> str:
    """Return what an approver signs."""
    return sha256(
        encode(
            {
                "format": FORMAT,
                "kind": KIND,
                "operation": operation,
                "parameters": dict(parameters),
                "children": [[c.target, c.digest, dict(c.groups)] for c in children],
                "waves": plain(waves),
                "bounds": plain(bounds),
            }
        )
    )


def is_sound(fan_out: FanOut) -> bool:
    """Whether a recorded fan-out is the one of its digest."""
    request = fan_out.plan.request
    digest = digest_of(
        request.operation, request.parameters, fan_out.children, fan_out.waves, fan_out.bounds
    )
    return digest == fan_out.digest


def draft(
    plans: Sequence[Plan], groups: Sequence[Mapping[str, str]], waves: Waves, words: str
) -> FanOut:
    """Return the fan-out over judged plans of one operation, one a target; there is one at least.

    Args:
        plans: of the targets, in their order.
        groups: what each target is counted under.
        waves: as declared.
        words: how to ask for it again on a command line, after the verb.
    """
    first = plans[0].request
    undo = [all(step.undo != "irreversible" for step in plan.steps) for plan in plans]
    children = tuple(
        Child(plan.target.resource, plan.digest, plan.verdict, plan.risk, counted, can)
        for plan, counted, can in zip(plans, groups, undo, strict=True)
    )
    lined_up = waves_of([child.target for child in children], waves)
    bounds = bounds_of(waves)
    digest = digest_of(first.operation, first.parameters, children, lined_up, bounds)
    name = f"{KIND}/{title_of(first.operation, len(plans), children[0].target.partition('/')[0])}"
    said = _said(plans, name, digest, words)
    return FanOut(
        FORMAT,
        digest,
        _standing_for_all(plans, said, name, digest, words),
        children,
        lined_up,
        bounds,
        _totals(plans),
        tuple(plan.target.resource for plan in plans if plan.effects is None),
        tuple(one for one in said if one.decision.binding and one.decision.verdict != "allow"),
    )


def _standing_for_all(
    plans: Sequence[Plan], said: Sequence[Said], name: str, digest: str, words: str
) -> Plan:
    """Return the worst plan as the one that stands for all of them."""
    worst = max(plans, key=lambda p: (_VERDICTS.index(p.verdict), RISKS.index(p.risk)))
    riskiest = max(plans, key=lambda p: RISKS.index(p.risk))
    targets = [plan.target for plan in plans]
    return replace(
        worst,
        digest=digest,
        key="",
        request=replace(worst.request, target=name, words=words),
        target=replace(
            worst.target,
            resource=name,
            kind=KIND,
            production=any(target.production for target in targets),
            holds=tuple(dict.fromkeys(what for target in targets for what in target.holds)),
            declared_identity="",
        ),
        effects=None if any(p.effects is None for p in plans) else _as_effects(plans, name),
        budget=None,
        undo_budget=None,
        consequences=_consequences(plans),
        risk=riskiest.risk,
        risk_because=f"{riskiest.target.resource}: {riskiest.risk_because}",
        decisions=tuple(one.decision for one in said),
        facts=replace(
            worst.facts,
            # As new as the newest of them: where one of all is shown, it is this one.
            now=max(plan.facts.now for plan in plans),
            approvals=plans[0].facts.approvals,
        ),
    )


def _added(plans: Iterable[Plan]) -> Mapping[tuple[str, str, str], list[int | None]]:
    found: defaultdict[tuple[str, str, str], list[int | None]] = defaultdict(list)
    for plan in plans:
        for effect in plan.effects or ():
            found[effect.verb, effect.kind, effect.name].append(effect.rows)
    return found


def _sum(rows: Sequence[int | None]) -> int | None:
    return None if None in rows else sum(row or 0 for row in rows)


def _as_effects(plans: Sequence[Plan], name: str) -> tuple[Effect, ...]:
    return worst_first(Effect(name, *key, _sum(rows)) for key, rows in _added(plans).items())


def _totals(plans: Sequence[Plan]) -> tuple[Total, ...]:
    added = _added(plans)
    ordered = _as_effects(plans, KIND)
    return tuple(
        Total(e.verb, e.kind, e.name, e.rows, len(added[e.verb, e.kind, e.name])) for e in ordered
    )


def _consequences(plans: Sequence[Plan]) -> tuple[Consequence, ...]:
    """Return what the effects mean for every other resource, each once, the worst first."""
    found: dict[str, Consequence] = {}
    order = ("stops", "degraded", "affected")
    for plan in plans:
        for one in plan.consequences:
            known = found.get(one.resource)
            if known is None or order.index(one.outcome) < order.index(known.outcome):
                found[one.resource] = one
    return tuple(sorted(found.values(), key=lambda c: (order.index(c.outcome), not c.hard)))


def _said(plans: Sequence[Plan], name: str, digest: str, words: str) -> tuple[Said, ...]:
    """Return what the guards say, alike of several targets taken together, the strictest first."""
    found: dict[tuple[str, Verdict, bool, str], tuple[Decision, list[str]]] = {}
    for plan in plans:
        for one in plan.decisions:
            mended = _as_of_all(one, plan, name, digest, words)
            # The reasons of those that allow differ from target to target, and stop nobody.
            stops = one.binding and one.verdict != "allow"
            alike = mended.because.replace(plan.target.resource, "") if stops else ""
            key = (one.guard, one.verdict, one.binding, alike)
            found.setdefault(key, (mended, []))[1].append(plan.target.resource)
    weight = {verdict: -place for place, verdict in enumerate(_VERDICTS)}
    grouped = [Said(decision, tuple(targets)) for decision, targets in found.values()]
    return tuple(
        sorted(grouped, key=lambda s: (not s.decision.binding, weight[s.decision.verdict]))
    )


def _as_of_all(one: Decision, plan: Plan, name: str, digest: str, words: str) -> Decision:
    """Return a decision with the fan-out's digest, name and words in the place of a child's."""
    title = name.partition("/")[2]

    def mended(text: str) -> str:
        text = text.replace(plan.request.asked, words).replace(plan.target.resource, title)
        return text.replace(_short(plan.digest), _short(digest))

    because = one.because
    if one.guard in {"typed-name", "second-person", "rehearsed"}:
        because = mended(because)
    approves = one.remedy.startswith(("handrail approve", "handrail rehearse"))
    return replace(one, because=because, remedy=mended(one.remedy) if approves else one.remedy)


def _short(digest: str) -> str:
    return f"{digest[:4]}-{digest[4:8]}"


def walk_of(fan_out: FanOut, person: str) -> Walk:
    """Return the walk over all lanes that an engine goes.

    A step is a child run with its watch: it goes on by itself during the soak. What became of one
    that was cut off, the child's own records tell.
    """
    lanes = tuple(
        Lane(child.target, (_step(fan_out, child, person),), child.groups)
        for child in fan_out.children
    )
    title = fan_out.title
    return Walk(fan_out.digest, title, person, lanes, fan_out.waves, fan_out.bounds)


def _step(fan_out: FanOut, child: Child, person: str) -> WalkStep:
    if fan_out.plan.is_of_kit:
        body = {"approved": fan_out.digest, "plan": child.digest, "person": person}
        return WalkStep("run", KIT_ACT, body, recovery="check", undo=child.undo)
    body = {"fan_out": fan_out.digest, "plan": child.digest, "person": person}
    return WalkStep("run", ACT, body, recovery="check", undo=child.undo)
