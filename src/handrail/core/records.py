"""What the journal holds, by chain, as values: the one place that knows the chains' names.

plans-<digest>              `planned` each time that a plan is made; `fanned`, of a fan-out
rehearsal-<key>-<id>        `opened`, steps, `measured`
proofs-<resource>           `proven` each time that a backup was restored
backups-<store>             `declared`, then what became of each backup by the clock: backing_up.py
approvals-<digest>          `approved`, `used`, `expired`, `withdrawn`
standing-<subject>          `approved`, `used`, `ended`, `withdrawn`: of more than one run
break-glass                 `broken`, `used`, `reviewed`
contraindication-<key>      `refused`, `passed`, `heeded`: what became of plans, each once
question-<run>-<name>       `asked`, `rejected`, then one of `answered`, `expired`, `over`
resource-<resource>         `run-begun` and `run-ended`: who changed it, in order
run-<number>                one run; of a walk where `opened` says so
walk-<number>               the marks of a walk, written by its engine alone
clone-<id>                  `made`, `destroyed`
tokens                      `created`, `revoked`, `used` once an hour at most: never the token
errand-<id>                 `opened`, `ended`: what a server began for a person
hook-<app>/<delivery>       what became of a push that a web hook told: a kit's own, as is `hooked-`
request-<hash>              `answered`: what a request with an idempotency key was told
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

from handrail.errors import UsageError
from handrail.plans import decoding
from handrail.plans.fan_out import FanOut
from handrail.plans.model import Approval, Plan, Proof, Rehearsal
from handrail.plans.walk_records import read_mark, read_walk
from handrail.ports import Journal, Record

T = TypeVar("T")
# How a person tells a plan: the beginning of its digest.
DIGEST = re.compile(r"[0-9a-f]{4}-?[0-9a-f]{1,60}")
_KEY_CHARACTERS = 16
_NEWEST = 200
SHORT = 8
FANNED = "fanned"
PLANNED = "planned"
_ENDS = ("expired", "ended", "withdrawn")


def decode(body: Any, kind: type[T]) -> T:
    """Return the value that was written as `body`."""
    return decoding.decode(body, kind)


def body(record: Record) -> dict[str, Any]:
    """Return a record's body."""
    found: dict[str, Any] = json.loads(record.body)
    return found


def short(digest: str) -> str:
    """Return the digest as people type it: `7f3a-91c2`."""
    return f"{digest[:4]}-{digest[4:SHORT]}"


def plan_chain(digest: str) -> str:
    """Return the chain of a plan."""
    return f"plans-{digest}"


def rehearsal_chain(key: str, rehearsal: str) -> str:
    """Return the chain of a rehearsal."""
    return f"rehearsal-{key[:_KEY_CHARACTERS]}-{rehearsal}"


def run_chain(number: int) -> str:
    """Return the chain of a run."""
    return f"run-{number}"


def walk_chain(number: int) -> str:
    """Return the chain of a walk."""
    return f"walk-{number}"


def is_walk(journal: Journal, number: int) -> bool:
    """Whether that number is of a walk, and not of one run."""
    return journal.last(walk_chain(number)) is not None


def walks(journal: Journal) -> tuple[int, ...]:
    """Return the numbers of every walk, oldest first."""
    return tuple(sorted(int(chain.removeprefix("walk-")) for chain in journal.chains("walk-")))


def child(journal: Journal, walk: int, target: str) -> tuple[int, int] | None:
    """Return number and attempt of the newest run of `walk` on `target`; None without one."""
    for record in reversed(tuple(journal.records(f"resource-{target}"))):
        said = body(record)
        if record.kind == "run-begun" and said.get("walk") == walk:
            return int(said["run"]), int(said["attempt"])
    return None


def unfinished(journal: Journal, *resources: str) -> tuple[int, ...]:
    """Return the runs on `resources` that were begun and not ended; empty when there is none."""
    last = [journal.last(f"resource-{resource}") for resource in resources]
    open_runs = [body(one)["run"] for one in last if one and one.kind != "run-ended"]
    return tuple(dict.fromkeys(int(run) for run in open_runs))


def run_end(journal: Journal, resource: str, run: int) -> dict[str, Any]:
    """Return what a resource's chain has of how a run ended, newest; empty where it has nothing.

    Of an operation of a kit that was ill, and put back, this says `undone`, where its walk failed.
    """
    chain = f"resource-{resource}"
    last = journal.last(chain)
    beyond = max(0, last.sequence - _NEWEST) if last else 0
    for record in reversed(tuple(journal.records(chain, beyond))):
        told = body(record)
        if record.kind == "run-ended" and told.get("run") == run:
            return told
    return {}


def proof(journal: Journal, resource: str) -> Proof | None:
    """Return the newest proof of a backup of `resource`."""
    last = journal.last(f"proofs-{resource}")
    return None if last is None else decode(body(last), Proof)


