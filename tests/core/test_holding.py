"""A statement that waits: shown, released by another person or refused, and never for ever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from handrail.core import holding, records
from handrail.core.guarding import Hearing
from handrail.core.outcome import Outcome
from handrail.errors import HandrailError, KeysError, RefusedError, UsageError
from handrail.ports import Finished
from handrail.testing.processes import Call
from support.worlds import ANA, BEN, TRIM, FakeWorld

STATEMENT, WHY = "DELETE FROM devices", "not in the rehearsal"
ROUNDS = 50


def run(fake: FakeWorld, meanwhile: Callable[[str], object]) -> tuple[list[bool], Outcome]:
    """Run a plan whose script has a statement held, and do something when it waits.

    Returns:
        What was answered, and how the run ended.
    """
    fake.make_ready()
    answers: list[bool] = []
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            (held,) = holding.standing(fake.world(BEN))
            meanwhile(held.id)
        fake.clock.advance(seconds)

    def asking(call: Call) -> int:
        fake.program(TRIM)(call)
        hear = fake.guards.hear
        assert isinstance(hear, Hearing)
        answers.append(hear.ask(STATEMENT, WHY, lambda: looks >= ROUNDS))
        return 0

    fake.clock.sleep = sleep  # type: ignore[method-assign]  # where a test can come in between
    fake.processes.programs = {"trim.sh": asking}
    outcome = fake.begin(fake.decide())
    return answers, outcome


def release(fake: FakeWorld, person: str = BEN, *, allow: bool = True) -> Callable[[str], object]:
    return lambda name: holding.release(fake.world(person), name, Path(person), allow=allow)


@pytest.mark.parametrize("allow", [True, False])
def test_answered(fake: FakeWorld, allow: bool) -> None:
    """Another person's word decides, is signed and journalled, and nothing waits any more."""
    answers, outcome = run(fake, release(fake, allow=allow))
    assert answers == [allow]
    assert outcome.outcome == "confirmed"
    (chain,) = fake.journal.chains("hold-")
    assert fake.kinds(chain) == ["held", "released", "answered"]
    assert holding.standing(fake.world()) == ()
    events = [
        records.body(r)["event"] for r in fake.journal.records("run-1") if r.kind == "guard-event"
    ]
    assert events[0]["kind"] == "held"
    assert STATEMENT in events[0]["text"]


def test_nobody_answers(fake: FakeWorld) -> None:
    """When there is no more time, it is refused."""
    answers, _ = run(fake, lambda _: None)
    assert answers == [False]
    (chain,) = fake.journal.chains("hold-")
    assert fake.kinds(chain) == ["held", "answered"]


def test_own(fake: FakeWorld) -> None:
    """Whoever runs it cannot release it."""
    with pytest.raises(RefusedError, match="nobody releases their own"):
        run(fake, release(fake, ANA))


@pytest.mark.parametrize(
    ("person", "name", "error"),
    [("dan@example.com", "", KeysError), (BEN, "zz", UsageError)],
)
def test_wrong(fake: FakeWorld, person: str, name: str, error: type[HandrailError]) -> None:
    """A stranger, or an id of nothing that waits, is an error, and it waits on."""

    def wrongly(held: str) -> None:
        with pytest.raises(error):
            holding.release(fake.world(person), name or held, Path(person), allow=True)

    answers, _ = run(fake, wrongly)
    assert answers == [False]


def test_forged(fake: FakeWorld) -> None:
    """A record whose signature is over something else releases nothing."""

    def forge(name: str) -> None:
        holding.release(fake.world(BEN), name, Path(BEN), allow=False)
        last = fake.journal.last(f"hold-{name}")
        assert last is not None
        fake.journal.append(f"hold-{name}", "released", records.body(last) | {"allow": True})

    answers, _ = run(fake, forge)
    assert answers == [False]


def test_nothing_waits_of_the_dead(fake: FakeWorld) -> None:
    """What a killed run left waiting is not shown, and cannot be released."""

    def die(_: str) -> None:
        raise SystemExit

    found: list[Path] = []

    def keep(name: str) -> None:
        path = fake.root / ".handrail" / "holds" / f"{name}.json"
        path.with_name(f"{name}-left.json").write_bytes(path.read_bytes())
        found.append(path)
        die(name)

    with pytest.raises(SystemExit):
        run(fake, keep)
    assert not found[0].exists()
    assert holding.standing(fake.world(BEN)) == ()
    with pytest.raises(UsageError):
        release(fake)(found[0].stem)


def test_where_nobody_is_asked(fake: FakeWorld) -> None:
    """In a rehearsal nobody is asked, and nothing that is held may begin."""
    answers: list[bool] = []

    def asking(call: Call) -> Finished | int:
        hear = fake.guards.hear
        assert isinstance(hear, Hearing)
        answers.append(hear.ask(STATEMENT, WHY, lambda: False))
        return fake.program(TRIM)(call)

    fake.processes.programs = {"trim.sh": asking}
    fake.rehearse()
    assert answers == [False]
