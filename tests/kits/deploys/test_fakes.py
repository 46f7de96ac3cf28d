"""What a test can say to the platforms in memory."""

from __future__ import annotations

import pytest

from handrail.errors import PlatformError, RefusedError, UsageError
from handrail.kits.deploys.model import File, Machine, Spec
from handrail.testing.machines import FakeMachines
from handrail.testing.platform import FakePlatform

TEXT = "job: shop\ngroups: {web: {tasks: {app: {command: [run]}}}}\n"


def _deploy(platform: FakePlatform, run: str, token: str) -> str:
    return platform.apply(platform.parse(TEXT, "x", {}), token, {"handrail.run": run})


def _token(platform: FakePlatform) -> str:
    found = platform.current("shop")
    return found.token if found else ""


@pytest.mark.parametrize("fate", ["healthy", "failed", "reverted"])
def test_a_fate_is_met_after_some_looks(fate: str) -> None:
    """What a test says beforehand becomes of the next version, and of that one alone."""
    platform = FakePlatform(looks=3)
    platform.fates["shop"] = [fate]  # type: ignore[list-item]
    first = _deploy(platform, "1", "")
    states = [platform.rollout("shop", first).state for _ in range(4)]
    assert states == ["going", "going", fate, fate]
    second = _deploy(platform, "2", _token(platform))
    assert [platform.rollout("shop", second).state for _ in range(3)][-1] == "healthy"


def test_what_was_put_back_by_the_platform_is_current() -> None:
    """A platform that reverts by itself runs the version before, under a new token."""
    platform = FakePlatform()
    platform.rollout("shop", _deploy(platform, "1", ""))
    platform.fates["shop"] = ["reverted"]
    planned = _token(platform)
    bad = platform.apply(platform.parse(TEXT + "x: 1\n", "x", {}), planned, {"handrail.run": "2"})
    assert platform.rollout("shop", bad).state == "reverted"
    found = platform.current("shop")
    assert found is not None
    assert dict(found.note) == {"handrail.run": "1"}
    assert found.token not in {planned, ""}


def test_a_stuck_version_goes_nowhere_until_it_is_halted() -> None:
    """It is neither healthy nor failed, however often it is looked at."""
    platform = FakePlatform()
    platform.fates["shop"] = ["stuck"]
    stuck = _deploy(platform, "1", "")
    assert {platform.rollout("shop", stuck).state for _ in range(20)} == {"going"}
    platform.halt("shop", stuck)
    assert platform.rollout("shop", stuck).state == "failed"


def test_a_lost_leader_passes() -> None:
    """So many calls fail and say that another try may help; then all is as before."""
    platform = FakePlatform()
    platform.away = 2
    for _ in range(2):
        with pytest.raises(PlatformError) as caught:
            platform.current("shop")
        assert caught.value.is_passing
    assert platform.current("shop") is None


def test_a_lost_answer_is_of_something_done() -> None:
    """A call that is cut has had its effect; the same again gives what was not heard."""
    platform = FakePlatform()
    platform.cut = ["apply"]
    with pytest.raises(PlatformError):
        _deploy(platform, "1", "")
    assert platform.calls == ["apply"]
    again = _deploy(platform, "1", "")
    assert platform.rollout("shop", again).state == "healthy"
    assert platform.calls == ["apply"]


def test_somebody_else_moves_the_token() -> None:
    """What others deploy or remove makes a plan stale."""
    platform = FakePlatform()
    _deploy(platform, "1", "")
    planned = _token(platform)
    platform.interfere(TEXT.replace("run", "other"))
    found = platform.current("shop")
    assert found is not None
    assert found.note == {}
    with pytest.raises(RefusedError):
        _deploy(platform, "2", planned)


def test_files_must_be_there_and_be_the_planned_ones() -> None:
    """What needs files is not applied before they are staged; other content is refused."""
    platform = FakePlatform()
    parsed = platform.parse(TEXT + "files: [app.py]\n", "x", {})
    planned = platform.with_files(parsed, {"app.py": File(b"1")})
    with pytest.raises(UsageError):
        platform.apply(planned, "", {})
    with pytest.raises(RefusedError):
        platform.stage(planned, {"app.py": File(b"2")})
    platform.stage(planned, {"app.py": File(b"1")})
    assert platform.apply(Spec(planned.job, planned.body), "", {})


def _machines() -> FakeMachines:
    one = Machine("i-1", "one", "routers", "a", "in-service", {"shop": 2})
    return FakeMachines([one, Machine("i-2", "two", "routers", "b", "in-service")])


def test_a_drained_machine_empties_with_a_look() -> None:
    """It is draining, then takes nothing and has nothing; undrained it is in service."""
    machines = _machines()
    machines.drain("i-1", machines.machines()[0].token, 60)
    assert machines.machines()[0].state == "ineligible"
    assert machines.machines()[0].apps == {}
    machines.undrain("i-1")
    assert machines.machines()[0].state == "in-service"


def test_a_machine_that_is_stuck_does_not_empty() -> None:
    """What does not move away is still there, however often it is looked at."""
    machines = _machines()
    machines.stuck.add("i-1")
    machines.drain("i-1", machines.machines()[0].token, 60)
    assert [machines.machines()[0].state for _ in range(3)] == ["draining"] * 3


@pytest.mark.parametrize("replaced", [True, False])
def test_a_detached_machine_lives_on_outside(replaced: bool) -> None:
    """The group is one smaller or starts another; attached again, it is a member; twice is once."""
    machines = _machines()
    planned = machines.group("routers").token
    for _ in range(2):
        machines.detach("routers", "i-1", planned, replace=replaced)
    group = machines.group("routers")
    assert group.desired == (2 if replaced else 1)
    assert "i-1" not in {machine.id for machine in group.machines}
    assert {m.id: m.state for m in machines.machines()}["i-1"] == "detached"
    for _ in range(2):
        machines.attach("routers", "i-1")
    assert "i-1" in {machine.id for machine in machines.group("routers").machines}


def test_an_ended_machine_is_gone_and_replaced() -> None:
    """It is gone with the next look, and its group has another in its place."""
    machines = _machines()
    token = machines.machines()[0].token
    for _ in range(2):
        machines.terminate("i-1", token, replace=True)
    machines.machines()
    left = {machine.id for machine in machines.group("routers").machines}
    assert "i-1" not in left
    assert len(left) == 2


def test_a_size_is_compare_and_set() -> None:
    """An old token is refused; a size out of bounds too; then the group grows."""
    machines = _machines()
    planned = machines.group("routers").token
    machines.interfere("routers")
    with pytest.raises(RefusedError):
        machines.resize("routers", 3, planned)
    with pytest.raises(UsageError):
        machines.resize("routers", 101, machines.group("routers").token)
    machines.resize("routers", 3, machines.group("routers").token)
    assert len(machines.group("routers").machines) == 3


def test_unknown_machines_and_groups_are_told() -> None:
    """Neither is made by asking for it."""
    machines = _machines()
    with pytest.raises(UsageError) as caught:
        machines.undrain("i-9")
    assert caught.value.code == "deploys.unknown-machine"
    with pytest.raises(UsageError) as caught:
        machines.group("router")
    assert caught.value.code == "deploys.unknown-group"
