"""Deployments on a real Nomad cluster: what the contract of all platforms does not say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

import pytest

from handrail.adapters.nomad import NomadPlatform, Where
from handrail.errors import DeclarationError, PlatformError, RefusedError
from handrail.kits.deploys.model import Rollout, Running
from support.faults import HOST, Proxy, proxy
from support.nomad import NomadAgent, raw_job

PATIENCE_S = 60.0
NOTE = {"handrail.run": "7", "handrail.commit": "9c01d44", "handrail.person": "ana+b@x.org %2F ü"}


def apply(
    platform: NomadPlatform, text: str, token: str = "", note: Mapping[str, str] = NOTE
) -> str:
    return platform.apply(platform.parse(text, "shop.nomad", {}), token, note)


def running(platform: NomadPlatform, job: str = "shop") -> Running:
    found = platform.current(job)
    assert found is not None
    return found


def followed(platform: NomadPlatform, deployment: str, *until: str, job: str = "shop") -> Rollout:
    end_s = time.monotonic() + PATIENCE_S
    while True:
        seen = platform.rollout(job, deployment, 2)
        if seen.state in until:
            return seen
        assert seen.state == "going", seen
        assert time.monotonic() < end_s, seen


def wait(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.1)


def test_a_note_comes_back_as_it_was_and_is_no_drift(platform: NomadPlatform) -> None:
    """Whatever its letters are; and what runs says the same as what was parsed."""
    text = raw_job("shop")
    followed(platform, apply(platform, text), "healthy")
    found = running(platform)
    assert found.note == NOTE
    spec = platform.parse(text, "shop.nomad", {})
    assert found.spec == spec
    assert not platform.dry_run(spec).changes


def test_another_note_restarts_nothing(platform: NomadPlatform, agent: NomadAgent) -> None:
    """The same specification by another run: not one instance is touched."""
    followed(platform, apply(platform, raw_job("shop")), "healthy")
    before = agent.ask("GET", "/v1/job/shop/allocations")
    again = apply(platform, raw_job("shop"), running(platform).token, {"handrail.run": "8"})
    assert followed(platform, again, "healthy").healthy == (1, 1)
    after = agent.ask("GET", "/v1/job/shop/allocations")
    assert [each["ID"] for each in after] == [each["ID"] for each in before]
    assert [each["JobVersion"] for each in after] == [each["JobVersion"] for each in before]


def test_what_somebody_else_changed_is_not_overwritten(
    platform: NomadPlatform, agent: NomadAgent
) -> None:
    """Between plan and run, by another tool: refused, and theirs goes on."""
    followed(platform, apply(platform, raw_job("shop")), "healthy")
    planned = running(platform)
    agent.ask("POST", "/v1/job/shop/scale", {"Count": 2, "Target": {"Group": "web"}})
    with pytest.raises(RefusedError) as caught:
        apply(platform, raw_job("shop", "sleep 601"), planned.token, {"handrail.run": "8"})
    assert caught.value.code == "platform.moved"
    found = running(platform)
    assert found.token != planned.token
    assert found.note == NOTE  # the commit is the same one: the count is drift
    assert platform.dry_run(planned.spec).diff == ("~ group web > count: 2 -> 1",)
    groups: Any = found.spec.body["TaskGroups"]
    assert groups[0]["Count"] == 2


def test_an_ill_version_that_nomad_puts_back_is_told_as_reverted(platform: NomadPlatform) -> None:
    """What runs then says and carries the note of the version that was put back."""
    update = {
        "auto_revert": "true",
        "min_healthy_time": "1s",
        "healthy_deadline": "5s",
        "progress_deadline": "6s",
    }
    text = raw_job("shop", **update)
    followed(platform, apply(platform, text), "healthy")
    before = running(platform)
    ill = raw_job("shop", "exit 3", **update)
    deployment = apply(platform, ill, before.token, {"handrail.run": "8"})
    seen = followed(platform, deployment, "reverted")
    assert "rolling back to job version 0" in seen.why
    wait(lambda: "task app: Exit Code: 3" in platform.rollout("shop", deployment).why)
    after = running(platform)
    assert after.spec == before.spec
    assert after.note == NOTE
    assert after.version != before.version


def test_an_ill_first_version_is_told_as_failed(platform: NomadPlatform) -> None:
    """With what its instance said last."""
    ill = raw_job(
        "shop",
        "exit 3",
        min_healthy_time="1s",
        healthy_deadline="5s",
        progress_deadline="6s",
    )
    deployment = apply(platform, ill)
    followed(platform, deployment, "failed")
    wait(lambda: "task app: Exit Code: 3" in platform.rollout("shop", deployment).why)


def test_what_finds_no_place_says_what_it_lacks(platform: NomadPlatform) -> None:
    """In the dry run, and while it waits."""
    text = raw_job(
        "shop",
        extra='constraint {\n attribute = "${attr.kernel.name}"\n value = "plan9"\n}',
    )
    would = platform.dry_run(platform.parse(text, "shop.nomad", {}))
    assert would.unplaced == ("group web: 1 of 1 machines lack: ${attr.kernel.name} = plan9",)
    deployment = apply(platform, text)
    wait(lambda: "plan9" in platform.rollout("shop", deployment).why)
    assert platform.rollout("shop", deployment).state == "going"


def test_a_look_returns_when_something_changes(platform: NomadPlatform) -> None:
    """Long before the time that it may wait: the cluster is asked to tell, not asked again."""
    deployment = apply(platform, raw_job("shop", "sleep 600", min_healthy_time="1s"))
    looks = 0
    begun_s = time.monotonic()
    while platform.rollout("shop", deployment, 50).state != "healthy":
        looks += 1
        assert time.monotonic() - begun_s < PATIENCE_S
    assert looks < 20


@pytest.mark.parametrize("kind", ["batch", "sysbatch"])
def test_a_job_that_ends_is_healthy_when_it_ran_well(platform: NomadPlatform, kind: str) -> None:
    """And failed when it did not, and is not tried again."""
    limits = "reschedule {\n attempts = 0\n unlimited = false\n}" if kind == "batch" else ""

    def text(command: str) -> str:
        made = raw_job("shop", command).replace('job "shop" {', f'job "shop" {{\n type = "{kind}"')
        head, _, rest = made.partition("    update {")
        return f"{head}{limits}\n{rest.partition('}')[2]}"

    followed(platform, apply(platform, text("exit 0")), "healthy")
    platform.remove("shop", running(platform).token)
    deployment = apply(platform, text("exit 4"))
    wait(lambda: platform.rollout("shop", deployment, 1).state == "failed")
    assert "Exit Code: 4" in platform.rollout("shop", deployment).why


def test_a_system_job_is_healthy_when_it_runs_everywhere(platform: NomadPlatform) -> None:
    """One on each machine, whatever counts say."""
    text = raw_job("shop").replace('job "shop" {', 'job "shop" {\n type = "system"')
    seen = followed(platform, apply(platform, text), "healthy")
    assert seen.healthy == (1, 1)
    assert running(platform).healthy == (1, 1)


def test_a_periodic_job_is_there_when_it_is_known(platform: NomadPlatform) -> None:
    """It starts when its time comes; its children are no apps of their own."""
    head, _, rest = raw_job("shop", "exit 0").partition("    update {")
    text = f"{head}{rest.partition('}')[2]}".replace(
        'job "shop" {',
        'job "shop" {\n type = "batch"\n periodic {\n crons = ["0 4 * * *"]\n }',
    )
    assert followed(platform, apply(platform, text), "healthy").healthy == (0, 0)
    assert platform.jobs() == ("shop",)
    would = platform.dry_run(platform.parse(text, "shop.nomad", {}))
    assert would.diff == ()


def test_a_specification_that_cannot_run_is_wrong_not_broken(platform: NomadPlatform) -> None:
    """What parses and makes no sense to the cluster is the specification's fault."""
    text = raw_job("shop").replace('driver = "raw_exec"', 'driver = ""')
    with pytest.raises(DeclarationError) as caught:
        platform.dry_run(platform.parse(text, "shop.nomad", {}))
    assert caught.value.code == "deploys.spec"
    assert "driver" in caught.value.message


