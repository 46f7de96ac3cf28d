"""What requests hold and answers give: the values that the API's description is made from.

Rules:
- A request's unknown keys are refused; its texts have bounds.
- Plans, approvals and outcomes are the core's own values, as the journal has them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from handrail.core.holding import Held, Release
from handrail.core.lessons import Lesson
from handrail.plans.fan_out import FanOut
from handrail.plans.model import Approval, Plan
from handrail.ports import Record

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Words = Annotated[str, msgspec.Meta(max_length=2000)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=500)]
Position = Annotated[int, msgspec.Meta(ge=0, le=10**15)]


class _Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a request holds."""


class Wanted(_Given, frozen=True):
    """An operation on a target, or on `all` of them `without` some; or the digest of a plan.

    `kit`: whose operation is meant; one of the team's own of the same name is refused.
    """

    operation: Name
    on: Name | None = None
    parameters: dict[Annotated[str, msgspec.Meta(max_length=100)], Words] = {}
    because: Words = ""
    without: Annotated[tuple[Name, ...], msgspec.Meta(max_length=1000)] = ()
    kit: Annotated[str, msgspec.Meta(max_length=100)] = ""


class WantedPlan(Wanted, frozen=True):
    """What is to be planned; `alternative`: what the contraindication says is safe instead."""

    alternative: bool = False


class Because(_Given, frozen=True):
    """What an approver says: why; at risk critical the target's name; how long it stands."""

    because: Words = ""
    name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    standing_s: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0


class Signed(_Given, frozen=True):
    """An approval as it was prepared, with its signature."""

    approval: Approval


class Verdict(_Given, frozen=True):
    """Whether a held statement may begin, and why."""

    allow: bool
    because: Words = ""


class SignedRelease(_Given, frozen=True):
    """A release as it was prepared, with its signature."""

    release: Release


class Choice(_Given, frozen=True):
    """What is done: empty to go on, `undo`, or `accept` what is there.

    Of many targets also `rerun` what failed, or `leave` it as it stands; `on` names one of them.
    """

    choice: Annotated[str, msgspec.Meta(pattern="^(|undo|accept|rerun|leave)$")] = ""
    on: Name | None = None


class Undoing(_Given, frozen=True):
    """Whether to go back although others wrote since."""

    lose_newer: bool = False


class Stopping(_Given, frozen=True):
    """What is done with what the script did until now: `undo` it, or leave it (`stop`)."""

    then: Annotated[str, msgspec.Meta(pattern="^(undo|stop)$")] = "stop"


class Pausing(_Given, frozen=True):
    """Why schedules begin nothing, and for how long; 0 until they are resumed."""

    because: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    for_s: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0


class NewToken(_Given, frozen=True):
    """Whom a token is for."""

    person: Name
    role: Name
    team: Annotated[str, msgspec.Meta(max_length=200)] = ""
    lasts_s: Annotated[int, msgspec.Meta(ge=60, le=366 * 86400)] = 30 * 86400


class Page(_Given, frozen=True):
    """Which part of a list: so many, from the newest or before a number; also each of a walk."""

    limit: Limit = 20
    before: Annotated[int, msgspec.Meta(ge=1, le=10**15)] = 10**15
    children: bool = False


class Newest(_Given, frozen=True):
    """How many of a list, from the newest."""

    limit: Limit = 20


class After(_Given, frozen=True):
    """Which part of a record: so many behind a sequence number."""

    after: Position = 0
    limit: Limit = 200


class Judged(msgspec.Struct, frozen=True):
    """A plan with its verdict, what comes next, and, over many targets, each of them."""

    format: int
    verdict: str
    next: str
    plan: Plan
    fan_out: FanOut | None = None


class PlanLine(msgspec.Struct, frozen=True):
    """A plan in one line."""

    digest: str
    operation: str
    target: str
    person: str
    risk: str
    verdict: str
    made_at: str


class PlanLines(msgspec.Struct, frozen=True):
    """Plans, the newest first."""

    plans: tuple[PlanLine, ...]


class RunLine(msgspec.Struct, frozen=True):
    """A run in one line."""

    run: int
    began: str
    operation: str
    target: str
    person: str
    outcome: str


class RunLines(msgspec.Struct, frozen=True):
    """Runs, the newest first, at least how many there are, and where the next page begins."""

    runs: tuple[RunLine, ...]
    total: int
    before: int | None


