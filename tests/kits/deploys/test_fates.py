"""What a dry run means: effects, counts, risk; and the laws of deploying."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handrail.errors import DeclarationError, Place
from handrail.estate.model import Estate, Need, Resource
from handrail.kits.deploys import changes, fates, telling, variables
from handrail.kits.deploys.changes import Before, Change
from handrail.kits.deploys.model import Commit, DryRun, GroupFate, Running, Spec
from handrail.kits.deploys.ordering import order
from support.apps import SPEC, Apps, make_apps

AT = Place("estate/x.yaml", 1)


def dry(**counts: int) -> DryRun:
    """Return a dry run of the group `web`."""
    named = {name.replace("_", "-"): count for name, count in counts.items()}
    return DryRun((GroupFate("web", named),), ("~ x: 1 -> 2",))


@pytest.mark.parametrize(
    ("counts", "production", "needed", "risk"),
    [
        ({"destructive": 3}, True, ("service/a",), "critical"),
        ({"destructive": 1, "ignore": 2}, True, ("service/a",), "high"),
        ({"destructive": 1}, True, ("service/a",), "critical"),
        ({"destructive": 3}, True, (), "high"),
        ({"stop": 3}, True, ("service/a",), "critical"),
        ({"stop": 1, "ignore": 2}, True, (), "high"),
        ({"in-place": 3}, True, ("service/a",), "high"),
        ({"canary": 1, "ignore": 3}, True, ("service/a",), "high"),
        ({"place": 3}, True, ("service/a",), "low"),
        ({"destructive": 3}, False, ("service/a",), "low"),
    ],
)
def test_risk(counts: dict[str, int], production: bool, needed: tuple[str, ...], risk: str) -> None:
    """The risk follows from what goes away, where, and who needs it; it always has a reason."""
    found = DryRun((GroupFate("web", counts),), ("~",))
    said, because = fates.risk_of(found, production=production, needed=needed)
    assert said == risk
    assert because


def test_nothing_has_no_effect() -> None:
    """What changes nothing has no effects and no risk."""
    nothing = DryRun((GroupFate("web", {"ignore": 3}),), ())
    assert fates.effects_of("app/a", "a", nothing) == ()
    assert fates.risk_of(nothing, production=True, needed=("service/a",))[0] == "none"


def test_effects() -> None:
    """Each fate is an effect in the house's verbs; a change of no instance is one of the job."""
    found = fates.effects_of("app/a", "a", dry(destructive=2, canary=1, in_place=1, migrate=1))
    assert {(e.verb, e.name, e.detail) for e in found} == {
        ("replace", "web", "2 of them"),
        ("start", "web (canary)", "1 as canary"),
        ("update", "web", "1 of them"),
        ("move", "web", "1 of them"),
    }
    [only] = fates.effects_of("app/a", "a", dry(ignore=3))
    assert (only.verb, only.kind, only.name) == ("update", "job", "a")


def test_counts_of_a_group() -> None:
    """What is there afterwards is what is placed and what stays; canaries come besides."""
    groups = dry(place=1, ignore=2, destructive=3, canary=1, stop=4).groups
    assert fates.count_after(groups) == 6


NAMES = [f"app/{letter}" for letter in "abcdef"]


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), max_size=12),
    st.permutations(NAMES),
)
def test_order_is_a_permutation_that_keeps_needs(
    pairs: list[tuple[str, str]], refs: list[str]
) -> None:
    """Each once; and where the needs have no circle, what is needed is always first."""
    acyclic = [(a, b) for a, b in pairs if a > b]
    for some in (pairs, acyclic):
        needs: dict[str, list[str]] = {name: [] for name in NAMES}
        for a, b in some:
            needs[a].append(b)
        estate = Estate(
            resources={
                ref: Resource(
                    "app",
                    ref[4:],
                    AT,
                    needs=tuple((Need(target, hard=True), AT) for target in needs[ref]),
                )
                for ref in NAMES
            }
        )
        found = order(estate, refs)
        assert sorted(found) == sorted(NAMES)
        if some is acyclic:
            assert all(found.index(b) < found.index(a) for a, b in some)
    assert order(Estate(), refs) == tuple(refs)


