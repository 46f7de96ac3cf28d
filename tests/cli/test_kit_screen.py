"""The screen of a kit's plan, as values give it: one screen, the worst first, what comes next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from inline_snapshot import snapshot

from handrail.cli import screen
from handrail.errors import Place
from handrail.estate.model import Environment, Estate, Need, Resource
from handrail.kits.deploys import declared
from handrail.plans import drafting
from handrail.plans.drafted import Draft
from handrail.plans.effect import Effect
from handrail.plans.facts import Identity
from handrail.plans.model import Decision, Facts, LastChange, Plan, Request, Section

APP = "app/shop"
PLACE = Place("estate/apps.yaml", 1)
PLATFORM = Identity("nomad:global/5d0c", "127.0.0.1:4646", "Nomad 1.11.3")
NOW = "2026-01-31T09:00:00.000000Z"
DEPLOY = next(one for one in declared.OPERATIONS if one.name == "deploy")
ESTATE = Estate(
    environments={"production": Environment("production", True, None, None, PLACE)},
    resources={
        APP: Resource("app", "shop", Place("estate/apps.yaml", 3), environment="production"),
        "service/till": Resource(
            "service", "till", Place("estate/apps.yaml", 9), needs=((Need(APP, hard=True), PLACE),)
        ),
    },
)
DRAFT = Draft(
    summary="deploy shop at 3fa2b1c to platform/prod",
    body={},
    effects=(Effect(APP, "replace", "instances", "web", None, None, "3 of them, one at a time"),),
    risk="high",
    risk_because="it replaces what runs in production",
    undo="puts back version 12, commit 9c01d44",
    sections=(
        Section("spec", ("~ group web > task app > image: a -> b", "+ group web > task log")),
        Section("health", ("version 12 is running, 3 of 3 healthy",)),
        Section("commits", tuple(f"{number:07x} line {number}" for number in range(20))),
    ),
    platform="platform/prod",
    identity=PLATFORM,
    declared_identity=str(PLATFORM),
    change=LastChange("3fa2b1c" + "0" * 33, "ana@example.org", ("ben@example.org",), NOW),
)


def make(draft: Draft = DRAFT, *decisions: Decision, **request: Any) -> Plan:
    asked = Request(
        "deploy", APP, {"ref": "", "images": ""}, "ana@example.org", words="deploy --on app/shop"
    )
    facts = Facts(now=NOW, identity=draft.identity, change=draft.change)
    resource = ESTATE.resources[APP]
    plan = drafting.plan_of(replace(asked, **request), DEPLOY, resource, ESTATE, draft, facts)
    return replace(plan, decisions=decisions)


def shown(plan: Plan) -> str:
    return "\n".join(screen.plan_lines(plan)) + "\n"


def test_a_deploy_on_one_screen() -> None:
    """Where, which commit by whom, the undo, what becomes of each group, and what is next."""
    wait = Decision("second-person", "require", "anybody but ana@example.org", "policy.yaml:3")
    plan = make(DRAFT, replace(wait, remedy="handrail approve 7f3a-91c2"))
    assert shown(plan) == snapshot("""\
waiting: deploy on app/shop                                                      risk high

  where   Nomad 1.11.3, global/5d0c at 127.0.0.1:4646, the one that was adopted
          platform/prod; declared as environment `production`
  what    deploy shop at 3fa2b1c to platform/prod
  commit  3fa2b1c by ana@example.org, just now, reviewed by ben@example.org
  risk    high: it replaces what runs in production
  undo    puts back version 12, commit 9c01d44

deploy would, on app/shop:
  replace  instances web  3 of them, one at a time
spec:
  ~ group web > task app > image: a -> b
  + group web > task log
health: version 12 is running, 3 of 3 healthy
commits:
  0000000 line 0
  0000001 line 1
  0000002 line 2
  0000003 line 3
  0000004 line 4
  0000005 line 5
  0000006 line 6
  0000007 line 7
  0000008 line 8
  0000009 line 9
  000000a line 10
  000000b line 11
  and 8 more: --json shows all
and so:
  service/till  affected  needs app/shop (hard)

  .  second-person  anybody but ana@example.org                                        policy.yaml:3

next: handrail approve 7f3a-91c2
""")
    assert len(shown(plan).splitlines()) <= 45


def test_nothing_new_in_three_lines() -> None:
    """What runs already is said in three lines, and nothing is waited for."""
    assert shown(make(replace(DRAFT, effects=(), risk="none", sections=()))) == snapshot("""\
nothing to do: deploy on app/shop                                                risk none
  deploy shop at 3fa2b1c to platform/prod
  nothing would change, and nothing is run
""")


def test_a_deploy_of_low_risk_in_three_lines() -> None:
    """A plan that asks for nothing prints three lines: what, and the command that is next."""
    assert shown(make(replace(DRAFT, risk="low"))) == snapshot("""\
ready: deploy on app/shop                                                         risk low
  deploy shop at 3fa2b1c to platform/prod
next: handrail run 083f-1138
""")


def test_nothing_of_an_app_moves_the_cursor() -> None:
    """What an app's repository says is shown without what would move a cursor."""
    hostile = Section("commits", ("\x1b[2Jrefused\r\u202e", "b\nready: everything"))
    told = shown(make(replace(DRAFT, summary="deploy \x1b[1A", sections=(hostile,))))
    assert "\x1b" not in told
    assert "\r" not in told
    assert not any(line.startswith("ready: everything") for line in told.splitlines())


def test_explained_as_it_was_drafted() -> None:
    """What `explain` says of a kit's plan is what the plan said, not of a rehearsal."""
    lines = screen.measured_lines(make())
    assert lines[0] == "deploy would, on app/shop:"
    assert "health: version 12 is running, 3 of 3 healthy" in lines
