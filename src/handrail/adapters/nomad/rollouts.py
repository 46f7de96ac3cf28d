"""Where a deployment stands: by Nomad's own deployment, or by instances where it makes none.

Rules:
- A deployment is named by the job's modify index that it brought about: it is there before Nomad's
  scheduler has made one of its own, and it is the token of what was applied.
- Jobs that Nomad makes no deployment for (batch, periodic, a change that only stops instances) are
  judged by their evaluations and instances.
- Looking changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from handrail.adapters.nomad.link import Link, segment
from handrail.errors import PlatformError
from handrail.kits.deploys.model import Rollout

ACTIVE = frozenset({"running", "blocked", "unblocking", "pending", "initializing"})
_ROLLING_BACK = "rolling back to job version"
_SAID_CHARACTERS = 200


def look(link: Link, job: str, index: int, wait_s: float = 0.0) -> Rollout:
    """Return where the deployment of a job at an index stands; waits for a change where it goes on.

    Raises:
        PlatformError: it does not answer.
    """
    found = of_index(link, job, index)
    if found is not None:
        if wait_s > 0 and _is_going(found[0]):
            path = f"/v1/deployment/{found[0]['ID']}"
            told = link.find(path, after=found[1], wait_s=wait_s)
            found = None if told is None else (told.body, told.index)
        if found is not None:
            return _by_deployment(link, job, found[0])
    return _by_instances(link, job, index, wait_s)


def of_index(link: Link, job: str, index: int) -> tuple[Mapping[str, Any], int] | None:
    """Return Nomad's deployment of a job at an index, with what to wait for a change after."""
    told = link.find(f"/v1/job/{segment(job)}/deployments")
    for each in (told.body if told else None) or ():
        if each.get("JobSpecModifyIndex") == index:
            return each, told.index if told else 0
    return None


def index_of(link: Link, job: str, deployment: str) -> int:
    """Return the index that a deployment is named by.

    Raises:
        PlatformError: it is no name of one.
    """
    if deployment.isascii() and deployment.isdigit():
        return int(deployment)
    raise PlatformError(
        "platform.failed", f"`{link.resource}` has no deployment `{deployment}` of job `{job}`"
    )


def is_healthy(allocation: Mapping[str, Any]) -> bool:
    """Whether an instance runs, and is not said to be ill."""
    status = allocation.get("DeploymentStatus") or {}
    return allocation.get("ClientStatus") == "running" and status.get("Healthy") is not False


def desired(job: Mapping[str, Any], allocations: Iterable[Mapping[str, Any]]) -> int:
    """Return how many instances there should be."""
    if job.get("Periodic") or job.get("ParameterizedJob"):
        return 0  # its instances are those of jobs that it starts
    if job.get("Type") in {"system", "sysbatch"}:
        return sum(each.get("DesiredStatus") == "run" for each in allocations)
    return sum(int(group.get("Count") or 0) for group in job.get("TaskGroups") or ())


def _is_going(deployment: Mapping[str, Any]) -> bool:
    return deployment.get("Status") in ACTIVE and not _waits(deployment)


def _waits(deployment: Mapping[str, Any]) -> bool:
    """Whether all canaries are healthy, and wait to be promoted."""
    groups = _groups(deployment)
    waiting = [group for group in groups.values() if _needs_promotion(group)]
    return (
        bool(waiting)
        and deployment.get("Status") == "running"
        and all(
            len(group.get("PlacedCanaries") or ()) >= group["DesiredCanaries"] <= _healthy(group)
            for group in waiting
        )
        and all(
            _healthy(group) >= group["DesiredTotal"]
            for group in groups.values()
            if group not in waiting
        )
    )


def _needs_promotion(group: Mapping[str, Any]) -> bool:
    return bool(group.get("DesiredCanaries")) and not (
        group.get("Promoted") or group.get("AutoPromote")
    )


