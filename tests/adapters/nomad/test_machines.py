"""The nodes of a real cluster as machines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from handrail.adapters.nomad import NomadMachines, NomadPlatform, Where
from handrail.errors import PlatformError, RefusedError, UsageError
from handrail.kits.deploys.model import Machine
from support.nomad import NomadAgent, raw_job


@pytest.fixture
def machines(agent: NomadAgent) -> Iterator[NomadMachines]:
    with closing(NomadMachines("platform/prod", Where(agent.url))) as made:
        yield made
        made.undrain(only(made).id)


def only(machines: NomadMachines) -> Machine:
    (found,) = machines.machines()
    return found


def wait(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.1)


def test_a_machine_says_where_it_is_and_what_runs_there(
    machines: NomadMachines, platform: NomadPlatform
) -> None:
    """Its pool is its group, its datacenter its zone."""
    assert machines.identify() == platform.identify()
    platform.apply(platform.parse(raw_job("shop", count=2), "a", {}), "", {})
    wait(lambda: only(machines).apps == {"shop": 2})
    found = only(machines)
    assert (found.group, found.zone, found.state) == ("default", "dc1", "in-service")
    group = machines.group("default")
    assert (group.desired, group.machines) == (1, (found,))
    assert machines.group("all").machines == (found,)


def test_a_drained_machine_is_empty_and_takes_nothing(
    machines: NomadMachines, platform: NomadPlatform
) -> None:
    """Until it is undrained; each of the two twice is once."""
    platform.apply(platform.parse(raw_job("shop"), "a", {}), "", {})
    wait(lambda: only(machines).apps == {"shop": 1})
    found = only(machines)
    for _ in range(2):
        machines.drain(found.id, found.token, 1)
    wait(lambda: only(machines).state == "ineligible")
    wait(lambda: only(machines).apps == {})
    for _ in range(2):
        machines.undrain(found.id)
    assert only(machines).state == "in-service"
    wait(lambda: only(machines).apps == {"shop": 1})
    assert only(machines).token == found.token


def test_a_machine_that_changed_is_not_drained(machines: NomadMachines, agent: NomadAgent) -> None:
    """What it was planned as is compared."""
    found = only(machines)
    agent.ask("POST", f"/v1/node/{found.id}/eligibility", {"Eligibility": "ineligible"})
    with pytest.raises(RefusedError) as caught:
        machines.drain(found.id, found.token, 60)
    assert caught.value.code == "platform.moved"
    assert only(machines).state == "ineligible"


def test_a_machine_is_known_by_its_name_too(machines: NomadMachines) -> None:
    """Where one alone has it; another is refused, and those that there are named."""
    found = only(machines)
    machines.undrain(found.name)
    with pytest.raises(UsageError) as caught:
        machines.drain("router-9", "", 1)
    assert caught.value.code == "deploys.unknown-machine"
    assert found.name in caught.value.hint


def test_an_unknown_pool_is_refused(machines: NomadMachines) -> None:
    """Those that there are, are named."""
    with pytest.raises(UsageError) as caught:
        machines.group("routers")
    assert caught.value.code == "deploys.unknown-group"
    assert "`default`" in caught.value.hint


def test_what_nomad_cannot_do_is_said(machines: NomadMachines) -> None:
    """It makes no machines, and ends none."""
    calls: tuple[Callable[[], None], ...] = (
        lambda: machines.detach("default", "x", "", replace=False),
        lambda: machines.attach("default", "x"),
        lambda: machines.terminate("x", "", replace=False),
        lambda: machines.resize("default", 3, ""),
    )
    for call in calls:
        with pytest.raises(PlatformError) as caught:
            call()
        assert caught.value.code == "platform.unsupported"
