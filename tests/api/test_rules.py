"""Who may do what: every address of the API, for every role, and for every kind of wrong token."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from handrail.api import shapes
from handrail.api.health import health_routes
from handrail.api.hooks import hook_routes
from handrail.api.route import Route, nothing
from handrail.api.routes import ROUTES, approvals, questions
from handrail.core import people
from handrail.plans.roles import ROLES
from support.served import ADMIN, Served, make_token
from support.teams import ANA

APPROVAL = {
    "id": "0" * 12,
    "digest": "0" * 64,
    "person": "x",
    "groups": [],
    "made_at": "",
    "expires_at": "",
    "named_target": False,
    "because": "",
    "signature": "",
}
RELEASE = {"id": "ab", "person": "x", "made_at": "", "allow": True, "because": "", "signature": ""}
WITHDRAWAL = {"id": "0" * 12, "digest": "0" * 64, "person": "x", "made_at": "", "because": ""}
WITHDRAWAL |= {"signature": ""}
REVIEW = {"id": "ab12", "person": "x", "made_at": "", "because": "x", "signature": ""}
ANSWER = {"run": 7, "name": "ab12", "value": "3", "person": "x", "made_at": ""}
BODIES: dict[type, Any] = {
    shapes.Wanted: {"operation": "reset-pilot"},
    shapes.WantedPlan: {"operation": "reset-pilot"},
    shapes.Because: {},
    shapes.Signed: {"approval": APPROVAL},
    shapes.Verdict: {"allow": False},
    shapes.SignedRelease: {"release": RELEASE},
    shapes.Choice: {},
    shapes.Undoing: {},
    shapes.Stopping: {},
    approvals.Why: {"because": "the right rows, and no other"},
    approvals.SignedWithdrawal: {"withdrawal": WITHDRAWAL},
    approvals.SignedReview: {"review": REVIEW},
    questions.Saying: {"value": "3"},
    questions.SignedAnswer: {"answer": ANSWER},
    shapes.Pausing: {"because": "we move the database"},
    shapes.NewToken: {"person": ANA, "role": "viewer"},
}
NAMES = [route.name for route in ROUTES]


def path_of(served: Served, route: Route) -> str:
    """Return an address with a plan that is there, and a run and an errand that are not."""
    chains = served.team.world().journal.chains("plans-")
    digest = chains[0].removeprefix("plans-")
    return route.path.format(number=7, digest=digest, id="ab12", operation="reset-pilot", app="x")


def ask(served: Served, route: Route, token: str | None) -> int:
    """Ask for an address, with a body that is right, and return the status."""
    body = None if route.body is None else BODIES[route.body]
    return served.ask(route.method, path_of(served, route), body, token=token).status


def test_every_address_has_a_rule() -> None:
    """Every address names a role, and asks for it on the resource that it names, if it names one.

    Nothing else is served but health, readiness, metrics, the description, and what is signed.
    """
    for route in ROUTES:
        assert route.role in ROLES
        names_one = "{" in route.path and not route.path.startswith("/v1/tokens")
        begins = route.body in {shapes.Wanted, shapes.WantedPlan}
        assert (route.on is not nothing) == (names_one or begins), route.name
    open_ones = [one.path for one in health_routes(None)]  # type: ignore[arg-type]  # only listed
    assert open_ones == ["/healthz", "/readyz", "/metrics", "/v1/openapi.json"]
    signed = [one.path for one in hook_routes(None)]  # type: ignore[arg-type]  # only listed
    assert signed == ["/hooks/deploy/{app}"]


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
@pytest.mark.parametrize("role", ROLES)
def test_role(served: Served, route: Route, role: str) -> None:
    """An address answers 403 to whoever has less than its role, and to nobody else.

    A rehearsal that may begin is one that the plan's operation does not have: nothing is begun.
    """
    may = ROLES.index(role) >= ROLES.index(route.role)
    if may and route.path in {"/v1/rehearsals", "/v1/runs"} and route.method == "POST":
        body = {"operation": "nothing-of-this-name"}
        token = served.token(ADMIN, role)
        assert served.ask(route.method, route.path, body, token=token).status == 404
        return
    status = ask(served, route, served.token(ADMIN, role))
    assert (status == 403) != may or (may and status == 403 and route.name in _OWN), status
    assert status != 401
    assert status < 500


# What an approver may ask, and is refused for what was sent.
_OWN = {"POST /v1/plans/{digest}/approvals"}


@pytest.mark.parametrize("route", ROUTES, ids=NAMES)
@pytest.mark.parametrize("what", ["none", "wrong", "of another", "expired", "revoked", "basic"])
def test_token_that_does_not_count(served: Served, route: Route, what: str) -> None:
    """Without a token, and with a wrong, expired or revoked one, every address answers 401."""
    good = served.token(ADMIN, "admin")
    token = {
        "none": None,
        "wrong": good[:-1] + ("0" if good[-1] != "0" else "1"),
        "of another": good.rpartition("_")[0] + "_" + served.token(ANA, "operator")[-64:],
        "expired": _expired(served),
        "revoked": _revoked(served),
        "basic": "",
    }[what]
    body = None if route.body is None else BODIES[route.body]
    headers = {"Authorization": f"Basic {good}"} if what == "basic" else {}
    token = None if what == "basic" else token
    path = path_of(served, route)
    reply = served.ask(route.method, path, body, token=token, headers=headers)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"
    wanted = {"expired": "auth.expired", "revoked": "auth.revoked"}.get(what, "auth.missing")
    assert reply.json["code"] == wanted


def _expired(served: Served) -> str:
    if "expired" not in served.tokens:
        token = make_token(served.team, ADMIN, "admin", ago=timedelta(hours=2))
        served.tokens["expired"] = token
    return served.tokens["expired"]


def _revoked(served: Served) -> str:
    if "revoked" not in served.tokens:
        token = make_token(served.team, ADMIN, "admin")
        people.revoke(served.team.world(), token.split("_")[1])
        served.tokens["revoked"] = token
    return served.tokens["revoked"]


@pytest.mark.parametrize(
    "route",
    [r for r in ROUTES if r.on is not nothing and "{digest}" in r.path],
    ids=lambda r: r.name,
)
def test_other_teams_plan(served: Served, route: Route) -> None:
    """A person of another team may not even look at a plan of this one."""
    token = served.token("dora@pilot.example", "approver")
    assert ask(served, route, token) == 403


@pytest.mark.parametrize("path", ["/v1/plans", "/v1/runs", "/v1/rehearsals"])
def test_other_teams_operation(served: Served, path: str) -> None:
    """A person of another team may neither plan, run nor rehearse on a store of this one."""
    token = served.token("dora@pilot.example", "approver")
    reply = served.ask("POST", path, {"operation": "reset-pilot"}, token=token)
    assert (reply.status, reply.json["code"]) == (403, "auth.forbidden")


def test_lists_are_of_ones_own(served: Served) -> None:
    """Lists and the overview hold what the person may see, and nothing else."""
    for person, seen in ((ANA, 1), ("dora@pilot.example", 0)):
        token = served.token(person, "viewer")
        assert len(served.ask("GET", "/v1/plans", token=token).json["plans"]) == seen
        resources = served.ask("GET", "/v1/status", token=token).json["resources"]
        assert (resources > 0) is bool(seen)


def test_token_of_one_team(served: Served) -> None:
    """A token made for a team gives what that group was granted, and nothing besides."""
    whole = served.token(ADMIN, "admin")
    of_data = served.token(ADMIN, "admin", "data")
    assert served.ask("GET", "/v1/tokens", token=whole).status == 200
    assert served.ask("GET", "/v1/tokens", token=of_data).status == 403
    assert (
        served.ask("POST", "/v1/plans", {"operation": "reset-pilot"}, token=of_data).status == 403
    )


def test_only_what_is_declared(served: Served) -> None:
    """No path, address or undeclared store in a request is run, reached, or looked at."""
    for body in (
        {"operation": "./scripts/reset-pilot/run.sh"},
        {"operation": "/bin/true", "on": "store/pilot-db"},
        {"operation": "reset-pilot", "on": "postgres://127.0.0.1:1/x"},
        {"operation": "reset-pilot", "on": "data/pilot.db"},
        {"operation": "reset-pilot", "on": "../../etc"},
    ):
        for path in ("/v1/plans", "/v1/runs", "/v1/rehearsals"):
            reply = served.ask("POST", path, body)
            assert reply.status == 404, (body, reply.content)


def test_metrics_want_a_token(served: Served) -> None:
    """Metrics are for people with a token; health and readiness are for anybody."""
    assert served.ask("GET", "/metrics", token=None).status == 401
    reply = served.ask("GET", "/metrics")
    assert b"handrail_requests_total" in reply.content
    assert b"pilot-db" not in reply.content
    assert served.ask("GET", "/healthz", token=None).status == 200
    assert served.ask("GET", "/readyz", token=None).json == {"ready": True, "why": ""}


def test_log_holds_no_token(served: Served) -> None:
    """Neither the server's log nor its journal holds a token."""
    token = served.token(ANA, "operator")
    served.ask("GET", f"/v1/runs?secret={token}")
    secret = token.rpartition("_")[2]
    assert secret not in "".join(served.logged)
    assert secret not in served.team.journal_text()
