"""A plan and what it is made of: frozen values that are written to the journal as they are.

Rules:
- A plan fixes everything later stages need; nothing is looked up again that stands here.
- No value here holds a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from handrail.plans.effect import Effect
from handrail.plans.facts import Identity, Measure

RISKS = ("none", "low", "high", "critical")
Verdict = Literal["allow", "require", "refuse"]
KIT = "kit"


@dataclass(frozen=True)
class Request:
    """What somebody asked for.

    Attributes:
        words: how to ask for it again on a command line, after the verb; without secrets.
    """

    operation: str
    target: str
    parameters: Mapping[str, str]
    person: str
    because: str = ""
    words: str = ""

    @property
    def asked(self) -> str:
        """How to ask for it again; the operation's name where nobody noted the words."""
        return self.words or self.operation


@dataclass(frozen=True)
class Material:
    """What will run: one digest over every file of the operation, and the files with theirs."""

    digest: str
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Allowance:
    """The most of one effect: `rows` as rehearsed, and how many more growth may add."""

    resource: str
    verb: str
    kind: str
    name: str
    rows: int | None
    tolerance: int = 0


@dataclass(frozen=True)
class Budget:
    """The most that a run may do. What is not in it may not be done at all."""

    allowances: tuple[Allowance, ...]
    source: Literal["rehearsal", "declaration"]


@dataclass(frozen=True)
class Breach:
    """An effect beyond the budget: what was allowed, None when nothing was."""

    effect: Effect
    allowed: Allowance | None


@dataclass(frozen=True)
class Proof:
    """A backup that was restored: when, how long that took, and whether the content was equal."""

    backup: str
    made_at: str
    proven_at: str
    size_bytes: int
    backup_s: float
    restore_s: float
    equal: bool


@dataclass(frozen=True)
class Rehearsal:
    """The script, run on a clone.

    Attributes:
        id: of its chain in the journal.
        key: digest of what was rehearsed: material, arguments, parameters, target, undo.
        exit_code: the script's.
        residue: what its undo left different, as nouns.
        undone: whether the undo ran and ended well.
        reached: what the script tried to reach besides its store.
        unlisted: files of the repository that it read and that the plan does not cover.
        confined: empty, or why the script could not be kept away from the real world.
        traced: empty, or why `reached` may be incomplete.
        measure: the store's content when it was rehearsed.
        how: how a guard held its effects, and will hold those of the run; empty without one.
        counted: the rows as that guard counted them: the run will be held to the same count.
        undo_counted: the same of the undo script.
        trace: templates of the statements that it ran.
        unheld: of these, what took effect as it ran, and can only be undone.
        undo_trace: templates of the statements of the undo script.
        undo_unheld: of these, what took effect as it ran.
        role: as whom it ran: `own`, or `limited` to what the budget needs.
        role_because: why not as a limited role, where that was tried; else empty.
        answers: what it asked, and was answered there: question and value.
    """

    id: str
    key: str
    made_at: str
    person: str
    exit_code: int
    ended: str
    duration_s: float
    output_bytes: int
    effects: tuple[Effect, ...]
    undone: bool
    undo_s: float
    undo_effects: tuple[Effect, ...]
    residue: tuple[str, ...]
    reached: tuple[str, ...]
    unlisted: tuple[str, ...]
    confined: str
    traced: str
    measure: Measure
    proof: Proof
    how: str = ""
    counted: tuple[Effect, ...] = ()
    undo_counted: tuple[Effect, ...] = ()
    trace: tuple[str, ...] = ()
    unheld: tuple[str, ...] = ()
    undo_trace: tuple[str, ...] = ()
    undo_unheld: tuple[str, ...] = ()
    role: str = "own"
    role_because: str = ""
    answers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Bounds:
    """What an approval that stands for more than one run is for, and within what.

    Attributes:
        operation: it is for this one, on this target with these parameters, and no other: up to
            `endpoint`. What follows is what it stays within.
        declared: digest of what is declared of the operation, as in `Plan.declared`.
        undo: how the step is undone, for people; `declared` covers it.
        how: how a guard held its effects.
        unheld: statements that took effect as they ran.
    """

    operation: str
    target: str
    parameters: Mapping[str, str]
    identity: str
    endpoint: str
    material: str
    declared: str
    undo: str
    risk: str
    budget: Budget
    undo_budget: Budget | None = None
    how: str = ""
    unheld: tuple[str, ...] = ()


@dataclass(frozen=True)
class Approval:
    """Another person's signature over a digest.

    Attributes:
        bounds: of one that stands for every plan inside them; None for one that counts once.
    """

    id: str
    digest: str
    person: str
    groups: tuple[str, ...]
    made_at: str
    expires_at: str
    named_target: bool
    because: str
    signature: str
    bounds: Bounds | None = None


@dataclass(frozen=True)
class BrokenGlass:
    """Somebody runs without waiting for people, and answers for it afterwards.

    Attributes:
        passes: guards that the policy lets it pass.
    """

    id: str
    person: str
    because: str
    made_at: str
    digest: str
    passes: tuple[str, ...]


@dataclass(frozen=True)
class Taught:
    """What became of plans that one contraindication spoke against.

    Attributes:
        key: of the contraindication.
        refused: how many plans it refused.
        passed: how many of them ran all the same, behind broken glass.
        heeded: how often its alternative was planned instead.
    """

    key: str
    refused: int = 0
    passed: int = 0
    heeded: int = 0

    @property
    def overridden(self) -> int:
        """How often its word was not the last one."""
        return self.passed + self.heeded


@dataclass(frozen=True)
class LastChange:
    """Who last changed the script, and who reviewed that."""

    commit: str
    author: str
    reviewers: tuple[str, ...]
    when: str