def _by_deployment(link: Link, job: str, deployment: Mapping[str, Any]) -> Rollout:
    groups = _groups(deployment)
    healthy = sum(_healthy(group) for group in groups.values())
    counts = (healthy, sum(int(group.get("DesiredTotal") or 0) for group in groups.values()))
    status = deployment.get("Status")
    said = str(deployment.get("StatusDescription") or status)
    if status == "successful":
        return Rollout("healthy", counts, said)
    if _waits(deployment):
        return Rollout("canaries", counts, "all canaries are healthy and wait to be promoted")
    version = deployment.get("JobVersion")
    ill = _ill(_allocations(link, job), version)
    if status in ACTIVE:
        lacking = "" if ill else _unplaced(link, job, deployment["JobSpecModifyIndex"])
        return Rollout(
            "going", counts, _why(f"{said}: {counts[0]} of {counts[1]} healthy", ill or lacking)
        )
    if status == "paused":
        return Rollout("failed", counts, "it was paused: it goes no further")
    state: Literal["reverted", "failed"] = "reverted" if _ROLLING_BACK in said else "failed"
    return Rollout(state, counts, _why(said, ill))


def _by_instances(link: Link, job: str, index: int, wait_s: float) -> Rollout:
    """Return where a job stands that has no deployment, or none yet."""
    told = link.find(f"/v1/job/{segment(job)}")
    if told is None:
        return Rollout("failed", (0, 0), f"job `{job}` is not there any more")
    stored = told.body
    why = _gone(job, stored, index)
    if why:
        return Rollout("failed", (0, 0), why)
    if stored.get("Periodic") or stored.get("ParameterizedJob"):
        return Rollout("healthy", (0, 0), "it is known there, and starts when its time comes")
    if not _is_looked_at(link, job, wait_s):
        return Rollout("going", (0, 0), "the scheduler has not looked at it yet")
    # In this order: what the scheduler has looked at has its deployment, if it is to have one.
    deployment = of_index(link, job, index)
    if deployment is not None:
        return _by_deployment(link, job, deployment[0])
    path = f"/v1/job/{segment(job)}/allocations"
    instances = link.get(path)
    found = _judged(link, stored, instances.body or ())
    if found.state == "going" and wait_s > 0:
        again = link.find(path, after=instances.index, wait_s=wait_s)
        found = _judged(link, stored, (again.body if again else None) or ())
    return found


def _gone(job: str, stored: Mapping[str, Any], index: int) -> str:
    """Return why what was deployed is not what is there; empty where it is."""
    if stored["JobModifyIndex"] != index:
        return f"somebody else changed job `{job}`: version {stored['Version']} runs"
    return f"job `{job}` was stopped" if stored.get("Stop") else ""


def _is_looked_at(link: Link, job: str, wait_s: float) -> bool:
    """Whether the scheduler has seen the job as it is; waits for that."""
    path = f"/v1/job/{segment(job)}/evaluations"
    told = link.get(path)
    if _is_pending(told.body) and wait_s > 0:
        told = link.get(path, after=told.index, wait_s=wait_s)
    return not _is_pending(told.body)


def _is_pending(evaluations: Iterable[Mapping[str, Any]] | None) -> bool:
    return any(each.get("Status") == "pending" for each in evaluations or ())


def _judged(
    link: Link, job: Mapping[str, Any], allocations: Sequence[Mapping[str, Any]]
) -> Rollout:
    wanted = [each for each in allocations if each.get("DesiredStatus") == "run"]
    total = desired(job, wanted)
    is_batch = job.get("Type") in {"batch", "sysbatch"}
    good = [
        each
        for each in wanted
        if each.get("JobVersion") == job.get("Version")
        and (is_healthy(each) or (is_batch and _is_complete(each)))
    ]
    counts = (len(good), total)
    ill = _ill(allocations, job.get("Version"))
    given_up = [each for each in allocations if _is_given_up(each, job.get("Version"))]
    if is_batch and given_up:
        return Rollout("failed", counts, _why("it failed, and is not tried again", ill))
    left = [
        each
        for each in allocations
        if each.get("DesiredStatus") != "run" and each.get("ClientStatus") == "running"
    ]
    if len(good) >= total and not left:
        return Rollout("healthy", counts, f"{len(good)} of {total} run")
    lacking = "" if ill else _unplaced(link, str(job["ID"]), job["JobModifyIndex"])
    return Rollout("going", counts, _why(f"{len(good)} of {total} run", ill or lacking))