def test_order_by_the_service_that_an_app_is() -> None:
    """An app that needs a service goes after the app that is that service, also in between."""
    estate = Estate(
        resources={
            "app/front": Resource(
                "app", "front", AT, needs=((Need("service/mid", hard=True), AT),)
            ),
            "service/mid": Resource(
                "service", "mid", AT, needs=((Need("service/back", hard=False), AT),)
            ),
            "service/back": Resource("service", "back", AT),
            "app/back": Resource("app", "back", AT, settings={"service": "service/back"}),
        }
    )
    assert order(estate, ("app/front", "app/back")) == ("app/back", "app/front")
    assert order(estate, ("app/front", "app/front")) == ("app/front",)


@pytest.mark.parametrize(
    ("text", "path", "found"),
    [
        ('a = "b"\n# c\nd=1 // e\n\nf = true\n', "x.vars", {"a": "b", "d": "1", "f": "true"}),
        (r'a = "x\n\"y\" # z" # w', "x.vars", {"a": 'x\n"y" # z'}),
        ('zones = ["a", "b"] # c', "x.hcl", {"zones": '["a", "b"]'}),
        (
            "a: b\nc: 1\nd: yes\ne: [x, 1]\n",
            "x.yaml",
            {"a": "b", "c": "1", "d": "yes", "e": '["x", "1"]'},
        ),
        ("", "x.yml", {}),
        ("", "x.vars", {}),
        ('{"a": "b"}', "x.json", {"a": "b"}),
    ],
)
def test_variables(text: str, path: str, found: dict[str, str]) -> None:
    """Lines of HCL, or flat YAML, give names and values."""
    assert variables.read(text, path) == found


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = b\n", "x.vars", 1),
        ('a = "b"\nc\n', "x.vars", 2),
        ('a = "b"\na = "c"\n', "x.vars", 2),
        ('a = "b', "x.vars", 1),
        ('a = "b" c', "x.vars", 1),
        (r'a = "\q"', "x.vars", 1),
        ("a = <<EOF\nhunter2\nEOF\n", "x.vars", 1),
        ('a = file("/etc/passwd")', "x.vars", 1),
        ('1a = "b"', "x.vars", 1),
        ("a: b\nc: {d: e}\n", "x.yaml", 2),
        ("a: b\na: c\n", "x.yaml", 2),
        ("- a\n", "x.yaml", 1),
        ("a: [\n", "x.yaml", 2),
        ("a: &x b\nc: [*x, [d]]\n", "x.yaml", 2),
        ("a:\n", "x.yaml", 1),
        ("a b: c\n", "x.yaml", 1),
        ("[" * 3000, "x.yaml", 1),
        ("[" * 1_000_000, "x.yaml", 1),
    ],
)
def test_variables_that_are_none(text: str, path: str, line: int) -> None:
    """What is no variable is an error with file and line, and shows no value."""
    with pytest.raises(DeclarationError) as caught:
        variables.read(text, path)
    assert str(caught.value.at) == f"{path}:{line}"
    assert "hunter2" not in f"{caught.value.message}{caught.value.hint}"


@given(st.text(max_size=200), st.sampled_from(["x.vars", "x.yaml"]))
def test_variables_of_any_text(text: str, path: str) -> None:
    """Any text gives variables, or an error of ours."""
    try:
        found = variables.read(text, path)
    except DeclarationError:
        return
    assert all(isinstance(value, str) for value in found.values())


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("~ env > DB_PASSWORD: a -> b", "~ env > DB_PASSWORD: ***"),
        ("+ env > API_KEY: x", "+ env > API_KEY: ***"),
        ("~ url: http://u:p@h/x", "~ url: http://u:***@h/x"),
        ("~ count: 1 -> 2", "~ count: 1 -> 2"),
    ],
)
def test_masked(line: str, shown: str) -> None:
    """What looks like a secret is not shown; all else is as it was."""
    assert telling.masked(line) == shown


def test_many_lines_are_cut() -> None:
    """A diff of thousands of lines is cut, and how many there were is said."""
    found = telling.shown(tuple(f"+ {n}" for n in range(5000)))
    assert len(found) == 201
    assert found[-1] == "... and 4,800 more lines"