def last_proven(journal: Journal, resource: str) -> str:
    """Return the id of the newest backup of `resource` that came back equal; empty without one."""
    proofs = [decode(body(record), Proof) for record in journal.records(f"proofs-{resource}")]
    return next((found.backup for found in reversed(proofs) if found.equal), "")


def backups_of_unfinished(journal: Journal, resource: str) -> tuple[str, ...]:
    """Return the ids of the backups that a run which was cut off may be undone from."""
    return tuple(
        str(body(record)["backup"]["id"])
        for number in unfinished(journal, resource)
        for record in journal.records(run_chain(number))
        if record.kind == "backup-done"
    )


def rehearsal(journal: Journal, key: str) -> Rehearsal | None:
    """Return the newest rehearsal with this key that measured something."""
    found = None
    for chain in journal.chains(f"rehearsal-{key[:_KEY_CHARACTERS]}-"):
        last = journal.last(chain)
        if last is not None and last.kind == "measured":
            candidate = decode(body(last)["rehearsal"], Rehearsal)
            found = candidate if candidate.key == key else found
    return found


def approvals(journal: Journal, digest: str) -> tuple[Approval, ...]:
    """Return the approvals of `digest` that are not used, withdrawn, nor known to be expired.

    Signatures are not checked here.
    """
    return living(journal, f"approvals-{digest}", ends=frozenset({"used", *_ENDS}))


def living(
    journal: Journal, chain: str, ends: frozenset[str] = frozenset(_ENDS)
) -> tuple[Approval, ...]:
    """Return the approvals in `chain` that no record of a kind in `ends` has ended.

    What has ended stays so: the same record written a second time gives nothing back.
    """
    found: dict[str, Approval] = {}
    over: set[str] = set()
    for record in journal.records(chain):
        told = body(record)
        if record.kind in ends:
            over.add(str(told["id"]))
        elif record.kind == "approved":
            found[str(told["id"])] = decode(told, Approval)
    return tuple(approval for name, approval in found.items() if name not in over)


def told_of(journal: Journal, chain: str, kind: str) -> tuple[dict[str, Any], ...]:
    """Return the bodies of the records of one kind, in order."""
    return tuple(body(one) for one in journal.records(chain) if one.kind == kind)


def find_plan(journal: Journal, prefix: str) -> Plan:
    """Return the newest plan whose digest begins with `prefix`: four digits or more, one dash.

    Raises:
        UsageError: there is none, or more than one.
    """
    wanted = prefix.replace("-", "").lower()
    chains = journal.chains(f"plans-{wanted}") if DIGEST.fullmatch(prefix.lower()) else ()
    if not chains:
        raise UsageError(
            "plan.unknown", f"no plan begins with `{prefix[:80]}`", hint="handrail plan"
        )
    if len(chains) > 1:
        some = ", ".join(short(chain.removeprefix("plans-")) for chain in chains[:5])
        raise UsageError(
            "plan.ambiguous", f"several plans begin with `{prefix}`: {some}", hint="type more of it"
        )
    last = journal.last(chains[0])
    if last is None:
        raise UsageError("plan.unknown", f"no plan begins with `{prefix[:80]}`")
    return _plan(last)


def find_fan_out(journal: Journal, prefix: str) -> FanOut | None:
    """Return the fan-out whose digest begins with `prefix`; None where that is of one target.

    Raises:
        UsageError: there is neither, or more than one.
    """
    return fan_out(journal, find_plan(journal, prefix).digest)


def fan_out(journal: Journal, digest: str) -> FanOut | None:
    """Return the newest record of the fan-out of that digest; None where there is none."""
    last = journal.last(plan_chain(digest))
    return decode(body(last), FanOut) if last is not None and last.kind == FANNED else None


def _plan(record: Record) -> Plan:
    """Return the plan that was recorded; of a fan-out the one that stands for all of it."""
    found = body(record)
    return decode(found["plan"] if record.kind == FANNED else found, Plan)


def plans(journal: Journal) -> Iterator[Plan]:
    """Yield the newest of each plan, in the order of their first making."""
    for chain in journal.chains("plans-"):
        last = journal.last(chain)
        if last is not None:
            yield _plan(last)


def plans_of_run(journal: Journal, number: int) -> tuple[Plan, ...]:
    """Return the plans of a run, or of each lane of a walk, as recorded; empty where unknown."""
    for record in journal.records(run_chain(number)):
        if record.kind == "opened":
            return (decode(body(record)["plan"], Plan),)
    first = next(iter(journal.records(walk_chain(number))), None)
    if first is None:
        return ()
    digests = (
        str(step.body.get("plan", ""))
        for lane in read_walk(read_mark(first.kind, first.time, first.body)).lanes
        for step in lane.steps
    )
    return tuple(find_plan(journal, digest) for digest in dict.fromkeys(digests) if digest)


def runs(journal: Journal) -> tuple[int, ...]:
    """Return the numbers of every run, oldest first."""
    return tuple(sorted(int(chain.removeprefix("run-")) for chain in journal.chains("run-")))
