"""How apps stand and what ran of them, as `--json` and the API tell it: JSON values.

Rules:
- What is text for people here has no secret: it was masked where it was made.
- A specification is not told: it is large, and stands in the plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handrail.kits.deploys import changes, history

if TYPE_CHECKING:
    from handrail.core.world import World
    from handrail.kits.deploys.history import Ran
    from handrail.kits.deploys.model import Running
    from handrail.kits.deploys.status import AppStatus


def status(found: AppStatus) -> dict[str, object]:
    """Return how one app stands."""
    saved, head = found.saved, found.head
    return {
        "app": found.ref,
        "platform": found.platform,
        "word": found.word,
        "why": found.why,
        "saved": None if saved is None else _saved(saved),
        "running": None if found.running is None else _running(found.running),
        "branch": {
            "name": found.branch,
            "head": head.id if head else "",
            "behind": found.behind,
            "why": found.head_why,
        },
        "drift": list(found.drift),
    }


def ran(world: World, one: Ran) -> dict[str, object]:
    """Return what is known of one run on an app."""
    approved = history.approved(world, one)
    return {
        "run": one.run,
        "operation": one.operation,
        "summary": one.summary,
        "outcome": one.outcome or "unfinished",
        "why": one.why,
        "began": one.began,
        "ended": one.ended,
        "person": one.person,
        "commit": one.commit,
        "reviewers": list(one.reviewers),
        "approved_by": list(approved.by),
        "glass": approved.glass,
        "digest": one.digest,
    }


def _saved(run: Ran) -> dict[str, object]:
    return {"run": run.run, "commit": run.commit, "ended": run.ended, "person": run.person}


def _running(running: Running) -> dict[str, object]:
    healthy, wanted = running.healthy
    return {
        "version": running.version,
        "status": running.status,
        "healthy": healthy,
        "wanted": wanted,
        "commit": running.note.get(changes.COMMIT, ""),
    }
