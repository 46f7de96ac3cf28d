"""What changing the version of an app needs, as a plan keeps it: everything to do it and undo it.

Rules:
- What was planned is what is done: the whole specification stands here, with its digests.
- What runs is known as ours by its note: the run's number, and a digest of the plan's body.
- Numbers of health are not here: they change while nobody does anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from handrail.kits.deploys.model import Running, Spec
from handrail.plans.canonical import encode, plain, sha256
from handrail.plans.decoding import decode

RUN, PLAN, APP = "handrail.run", "handrail.plan", "handrail.app"
COMMIT, REF, PERSON, OF = "handrail.commit", "handrail.ref", "handrail.person", "handrail.of"
SHORT = 7
_PLAN_DIGITS = 16
Whose = Literal["ours", "put back", "before", "other"]


@dataclass(frozen=True)
class Before:
    """What ran when it was planned: what an undo puts back."""

    spec: Spec
    version: str
    token: str
    note: Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """One change of what runs of an app.

    Attributes:
        app: the resource, `app/shop`.
        platform: the resource, `platform/prod`.
        spec: what will run.
        before: what ran; None where nothing did.
        changes: whether anything would change at all.
        commit: of the app's repository, that `spec` is of; empty where nobody knows.
        ref: as it was asked for.
        of: number of the run that `spec` was first deployed by; 0 for this one.
        images: task to the image it gets, as people call it: with its tag.
        group: of a `scale`, which is scaled; empty else.
        count: of a `scale`, to how many.
    """

    app: str
    platform: str
    spec: Spec
    before: Before | None
    changes: bool
    repository: str = ""
    commit: str = ""
    ref: str = ""
    of: int = 0
    images: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    count: int = 0

    @property
    def token(self) -> str:
        """What compare-and-set compares; empty where nothing ran."""
        return self.before.token if self.before else ""

    def as_body(self) -> Mapping[str, object]:
        """Return it as the body of a plan."""
        body = plain(self)
        if not isinstance(body, dict):
            raise TypeError("a change is a mapping")
        return body


def change_of(body: Mapping[str, object]) -> Change:
    """Return the change that a plan's body is."""
    return decode(body, Change)


def before_of(running: Running | None) -> Before | None:
    """Return what an undo has to put back."""
    if running is None:
        return None
    return Before(running.spec, running.version, running.token, dict(running.note))


def note_of(change: Change, body: Mapping[str, object], run: int, person: str) -> dict[str, str]:
    """Return what is written down beside the version that a run brings."""
    return {
        RUN: str(run),
        PLAN: sha256(encode(plain(body)))[:_PLAN_DIGITS],
        APP: change.app,
        COMMIT: change.commit,
        REF: change.ref,
        PERSON: person,
        OF: str(change.of or run),
    }


def note_put_back(change: Change, run: int) -> dict[str, str]:
    """Return what is written down beside the version that an undo of a run puts back."""
    note = dict(change.before.note) if change.before else {}
    return {**note, RUN: f"undo of {run}"}


def whose(change: Change, running: Running | None, note: Mapping[str, str], run: int) -> Whose:
    """Return whose doing it is that this runs. Pure.

    Args:
        change: what the run was to do.
        running: what runs now.
        note: what the run writes down.
        run: its number.
    """
    if running is None:
        return "before" if change.before is None else "other"
    if all(running.note.get(key) == note[key] for key in (RUN, PLAN)):
        return "ours"
    if running.note.get(RUN) == f"undo of {run}":
        return "put back"
    if change.before is None:
        return "other"
    # Of another token: the platform itself has put it back.
    is_same = running.token == change.token or same(running.spec, change.before.spec)
    return "before" if is_same else "other"


def same(one: Spec, other: Spec) -> bool:
    """Whether two specifications mean the same, as canonical JSON tells."""
    return encode(plain(one.body)) == encode(plain(other.body))


def origin(note: Mapping[str, str]) -> int | None:
    """Return the number of the run that first deployed what runs; None where no run did."""
    told = note.get(OF, "")
    return int(told) if told.isascii() and told.isdigit() else None
