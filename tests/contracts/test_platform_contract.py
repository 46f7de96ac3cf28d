"""The contract of platforms: in memory, and every one that is real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.errors import DeclarationError, HandrailError, RefusedError, UsageError
from support.platforms import SCENES, Scene, deployed, settled, spec, token

NOTE = {"handrail.run": "7", "handrail.commit": "c0ffee", "handrail.person": "ana@example.org"}
OTHER = {**NOTE, "handrail.run": "8"}


@pytest.fixture(params=sorted(SCENES))
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with SCENES[request.param](request, tmp_path) as made:
        yield made


# --- specifications ------------------------------------------------------------------------------


def test_an_identity_stays(scene: Scene) -> None:
    """A platform says who it is, twice the same, and where it was reached."""
    first = scene.platform.identify()
    assert first == scene.platform.identify()
    assert first.id
    assert first.endpoint


def test_a_text_read_twice_is_equal(scene: Scene) -> None:
    """Reading is a function of the text: another text is another specification."""
    text = scene.text("1")
    first, second = (scene.platform.parse(text, "a.spec", {}) for _ in range(2))
    assert first == second
    assert first.job == scene.job
    assert first != scene.platform.parse(scene.text("2"), "a.spec", {})


def test_a_text_that_does_not_parse_is_told_with_its_line(scene: Scene) -> None:
    """File and line of what is wrong are said."""
    text, line = scene.broken_text()
    with pytest.raises(DeclarationError) as caught:
        scene.platform.parse(text, "deploy/app.spec", {})
    assert caught.value.code == "deploys.spec"
    assert caught.value.at is not None
    assert caught.value.at.file == "deploy/app.spec"
    assert caught.value.at.line == line


def test_an_image_is_set_for_its_task_alone(scene: Scene) -> None:
    """Neither another task nor anything else changes; setting it back gives what was there."""
    app, sidecar = scene.image_tasks
    short = app.rpartition("/")[2]
    one, other = "registry.example/app:1", "registry.example/app:2"
    parsed = scene.platform.parse(scene.text_with_images(), "a.spec", {})
    assert parsed.images == {app: one, sidecar: "registry.example/sidecar:1"}
    changed = scene.platform.with_images(parsed, {app: other})
    assert changed.images == {app: other, sidecar: "registry.example/sidecar:1"}
    assert changed == scene.platform.with_images(parsed, {short: other})
    assert scene.platform.with_images(changed, {short: one}) == parsed


@pytest.mark.parametrize("task", ["ap", "web", "other/app", "", "/", "app/", "web/app/x"])
def test_an_image_for_no_task_is_refused(scene: Scene, task: str) -> None:
    """An unknown task is an error that names those that there are."""
    parsed = scene.platform.parse(scene.text_with_images(), "a.spec", {})
    with pytest.raises(UsageError) as caught:
        scene.platform.with_images(parsed, {task: "registry.example/app:2"})
    assert caught.value.code == "deploys.unknown-task"
    assert scene.image_tasks[0] in caught.value.message + caught.value.hint


# --- deploying -----------------------------------------------------------------------------------


def test_nothing_runs_before(scene: Scene) -> None:
    """Where nothing was deployed nothing is current; asking what would be changes nothing."""
    assert scene.platform.current(scene.job) is None
    would = scene.platform.dry_run(spec(scene, scene.text()))
    assert would.changes
    assert [dict(group.counts) for group in would.groups] == [{"place": 2}]
    assert scene.platform.current(scene.job) is None
    assert scene.job not in scene.platform.jobs()


def test_what_was_applied_runs_as_it_was_written(scene: Scene) -> None:
    """It gets healthy; nothing of it is lost, and the note is given back."""
    made = spec(scene, scene.text())
    deployment = scene.platform.apply(made, "", NOTE)
    seen = settled(scene, deployment)
    assert (seen.state, seen.healthy) == ("healthy", (2, 2))
    running = scene.platform.current(scene.job)
    assert running is not None
    assert running.spec == made
    assert dict(running.note) == NOTE
    assert (running.status, running.healthy) == ("running", (2, 2))
    assert scene.job in scene.platform.jobs()


def test_the_same_again_would_change_nothing(scene: Scene) -> None:
    """Planned again, what runs differs in nothing: no line, and no instance that is touched."""
    deployed(scene, scene.text(), NOTE)
    would = scene.platform.dry_run(spec(scene, scene.text()))
    assert would.diff == ()
    assert not would.changes


def test_a_new_version_takes_over(scene: Scene) -> None:
    """A second version is told line by line before, and replaces the first."""
    deployed(scene, scene.text("one"), NOTE)
    before = scene.platform.current(scene.job)
    made = spec(scene, scene.text("two"))
    would = scene.platform.dry_run(made)
    assert any("one" in line and "two" in line for line in would.diff), would.diff
    assert scene.platform.current(scene.job) == before
    deployed(scene, scene.text("two"), OTHER)
    after = scene.platform.current(scene.job)
    assert before is not None
    assert after is not None
    assert after.spec == made
    assert after.version != before.version
    assert after.token != before.token
    assert dict(after.note) == OTHER


@pytest.mark.parametrize("wrong", ["", "999999", "x"])
def test_a_wrong_token_changes_nothing(scene: Scene, wrong: str) -> None:
    """Who planned on something else is refused, and what runs stays as it is."""
    deployed(scene, scene.text("1"), NOTE)
    before = scene.platform.current(scene.job)
    with pytest.raises(RefusedError) as caught:
        scene.platform.apply(spec(scene, scene.text("2")), wrong, OTHER)
    assert caught.value.code == "platform.moved"
    assert scene.platform.current(scene.job) == before


def test_a_token_of_nothing_is_refused_where_nothing_runs(scene: Scene) -> None:
    """What was planned over a version that is gone is not put there."""
    with pytest.raises(RefusedError) as caught:
        scene.platform.apply(spec(scene, scene.text()), "999999", NOTE)
    assert caught.value.code == "platform.moved"
    assert scene.platform.current(scene.job) is None


def test_of_two_at_once_one_wins(scene: Scene) -> None:
    """Two deploys planned over the same version: the second is refused."""
    deployed(scene, scene.text("1"), NOTE)
    planned = token(scene)
    one, other = spec(scene, scene.text("2")), spec(scene, scene.text("3"))
    scene.platform.apply(one, planned, OTHER)
    with pytest.raises(RefusedError):
        scene.platform.apply(other, planned, {**NOTE, "handrail.run": "9"})
    running = scene.platform.current(scene.job)
    assert running is not None
    assert running.spec == one


def test_the_same_run_again_is_one_version(scene: Scene) -> None:
    """Applied again with the same note, whatever the token: the same deployment, no new version."""
    made = spec(scene, scene.text())
    first = scene.platform.apply(made, "", NOTE)
    running = scene.platform.current(scene.job)
    assert running is not None
    for again in ("", running.token):
        assert scene.platform.apply(made, again, NOTE) == first
    after = scene.platform.current(scene.job)
    assert after is not None
    assert (after.version, after.token) == (running.version, running.token)


def test_an_ill_version_fails(scene: Scene) -> None:
    """A version that does not get healthy is told as failed, with a reason; another repairs it."""
    deployed(scene, scene.text("1"), NOTE)
    good = scene.platform.current(scene.job)
    made = spec(scene, scene.text("2", is_ill=True))
    deployment = scene.platform.apply(made, token(scene), OTHER)
    seen = settled(scene, deployment)
    assert seen.state in {"failed", "reverted"}
    assert seen.why
    assert good is not None
    if seen.state == "failed":
        again = {**NOTE, "handrail.run": "9"}
        deployment = scene.platform.apply(good.spec, token(scene), again)
        assert settled(scene, deployment).state == "healthy"
    after = scene.platform.current(scene.job)
    assert after is not None
    assert (after.spec, after.healthy) == (good.spec, (2, 2))


def test_canaries_wait_to_be_promoted(scene: Scene) -> None:
    """With a canary, the rest stays as it was until it is promoted; promoting twice is once."""
    deployed(scene, scene.text("1"), NOTE)
    made = spec(scene, scene.text("2", canaries=1))
    deployment = scene.platform.apply(made, token(scene), OTHER)
    assert settled(scene, deployment, "canaries").state == "canaries"
    scene.platform.promote(scene.job, deployment)
    scene.platform.promote(scene.job, deployment)
    assert settled(scene, deployment).state == "healthy"
    scene.platform.promote(scene.job, deployment)
    running = scene.platform.current(scene.job)
    assert running is not None
    assert (running.spec, running.healthy) == (made, (2, 2))


def test_what_is_halted_goes_no_further(scene: Scene) -> None:
    """A halted deployment has failed; halting twice, or what is over, is no error."""
    deployed(scene, scene.text("1"), NOTE)
    good = scene.platform.current(scene.job)
    made = spec(scene, scene.text("2", canaries=1))
    deployment = scene.platform.apply(made, token(scene), OTHER)
    assert settled(scene, deployment, "canaries").state == "canaries"
    scene.platform.halt(scene.job, deployment)
    scene.platform.halt(scene.job, deployment)
    assert settled(scene, deployment).state in {"failed", "reverted"}
    assert good is not None
    again = scene.platform.apply(good.spec, token(scene), {**NOTE, "handrail.run": "9"})
    assert settled(scene, again).state == "healthy"
    scene.platform.halt(scene.job, again)
    assert scene.platform.rollout(scene.job, again).state == "healthy"


def test_a_deployment_that_another_overtook_is_over(scene: Scene) -> None:
    """Whoever follows the first of two is told that it goes on no more."""
    deployed(scene, scene.text("1"), NOTE)
    first = scene.platform.apply(spec(scene, scene.text("2", canaries=1)), token(scene), OTHER)
    settled(scene, first, "canaries")
    note = {**NOTE, "handrail.run": "9"}
    second = scene.platform.apply(spec(scene, scene.text("3")), token(scene), note)
    assert settled(scene, second).state == "healthy"
    assert settled(scene, first).state == "failed"


# --- the rest ------------------------------------------------------------------------------------


def test_what_was_removed_runs_no_more(scene: Scene) -> None:
    """Removed with the right token alone, and twice is once; then it can be deployed anew."""
    deployed(scene, scene.text(), NOTE)
    with pytest.raises(RefusedError) as caught:
        scene.platform.remove(scene.job, "999999")
    assert caught.value.code == "platform.moved"
    assert scene.platform.current(scene.job) is not None
    last = token(scene)
    scene.platform.remove(scene.job, last)
    scene.platform.remove(scene.job, last)
    assert scene.platform.current(scene.job) is None
    assert scene.job not in scene.platform.jobs()
    deployed(scene, scene.text(), OTHER)


def test_what_is_restarted_is_the_same(scene: Scene) -> None:
    """Afterwards it is healthy again, and nothing of it was changed."""
    deployed(scene, scene.text(), NOTE)
    before = scene.platform.current(scene.job)
    deployment = scene.platform.restart(scene.job)
    assert settled(scene, deployment).state == "healthy"
    after = scene.platform.current(scene.job)
    assert before is not None
    assert after is not None
    assert (after.spec, dict(after.note)) == (before.spec, dict(before.note))


def test_what_does_not_run_is_not_restarted(scene: Scene) -> None:
    """There is nothing to restart."""
    with pytest.raises(HandrailError) as caught:
        scene.platform.restart(scene.job)
    assert caught.value.code == "deploys.nothing"


@pytest.mark.parametrize("count", [1, 3])
def test_a_group_is_scaled(scene: Scene, count: int) -> None:
    """It has as many instances as were asked for, compare-and-set; twice equals once."""
    deployed(scene, scene.text(), NOTE)
    planned = token(scene)
    with pytest.raises(RefusedError):
        scene.platform.scale(scene.job, "web", count, "999999")
    deployment = scene.platform.scale(scene.job, "web", count, planned)
    seen = settled(scene, deployment)
    assert (seen.state, seen.healthy) == ("healthy", (count, count))
    again = scene.platform.scale(scene.job, "web", count, planned)
    assert settled(scene, again).healthy == (count, count)
    running = scene.platform.current(scene.job)
    assert running is not None
    assert running.healthy == (count, count)
    assert running.spec == spec(scene, scene.text(count=count))


def test_an_unknown_group_is_not_scaled(scene: Scene) -> None:
    """The error names the groups that there are, and nothing happens."""
    deployed(scene, scene.text(), NOTE)
    before = scene.platform.current(scene.job)
    with pytest.raises(UsageError) as caught:
        scene.platform.scale(scene.job, "wbe", 3, token(scene))
    assert caught.value.code == "deploys.unknown-group"
    assert "web" in caught.value.hint
    assert scene.platform.current(scene.job) == before
