"""Tokens: made once, kept as a hash, refused once they count no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from handrail.core import people
from handrail.core.people import Register
from handrail.core.world import World
from handrail.errors import HandrailError, JournalError
from handrail.plans.policy import Policy
from support.worlds import ANA, FakeWorld, make_world

POLICY = Policy(groups={"web": (ANA,)}, file="policy.yaml")
DAY_S = 86400


@pytest.fixture
def fake(tmp_path: Path) -> FakeWorld:
    """A world of fakes."""
    return make_world(tmp_path / "team")


def make(fake: FakeWorld, **rest: object) -> tuple[people.Token, str]:
    """Return a token of Ana's, and its text."""
    said = {"person": ANA, "role": "operator", "team": "", "lasts_s": DAY_S} | rest
    return people.create(fake.world("root"), POLICY, **said)  # type: ignore[arg-type]  # as named


def refusal(register: Register, text: str) -> str:
    """Return the code with which a token is refused."""
    with pytest.raises(HandrailError) as error:
        register.find(text)
    return error.value.code


def test_is_found_by_its_text_alone(fake: FakeWorld) -> None:
    """A token is found by its whole text, and by nothing near it."""
    token, text = make(fake)
    register = Register(fake.world())
    assert register.find(text).id == token.id
    for wrong in (
        text[:-1],
        text + "0",
        text.upper(),
        text.replace("handrail", "x"),
        "",
        "_",
        "__",
    ):
        assert refusal(register, wrong) == "auth.missing"
    assert refusal(register, f"handrail_{token.id}_{token.digest}") == "auth.missing"
    assert refusal(register, f"handrail_{token.id}_") == "auth.missing"


def test_secret_is_kept_nowhere(fake: FakeWorld) -> None:
    """The journal holds the hash of a token, not the token."""
    _, text = make(fake)
    assert text.rpartition("_")[2] not in "\n".join(fake.journal.export())
    assert len(text.rpartition("_")[2]) == 64


def test_expiry(fake: FakeWorld) -> None:
    """A token counts until its time, and a clock that is set back does not revive it."""
    _, text = make(fake, lasts_s=60)
    register = Register(fake.world())
    fake.clock.advance(59)
    register.find(text)
    fake.clock.advance(1)
    assert refusal(register, text) == "auth.expired"
    fake.clock.jump(-3600)
    assert refusal(register, text) == "auth.expired"


def test_revoking(fake: FakeWorld) -> None:
    """A revoked token is refused at once, also by a server that knew it; twice equals once."""
    token, text = make(fake)
    other, _ = make(fake)
    register = Register(fake.world())
    register.find(text)
    people.revoke(fake.world(), token.id[:6])
    people.revoke(fake.world(), token.id)
    assert refusal(register, text) == "auth.revoked"
    assert fake.kinds("tokens").count("revoked") == 1
    found = {one.id: bool(one.revoked_at) for one in people.tokens(fake.world())}
    assert found == {token.id: True, other.id: False}


@pytest.mark.parametrize("name", ["", "zzzz"])
def test_revoking_nothing(fake: FakeWorld, name: str) -> None:
    """A name that is no token's, or everybody's, revokes none."""
    make(fake)
    make(fake)
    with pytest.raises(HandrailError, match="token"):
        people.revoke(fake.world(), name)
    assert "revoked" not in fake.kinds("tokens")


@pytest.mark.parametrize(
    "wrong",
    [
        {"person": ""},
        {"person": "a b"},
        {"person": "a\nb"},
        {"role": "root"},
        {"team": "nobody"},
        {"person": "ben@example.com", "team": "web"},
        {"lasts_s": 0},
        {"lasts_s": 367 * DAY_S},
    ],
)
def test_making_what_cannot_be(fake: FakeWorld, wrong: dict[str, object]) -> None:
    """A token for nobody, of no role, of a group that its person is not in, or for ever is none."""
    with pytest.raises(HandrailError) as error:
        make(fake, **wrong)
    assert error.value.code == "auth.token"
    assert fake.kinds("tokens") == []


def test_last_use(fake: FakeWorld) -> None:
    """That a token is used is recorded, and not more often than once an hour."""
    _, text = make(fake)
    register = Register(fake.world())
    for _ in range(3):
        register.find(text)
    assert fake.kinds("tokens") == ["created", "used"]
    fake.clock.advance(3600)
    register.find(text)
    assert fake.kinds("tokens") == ["created", "used", "used"]
    assert people.tokens(fake.world())[0].used_at[:13] == fake.clock.now().isoformat()[:13]


class Full:
    """A journal whose disk is full."""

    def __init__(self, world: World) -> None:
        self._journal = world.journal

    def __getattr__(self, name: str) -> object:
        return getattr(self._journal, name)

    def append(self, *_: object) -> None:
        raise JournalError("journal.unwritable", "full")


def test_looking_with_a_full_disk(fake: FakeWorld) -> None:
    """A person is known also while nothing can be recorded."""
    token, text = make(fake)
    world = fake.world()
    full = replace(world, journal=Full(world))  # type: ignore[arg-type]  # what it lacks, it passes on
    assert Register(full).find(text).id == token.id
