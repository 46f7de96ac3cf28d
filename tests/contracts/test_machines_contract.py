"""The contract of machines: in memory, in AWS autoscaling groups, and as nodes of Nomad.

What only groups can do (detach, attach, terminate, resize) is asked of those that have groups.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from handrail.adapters.autoscaling.asking import Aws
from handrail.adapters.autoscaling.machines import AutoscalingMachines
from handrail.adapters.nomad import NomadMachines, Where
from handrail.errors import RefusedError, UsageError
from handrail.kits.deploys.model import Machine, MachineGroup
from handrail.kits.deploys.ports import Machines
from handrail.testing.machines import FakeMachines
from support import aws
from support.aws import GROUP, REGION, AwsServer

SIZE, LEAST, MOST = 3, 1, 4
_WAIT_S = 30.0


@pytest.fixture(scope="module")
def aws_server() -> Iterator[AwsServer]:
    with aws.serving() as server:
        yield server


@dataclass
class House:
    """Machines, and who changes one behind their back."""

    machines: Machines
    interfere: Callable[[str], None]

    def find(self, machine: str) -> Machine | None:
        """Return a machine as it is now; None where it is gone."""
        return next((one for one in self.machines.machines() if one.id == machine), None)

    def until(self, machine: str, *states: str) -> Machine | None:
        """Wait until a machine is in one of these states, or gone where `gone` is among them."""
        until = time.monotonic() + _WAIT_S
        found = self.find(machine)
        while time.monotonic() < until:
            if (found.state if found else "gone") in states:
                return found
            time.sleep(0.05)
            found = self.find(machine)
        raise AssertionError(f"{machine} is {found}, not {states}")

    def settled(self, size: int) -> MachineGroup:
        """Wait until a group has so many machines that are well."""
        until = time.monotonic() + _WAIT_S
        group = self.machines.group(GROUP)
        while time.monotonic() < until:
            well = [one for one in group.machines if one.state == "in-service"]
            if len(well) == size:
                return group
            time.sleep(0.05)
            group = self.machines.group(GROUP)
        raise AssertionError(f"{group} has not {size}")


def fake() -> House:
    zones = (f"{REGION}a", f"{REGION}b", f"{REGION}a")
    made = [Machine(f"i-{n}", f"router-{n}", GROUP, z, "in-service") for n, z in enumerate(zones)]
    machines = FakeMachines(made, {GROUP: (LEAST, MOST)})
    return House(machines, machines.interfere)


def autoscaling(server: AwsServer, patch: pytest.MonkeyPatch) -> House:
    for name, value in aws.ENVIRONMENT.items():
        patch.setenv(name, value)
    server.reset()
    server.make_group(SIZE, LEAST, MOST)
    machines = AutoscalingMachines(Aws("platform/aws", REGION, server.url, aws.ENVIRONMENT))

    def interfere(name: str) -> None:
        groups = server.client("autoscaling")
        if name == GROUP:
            groups.update_auto_scaling_group(AutoScalingGroupName=GROUP, MaxSize=MOST + 1)
        else:
            server.client("autoscaling").detach_instances(
                AutoScalingGroupName=GROUP, InstanceIds=[name], ShouldDecrementDesiredCapacity=True
            )

    return House(machines, interfere)


@pytest.fixture(params=["fake", "autoscaling"])
def house(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> House:
    if request.param == "fake":
        return fake()
    return autoscaling(request.getfixturevalue("aws_server"), monkeypatch)


@pytest.fixture(params=["fake", "autoscaling", "nomad"])
def drainable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Machines of every platform, also of those that neither start nor end any."""
    if request.param == "fake":
        yield fake()
    elif request.param == "autoscaling":
        yield autoscaling(request.getfixturevalue("aws_server"), monkeypatch)
    else:
        agent = request.getfixturevalue("nomad_agent")
        with closing(NomadMachines("platform/prod", Where(agent.url))) as machines:
            yield House(machines, lambda _: None)
            machines.undrain(machines.machines()[0].id)


def test_who_it_is_stays(drainable: House) -> None:
    """A platform says who it is, and says the same twice."""
    found = drainable.machines.identify()
    assert found == drainable.machines.identify()
    assert found.id
    assert found.endpoint


def test_machines_are_told_with_group_zone_and_state(house: House) -> None:
    """Each with its group and zone, sorted by name; a group counts the same ones."""
    found = house.machines.machines()
    assert [one.state for one in found] == ["in-service"] * SIZE
    assert {one.group for one in found} == {GROUP}
    assert {one.zone for one in found} <= {f"{REGION}a", f"{REGION}b"}
    assert [one.name for one in found] == sorted(one.name for one in found)
    group = house.machines.group(GROUP)
    assert (group.desired, group.minimum, group.maximum) == (SIZE, LEAST, MOST)
    assert [one.id for one in group.machines] == [one.id for one in found]


def test_an_unknown_group_is_an_error(house: House) -> None:
    """It names those that there are."""
    with pytest.raises(UsageError) as caught:
        house.machines.group("no-such")
    assert caught.value.code == "deploys.unknown-group"
    assert GROUP in caught.value.hint


