"""What planning itself costs: draft and judge on an estate of 10,000 resources.

Rules:
- Nothing was rehearsed, so everything that depends on the target, directly or not, is a
  consequence: the plan with the most to say.
- Facts are given: no store, file or git is read. No turn has what an earlier one derived.
- The ratio is the median of the turns' CPU time over 50 ms.
"""

from __future__ import annotations

import copy
import gc
import statistics
import tempfile
import time
from pathlib import Path

from bench.estates import make_repository
from handrail.estate import loading as estates
from handrail.estate.model import Estate
from handrail.guards import BUILT_IN
from handrail.operations import loading as operations
from handrail.operations.model import Operation
from handrail.plans import material
from handrail.plans.facts import Identity, Measure, TableMeasure
from handrail.plans.judging import Case, judge
from handrail.plans.model import Facts, Material, Request
from handrail.plans.planning import draft
from handrail.plans.policy import Policy

BOUND_S = 0.05
_RESOURCES = 10_000
_TURNS = 11
_FACTS = Facts(
    now="2026-01-31T09:00:00.000000Z",
    identity=Identity("sqlite:1", "/data/pilot.db"),
    measure=Measure((TableMeasure("sessions", 100),), 8192),
)


def main() -> list[dict[str, object]]:
    """Return what planning costs."""
    with tempfile.TemporaryDirectory(prefix="handrail-bench-") as name:
        root = Path(name)
        make_repository(root, resources=_RESOURCES)
        estate = estates.load(root)
        operation = operations.load(root)["reset-pilot"]
        made_of = material.read(root, operation)
    gc.set_threshold(100_000)  # as the command line does
    seconds = statistics.median(
        _planning_s(copy.copy(estate), operation, made_of) for _ in range(_TURNS)
    )
    detail = f"{seconds * 1000:.1f} ms for {_RESOURCES:,} resources, each a consequence"
    return [
        {"name": "planning", "ratio": round(seconds / BOUND_S, 3), "bound": 1.0, "detail": detail}
    ]


def _planning_s(estate: Estate, operation: Operation, made_of: Material) -> float:
    request = Request(operation.name, "store/pilot-db", {}, "ana@pilot.example")
    policy = Policy()
    target = estate.resources["store/pilot-db"]
    began = time.process_time()
    plan = draft(request, operation, target, estate, policy, made_of, _FACTS)
    plan = judge(Case(plan, operation, estate, policy), BUILT_IN)
    seconds = time.process_time() - began
    if len(plan.consequences) != _RESOURCES - 2:
        raise RuntimeError("a plan without its consequences costs nothing")
    return seconds


if __name__ == "__main__":
    for row in main():
        print(row)
