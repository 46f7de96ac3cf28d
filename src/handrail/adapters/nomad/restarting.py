"""Restarting a job's instances where they are, a few at a time.

Nomad itself has no such thing: its own command line restarts one instance after the other.

Rules:
- Which instances there were, and how often each had restarted, stands in the name of the restart:
  whoever looks next needs nothing else, also after a crash.
- The next few are restarted by a look that finds the ones before running again, so nothing waits
  in a thread. A look that comes twice restarts nothing twice.
- An instance that went, or was replaced, counts as restarted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from handrail.adapters.nomad.link import Link, segment
from handrail.adapters.nomad.rollouts import is_healthy
from handrail.errors import PlatformError, UsageError
from handrail.kits.deploys.model import Rollout

BEGINNING = "restart:"
_ID_CHARACTERS = 8


def begin(link: Link, job: str) -> str:
    """Restart the first few; return the name of the restart.

    Raises:
        UsageError: nothing of that job runs.
        PlatformError: it does not answer.
    """
    running = [each for each in _allocations(link, job) if _runs(each)]
    if not running:
        raise UsageError("deploys.nothing", f"nothing of job `{job}` runs on `{link.resource}`")
    name = BEGINNING + ",".join(f"{_short(each)}={_restarts(each)}" for each in running)
    look(link, job, name)
    return name


def look(link: Link, job: str, name: str, wait_s: float = 0.0) -> Rollout:
    """Return how far a restart is, and restart the next few where those before run again."""
    before = _read(link, name)
    path = f"/v1/job/{segment(job)}/allocations"
    found = _stand(link, job, before, _allocations(link, job))
    if found.state == "going" and wait_s > 0:
        told = link.get(path)
        again = link.get(path, after=told.index, wait_s=wait_s).body or ()
        found = _stand(link, job, before, again)
    return found


def _stand(
    link: Link, job: str, before: Mapping[str, int], allocations: Sequence[Mapping[str, Any]]
) -> Rollout:
    there = {_short(each): each for each in allocations if _short(each) in before}
    todo = [
        each
        for short, each in sorted(there.items())
        if _runs(each) and _restarts(each) <= before[short]
    ]
    begun = [each for short, each in there.items() if _restarts(each) > before[short]]
    done = len(before) - len(todo)
    failed = [each for each in begun if each.get("ClientStatus") in {"failed", "lost"}]
    if failed:
        return Rollout("failed", (done, len(before)), "an instance did not come back")
    waiting = [each for each in begun if not _is_back(link, each)]
    counts = (done - len(waiting), len(before))
    if waiting:
        return Rollout("going", counts, f"{len(waiting)} are starting again")
    if not todo:
        return Rollout("healthy", counts, f"{len(before)} were restarted")
    for each in todo[: _at_once(link, job)]:
        link.send(f"/v1/client/allocation/{each['ID']}/restart", {"AllTasks": False})
    return Rollout("going", counts, f"{len(todo)} are still to be restarted")


def _at_once(link: Link, job: str) -> int:
    """Return how many instances may be away at once, as the job itself says for updates."""
    told = link.get(f"/v1/job/{segment(job)}").body
    most = [
        int((group.get("Update") or {}).get("MaxParallel") or 1)
        for group in told.get("TaskGroups") or ()
    ]
    return min(most, default=1)


def _allocations(link: Link, job: str) -> Sequence[Mapping[str, Any]]:
    return link.get(f"/v1/job/{segment(job)}/allocations", task_states="true").body or ()


def _runs(allocation: Mapping[str, Any]) -> bool:
    return allocation.get("DesiredStatus") == "run" and allocation.get("ClientStatus") == "running"


def _is_back(link: Link, allocation: Mapping[str, Any]) -> bool:
    """Whether an instance runs again, and the checks that Nomad makes of it succeed."""
    if not is_healthy(allocation) or any(
        state.get("State") == "pending" for state in (allocation.get("TaskStates") or {}).values()
    ):
        return False
    told = link.find(f"/v1/client/allocation/{allocation['ID']}/checks")
    checks = (told.body if told else None) or {}
    return all(each.get("Status") == "success" for each in checks.values())


def _restarts(allocation: Mapping[str, Any]) -> int:
    states = (allocation.get("TaskStates") or {}).values()
    return sum(int(state.get("Restarts") or 0) for state in states)


def _short(allocation: Mapping[str, Any]) -> str:
    return str(allocation["ID"])[:_ID_CHARACTERS]


def _read(link: Link, name: str) -> Mapping[str, int]:
    try:
        pairs = [each.split("=") for each in name.removeprefix(BEGINNING).split(",")]
        return {short: int(count) for short, count in pairs}
    except ValueError as error:
        raise PlatformError(
            "platform.failed", f"`{link.resource}` knows no restart of that name"
        ) from error