class RecordLine(msgspec.Struct, frozen=True):
    """One record of a run, as the journal has it."""

    sequence: int
    time: str
    kind: str
    body: dict[str, Any]


class RecordLines(msgspec.Struct, frozen=True):
    """Records, the oldest first, and behind which sequence number the next page begins."""

    records: tuple[RecordLine, ...]
    after: int | None


class Marks(msgspec.Struct, frozen=True):
    """What the journal has of a walk: its records, whole."""

    records: tuple[Record, ...]


class ErrandState(msgspec.Struct, frozen=True):
    """A rehearsal, a run, a resume or an undo: `state` is `working`, `ended` or `lost`."""

    id: str
    kind: str
    person: str
    state: str
    run: int | None
    ended: dict[str, Any]


class Prepared(msgspec.Struct, frozen=True):
    """An approval to sign: `payload` are the bytes, as text."""

    approval: Approval
    payload: str


class Approved(msgspec.Struct, frozen=True):
    """An approval that was recorded; how many people are still lacking, and who of a group may."""

    approval: Approval
    lacking: int
    wanted: int
    may: tuple[str, ...]


class PreparedRelease(msgspec.Struct, frozen=True):
    """A release to sign: `payload` are the bytes, as text."""

    release: Release
    payload: str


class Released(msgspec.Struct, frozen=True):
    """A release that was recorded."""

    release: Release


class HeldLines(msgspec.Struct, frozen=True):
    """Statements that wait, the oldest first."""

    held: tuple[Held, ...]


class TokenLine(msgspec.Struct, frozen=True):
    """What is known of a token; never the token itself."""

    id: str
    person: str
    role: str
    team: str
    made_at: str
    expires_at: str
    made_by: str
    revoked_at: str
    used_at: str


class TokenLines(msgspec.Struct, frozen=True):
    """Tokens, the oldest first."""

    tokens: tuple[TokenLine, ...]


class MadeToken(msgspec.Struct, frozen=True):
    """A new token: `secret` is shown this once."""

    token: TokenLine
    secret: str


class Person(msgspec.Struct, frozen=True):
    """Who asks, as the server sees it, and the bounds that screens show."""

    person: str
    role: str
    team: str
    expires_at: str
    undo_age_s: int
    rehearsal_age_s: int


class Survey(msgspec.Struct, frozen=True):
    """Where things stand."""

    operations: tuple[str, ...]
    resources: int
    waiting: tuple[dict[str, Any], ...]
    unfinished: tuple[RunLine, ...]
    runs: tuple[RunLine, ...]
    walks: tuple[dict[str, Any], ...]
    held: tuple[Held, ...]
    glass: tuple[dict[str, Any], ...]
    questions: tuple[dict[str, Any], ...]
    schedules: tuple[dict[str, str], ...]
    leftover_clones: tuple[str, ...]


class Checked(msgspec.Struct, frozen=True):
    """What is wrong with the declarations."""

    resources: int
    operations: int
    errors: tuple[dict[str, Any], ...]
    warnings: tuple[dict[str, Any], ...]
    contraindications: tuple[Lesson, ...] = ()


class Verified(msgspec.Struct, frozen=True):
    """Whether the journal is as it was written."""

    records: int
    head: str
    problems: tuple[str, ...]


class ScheduleLine(msgspec.Struct, frozen=True):
    """Where one schedule stands; times are ISO 8601 UTC."""

    operation: str
    name: str
    cron: str
    zone: str
    expects: bool
    target: str
    next_at: str | None
    last_time: str
    last: str
    run: int
    why: str
    paused: dict[str, Any]
    expected_by: str | None
    since: str | None
    succeeded: bool
    overdue: bool


class BackupLine(msgspec.Struct, frozen=True):
    """Where the backups of one store stand; times are ISO 8601 UTC, or empty."""

    store: str
    every_s: int
    keep: int
    prove_s: int
    next_at: str | None
    last: str
    last_time: str
    why: str
    made_at: str
    backup: str
    proven_at: str
    due_by: str | None
    overdue: bool


class ScheduleLines(msgspec.Struct, frozen=True):
    """Schedules, in the order of their operations, and the backups of stores."""

    schedules: tuple[ScheduleLine, ...]
    backups: tuple[BackupLine, ...]


class Paused(msgspec.Struct, frozen=True):
    """An operation whose schedules were paused, and until when; or resumed."""

    operation: str
    until: str | None