def test_what_was_stopped_by_hand_is_not_current(
    platform: NomadPlatform, agent: NomadAgent
) -> None:
    """A job that Nomad still remembers as stopped is nothing; its name can be taken."""
    followed(platform, apply(platform, raw_job("shop")), "healthy")
    agent.ask("DELETE", "/v1/job/shop")
    assert platform.current("shop") is None
    assert platform.jobs() == ()
    followed(platform, apply(platform, raw_job("shop"), "", {"handrail.run": "8"}), "healthy")


def test_of_two_that_remove_and_deploy_one_wins(platform: NomadPlatform) -> None:
    """Ending a job compares, too: what another run deployed meanwhile is not ended."""
    followed(platform, apply(platform, raw_job("shop")), "healthy")
    planned = running(platform).token
    followed(
        platform,
        apply(platform, raw_job("shop", "sleep 601"), planned, {"handrail.run": "8"}),
        "healthy",
    )
    with pytest.raises(RefusedError):
        platform.remove("shop", planned)
    assert running(platform).status == "running"


def test_a_restart_goes_a_few_at_a_time(platform: NomadPlatform, agent: NomadAgent) -> None:
    """Each instance restarts once, where it is; never more of them at once than an update may."""
    followed(platform, apply(platform, raw_job("shop", count=3, max_parallel=1)), "healthy")
    before = {each["ID"] for each in agent.ask("GET", "/v1/job/shop/allocations")}
    name = platform.restart("shop")
    seen = followed(platform, name, "healthy")
    assert seen.healthy == (3, 3)
    after = agent.ask("GET", "/v1/job/shop/allocations")
    assert {each["ID"] for each in after} == before
    restarts = {each["ID"]: each["TaskStates"]["app"] for each in after}
    assert [state["Restarts"] for state in restarts.values()] == [1, 1, 1]
    times = sorted(
        event["Time"]
        for state in restarts.values()
        for event in state["Events"][-4:]
        if event["Type"] == "Restart Signaled"
    )
    assert len(times) == 3
    assert len(set(times)) == 3
    assert platform.rollout("shop", name) == seen  # looking again restarts nothing again
    again = agent.ask("GET", "/v1/job/shop/allocations")
    assert all(each["TaskStates"]["app"]["Restarts"] == 1 for each in again)


