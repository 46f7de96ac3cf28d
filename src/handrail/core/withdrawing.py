"""Withdrawing: an approver takes an approval back, before a run has used it.

Rules:
- By the approver alone, signed; for ever: the approval's record written again gives nothing back.
- Of a withdrawal and a run at the same moment one wins, and the other is told.
- One that stands covers nothing more; what it has covered has run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from handrail.core import records, signing, standing
from handrail.core.world import World
from handrail.errors import RefusedError, UsageError
from handrail.plans.canonical import plain, time_text
from handrail.plans.model import Approval

_CHAIN = "approvals-"


@dataclass(frozen=True)
class Withdrawal:
    """An approver's word that an approval counts no more, signed.

    Attributes:
        id: of the approval.
    """

    id: str
    digest: str
    person: str
    made_at: str
    because: str
    signature: str


def withdraw(world: World, what: str, key: Path, because: str = "") -> tuple[Withdrawal, ...]:
    """Withdraw every approval of the key's owner that is meant, and return what was signed.

    Args:
        world: the ports.
        what: the beginning of a plan's digest, or of an approval's id.
        key: private SSH key, or the public one of a key that an agent holds.
        because: why, for those who read it later.

    Raises:
        UsageError: nothing of that person is there to be withdrawn.
        RefusedError: a run has used it.
        KeysError: the key cannot be used, or belongs to nobody who is allowed.
    """
    unsigned = _unsigned(world, what, signing.people_of(world, key), because)
    signed = [replace(one, signature=world.keys.sign(payload(one), key)) for one in unsigned]
    return tuple(accept(world, one) for one in signed)


def prepare(world: World, what: str, because: str = "") -> tuple[Withdrawal, ...]:
    """Return what `world.person` would sign to withdraw what is meant; for a key elsewhere.

    Raises:
        UsageError: nothing of that person is there to be withdrawn.
    """
    return _unsigned(world, what, (world.person,), because)


def accept(world: World, said: Withdrawal) -> Withdrawal:
    """Record a withdrawal that is signed.

    Raises:
        UsageError: there is no such approval of that person.
        RefusedError: a run has used it.
        KeysError: the signature is not that person's.
    """
    chain, approval = _find(world, said)
    signing.insist(world, payload(said), said.signature, said.person)
    # As a run takes it: whoever is first has it.
    if approval.bounds is None and not world.journal.single_use(f"approval {approval.id}"):
        raise RefusedError(
            "plan.stale",
            f"a run has used the approval of {approval.person} already",
            hint="handrail runs",
        )
    body = plain(said)
    world.journal.append(chain, "withdrawn", body if isinstance(body, dict) else {})
    return said


def payload(said: Withdrawal) -> bytes:
    """Return the bytes that a withdrawal signs."""
    return signing.payload(
        {
            "withdraws": said.id,
            "digest": said.digest,
            "person": said.person,
            "made_at": said.made_at,
            "because": said.because,
        }
    )


def living(world: World) -> Iterator[tuple[str, Approval]]:
    """Yield every approval that could be withdrawn, with its chain."""
    for chain in world.journal.chains(_CHAIN):
        for approval in records.approvals(world.journal, chain.removeprefix(_CHAIN)):
            yield chain, approval
    for chain in world.journal.chains(standing.PREFIX):
        for approval in records.living(world.journal, chain):
            yield chain, approval


def _unsigned(
    world: World, what: str, people: Sequence[str], because: str
) -> tuple[Withdrawal, ...]:
    wanted = what.replace("-", "").lower()
    meant = [a for _, a in living(world) if wanted and _is(a, wanted)]
    mine = [approval for approval in meant if approval.person in people]
    if not mine:
        others = ", ".join(dict.fromkeys(approval.person for approval in meant))
        raise UsageError(
            "approval.none",
            f"no approval by {people[0]} counts for `{what}`",
            hint=f"it is by {others}, who alone can withdraw it" if others else _used(world, what),
        )
    now = time_text(world.clock.now())
    return tuple(Withdrawal(a.id, a.digest, a.person, now, because, "") for a in mine)


def _is(approval: Approval, wanted: str) -> bool:
    return approval.digest.startswith(wanted) or approval.id.startswith(wanted)


def _used(world: World, what: str) -> str:
    """Return by what run the approvals of a plan were used; else where to look."""
    wanted = what.replace("-", "").lower()
    for chain in world.journal.chains(f"{_CHAIN}{wanted}") if wanted else ():
        for one in records.told_of(world.journal, chain, "used"):
            number = str(one["run"]).removeprefix("run-")
            return f"run {number} has used it: handrail runs show {number}"
    return "handrail approvals"


def _find(world: World, said: Withdrawal) -> tuple[str, Approval]:
    for chain, approval in living(world):
        if (approval.id, approval.digest, approval.person) == (said.id, said.digest, said.person):
            return chain, approval
    raise UsageError(
        "approval.none",
        f"no approval by {said.person} has the id {said.id}",
        hint="handrail approvals",
    )
