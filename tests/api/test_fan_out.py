"""An operation over many targets through a server: planned, approved, run and undone as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fleets import CLOSE, NAME, NAMES, Fleet, make_fleet
from support.scripts import wait_for
from support.served import Served, serving, until
from support.teams import ANA, BEN, SESSIONS

SLOW = CLOSE + (
    'told = os.environ.get("REFUSES", "")\n'
    'if real and told and pathlib.Path(told + ".slow").exists():\n'
    "    import time\n"
    '    pathlib.Path(told + ".begun").write_text("here\\n")\n'
    "    time.sleep(60)\n"
)
ALL, NONE = dict.fromkeys(NAMES, SESSIONS), dict.fromkeys(NAMES, 0)
PART = f"""\
groups: {{web: [{ANA}]}}
roles:
  - {{role: operator, groups: [web], resources: ["store/edge-a", "store/edge-b"]}}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fleet of which nothing is rehearsed."""
    return make_fleet(tmp_path / "team")


def test_the_way_over_all_targets(fleet: Fleet) -> None:
    """Refused, rehearsed, waiting, approved, confirmed, undone: as without a server."""
    with serving(fleet.team) as served:
        refused = served.call("run", NAME)
        assert (refused.code, f"next: handrail rehearse {NAME} --on all" in refused.out) == (
            3,
            True,
        )
        assert served.call("plan", NAME).out == fleet.call("plan", NAME).out
        rehearsed = served.call("rehearse", NAME, "--on", "all")
        assert rehearsed.code == 0, rehearsed.err
        assert "delete  table sessions  80 rows  on all" in rehearsed.out
        digest = next(w for w in rehearsed.out.split() if w.count("-") == 1 and len(w) == 9)
        assert served.call("run", digest).code == 4
        approved = served.call("approve", digest, "--yes", person=BEN, role="approver")
        assert (approved.code, "canary 1  1  store/edge-c" in approved.out) == (0, True)
        ran = served.call("run", digest)
        assert (ran.code, "confirmed: run 1" in ran.out) == (0, True), ran.err
        assert fleet.sessions() == NONE
        assert served.call("runs").out == fleet.call("runs").out
        assert served.call("runs", "show", "1").out == fleet.call("runs", "show", "1").out
        shown = served.call("runs", "show", "1", "--json").json
        assert shown == fleet.call("runs", "show", "1", "--json").json
        undone = served.call("undo", "1")
        assert (undone.code, "undone: run 1" in undone.out) == (0, True), undone.err
        assert fleet.sessions() == ALL


def test_part_of_the_targets(fleet: Fleet) -> None:
    """Whoever may act on some of the targets may not act on all, nor see what is over all."""
    fleet.team.write({"policy.yaml": PART})
    fleet.call("plan", NAME, person=BEN)
    with serving(fleet.team) as served:
        for path in ("/v1/plans", "/v1/runs", "/v1/rehearsals"):
            for body in ({"operation": NAME}, {"operation": NAME, "on": "all"}):
                assert served.ask("POST", path, body).status == 403
        one = {"operation": NAME, "on": "store/edge-a"}
        assert served.ask("POST", "/v1/plans", one).status == 201
        rest = {"operation": NAME, "on": "store/edge-c"}
        assert served.ask("POST", "/v1/plans", rest).status == 403
        seen = served.ask("GET", "/v1/plans?limit=500").json["plans"]
        assert {plan["target"] for plan in seen} <= {"store/edge-a", "store/edge-b"}


def test_walk_that_was_cut_off(fleet: Fleet) -> None:
    """A walk whose process died is taken up by the server, and held where only a person can say."""
    begun = fleet.told / "refuses.begun"
    fleet.team.write({f"scripts/{NAME}/close.py": SLOW})
    fleet.team.commit()
    digest = fleet.ready()
    (fleet.told / "refuses").write_text("")
    (fleet.told / "refuses.slow").touch()
    fleet.team.environment["REFUSES"] = str(fleet.told / "refuses")
    walking = fleet.team.spawn("run", digest)
    wait_for(begun)
    walking.kill()
    walking.communicate(timeout=30)
    (fleet.told / "refuses.slow").unlink()
    with serving(fleet.team) as served:
        until(lambda: _state(served) == "held")
        undone = served.call("resume", "1", "--undo")
        assert undone.code == 0, undone.out + undone.err + "".join(served.logged)
    assert fleet.sessions() == ALL
    assert fleet.call("log", "verify").code == 0


def _state(served: Served) -> str:
    walks = served.ask("GET", "/v1/status").json["walks"]
    return str(walks[0]["outcome"]) if walks else ""
