"""The policy: at which risk each guard may stop a plan, and the bounds that guards judge by.

Rules:
- Without a `policy.yaml` the default holds, and the default is safe.
- Some guards bind at every risk and cannot be turned down: `identity`, `lock`, `second-person` at
  high and above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any, Literal

from handrail.errors import DeclarationError, DeclarationErrors, Place
from handrail.estate.loading import link_problem, read_text
from handrail.estate.shapes import (
    COUNT,
    DATE,
    DURATION,
    FLAG,
    PERCENT,
    TEXT,
    Choice,
    Either,
    Key,
    ListOf,
    MapOf,
    Record,
    Source,
    Text,
    parse,
    placed,
)
from handrail.plans.model import RISKS
from handrail.plans.roles import ROLES, Grant

FILE = "policy.yaml"
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

# The lowest risk at which each guard may stop a plan.
BINDING: Mapping[str, str] = {
    "identity": "none",
    "lock": "none",
    "environment": "low",
    "contraindication": "low",
    "production-data": "low",
    "freeze": "low",  # each freeze names its own risk
    "backup-proven": "high",
    "rehearsed": "high",
    "committed": "high",
    "review": "high",
    "irreversible": "high",
    "avoidable": "low",
    "unheld": "low",
    "privilege": "low",
    "second-person": "high",
    "typed-name": "critical",
}
# The highest risk at which a guard may begin to bind: a policy cannot turn these down further.
NEVER_ABOVE: Mapping[str, str] = {"identity": "none", "lock": "none", "second-person": "high"}


@dataclass(frozen=True)
class Freeze:
    """A time in which nothing of a risk or above may run.

    Attributes:
        risk: the lowest risk that is frozen.
        days: weekdays; empty for every day.
        start: time of day at which it begins.
        end: time of day at which it ends, of the next day when it is not after `start`; the end of
            the day when left out.
        first: first date, `YYYY-MM-DD`; empty for always.
        last: last date, included.
        zone: the time zone of all these, an IANA name; UTC when left out.
    """

    risk: str
    days: tuple[str, ...]
    start: str
    end: str
    first: str
    last: str
    zone: str
    because: str
    place: str

    def covers(self, moment: datetime) -> bool:
        """Whether `moment` (aware) is inside."""
        local = moment.astimezone(_zone(self.zone))
        clock, today = local.time().replace(tzinfo=None), local.date()
        begins, ends = _time(self.start), None if self.end in {"", "24:00"} else _time(self.end)
        if ends is None or begins < ends:
            return self._includes(today) and begins <= clock and (ends is None or clock < ends)
        # Over midnight: the evening of a day that is meant, or the morning after one.
        return (self._includes(today) and clock >= begins) or (
            self._includes(today - timedelta(days=1)) and clock < ends
        )

    def _includes(self, day: date) -> bool:
        if self.days and DAYS[day.weekday()] not in self.days:
            return False
        text = day.isoformat()
        return not ((self.first and text < self.first) or (self.last and text > self.last))


@dataclass(frozen=True)
class Guarding:
    """How a run's scripts are held.

    Attributes:
        avoidable: what is said of a script that could go round its guard on this machine:
            `allow`, `require` another person's approval, or `refuse`.
        divergence: what happens to the first statement that the rehearsal did not have: `report`
            it, `hold` it until another person lets it go on, or `refuse` it.
        hold_s: longest time that a statement is held while its session holds locks.
        unheld: what is said of a script with statements that take effect as they run: `allow` or
            `refuse`.
        role: as whom scripts run: the store's `own` role, one that is `limited` to what the budget
            needs, or `auto`: limited, where a second rehearsal shows that it does the same.
    """

    avoidable: str = "allow"
    divergence: Literal["report", "hold", "refuse"] = "report"
    hold_s: int = 30
    unheld: str = "allow"
    role: Literal["own", "limited", "auto"] = "own"


# What breaking the glass passes: guards that wait for people or for a date ...
USUALLY_PASSED = ("second-person", "typed-name", "review", "freeze", "avoidable")
# ... and, where a policy says so, what an incident taught; no other.
PASSABLE = (*USUALLY_PASSED, "contraindication")


@dataclass(frozen=True)
class Glass:
    """Who may break the glass, and what that passes.

    Attributes:
        allowed: whether anybody may at all.
        by: group whose members may; empty for anybody who is known.
        passes: guards that are passed, of `PASSABLE`; of `avoidable` its `require` alone.
        blocks: whom it keeps from breaking it again until it is reviewed: the whole `team`, or the
            `person` who did.
        reviewed_by: group whose members review it; empty for anybody else in `allowed_signers`.
    """

    allowed: bool = True
    by: str = ""
    passes: tuple[str, ...] = USUALLY_PASSED
    blocks: Literal["team", "person"] = "team"
    reviewed_by: str = ""


@dataclass(frozen=True)
class Policy:
    """What a team asks of a plan.

    Attributes:
        binding: guard to the lowest risk at which it may stop a plan.
        where: guard to the place that says so; absent for the default.
        rehearsal_age_s: how long a rehearsal and its budget count.
        drift: how far the row count of a touched table may have moved since, as a fraction ...
        drift_rows: ... or in rows; the larger counts.
        tolerance: growth that a budget allows, as a fraction ...
        tolerance_rows: ... or in rows; the larger counts.
        confine: `prefer` or `require`: whether a rehearsal must be confined.
        clones: directory in which clones live; empty for Handrail's own.
        clone_age_s: when a clone is destroyed at the latest.
        undo_age_s: how long a run can be undone: its backup is kept so long.
        data_age_s: how old data may be in an environment that says nothing.
        approval_age_s: how long an approval counts.
        approvers: groups that may approve, by risk; absent for anybody in `allowed_signers`.
        quorum: how many different people must, by risk; absent for one.
        standing_risk: the highest risk at which an approval may stand for more than one run.
        standing_age_s: how long one may stand.
        glass: who may break the glass.
        groups: group to the people in it.
        freezes: the calendar.
        guard: how a run's scripts are held.
        roles: what people may do through a server; empty where a token alone says it.
    """

    binding: Mapping[str, str] = field(default_factory=lambda: dict(BINDING))
    where: Mapping[str, str] = field(default_factory=dict)
    rehearsal_age_s: int = 86400
    drift: float = 0.01
    drift_rows: int = 100
    tolerance: float = 0.01
    tolerance_rows: int = 2
    confine: str = "prefer"
    clones: str = ""
    clone_age_s: int = 4 * 3600
    undo_age_s: int = 86400
    data_age_s: int = 30 * 86400
    approval_age_s: int = 4 * 3600
    approvers: Mapping[str, str] = field(default_factory=dict)
    quorum: Mapping[str, int] = field(default_factory=dict)
    standing_risk: str = "high"
    standing_age_s: int = 30 * 86400
    glass: Glass = field(default_factory=Glass)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    freezes: tuple[Freeze, ...] = ()
    guard: Guarding = field(default_factory=Guarding)
    roles: tuple[Grant, ...] = ()
    file: str = ""

    def binds(self, guard: str, risk: str) -> bool:
        """Whether `guard` may stop a plan of `risk`."""
        return RISKS.index(risk) >= RISKS.index(self.binding.get(guard, "none"))

    def declared(self, guard: str) -> str:
        """Where the rule of `guard` stands."""
        return self.where.get(guard, self.file or "default policy")


def _freeze(
    *,
    place: Place,
    risk: str,
    days: tuple[str, ...],
    start: str,
    end: str,
    first: str,
    last: str,
    zone: str,
    because: str,
) -> Freeze:
    return Freeze(risk, days, start, end, first, last, zone, because, str(place))


_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]"
_START = Text(_CLOCK, "a time such as `15:00`")
_END = Text(f"{_CLOCK}|24:00", "a time such as `15:00`")
_RISK = Choice(*RISKS)

_REHEARSAL = Record(
    dict,
    {
        "max-age": Key(DURATION, "how long it counts", default=86400),
        "drift": Key(PERCENT, "how far a touched table's rows may have moved", default=0.01),
        "drift-rows": Key(COUNT, "the same in rows; the larger counts", default=100),
        "tolerance": Key(PERCENT, "growth that the budget allows", default=0.01),
        "tolerance-rows": Key(COUNT, "the same in rows; the larger counts", default=2),
        "confine": Key(
            Choice("prefer", "require"), "whether it must be confined", default="prefer"
        ),
        "clones": Key(TEXT, "directory in which clones live", default=""),
        "clone-deadline": Key(DURATION, "when a clone is destroyed at the latest", default=14400),
    },
)


def _quorum(*, place: Place, group: str, of: int) -> tuple[str, int]:
    del place
    return group, of


def _one_of(group: str) -> tuple[str, int]:
    return group, 1


_PEOPLE = Text(
    r"[1-9][0-9]?",
    "a number of people, from 1 to 99",
    convert=int,
    number={"type": "integer", "minimum": 1, "maximum": 99},
)
_BY = Either(
    Text(convert=_one_of),
    Record(
        _quorum,
        {
            "group": Key(
                TEXT, "who approves; anybody in allowed_signers when left out", default=""
            ),
            "of": Key(_PEOPLE, "how many different people must", default=1),
        },
    ),
)
_APPROVAL = Record(
    dict,
    {
        "max-age": Key(DURATION, "how long it counts", default=14400),
        "by": Key(
            MapOf(placed(_BY)),
            "risk to the group that approves it, or to `{group: dba, of: 2}`",
            default={},
        ),
        "standing": Key(
            Record(
                dict,
                {
                    "risk": Key(_RISK, "the highest risk at which one may stand", default="high"),
                    "max-age": Key(DURATION, "how long one may stand", default=30 * 86400),
                },
            ),
            "bounds of approvals that stand for more than one run",
        ),
    },
)
_GLASS = Record(
    dict,
    {
        "allowed": Key(FLAG, "whether anybody may break the glass", default=True),
        "by": Key(placed(TEXT), "group whose members may; anybody when left out"),
        "passes": Key(
            ListOf(Choice(*PASSABLE)),
            "guards that are passed; no other can be",
            default=USUALLY_PASSED,
        ),
        "blocks": Key(
            Choice("team", "person"), "whom it keeps from another until reviewed", default="team"
        ),
        "reviewed-by": Key(placed(TEXT), "group whose members review it; anybody else by default"),
    },
)


def _guarding(*, place: Place, hold: int, **rest: Any) -> Guarding:
    del place
    return Guarding(hold_s=hold, **rest)


_GUARD = Record(
    _guarding,
    {
        "avoidable": Key(
            Choice("allow", "require", "refuse"),
            "a script that could go round its guard on this machine",
            default="allow",
        ),
        "divergence": Key(
            Choice("report", "hold", "refuse"),
            "the first statement that the rehearsal did not have",
            default="report",
        ),
        "hold": Key(DURATION, "how long a statement is held at most", default=30),
        "unheld": Key(
            Choice("allow", "refuse"), "statements that take effect as they run", default="allow"
        ),
        "role": Key(
            Choice("own", "limited", "auto"),
            "as whom scripts run; `auto`: limited where that does the same",
            default="own",
        ),
    },
)


def _grant(*, place: Place, **said: Any) -> Grant:
    return Grant(place=str(place), **said)


_GRANT = Record(
    _grant,
    {
        "role": Key(Choice(*ROLES), "the most that is granted", required=True),
        "groups": Key(ListOf(TEXT), "groups that it is granted to; a team is one", default=()),
        "people": Key(ListOf(TEXT), "people besides them", default=()),
        "resources": Key(ListOf(TEXT), "patterns such as `store/pilot-*`", default=()),
        "environments": Key(ListOf(TEXT), "environments; every one when left out", default=()),
    },
)
POLICY = Record(
    dict,
    {
        "guards": Key(
            MapOf(placed(_RISK)), "guard to the lowest risk at which it may stop a plan", default={}
        ),
        "rehearsal": Key(_REHEARSAL, "bounds of rehearsals"),
        "approval": Key(_APPROVAL, "bounds of approvals"),
        "break-glass": Key(_GLASS, "running without waiting for people, in an emergency"),
        "guard": Key(_GUARD, "how scripts are held", default=Guarding()),
        "undo-for": Key(DURATION, "how long a run can be undone", default=86400),
        "data-age": Key(
            DURATION, "how old data may be where the environment does not say", default=30 * 86400
        ),
        "groups": Key(MapOf(ListOf(TEXT)), "groups of people, as in allowed_signers", default={}),
        "roles": Key(ListOf(_GRANT), "what people may do through a server", default=()),
        "freezes": Key(
            ListOf(
                Record(
                    _freeze,
                    {
                        "risk": Key(_RISK, "the lowest risk that is frozen", default="high"),
                        "days": Key(ListOf(Choice(*DAYS)), "weekdays", default=()),
                        "start": Key(_START, "when it begins, of the day", default=""),
                        "end": Key(_END, "when it ends, of the day", default=""),
                        "first": Key(DATE, "first date", default=""),
                        "last": Key(DATE, "last date", default=""),
                        "zone": Key(TEXT, "time zone, such as Europe/London", default="UTC"),
                        "because": Key(TEXT, "why", default=""),
                    },
                )
            ),
            "when nothing may run",
            default=(),
        ),
    },
)


def load(root: Path, guards: tuple[str, ...]) -> Policy:
    """Return the policy in `root/policy.yaml`, or the default when there is none.

    Args:
        root: the repository.
        guards: names of every registered guard.

    Raises:
        DeclarationErrors: with every problem.
    """
    path = root / FILE
    if (problem := link_problem(root, path)) is not None:
        raise DeclarationErrors([problem])
    if not path.exists():
        return Policy()
    source = Source(FILE)
    node = parse(read_text(root, FILE, source), source)
    found = POLICY.read(node, source) if node is not None else None
    problems = source.problems
    if found is not None:
        problems += _policy_errors(found, guards)
    if problems:
        raise DeclarationErrors(problems)
    return _policy(found) if found is not None else Policy(file=FILE)


def _policy(found: Mapping[str, Any]) -> Policy:
    said: Mapping[str, tuple[str, Place]] = found["guards"]
    rehearsal = found["rehearsal"] or {}
    approval = found["approval"] or {}
    standing = approval.get("standing") or {}
    by: Mapping[str, tuple[tuple[str, int], Place]] = approval.get("by", {})
    bounds = {
        "rehearsal_age_s": rehearsal.get("max_age"),
        "drift": rehearsal.get("drift"),
        "drift_rows": rehearsal.get("drift_rows"),
        "tolerance": rehearsal.get("tolerance"),
        "tolerance_rows": rehearsal.get("tolerance_rows"),
        "confine": rehearsal.get("confine"),
        "clone_age_s": rehearsal.get("clone_deadline"),
        "clones": rehearsal.get("clones"),
        "approval_age_s": approval.get("max_age"),
        "standing_risk": standing.get("risk"),
        "standing_age_s": standing.get("max_age"),
    }
    return Policy(
        binding={**BINDING, **{guard: risk for guard, (risk, _) in said.items()}},
        where={guard: str(place) for guard, (_, place) in said.items()},
        undo_age_s=found["undo_for"],
        data_age_s=found["data_age"],
        approvers={risk: group for risk, ((group, _), _) in by.items() if group},
        quorum={risk: of for risk, ((_, of), _) in by.items() if of > 1},
        glass=_glass(found["break_glass"]),
        groups=found["groups"],
        freezes=found["freezes"],
        roles=found["roles"],
        guard=found["guard"],
        file=FILE,
        **{name: value for name, value in bounds.items() if value is not None},
    )


def _glass(found: Mapping[str, Any] | None) -> Glass:
    if found is None:
        return Glass()
    by, reviewed_by = ((found[key] or ("",))[0] for key in ("by", "reviewed_by"))
    return Glass(found["allowed"], by, found["passes"], found["blocks"], reviewed_by)


def _policy_errors(found: Mapping[str, Any], guards: tuple[str, ...]) -> list[DeclarationError]:
    from handrail.estate.shapes import nearest  # noqa: PLC0415  beside its one use

    problems = []
    for guard, (risk, place) in found["guards"].items():
        if guard not in guards:
            problems.append(
                DeclarationError(
                    "policy.unknown-guard",
                    f"unknown guard `{guard}`",
                    at=place,
                    hint=nearest(guard, guards),
                )
            )
        limit = NEVER_ABOVE.get(guard)
        if limit and RISKS.index(risk) > RISKS.index(limit):
            problems.append(
                DeclarationError(
                    "policy.unbending",
                    f"`{guard}` binds from risk {limit}, whatever a policy says",
                    at=place,
                )
            )
    problems += _approval_errors(found)
    problems += _glass_errors(found)
    problems += _grant_errors(found)
    for freeze in found["freezes"]:
        try:
            _zone(freeze.zone)
        except (KeyError, ValueError, OSError):
            problems.append(
                DeclarationError(
                    "estate.wrong-type",
                    f"unknown time zone `{freeze.zone}`",
                    at=Place(*_split_place(freeze.place)),
                    hint="write an IANA name or UTC",
                )
            )
    return problems


def _approval_errors(found: Mapping[str, Any]) -> list[DeclarationError]:
    from handrail.estate.shapes import nearest  # noqa: PLC0415  beside its one use

    problems = []
    for risk, ((group, of), place) in (found["approval"] or {}).get("by", {}).items():
        if risk not in RISKS:
            said, hint = f"`{risk}` is no risk", nearest(risk, RISKS)
            problems.append(DeclarationError("estate.unknown-key", said, at=place, hint=hint))
        if group:
            said = f"`{risk}` is approved by unknown group `{group}`"
            problems += _group_errors(found, group, place, said)
        members = {member.casefold() for member in found["groups"].get(group, ())}
        if group in found["groups"] and len(members) < of:
            said = f"{of} of `{group}` approve `{risk}`, and it has {len(members)}"
            hint = "name more people in the group, or ask for fewer"
            problems.append(DeclarationError("policy.quorum", said, at=place, hint=hint))
    return problems


def _glass_errors(found: Mapping[str, Any]) -> list[DeclarationError]:
    glass = found["break_glass"] or {}
    named = [glass[key] for key in ("by", "reviewed_by") if glass.get(key)]
    return [
        problem
        for group, place in named
        for problem in _group_errors(
            found, group, place, f"`break-glass` names unknown group `{group}`"
        )
    ]


def _group_errors(
    found: Mapping[str, Any], group: str, place: Place, said: str
) -> list[DeclarationError]:
    from handrail.estate.shapes import nearest  # noqa: PLC0415  beside its one use

    if group in found["groups"]:
        return []
    hint = nearest(group, tuple(found["groups"])) or "declare it under `groups`"
    return [DeclarationError("policy.unknown-group", said, at=place, hint=hint)]


def _grant_errors(found: Mapping[str, Any]) -> list[DeclarationError]:
    from handrail.estate.shapes import nearest  # noqa: PLC0415  beside its one use

    return [
        DeclarationError(
            "policy.unknown-group",
            f"`{grant.role}` is granted to unknown group `{group}`",
            at=Place(*_split_place(grant.place)),
            hint=nearest(group, tuple(found["groups"])) or "declare it under `groups`",
        )
        for grant in found["roles"]
        for group in grant.groups
        if group not in found["groups"]
    ]


def _split_place(place: str) -> tuple[str, int]:
    file, _, line = place.rpartition(":")
    return file, int(line)


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return timezone(timedelta(0), "UTC")
    from zoneinfo import ZoneInfo  # noqa: PLC0415  only a calendar needs it

    return ZoneInfo(name)


def _time(text: str) -> time:
    return time.fromisoformat(text) if text else time.min
