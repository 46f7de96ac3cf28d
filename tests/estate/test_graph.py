"""The graph of needs: who depends on what, by which path."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from handrail.estate.graph import Dependant, circles, dependants
from handrail.estate.model import Estate
from support.builders import STORE, make_estate, make_service, make_store

NAMES = "abcdef"


def found(*services: tuple[str, ...]) -> tuple[Dependant, ...]:
    """Return what depends on the store, in an estate of `services` (name and needs)."""
    made = [make_service(name, *needs) for name, *needs in services]
    return dependants(make_estate(make_store(), *made), STORE)


def test_the_shortest_path_is_told() -> None:
    """Of several ways to a dependant the shortest is shown, both ends included."""
    first, second = found(("a", STORE), ("b", "service/a", STORE))
    assert first == Dependant("service/a", (STORE, "service/a"), hard=True)
    assert second == Dependant("service/b", (STORE, "service/b"), hard=True)


def test_a_long_hard_path_beats_a_short_soft_one() -> None:
    """What stops by a detour stops, although directly it would only degrade."""
    services = (("a", STORE), ("b", "service/a"), ("c", "service/b", f"{STORE}?"))
    by_ref = {dependant.ref: dependant for dependant in found(*services)}
    assert by_ref["service/c"].hard
    assert by_ref["service/c"].path == (STORE, "service/a", "service/b", "service/c")


def test_one_soft_need_on_the_way_softens_the_whole_path() -> None:
    """Whoever needs something that only degrades, degrades."""
    a, b = found(("a", f"{STORE}?"), ("b", "service/a"))
    assert (a.hard, b.hard) == (False, False)
    assert b.path == (STORE, "service/a", "service/b")


def test_a_soft_path_may_lead_over_hard_needs() -> None:
    """A dependant behind a hard one is found by its soft need of that."""
    a, b = found(("a", STORE), ("b", "service/a?"))
    assert (a.hard, b.hard) == (True, False)


def test_hard_ones_come_first_then_near_ones_then_by_name() -> None:
    """The order is by what it means, and never by the order of files."""
    refs = [
        d.ref for d in found(("z", STORE), ("c", "service/z"), ("b", f"{STORE}?"), ("a", STORE))
    ]
    assert refs == ["service/a", "service/z", "service/c", "service/b"]


def test_circles_of_soft_needs_end() -> None:
    """Two services that degrade without each other are each told once."""
    services = (("a", STORE, "service/b?"), ("b", "service/a?"))
    assert [d.ref for d in found(*services)] == ["service/a", "service/b"]


def test_what_needs_itself_through_others_is_not_its_own_dependant() -> None:
    """The resource that is touched is not told as a consequence for itself."""
    estate = make_estate(make_service("a", "service/b?"), make_service("b", "service/a?"))
    assert [d.ref for d in dependants(estate, "service/a")] == ["service/b"]


def test_what_nobody_needs_has_no_dependants() -> None:
    """Nothing, and not an error: also for what is not declared."""
    assert found(("a",)) == ()
    assert dependants(Estate(), STORE) == ()


@st.composite
def estates(draw: st.DrawFn) -> Estate:
    """Draw six services with any needs among each other, hard and soft."""
    needs = st.lists(st.sampled_from([f"service/{n}{s}" for n in NAMES for s in ("", "?")]))
    return make_estate(*(make_service(name, *draw(needs)) for name in NAMES))


@given(estates())
def test_paths_are_paths(estate: Estate) -> None:
    """Each step of a path is a need that is declared; a hard path has hard needs alone."""
    for dependant in dependants(estate, "service/a"):
        assert dependant.path[0] == "service/a"
        assert dependant.path[-1] == dependant.ref
        for needed, needing in pairwise(dependant.path):
            strengths = {n.hard for n, _ in estate.resources[needing].needs if n.target == needed}
            assert strengths
            assert True in strengths or not dependant.hard


@given(estates())
def test_everything_that_can_be_reached_is_told_once(estate: Estate) -> None:
    """Nobody who depends on it is left out, by whatever way, and nobody is told twice."""
    reached: set[str] = {"service/a"}
    before: set[str] = set()
    while reached != before:
        before = set(reached)
        reached |= {
            ref
            for ref, r in estate.resources.items()
            if any(n.target in before for n, _ in r.needs)
        }
    told = [dependant.ref for dependant in dependants(estate, "service/a")]
    assert sorted(told) == sorted(reached - {"service/a"})


@given(estates())
def test_every_circle_is_one(estate: Estate) -> None:
    """A circle begins and ends with one resource, and each step in it is a hard need."""
    for circle in circles(estate):
        assert circle[0] == circle[-1]
        for needing, needed in pairwise(circle):
            assert any(n.hard and n.target == needed for n, _ in estate.resources[needing].needs)
