"""Which image each task gets: by name, by digest, and for no other task."""

from __future__ import annotations

import pytest

from handrail.errors import PlatformError, UsageError
from handrail.kits.deploys.images import Words, choose, read_asked, task_of, wanted
from handrail.kits.deploys.model import Spec
from handrail.kits.deploys.references import parse
from handrail.testing.registry import FakeRegistry

COMMIT = "3fa2b1c" + "0" * 33
WORDS = Words(COMMIT, "feature/new-till")
SPEC = Spec(
    "shop",
    {},
    {"web/app": "ghcr.io/team/shop:old", "web/proxy": "nginx:1.25", "jobs/app": "team/jobs:1"},
    ("web/app", "web/proxy", "web/script", "jobs/app"),
)


@pytest.fixture
def registry() -> FakeRegistry:
    made = FakeRegistry()
    for name in (
        "ghcr.io/team/shop:old",
        f"ghcr.io/team/shop:{COMMIT}",
        "nginx:1.25",
        "team/jobs:1",
    ):
        made.push(name)
    return made


def test_an_image_is_set_for_the_named_task_alone(registry: FakeRegistry) -> None:
    """A sidecar keeps its own image when the app's is set, fixed to what it means now."""
    chosen = choose(SPEC, {"web/app": "ghcr.io/team/shop:{commit}"}, {}, WORDS, registry)
    shop = registry.resolve(f"ghcr.io/team/shop:{COMMIT}")
    assert chosen.images["web/app"] == shop
    assert chosen.pins == {
        "web/app": f"ghcr.io/team/shop@{shop.digest}",
        "web/proxy": f"nginx@{registry.resolve('nginx:1.25').digest}",
        "jobs/app": f"team/jobs@{registry.resolve('team/jobs:1').digest}",
    }
    assert chosen.kept == {}
    assert chosen.warnings == ()


def test_who_asks_counts_before_the_app_and_the_app_before_the_specification() -> None:
    """`--image` beats the declaration, and that the specification, each for its own task."""
    found = wanted(
        SPEC, {"proxy": "nginx:1.26", "web/app": "x:1"}, {"web/app": "ghcr.io/other:2"}, WORDS
    )
    assert [(one.task, one.reference, one.by) for one in found] == [
        ("web/app", "ghcr.io/other:2", "asked"),
        ("web/proxy", "nginx:1.26", "declared"),
        ("jobs/app", "team/jobs:1", "specification"),
    ]


def test_a_tag_alone_is_one_of_the_image_that_the_task_has() -> None:
    """`--image proxy=:1.27` changes the tag of what is declared or written."""
    (_, proxy, _) = wanted(SPEC, {}, {"proxy": ":1.27"}, WORDS)
    assert proxy.reference == "nginx:1.27"


def test_a_tag_alone_means_nothing_for_a_task_without_an_image() -> None:
    """A task that names no image so far needs a whole name."""
    with pytest.raises(UsageError, match="no whole name"):
        wanted(SPEC, {}, {"script": ":1.27"}, WORDS)


def test_a_task_that_is_not_there_is_refused_with_a_near_name() -> None:
    """An unknown task is told, with the one that was probably meant."""
    with pytest.raises(UsageError) as caught:
        wanted(SPEC, {}, {"porxy": "nginx:1"}, WORDS)
    assert (caught.value.code, caught.value.hint) == (
        "deploys.unknown-task",
        "did you mean `proxy`?",
    )


def test_a_name_of_two_tasks_is_refused() -> None:
    """`app` is a task of two groups: the group must be said."""
    with pytest.raises(UsageError) as caught:
        task_of(SPEC, "app")
    assert caught.value.hint == "name one: web/app, jobs/app"


def test_two_images_for_one_task_are_refused() -> None:
    """The same task under two names cannot get two images."""
    with pytest.raises(UsageError, match="two images are asked for task `web/proxy`"):
        wanted(SPEC, {}, {"proxy": "nginx:1", "web/proxy": "nginx:2"}, WORDS)
    with pytest.raises(UsageError, match="two images"):
        read_asked("proxy=nginx:1, proxy=nginx:2")


@pytest.mark.parametrize(
    ("template", "reference"),
    [
        ("x:{commit}", f"x:{COMMIT}"),
        ("x:v-{short}", "x:v-3fa2b1c"),
        ("localhost:5000/x:{branch}-latest", "localhost:5000/x:feature-new-till-latest"),
        ("localhost:5000/x", "localhost:5000/x"),
    ],
)
def test_placeholders_stand_in_a_tag(template: str, reference: str) -> None:
    """The commit and the branch name a tag; what a tag cannot hold becomes a dash."""
    found = wanted(SPEC, {"proxy": template}, {}, WORDS)
    assert found[1].reference == reference