# --- the way there -------------------------------------------------------------------------------


@pytest.fixture
def wire(agent: NomadAgent) -> Iterator[Proxy]:
    with proxy(HOST, agent.port) as made:
        yield made


def test_a_deploy_that_was_cut_off_is_done_once(
    platform: NomadPlatform, agent: NomadAgent, wire: Proxy
) -> None:
    """The connection breaks at each of its bytes' eighths: applied again, there is one version."""
    spec = platform.parse(raw_job("shop"), "shop.nomad", {})
    for part in range(8):
        where = Where(f"http://{HOST}:{wire.port}", timeout_s=10)
        with closing(NomadPlatform("platform/prod", where)) as cut:
            assert cut.current("shop") is None
            wire.cut_after("up" if part % 2 else "down", 1 + part * 400)
            with suppress(PlatformError):
                cut.apply(spec, "", NOTE)
            wire.mend()
            deployment = cut.apply(spec, "", NOTE)
        assert followed(platform, deployment, "healthy").healthy == (1, 1)
        versions = agent.ask("GET", "/v1/job/shop/versions")["Versions"]
        assert [each["Version"] for each in versions] == [0]
        agent.remove_all()


def test_a_cluster_that_says_nothing_is_passing(agent: NomadAgent, wire: Proxy) -> None:
    """A cable that was pulled: whoever asks is told in time, and may ask again."""
    where = Where(f"http://{HOST}:{wire.port}", timeout_s=0.5)
    with closing(NomadPlatform("platform/prod", where)) as cut:
        wire.stop()
        with pytest.raises(PlatformError) as caught:
            cut.jobs()
        assert (caught.value.code, caught.value.is_passing) == ("platform.unreachable", True)
        wire.go_on()
        wire.cut()
        assert cut.jobs() == ()


def test_namespaces_are_apart(agent: NomadAgent, platform: NomadPlatform) -> None:
    """What runs in one is not seen in another, and a specification for another is refused."""
    agent.ask("PUT", "/v1/namespace/team", {"Name": "team"})
    with closing(NomadPlatform("platform/team", Where(agent.url, namespace="team"))) as theirs:
        deployment = apply(theirs, raw_job("shop"))
        followed(theirs, deployment, "healthy")
        assert theirs.jobs() == ("shop",)
        assert running(theirs).spec.body["Namespace"] == "team"
        assert platform.jobs() == ()
        assert platform.current("shop") is None
        foreign = raw_job("shop").replace("{", '{\n  namespace = "other"', 1)
        with pytest.raises(DeclarationError, match="namespace `other`"):
            theirs.parse(foreign, "shop.nomad", {})


def test_an_unknown_deployment_is_an_error(platform: NomadPlatform) -> None:
    """A name that no deployment has is not taken for one that is over."""
    with pytest.raises(PlatformError, match="no deployment"):
        platform.rollout("shop", "x")
    assert platform.rollout("shop", "12").state == "failed"
