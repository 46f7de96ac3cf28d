"""What of an app is replaced next, decided without a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.adapters.supervisor.rolling import Instance, Rolling, Seen
from handrail.adapters.supervisor.state import (
    Deployment,
    State,
    decode_state,
    encode_state,
)

HEALTHY = Seen("healthy")
WAITING = Seen("waiting", "it is starting")
NOW = 1000.0


def _body(count: int = 3, command: str = "a", **update: int) -> dict[str, Any]:
    settings = {"at-once": 1, "canaries": 0, "healthy": 0, "deadline": 60}
    settings |= {name.replace("_", "-"): value for name, value in update.items()}
    return {"update": settings, "tasks": {"web": {"command": [command], "instances": count}}}


OLD = _body()


def _before(count: int = 3) -> State:
    done = Deployment(1, 1, 0.0, stand="healthy")
    return State(1, 1, {"web": ((1, 1),) * count}, (done,))


def _deploy(state: State, *, is_whole: bool = False) -> State:
    number = state.serial + 1
    return replace(state, version=number).begun(Deployment(number, number, NOW, is_whole))


def _rolling(
    state: State,
    body: Mapping[str, object],
    seen: Mapping[Instance, Seen] | None = None,
    now: float = NOW,
) -> Rolling:
    bodies = {1: OLD, state.version: body}
    places = state.placed.get("web", ())
    healthy = dict.fromkeys([("web", number) for number in range(len(places))], HEALTHY)
    return Rolling(state, body, bodies.__getitem__, {**healthy, **(seen or {})}, now)


def _moved(state: State) -> list[int]:
    number = state.deployments[-1].number
    return [n for n, (_, d) in enumerate(state.placed.get("web", ())) if d == number]


def test_what_is_new_is_placed_at_once() -> None:
    """Where nothing ran, there is nothing to spare."""
    state = _rolling(_deploy(State()), _body()).next()
    assert _moved(state) == [0, 1, 2]


def test_they_are_replaced_one_after_another() -> None:
    """The next one only when the one before is healthy; then it is over."""
    body = _body(command="b")
    state = _deploy(_before())
    for expected in ([0], [0, 1], [0, 1, 2]):
        state = _rolling(state, body).next()
        assert _moved(state) == expected
        assert _rolling(state, body, {("web", len(expected) - 1): WAITING}).next().placed == (
            state.placed
        )
    assert _rolling(state, body).next().deployments[-1].stand == "healthy"


@given(
    st.integers(1, 6),
    st.integers(0, 6),
    st.integers(1, 3),
    st.integers(0, 2),
    st.lists(st.lists(st.booleans(), min_size=6, max_size=6), max_size=30),
)
def test_no_more_than_allowed_are_away(
    before: int, after: int, at_once: int, canaries: int, ticks: list[list[bool]]
) -> None:
    """However slowly they come up, so many that ran before are away at most, and it ends."""
    body = _body(after, "b", at_once=at_once, canaries=canaries, deadline=10**6)
    state = _deploy(_before(before))
    up = set(range(before))
    for tick in [*ticks, *[[True] * 6] * 30]:
        up |= {n for n in range(6) if tick[n] and n < len(state.placed.get("web", ()))}
        seen = {("web", n): HEALTHY if n in up else WAITING for n in range(6)}
        new = _rolling(state, body, seen).next()
        up -= {n for n in _moved(new) if n not in _moved(state)}
        away = [n for n in range(min(before, after)) if n not in up]
        assert len(away) <= at_once
        if new.deployments[-1].stand == "canaries":
            assert set(_moved(new)) <= set(range(canaries))
            new = new.with_last(stand="going", is_promoted=True)
        state = new
    assert state.deployments[-1].stand == "healthy"
    assert len(state.placed.get("web", ())) == after


def test_what_would_be_the_same_stays() -> None:
    """Only the missing one is placed, and what is too many goes."""
    more = _rolling(_deploy(_before()), _body(4)).next()
    assert _moved(more) == [3]
    fewer = _rolling(_deploy(_before()), _body(2)).next()
    assert fewer.placed == {"web": ((1, 1), (1, 1))}


@pytest.mark.parametrize("health", ["dead", "given up"])
def test_what_does_not_run_is_started(health: str) -> None:
    """One that would be the same and does not run is replaced, and no other."""
    seen = {("web", 1): Seen(health)}  # type: ignore[arg-type]
    assert _moved(_rolling(_deploy(_before()), _body(), seen).next()) == [1]


def test_a_restart_replaces_what_is_the_same() -> None:
    """All of them, a few at a time."""
    state = _deploy(_before(), is_whole=True)
    for expected in ([0], [0, 1], [0, 1, 2]):
        state = _rolling(state, OLD).next()
        assert _moved(state) == expected


def test_what_gave_up_fails_it() -> None:
    """Nothing more is replaced, and it is said which one it was."""
    state = _rolling(_deploy(_before()), _body(command="b")).next()
    seen = {("web", 0): Seen("given up", "exit 1")}
    failed = _rolling(state, _body(command="b"), seen).next()
    assert failed.placed == state.placed
    assert failed.deployments[-1].stand == "failed"
    assert failed.deployments[-1].why == "web-0: exit 1"
    assert _rolling(failed, _body(command="b")).next() == failed


def test_what_is_silent_for_too_long_fails_it() -> None:
    """The deadline is of each batch: a long deployment of many may take longer."""
    body = _body(command="b", deadline=60)
    state = _rolling(_deploy(_before()), body, now=NOW + 50).next()
    waiting = {("web", 0): WAITING}
    still = _rolling(state, body, waiting, NOW + 110).next()
    assert still.deployments[-1].stand == "going"
    assert "starting" in still.deployments[-1].why
    failed = _rolling(state, body, waiting, NOW + 111).next()
    assert failed.deployments[-1].stand == "failed"
    assert "60 s" in failed.deployments[-1].why


def test_others_that_are_ill_do_not_hold_a_repair_up() -> None:
    """Old instances that fail are why somebody deploys; at the end all must be healthy."""
    body = _body(command="b")
    seen = {("web", 2): WAITING}
    state = _rolling(_deploy(_before()), body, seen).next()
    state = _rolling(state, body, seen).next()
    assert _moved(state) == [0, 1]


def test_states_are_read_as_they_were_written() -> None:
    """A state that was written is the same when it is read."""
    state = _deploy(_deploy(_before()), is_whole=True)
    assert decode_state(encode_state(state)) == state


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1, "serial": "x"}', "null"]
)
def test_what_is_no_state_is_refused(text: str) -> None:
    """A file that somebody broke, or a later Handrail wrote, is not guessed at."""
    with pytest.raises(ValueError, match=r"."):
        decode_state(text)


def test_old_deployments_are_forgotten_and_numbers_are_not() -> None:
    """The list stays short; what another took the place of has failed."""
    state = State()
    for _ in range(50):
        state = _deploy(state)
    assert len(state.deployments) <= 20
    assert state.serial == 50
    assert {one.stand for one in state.deployments[:-1]} == {"failed"}
    assert state.find("50") == state.last
    assert state.removed().serial == 50