@dataclass(frozen=True)
class Facts:
    """Everything observed for one plan.

    Attributes:
        now: when, ISO 8601 UTC.
        identity: who the target says it is; None when it could not be read.
        measure: its content; None when it could not be read.
        unreadable: facts that could not be read, and why: a guard that needs one refuses.
        others: who else is connected to the target.
        cannot_restore: why the target could not be restored; empty when it could.
        avoidable: why a script could go round the guard on this machine; empty when it could not,
            or nobody has rehearsed it yet.
        holder: the live process that holds the target.
        unfinished: runs on the target that were cut off.
        commit: the last commit that touched what the plan is made of; empty when there is none.
        uncommitted: files of the plan that differ from that commit.
        change: the last change of the script.
        rehearsal: the newest one of this very plan.
        proof: the newest proven backup of the target.
        approvals: those over this plan's digest that verify, are not expired, not used; and those
            that stand for every plan such as this one.
        glass: broken for this very plan; None where it was not.
        taught: what became of plans before this one that a contraindication spoke against.
    """

    now: str
    identity: Identity | None = None
    measure: Measure | None = None
    unreadable: tuple[tuple[str, str], ...] = ()
    others: tuple[str, ...] = ()
    cannot_restore: str = ""
    avoidable: str = ""
    holder: str = ""
    unfinished: tuple[int, ...] = ()
    commit: str = ""
    uncommitted: tuple[str, ...] = ()
    change: LastChange | None = None
    rehearsal: Rehearsal | None = None
    proof: Proof | None = None
    approvals: tuple[Approval, ...] = ()
    glass: BrokenGlass | None = None
    taught: tuple[Taught, ...] = ()


@dataclass(frozen=True)
class Consequence:
    """What the effects mean for another resource, with the path that leads there."""

    resource: str
    outcome: str  # `stops`, `degraded` or `affected`
    path: tuple[str, ...]
    hard: bool = True


@dataclass(frozen=True)
class Decision:
    """One guard's word.

    Attributes:
        guard: its name.
        verdict: `allow`; `require`: somebody must act first; `refuse`.
        because: the fact, in one clause.
        declared: where the rule or the thing judged is declared, `file:line`; may be empty.
        remedy: what to do instead, usually a command.
        binding: whether the policy lets this guard stop a plan of this risk.
    """

    guard: str
    verdict: Verdict
    because: str
    declared: str = ""
    remedy: str = ""
    binding: bool = True


@dataclass(frozen=True)
class Target:
    """The resource as it was when the plan was made.

    Attributes:
        seems_real: why its content looks like real data, whatever was declared; else empty.
        parts: the stores that it is made of; empty where it is one.
        touches: resources besides it that the operation touches itself, such as the services on a
            node that is drained.
        platform: for an operation of a kit, who says who it is in its place.
    """

    resource: str
    kind: str
    environment: str
    production: bool
    durability: str
    holds: tuple[str, ...]
    declared_identity: str
    declared_at: str
    seems_real: str = ""
    parts: tuple[str, ...] = ()
    touches: tuple[str, ...] = ()
    platform: str = ""

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores that it is made of, or itself."""
        return self.parts or (self.resource,)

    @property
    def is_real(self) -> bool:
        """Whether it holds real data, by what is declared or by what is there."""
        real = {"production-data", "personal-data"} & set(self.holds)
        return self.production or bool(real) or bool(self.seems_real)


@dataclass(frozen=True)
class Step:
    """The smallest journalled act: here, one script on one target."""

    id: str
    target: str
    argv: tuple[str, ...]
    function: str
    undo: str
    undo_argv: tuple[str, ...]
    timeout_s: int


@dataclass(frozen=True)
class Section:
    """Lines of a plan under one word, for people: `spec`, `dry run`, `commits`."""

    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What will be done, to what, with what result, and what every guard says.

    Attributes:
        declared: digest of what is declared of the operation and may change without its script:
            arguments, undo, timeout, variables, checks; empty in records from before there was one.
        body: of an operation of a kit, what doing it needs, as the kit drafted it.
        undo_said: of the same, what its undo will do, in one sentence.
        said: of the same, what the kit itself refuses or requires.
        sections: of the same, what people read besides; the digest does not cover them.
    """

    format: int
    digest: str
    key: str
    request: Request
    summary: str
    declared_at: str
    target: Target
    material: Material
    steps: tuple[Step, ...]
    effects: tuple[Effect, ...] | None
    effects_from: str  # `rehearsal`, `declaration`, `nothing`, or `kit`
    budget: Budget | None
    consequences: tuple[Consequence, ...]
    risk: str
    risk_because: str
    decisions: tuple[Decision, ...]
    facts: Facts
    watched: tuple[str, ...] = field(default=())
    soak_s: int = 0
    undo_budget: Budget | None = None
    declared: str = ""
    runs_on: str = ""  # the node, where it is not this machine
    body: Mapping[str, object] = field(default_factory=dict)
    undo_said: str = ""
    sections: tuple[Section, ...] = ()
    said: tuple[Decision, ...] = ()

    @property
    def shown(self) -> Plan:
        """The plan as it is shown: without what only doing it needs, which may be anything."""
        return replace(self, body={})

    @property
    def is_of_kit(self) -> bool:
        """Whether it is a kit that does it, and no script."""
        return self.effects_from == KIT

    @property
    def verdict(self) -> Verdict:
        """The strictest binding decision."""
        said = {decision.verdict for decision in self.decisions if decision.binding}
        return "refuse" if "refuse" in said else "require" if "require" in said else "allow"
