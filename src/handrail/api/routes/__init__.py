"""The addresses of the API, one file a resource; each file has a table `ROUTES`."""

from __future__ import annotations

from handrail.api.route import Route
from handrail.api.routes import (
    approvals,
    apps,
    errands,
    holds,
    journal,
    plans,
    questions,
    runs,
    schedules,
    standing,
    tokens,
)

ROUTES: tuple[Route, ...] = (
    *standing.ROUTES,
    *plans.ROUTES,
    *runs.ROUTES,
    *apps.ROUTES,
    *errands.ROUTES,
    *holds.ROUTES,
    *approvals.ROUTES,
    *questions.ROUTES,
    *schedules.ROUTES,
    *journal.ROUTES,
    *tokens.ROUTES,
)
