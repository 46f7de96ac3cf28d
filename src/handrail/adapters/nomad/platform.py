"""`kits.deploys.ports.Platform` on a Nomad cluster, over its HTTP API.

Rules:
- What changes a job is sent with the index that it was planned at: the cluster's leader compares.
  Ending a job is such a change too (`Stop`), not the deregistering, which compares nothing.
- A deployment is named by the index that it brought about: the token of what was applied.
- What was cut off is asked for anew by the note beside the job, and never done twice.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from handrail.adapters.nomad import files as contents
from handrail.adapters.nomad import notes, parsing, planning, restarting, rollouts, specs
from handrail.adapters.nomad.identity import identify
from handrail.adapters.nomad.link import Link, Where, segment
from handrail.errors import HandrailError, PlatformError, RefusedError
from handrail.kits.deploys.model import DryRun, File, Rollout, Running, Spec
from handrail.plans.facts import Identity


class NomadPlatform:
    """A cluster as what runs apps. Making it connects to nothing; for any thread."""

    def __init__(self, resource: str, where: Where) -> None:
        self._link = Link(resource, where)

    def identify(self) -> Identity:
        """Return who the cluster says it is."""
        return identify(self._link)

    def parse(self, text: str, name: str, variables: Mapping[str, str]) -> Spec:
        """Read a specification in HCL or JSON, by the cluster's own parser."""
        return parsing.parse(self._link, text, name, variables)

    def with_images(self, spec: Spec, images: Mapping[str, str]) -> Spec:
        """Return `spec` with other images."""
        return specs.with_images(spec, images)

    def with_files(self, spec: Spec, files: Mapping[str, File]) -> Spec:
        """Return `spec` with the content of files where it says `file("...")`."""
        return specs.spec_of(contents.put(spec.body, spec.files, files))

    def stage(self, spec: Spec, files: Mapping[str, File]) -> None:
        """Do nothing: what a job needs of files is in it."""

    def current(self, job: str) -> Running | None:
        """Return what runs under that name; None where nothing does, or it was stopped."""
        stored = self._stored(job)
        if stored is None or stored.get("Stop"):
            return None
        told = self._link.find(f"/v1/job/{segment(job)}/allocations")
        wanted = [
            each for each in (told.body if told else None) or () if each["DesiredStatus"] == "run"
        ]
        steady = [each for each in wanted if not _is_canary(each)]
        healthy = sum(rollouts.is_healthy(each) for each in steady)
        return Running(
            specs.stored_spec(stored),
            str(stored["Version"]),
            str(stored["JobModifyIndex"]),
            str(stored["Status"]),
            (healthy, rollouts.desired(stored, steady)),
            notes.note_of(self._link, stored),
        )

    def jobs(self) -> tuple[str, ...]:
        """Return the names of all jobs that were not stopped; none that another one started."""
        told = self._link.get("/v1/jobs").body or ()
        return tuple(
            sorted(each["ID"] for each in told if not each.get("Stop") and not each.get("ParentID"))
        )

    def dry_run(self, spec: Spec) -> DryRun:
        """Ask the scheduler."""
        body = {"Job": spec.body, "Diff": True, "PolicyOverride": False}
        path = f"/v1/job/{segment(spec.job)}/plan"
        return planning.dry_run(self._link.send(path, body, wrong=_invalid(spec.job)))

    def apply(self, spec: Spec, token: str, note: Mapping[str, str]) -> str:
        """Register a job where it still is as planned."""
        stored = self._stored(spec.job)
        runs = stored is not None and not stored.get("Stop")
        if stored and runs and notes.is_of(self._link, stored, spec.body, note):
            return str(stored["JobModifyIndex"])
        return self._register(spec.job, dict(spec.body), self._index(spec.job, stored, token), note)

    def remove(self, job: str, token: str) -> None:
        """Stop a job where it still is as planned; it is not purged."""
        stored = self._stored(job)
        if stored is None or stored.get("Stop"):
            return
        note = notes.note_of(self._link, stored)
        body = {**specs.stored_spec(stored).body, "Stop": True}
        self._register(job, body, self._index(job, stored, token), note)

    def rollout(self, job: str, deployment: str, wait_s: float = 0.0) -> Rollout:
        """Return where a deployment, or a restart, stands."""
        if deployment.startswith(restarting.BEGINNING):
            return restarting.look(self._link, job, deployment, wait_s)
        index = rollouts.index_of(self._link, job, deployment)
        return rollouts.look(self._link, job, index, wait_s)

    def promote(self, job: str, deployment: str) -> None:
        """Promote every group's canaries."""
        found = self._deployment(job, deployment)
        if found is None or not any(map(_needs_promotion, found["TaskGroups"].values())):
            return
        self._link.send(
            f"/v1/deployment/promote/{found['ID']}", {"DeploymentID": found["ID"], "All": True}
        )

    def halt(self, job: str, deployment: str) -> None:
        """Pause a deployment: failing it would make Nomad put something back by itself, meanwhile.

        What is applied next takes its place. A restart goes no further when nobody looks.
        """
        if deployment.startswith(restarting.BEGINNING):
            return
        found = self._deployment(job, deployment)
        if found is None:
            return
        body = {"DeploymentID": found["ID"], "Pause": True}
        try:
            self._link.send(f"/v1/deployment/pause/{found['ID']}", body)
        except PlatformError:
            if self._deployment(job, deployment) is not None:
                raise  # it is still going on: that was not why

    def restart(self, job: str) -> str:
        """Restart instances where they are, as many at once as the job's updates may touch."""
        return restarting.begin(self._link, job)

    def scale(self, job: str, group: str, count: int, token: str) -> str:
        """Register the job with another count; its note stays. Has it that count, it is done."""
        stored = self._stored(job)
        if stored is None or stored.get("Stop"):
            raise _moved(self._link, job, "nothing runs there any more")
        body = copy.deepcopy(dict(specs.stored_spec(stored).body))
        wanted = specs.group_named(body, group)
        if wanted.get("Count") == count:
            return str(stored["JobModifyIndex"])
        wanted["Count"] = count
        note = notes.note_of(self._link, stored)
        return self._register(job, body, self._index(job, stored, token), note)

    def close(self) -> None:
        """Close its connections."""
        self._link.close()

    def _stored(self, job: str) -> Mapping[str, Any] | None:
        told = self._link.find(f"/v1/job/{segment(job)}")
        return None if told is None else told.body

    def _index(self, job: str, stored: Mapping[str, Any] | None, token: str) -> int:
        """Return the index that a change is sent with.

        Raises:
            RefusedError: it can be seen already that it is another one.
        """
        if token == "":
            # A job that was stopped is not gone: whoever takes its name takes its place.
            is_free = stored is None or stored.get("Stop")
            if not is_free:
                raise _moved(self._link, job, "something runs there now")
            return int(stored["JobModifyIndex"]) if stored else 0
        if stored is None or stored.get("Stop"):
            raise _moved(self._link, job, "nothing runs there any more")
        if token != str(stored["JobModifyIndex"]):
            raise _moved(self._link, job, f"version {stored['Version']} runs now")
        return int(stored["JobModifyIndex"])

    def _register(
        self, job: str, body: Mapping[str, object], index: int, note: Mapping[str, str]
    ) -> str:
        told = self._link.send(
            f"/v1/job/{segment(job)}",
            {
                "Job": body,
                "EnforceIndex": True,
                "JobModifyIndex": index,
                "Submission": notes.submission(body, note),
            },
            wrong=_invalid(job),
        )
        stored = self._stored(job)
        if stored is not None and stored["JobModifyIndex"] == index:
            return str(index)  # the same as it was: nothing was changed
        return str(told["JobModifyIndex"])

    def _deployment(self, job: str, deployment: str) -> Mapping[str, Any] | None:
        """Return Nomad's own deployment where it is not over."""
        if deployment.startswith(restarting.BEGINNING):
            return None
        index = rollouts.index_of(self._link, job, deployment)
        found = rollouts.of_index(self._link, job, index)
        return found[0] if found and found[0]["Status"] in rollouts.ACTIVE else None


def _invalid(job: str) -> Any:
    def error(said: str) -> HandrailError | None:
        return parsing.invalid(said, job)

    return error


def _moved(link: Link, job: str, why: str) -> RefusedError:
    return RefusedError(
        "platform.moved",
        f"job `{job}` on `{link.resource}` is not as it was planned: {why}",
        hint="plan it again",
    )


def _is_canary(allocation: Mapping[str, Any]) -> bool:
    return bool((allocation.get("DeploymentStatus") or {}).get("Canary"))


def _needs_promotion(group: Mapping[str, Any]) -> bool:
    return bool(group.get("DesiredCanaries")) and not group.get("Promoted")