@pytest.mark.parametrize("what", ["drain", "undrain"])
def test_an_unknown_machine_is_an_error(drainable: House, what: str) -> None:
    """Nothing is done to it."""
    given = {"drain": ("i-0nosuch", "", 60), "undrain": ("i-0nosuch",)}[what]
    with pytest.raises(UsageError) as caught:
        getattr(drainable.machines, what)(*given)
    assert caught.value.code == "deploys.unknown-machine"


@pytest.mark.parametrize("what", ["detach", "attach"])
def test_an_unknown_machine_leaves_no_group_and_joins_none(house: House, what: str) -> None:
    """Nothing is done to it, nor to the group."""
    given = {
        "detach": ((GROUP, "i-0nosuch", ""), {"replace": False}),
        "attach": ((GROUP, "i-0nosuch"), {}),
    }
    words, named = given[what]
    with pytest.raises(UsageError) as caught:
        getattr(house.machines, what)(*words, **named)
    assert caught.value.code == "deploys.unknown-machine"
    assert house.machines.group(GROUP).desired == SIZE


def test_drained_and_back(drainable: House) -> None:
    """Nothing is put there until it is let back; each twice equals once."""
    before = [one.state for one in drainable.machines.machines()]
    one = drainable.machines.machines()[0]
    for _ in range(2):
        drainable.machines.drain(one.id, one.token, 60)
        one = drainable.until(one.id, "ineligible") or one
    for _ in range(2):
        drainable.machines.undrain(one.id)
        drainable.until(one.id, "in-service")
    assert [one.state for one in drainable.machines.machines()] == before


def test_a_machine_that_changed_is_not_drained(house: House) -> None:
    """The compare-and-set is lost, and nothing was done."""
    one = house.machines.machines()[0]
    house.interfere(one.id)
    with pytest.raises(RefusedError) as caught:
        house.machines.drain(one.id, one.token, 60)
    assert caught.value.code == "platform.moved"
    after = house.find(one.id)
    assert after is not None
    assert after.state in {"in-service", "detached"}


def test_detached_and_put_back(house: House) -> None:
    """It leaves its group and lives on; put back, the group wants what it wanted before."""
    before = house.machines.group(GROUP)
    one = before.machines[0]
    for _ in range(2):
        house.machines.detach(GROUP, one.id, before.token, replace=False)
        found = house.until(one.id, "detached")
        assert found is not None
        assert found.group == ""
    after = house.settled(SIZE - 1)
    assert after.desired == SIZE - 1
    assert one.id not in [each.id for each in after.machines]
    for _ in range(2):
        house.machines.attach(GROUP, one.id)
        house.until(one.id, "in-service")
    assert house.settled(SIZE).desired == SIZE


def test_detached_with_another_in_its_place(house: House) -> None:
    """The group wants what it wanted, and starts another."""
    before = house.machines.group(GROUP)
    one = before.machines[0]
    house.machines.detach(GROUP, one.id, before.token, replace=True)
    house.until(one.id, "detached")
    after = house.settled(SIZE)
    assert after.desired == SIZE
    assert one.id not in [each.id for each in after.machines]


def test_a_group_that_changed_loses_nobody(house: House) -> None:
    """The compare-and-set is lost, and nothing was done."""
    before = house.machines.group(GROUP)
    one = before.machines[0]
    house.interfere(GROUP)
    with pytest.raises(RefusedError) as caught:
        house.machines.detach(GROUP, one.id, before.token, replace=False)
    assert caught.value.code == "platform.moved"
    with pytest.raises(RefusedError) as caught:
        house.machines.resize(GROUP, SIZE + 1, before.token)
    assert caught.value.code == "platform.moved"
    assert house.settled(SIZE).desired == SIZE


@pytest.mark.parametrize("replace", [True, False])
def test_ended_for_ever(house: House, replace: bool) -> None:
    """It is gone; its group starts another, or wants one less. Twice equals once."""
    one = house.machines.machines()[0]
    for _ in range(2):
        house.machines.terminate(one.id, one.token, replace=replace)
        house.until(one.id, "terminating", "gone")
    left = SIZE if replace else SIZE - 1
    assert house.settled(left).desired == left


def test_a_detached_machine_is_ended_too(house: House) -> None:
    """What no group counts any more can still be ended."""
    before = house.machines.group(GROUP)
    one = before.machines[0]
    house.machines.detach(GROUP, one.id, before.token, replace=False)
    found = house.until(one.id, "detached")
    assert found is not None
    house.machines.terminate(one.id, found.token, replace=False)
    house.until(one.id, "terminating", "gone")
    assert house.settled(SIZE - 1).desired == SIZE - 1


@pytest.mark.parametrize("size", [SIZE + 1, SIZE - 1])
def test_resized(house: House, size: int) -> None:
    """A group comes to another size; twice equals once, whoever's token is old by then."""
    before = house.machines.group(GROUP)
    for _ in range(2):
        house.machines.resize(GROUP, size, before.token)
    assert house.settled(size).desired == size


@pytest.mark.parametrize("size", [LEAST - 1, MOST + 1])
def test_a_size_that_the_group_does_not_take_is_refused(house: House, size: int) -> None:
    """It says which it takes."""
    before = house.machines.group(GROUP)
    with pytest.raises(UsageError) as caught:
        house.machines.resize(GROUP, size, before.token)
    assert f"{LEAST} to {MOST}" in caught.value.message
    assert house.machines.group(GROUP).desired == SIZE
