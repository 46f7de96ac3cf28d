"""How each operation of the kit is planned and done, by `Operation.act`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from handrail.errors import UsageError
from handrail.kits.deploys.deploying import Deploy
from handrail.kits.deploys.detaching import Detach
from handrail.kits.deploys.draining import Drain
from handrail.kits.deploys.resizing import Resize
from handrail.kits.deploys.restarting import Restart
from handrail.kits.deploys.rolling_back import RollBack
from handrail.kits.deploys.scaling import ScaleApp
from handrail.kits.deploys.terminating import Terminate

if TYPE_CHECKING:
    from handrail.core.kit_act import Job, KitAct, Stage
    from handrail.core.world import Declared
    from handrail.estate.model import Resource
    from handrail.kits.deploys.outside import Outside
    from handrail.plans.drafted import Draft
    from handrail.plans.model import Request


def acts(outside: Outside) -> Mapping[str, KitAct]:
    """Return the acts of the kit."""
    return {
        "deploys.deploy": Deploy(outside),
        "deploys.rollback": RollBack(outside),
        "deploys.restart": Restart(outside),
        "deploys.scale": ByKind({"app": ScaleApp(outside), "group": Resize(outside)}),
        "deploys.drain": Drain(outside),
        "deploys.detach": Detach(outside),
        "deploys.terminate": Terminate(outside),
    }


class ByKind:
    """`KitAct` that is another one for each kind of resource."""

    def __init__(self, acts: Mapping[str, KitAct]) -> None:
        self._acts = acts

    def draft(self, resource: Resource, request: Request, declared: Declared) -> Draft:
        """Say what it would do; see `KitAct`."""
        return self._of(resource).draft(resource, request, declared)

    def apply(self, job: Job) -> Stage:
        """Begin it; see `KitAct`."""
        return self._of(job.resource).apply(job)

    def follow(self, job: Job) -> Stage:
        """Look once; see `KitAct`."""
        return self._of(job.resource).follow(job)

    def found(self, job: Job) -> Stage:
        """Say what became of it; see `KitAct`."""
        return self._of(job.resource).found(job)

    def undo(self, job: Job) -> Stage:
        """Put back what was there; see `KitAct`."""
        return self._of(job.resource).undo(job)

    def _of(self, resource: Resource) -> KitAct:
        found = self._acts.get(resource.kind)
        if found is None:
            raise UsageError("operations.target", f"a {resource.kind} cannot be changed so")
        return found
