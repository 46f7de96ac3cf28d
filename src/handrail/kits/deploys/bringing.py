"""One job on one platform, and how a specification is brought there with its files.

Rules:
- A specification is applied compare-and-set. Its files are brought first only where the platform
  has not got them: what ran before is there still, also while the repository is away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.core.kit_act import Job
    from handrail.kits.deploys.changes import Change
    from handrail.kits.deploys.model import Running, Spec
    from handrail.kits.deploys.ports import Platform, Sources

# What the body of a stage keeps: what `rollout` finds a deployment by.
DEPLOYMENT = "deployment"
LOOK_S = 1.0


@dataclass(frozen=True)
class At:
    """Where one job stands: its change, the platform, and the note that its run writes down."""

    job: Job
    change: Change
    platform: Platform
    note: Mapping[str, str]

    @property
    def name(self) -> str:
        """Of the job on the platform."""
        return self.change.spec.job

    def running(self) -> Running | None:
        """Return what runs now."""
        return self.platform.current(self.name)


def bring(
    sources: Sources, at: At, spec: Spec, token: str, note: Mapping[str, str], commit: str
) -> str:
    """Apply a specification; return what `rollout` finds it by. Twice equals once.

    Args:
        sources: for the files of `commit`.
        at: where.
        spec: what is to run.
        token: of what runs now.
        note: kept beside it.
        commit: that its files are of; empty where nobody knows.

    Raises:
        RefusedError: somebody else changed what runs. Nothing was done.
    """
    try:
        return at.platform.apply(spec, token, note)
    except UsageError as error:
        if error.code != "deploys.nothing" or not (spec.files and commit):
            raise
    source = sources.open(at.change.repository, commit)
    at.platform.stage(spec, source.files(spec.files))
    return at.platform.apply(spec, token, note)