def _is_complete(allocation: Mapping[str, Any]) -> bool:
    return allocation.get("ClientStatus") == "complete"


def _is_given_up(allocation: Mapping[str, Any], version: object) -> bool:
    return (
        allocation.get("JobVersion") == version
        and allocation.get("ClientStatus") in {"failed", "lost"}
        and not allocation.get("NextAllocation")
        and not allocation.get("FollowupEvalID")
    )


def _allocations(link: Link, job: str) -> Sequence[Mapping[str, Any]]:
    told = link.find(f"/v1/job/{segment(job)}/allocations")
    return (told.body if told else None) or ()


def _unplaced(link: Link, job: str, index: int) -> str:
    """Return why instances find no place; empty where all did."""
    told = link.find(f"/v1/job/{segment(job)}/evaluations")
    for each in (told.body if told else None) or ():
        if each.get("FailedTGAllocs") and (each.get("JobModifyIndex") or 0) >= index:
            return "; ".join(unplaced(each["FailedTGAllocs"]))
    return ""


def unplaced(failed: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return why instances of groups find no place, a sentence a group."""
    return tuple(
        f"group {name}: {_lacks(metric or {})}" for name, metric in sorted((failed or {}).items())
    )


def _lacks(metric: Mapping[str, Any]) -> str:
    if not metric.get("NodesEvaluated"):
        pools = metric.get("NodesInPool")
        return "no machine is in its node pool" if pools == 0 else "no machine can take it now"
    reasons = [
        f"{count} of {metric['NodesEvaluated']} machines {word}: {reason}"
        for key, word in (("ConstraintFiltered", "lack"), ("DimensionExhausted", "are full"))
        for reason, count in sorted((metric.get(key) or {}).items())
    ]
    reasons += [f"quota: {each}" for each in metric.get("QuotaExhausted") or ()]
    return "; ".join(reasons) or f"none of {metric['NodesEvaluated']} machines can take it"


def _ill(allocations: Iterable[Mapping[str, Any]], version: object) -> str:
    """Return what the newest instance of a version that is ill says; empty where none is."""
    ill = [
        each
        for each in allocations
        if each.get("JobVersion") == version
        and (
            each.get("ClientStatus") in {"failed", "lost"}
            or (each.get("DeploymentStatus") or {}).get("Healthy") is False
            or any(_restarts(state) for state in (each.get("TaskStates") or {}).values())
        )
    ]
    if not ill:
        return ""
    newest = max(ill, key=lambda each: int(each.get("ModifyIndex") or 0))
    states = sorted(
        (newest.get("TaskStates") or {}).items(), key=lambda item: not item[1].get("Failed")
    )
    events = [
        (task, event)
        for task, state in states
        for event in reversed(state.get("Events") or ())
        if event.get("Type") in _TELLING
    ]
    if events:
        # That it is unhealthy is known: what it said before is told rather.
        task, event = min(events, key=lambda pair: pair[1]["Type"] == "Alloc Unhealthy")
        said = " ".join(str(event.get("DisplayMessage") or event["Type"]).split())
        return f"task {task}: {said[:_SAID_CHARACTERS]}"
    return str(newest.get("ClientDescription") or newest.get("ClientStatus"))


_TELLING = frozenset(
    {
        "Alloc Unhealthy",
        "Driver Failure",
        "Failed Artifact Download",
        "Failed Validation",
        "Setup Failure",
        "Task hook failed",
        "Template",
        "Terminated",
    }
)


def _restarts(state: Mapping[str, Any]) -> bool:
    return state.get("State") != "running" and bool(state.get("Restarts"))


def _groups(deployment: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    return deployment.get("TaskGroups") or {}


def _healthy(group: Mapping[str, Any]) -> int:
    return int(group.get("HealthyAllocs") or 0)


def _why(said: str, more: str) -> str:
    return f"{said}; {more}" if more else said
