"""What services and apps lose with machines: counted, and judged, without any platform."""

from __future__ import annotations

import pytest

from handrail.errors import Place
from handrail.estate.model import Estate, Need, Resource
from handrail.kits.deploys import capacity
from handrail.kits.deploys.capacity import Ground, Loss
from handrail.kits.deploys.model import Machine

PLATFORM = "platform/prod"
_AT = Place("estate/a.yaml", 1)


def resource(ref: str, *needs: str, **settings: object) -> Resource:
    kind, _, name = ref.partition("/")
    listed = tuple((Need(n.removesuffix("?"), hard=not n.endswith("?")), _AT) for n in needs)
    return Resource(kind, name, _AT, needs=listed, settings=settings)


def machine(name: str, zone: str = "a", state: str = "in-service", **apps: int) -> Machine:
    return Machine(name, f"{name}-name", "pool", zone, state, apps)


def ground(machines: list[Machine], *resources: Resource, target: str = "node/m1") -> Ground:
    estate = Estate({}, {one.ref: one for one in resources})
    return Ground(estate, PLATFORM, machines, target)


GROUP = resource("group/web", platform=PLATFORM, name="pool")
NODE = resource("node/m1", platform=PLATFORM)


def web(quorum: int = 0) -> Resource:
    return resource("service/web", runs_on=("group/web",), quorum=quorum)


@pytest.mark.parametrize(
    ("before", "after", "least", "zones", "outcome"),
    [
        (3, 3, 3, (), ""),
        (3, 2, 0, (), "affected"),
        (3, 2, 1, (), "affected"),
        (3, 2, 2, (), "degraded"),
        (3, 2, 3, (), "stops"),
        (3, 2, 0, ("a",), "degraded"),
        (1, 0, 0, ("a",), "stops"),
        (0, 0, 2, (), ""),
    ],
)
def test_outcomes(
    before: int, after: int, least: int, zones: tuple[str, ...], outcome: str
) -> None:
    """Below what it lives with it stops; at that, or out of a zone, it is degraded."""
    loss = Loss("service/web", (), before, after, least=least, zones=zones)
    assert loss.outcome == outcome


def test_only_what_is_in_service_counts() -> None:
    """A machine that is down is no capacity, and losing it is no loss; who runs there is told."""
    every = [machine("m1", state="down"), machine("m2"), machine("m3", state="pending")]
    (loss,) = ground(every, GROUP, NODE, web()).losses({"m1"})
    assert (loss.before, loss.after, loss.outcome) == (1, 1, "")
    (loss,) = ground(every, GROUP, NODE, web()).losses({"m2"})
    assert (loss.before, loss.after, loss.outcome) == (1, 0, "stops")


def test_what_runs_elsewhere_stays() -> None:
    """A node of no platform, or of another one, counts and is not lost."""
    service = resource("service/web", runs_on=("node/m1", "node/far"), quorum=1)
    far = resource("node/far", site="site/x", platform="platform/other")
    (loss,) = ground([machine("m1")], NODE, far, service).losses({"m1"})
    assert (loss.before, loss.after, loss.outcome) == (2, 1, "degraded")


def test_a_machine_reached_two_ways_is_one() -> None:
    """By its group, and as a node of its own."""
    group = resource("group/web", platform=PLATFORM, name="pool", nodes=("node/m1",))
    service = resource("service/web", runs_on=("group/web", "node/m1"))
    (loss,) = ground([machine("m1"), machine("m2")], group, NODE, service).losses({"m1"})
    assert (loss.before, loss.after) == (2, 1)


def test_a_node_is_known_by_name_or_id() -> None:
    """As its declaration says, else by its own name; of another platform it is another machine."""
    for settings in ({"machine": "m1"}, {"machine": "m1-name"}):
        node = resource("node/x", platform=PLATFORM, **settings)
        assert ground([machine("m1")], node).node_of(machine("m1")) == "node/x"
    other = resource("node/m1", platform="platform/other")
    assert ground([machine("m1")], other).node_of(machine("m1")) == ""


def test_apps_lose_instances_and_their_services_with_them() -> None:
    """As the platform counts them; the service that an app is goes the same way."""
    app = resource("app/shop", platform=PLATFORM, job="", service="service/shop", capacity=3)
    service = resource("service/shop")
    every = [machine("m1", shop=2, other=9), machine("m2", zone="b", shop=2)]
    losses = ground(every, app, service, NODE).losses({"m1"})
    assert [(one.ref, one.before, one.after, one.unit, one.outcome) for one in losses] == [
        ("app/shop", 4, 2, "instances", "stops"),
        ("service/shop", 4, 2, "instances", "stops"),
    ]
    assert losses[1].path == ("node/m1", "app/shop", "service/shop")


def test_who_runs_elsewhere_is_not_named() -> None:
    """A service on other machines loses nothing and is not touched."""
    other = resource("service/db", runs_on=("group/db",))
    group = resource("group/db", platform=PLATFORM, name="other-pool")
    assert ground([machine("m1")], NODE, group, other).losses({"m1"}) == ()


def test_who_needs_what_stops_stops_too() -> None:
    """A hard need stops, a soft one degrades, with the whole path; the worst of two ways counts."""
    api = resource("service/api", "service/web")
    page = resource("service/page", "service/web?")
    estate = Estate({}, {one.ref: one for one in (GROUP, NODE, web(2), api, page)})
    losses = Ground(estate, PLATFORM, [machine("m1"), machine("m2")], "node/m1").losses({"m1"})
    found = {one.resource: one for one in capacity.consequences(estate, losses)}
    assert {ref: one.outcome for ref, one in found.items()} == {
        "service/web": "stops",
        "service/api": "stops",
        "service/page": "degraded",
    }
    assert found["service/api"].path == ("node/m1", "group/web", "service/web", "service/api")


def test_a_reference_to_nothing_is_passed_over() -> None:
    """What is not declared is for the check of the estate to say."""
    service = resource("service/web", runs_on=("group/none", "node/m1"))
    (loss,) = ground([machine("m1")], NODE, service).losses({"m1"})
    assert loss.path == ("node/m1", "service/web")


@pytest.mark.parametrize(
    ("outcome", "takes", "is_production", "level"),
    [
        ((3, 0, 0), False, True, "critical"),
        ((3, 0, 0), False, False, "high"),
        ((3, 2, 2), False, False, "high"),
        ((3, 2, 0), True, True, "high"),
        ((3, 2, 0), False, True, "low"),
        ((3, 2, 0), True, False, "low"),
    ],
)
def test_risk(outcome: tuple[int, int, int], takes: bool, is_production: bool, level: str) -> None:
    """From the worst that anything loses, and whether real users depend on it."""
    before, after, least = outcome
    loss = Loss("service/web", (), before, after, least=least)
    found, because = capacity.risk((loss,), changes=True, takes=takes, is_production=is_production)
    assert found == level
    assert because
    assert capacity.risk((loss,), changes=False, takes=True, is_production=True)[0] == "none"
