"""Values of the deploys kit: apps as declared, specifications, what runs, and machines.

Rules:
- A specification's body is the platform's own JSON: nothing of it is lost on the way.
- No value here holds a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Spec:
    """What a platform is asked to run.

    Attributes:
        job: its name on the platform.
        body: the platform's own JSON, canonical: two that mean the same are equal.
        images: task (`group/task`, or `task` where that is unambiguous) to the image it runs;
            a task without an image is not among them.
        tasks: every task, `group/task`.
        files: files and folders of the app's repository that it is to be given (`with_files`,
            `stage`); empty where the platform needs none.
    """

    job: str
    body: Mapping[str, object]
    images: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """A file of an app's repository."""

    content: bytes = field(repr=False)
    is_executable: bool = False


@dataclass(frozen=True)
class Running:
    """What a platform runs now under one name.

    Attributes:
        spec: as the platform says it, without what it adds by itself (indexes, times, status).
        version: the platform's own number for it, for people.
        token: what a compare-and-set compares: Nomad's JobModifyIndex.
        status: `running`, `pending`, `dead`: the platform's own word.
        healthy: instances that are healthy, and how many there should be.
        note: what whoever deployed it wrote down there: `handrail.commit`, `handrail.run`,
            `handrail.person`; empty where it was not Handrail.
    """

    spec: Spec
    version: str
    token: str
    status: str
    healthy: tuple[int, int]
    note: Mapping[str, str] = field(default_factory=dict)


Fate = Literal["place", "stop", "in-place", "destructive", "ignore", "canary", "migrate"]


@dataclass(frozen=True)
class GroupFate:
    """What would become of one group's instances: each fate with its count, zeros left out.

    Attributes:
        at_once: how many are replaced at the same time; 0 where the platform counts the first
            batch alone as `destructive`, and the rest as `ignore`.
    """

    group: str
    counts: Mapping[str, int]
    at_once: int = 0


@dataclass(frozen=True)
class DryRun:
    """What a platform says that a specification would do.

    Attributes:
        groups: by group.
        diff: what would differ, one line each for people: `~ group web > task app > image: a -> b`,
            `+ ...`, `- ...`; empty when nothing would change.
        warnings: the platform's own.
        unplaced: why instances would find no place; empty when all do.
    """

    groups: tuple[GroupFate, ...]
    diff: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    unplaced: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything would change."""
        return bool(self.diff) or any(
            count
            for group in self.groups
            for fate, count in group.counts.items()
            if fate != "ignore"
        )


@dataclass(frozen=True)
class Rollout:
    """Where a deployment stands.

    Attributes:
        state: `going`, `canaries` (all canaries healthy, waiting to be promoted), `healthy`,
            `failed`, `reverted` (the platform put back what was there before by itself).
        healthy: instances of the new version that are healthy, and how many there should be.
        why: one sentence for people: what is ill, or what is waited for.
    """

    state: Literal["going", "canaries", "healthy", "failed", "reverted"]
    healthy: tuple[int, int]
    why: str = ""


@dataclass(frozen=True)
class Commit:
    """One commit of an app's repository.

    Attributes:
        id: 40 hexadecimal digits (64 in a SHA-256 repository).
        author: mail address; `name` for people.
        when: ISO 8601 UTC.
        reviewers: of `Reviewed-by` trailers.
        signed_by: a principal of `allowed_signers` whose signature on it verifies; else empty.
    """

    id: str
    author: str
    name: str
    when: str
    subject: str
    reviewers: tuple[str, ...] = ()
    signed_by: str = ""


@dataclass(frozen=True)
class Image:
    """An image as it was resolved.

    Attributes:
        repository: `ghcr.io/team/shop`.
        tag: as asked for; empty where a digest was.
        digest: `sha256:...`, what is deployed.
        created: ISO 8601 UTC; empty where the registry does not say.
    """

    repository: str
    tag: str
    digest: str
    created: str = ""

    @property
    def pinned(self) -> str:
        """The reference that is deployed: by digest alone.

        Without the tag: the docker and podman drivers of Nomad fail where both are there
        (hashicorp/nomad#11821), and early ones took the tag.
        """
        return f"{self.repository}@{self.digest}"


@dataclass(frozen=True)
class Machine:
    """One machine of a platform.

    Attributes:
        id: the platform's own.
        name: for people.
        group: the autoscaling group or node pool that it is counted in; empty for none.
        zone: where it stands: an availability zone, a datacenter.
        state: `in-service`, `draining`, `ineligible`, `down`, `detached`, `terminating`, `pending`.
        apps: jobs that have instances there, to how many.
        token: what a compare-and-set compares.
    """

    id: str
    name: str
    group: str
    zone: str
    state: str
    apps: Mapping[str, int] = field(default_factory=dict)
    token: str = ""


@dataclass(frozen=True)
class MachineGroup:
    """A group of machines that keeps its size by itself.

    Attributes:
        token: what a compare-and-set compares.
    """

    name: str
    desired: int
    minimum: int
    maximum: int
    machines: tuple[Machine, ...]
    token: str = ""