def test_many_commits_are_cut() -> None:
    """Of two hundred commits twenty are told, and how many more there are."""
    commits = tuple(
        Commit(f"{n:040x}", "ana@x", "Ana", "2026-01-05", f"change {n}") for n in range(200)
    )
    found = telling.commit_lines(commits[0], commits, "f" * 40, ())
    assert len(found) == 21
    assert found[-1] == "... and 180 more"
    assert found[0].endswith("reviewed by nobody")


SPEC_1, SPEC_2 = Spec("a", {"v": 1}), Spec("a", {"v": 2})


def _running(spec: Spec, token: str, **note: str) -> Running:
    return Running(spec, "1", token, "running", (1, 1), note)


def test_whose() -> None:
    """Ours by run and plan together; before by token or content; else somebody else's."""
    change = Change("app/a", "platform/p", SPEC_2, Before(SPEC_1, "1", "7", {}), changes=True)
    note = changes.note_of(change, change.as_body(), 5, "ana@x")
    ours = Running(SPEC_2, "2", "8", "running", (1, 1), note)
    assert changes.whose(change, ours, note, 5) == "ours"
    # Another journal's run of the same number is not ours.
    other = {**note, changes.PLAN: "0" * 16}
    assert changes.whose(change, Running(SPEC_2, "2", "8", "", (1, 1), other), note, 5) == "other"
    back = {**note, changes.RUN: "undo of 5"}
    assert changes.whose(change, Running(SPEC_1, "3", "9", "", (1, 1), back), note, 5) == "put back"
    assert changes.whose(change, _running(SPEC_1, "7"), note, 5) == "before"
    assert changes.whose(change, _running(SPEC_1, "9"), note, 5) == "before"
    assert changes.whose(change, _running(Spec("a", {"v": 3}), "9"), note, 5) == "other"
    assert changes.whose(change, None, note, 5) == "other"


def test_body_reads_back() -> None:
    """A change that was kept as a plan's body is the same change."""
    change = Change(
        "app/a",
        "platform/p",
        Spec("a", {"v": [1, {"b": None}]}, {"w/a": "x"}, ("w/a",), ("f",)),
        Before(SPEC_1, "1", "7", {"handrail.run": "3"}),
        changes=True,
        images={"w/a": "x:1"},
    )
    assert changes.change_of(change.as_body()) == change


VERSIONS = st.lists(
    st.tuples(st.sampled_from("1234"), st.integers(1, 4), st.sampled_from(["well", "failed"])),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(VERSIONS)
def test_deployed_then_planned_again_is_empty(versions: list[tuple[str, int, str]]) -> None:
    """Whatever was deployed before: a deploy that ends well leaves nothing to deploy, and one that
    fails leaves what ran before it."""
    with TemporaryDirectory() as folder:
        apps: Apps = make_apps(Path(folder) / "team")
        for version, count, fate in versions:
            was = apps.runs(), apps.platform.current("shop")
            apps.commit(version, count=count)
            decided = apps.ready()
            if fate == "failed":
                apps.known.fates["shop"] = ["failed"]
            stands = apps.walk(decided).go()
            apps.known.fates.pop("shop", None)
            if stands.outcome == "done":
                assert apps.decide().plan.effects == ()
                assert apps.runs() == version
            else:
                assert apps.runs() == was[0]
        assert apps.sources.open("git@git.example:team/shop.git", "main").read(SPEC)


def test_what_goes_a_few_at_a_time_is_not_all_at_once() -> None:
    """Where a platform says how many it replaces at once, that is told, and counts for the risk."""
    few = DryRun((GroupFate("web", {"destructive": 3}, 1),), ("~",))
    assert fates.risk_of(few, production=True, needed=("service/till",))[0] == "high"
    assert [one.detail for one in fates.effects_of("app/shop", "shop", few)] == [
        "3 of them, 1 at a time"
    ]
    whole = DryRun((GroupFate("web", {"destructive": 3}, 3),), ("~",))
    assert fates.risk_of(whole, production=True, needed=("service/till",))[0] == "critical"