@pytest.mark.parametrize(
    "template",
    ["{branch}/x:1", "x:{branch}/y", "{commit}", "x:{0.__class__}", "x:{user}", "x:{branch}{"],
)
def test_a_placeholder_chooses_no_registry(template: str) -> None:
    """Whoever names a branch must not choose where images come from, or read anything else."""
    with pytest.raises(UsageError):
        wanted(SPEC, {"proxy": template}, {}, WORDS)


@pytest.mark.parametrize("branch", ["../../evil", "x@sha256:1", "-x", "x y\x1b[31m", "ä/é" * 99])
def test_a_hostile_branch_becomes_a_tag_or_is_refused(branch: str) -> None:
    """However a branch is called, the repository stays the declared one."""
    found = wanted(SPEC, {"proxy": "ghcr.io/team/x:a{branch}"}, {}, Words(COMMIT, branch))
    assert parse(found[1].reference).repository == "ghcr.io/team/x"


def test_an_image_named_after_a_branch_needs_one() -> None:
    """Where a commit is deployed, `{branch}` means nothing."""
    with pytest.raises(UsageError, match="named after a branch"):
        wanted(SPEC, {"proxy": "x:{branch}"}, {}, Words(COMMIT))


def test_a_declared_image_that_is_not_there_is_told(registry: FakeRegistry) -> None:
    """A deploy of an image that nobody pushed is not even planned."""
    with pytest.raises(UsageError) as caught:
        choose(SPEC, {"proxy": "nginx:1.99"}, {}, WORDS, registry)
    assert caught.value.code == "image.unknown"


def test_a_registry_that_is_down_stops_what_was_declared(registry: FakeRegistry) -> None:
    """Without an answer nothing is fixed, so nothing is planned."""
    registry.down = "ghcr.io does not answer"
    with pytest.raises(PlatformError) as caught:
        choose(SPEC, {"proxy": "nginx:1.25"}, {}, WORDS, registry)
    assert caught.value.is_passing


def test_what_the_specification_alone_names_stays_with_a_warning(registry: FakeRegistry) -> None:
    """An image that no registry answers for stays as it is written, and that is said."""
    registry.down = "ghcr.io does not answer"
    chosen = choose(SPEC, {}, {}, WORDS, registry)
    assert chosen.images == {}
    assert chosen.kept == dict(SPEC.images)
    assert chosen.warnings[1] == "web/proxy keeps nginx:1.25: ghcr.io does not answer"


def test_what_only_a_machine_knows_is_not_asked_for(registry: FakeRegistry) -> None:
    """An image with a variable of the machine stays, is warned of, and asked of nobody."""
    spec = Spec("x", {}, {"g/t": "${meta.image}"}, ("g/t",))
    chosen = choose(spec, {}, {}, WORDS, registry)
    assert (registry.asked, list(chosen.kept)) == ([], ["g/t"])
    assert chosen.warnings == (
        "g/t keeps ${meta.image}: only the machine that runs it knows what it means",
    )


def test_what_the_specification_fixed_stays_without_a_word(registry: FakeRegistry) -> None:
    """A digest that was reviewed with the specification needs no registry."""
    pinned = f"nginx@sha256:{'a' * 64}"
    chosen = choose(Spec("x", {}, {"t": pinned}, ("g/t",)), {}, {}, WORDS, registry)
    assert (chosen.kept, chosen.warnings, registry.asked) == ({"g/t": pinned}, (), [])


def test_a_tag_that_moved_is_seen(registry: FakeRegistry) -> None:
    """What was planned stays the old digest; planned again, the moved tag alone is another."""
    planned = choose(SPEC, {}, {"proxy": "nginx:1.25"}, WORDS, registry)
    registry.push("nginx:1.25")
    again = choose(SPEC, {}, {"proxy": "nginx:1.25"}, WORDS, registry)
    assert planned.pins["web/proxy"] != again.pins["web/proxy"]
    assert {**planned.pins, "web/proxy": ""} == {**again.pins, "web/proxy": ""}


def test_each_name_is_asked_for_once(registry: FakeRegistry) -> None:
    """Ten tasks of one image are one question."""
    tasks = tuple(f"g/t{number}" for number in range(10))
    spec = Spec("x", {}, dict.fromkeys(tasks, "nginx:1.25"), tasks)
    assert len(choose(spec, {}, {}, WORDS, registry).images) == len(tasks)
    assert registry.asked == ["nginx:1.25"]


@pytest.mark.parametrize("text", ["web", "=x", "web=", "a=b,c"])
def test_what_is_no_pair_is_refused(text: str) -> None:
    """`--image` wants TASK=IMAGE."""
    with pytest.raises(UsageError, match="is not TASK=IMAGE"):
        read_asked(text)


def test_pairs_are_read() -> None:
    """Pairs are split at commas, and spaces around them mean nothing."""
    assert read_asked("web=x:1, g/job = y@sha256:ab=,") == {"web": "x:1", "g/job": "y@sha256:ab="}
