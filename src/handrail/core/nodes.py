"""Where a script runs: on this machine, or on the node that its plan names.

Rules:
- Where it ran stands in the plan: what became of it is asked there, whatever is declared by now.
- A node reaches a store by the guard's port alone: one in files of this machine it cannot reach.
"""

from __future__ import annotations

from collections.abc import Sequence

from handrail.core import together
from handrail.core.world import Talk, World
from handrail.errors import RefusedError, ScriptError
from handrail.estate.model import Estate
from handrail.operations.model import Operation
from handrail.operations.nodes import REACHED
from handrail.plans.model import Plan
from handrail.ports import Processes, Store


def processes(world: World, plan: Plan, estate: Estate) -> Processes:
    """Return what runs a plan's scripts.

    Raises:
        ScriptError: the node is not declared any more.
    """
    if not plan.runs_on:
        return world.processes
    node = estate.resources.get(plan.runs_on)
    if node is None:
        raise ScriptError(
            "node.unreachable",
            f"{plan.runs_on} is not declared any more",
            hint="declare it again for as long as this run is open",
        )
    return world.open_node(node)


def unconfined(world: World, operation: Operation) -> str:
    """Return why a script could go round its guard; empty when it cannot. Connects to nothing."""
    if operation.runs_on:
        return f"on {operation.runs_on} a script is not confined"
    return world.processes.can_confine()


def check(runs: Processes, plan: Plan, store: Store) -> None:
    """See that a script can run where it is to run, before anything is done for it.

    Raises:
        RefusedError: the node does not reach the store.
        ScriptError: the node is away, is another one, or lets nobody in.
    """
    if not plan.runs_on:
        return
    for part in together.parts_of(store):
        if part.kind not in REACHED:
            raise RefusedError(
                "operations.node",
                f"{part.resource} is in files of this machine: {plan.runs_on} does not reach it",
                hint="leave `runs-on` out",
            )
    runs.ready()


def forget(runs: Processes, plan: Plan, tokens: Sequence[str], talk: Talk) -> None:
    """Let the node remove what it kept of scripts whose results are recorded."""
    if not plan.runs_on:
        return
    try:
        runs.forget(tokens)
    except ScriptError as error:
        talk.end("run", f"{plan.runs_on} keeps what was there: {error.message}", ok=False)
