"""What every registry does, in memory or real: names become digests, and tags are listed by age."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from handrail.adapters.registry.credentials import Access
from handrail.adapters.registry.oci import OciRegistry
from handrail.errors import UsageError
from handrail.kits.deploys.ports import Registry
from handrail.testing.clock import FakeClock
from handrail.testing.registry import FakeRegistry
from support.image_registry import running_registry


@dataclass
class House:
    """A registry with its host, and how an image gets there: `push(path, tag, content) -> digest`.

    Each push is a minute younger than the one before.
    """

    registry: Registry
    host: str
    push: Callable[[str, str, str], str]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with running_registry(tmp_path_factory.mktemp("registry")) as server:
        minutes = iter(range(1000))

        def push(path: str, tag: str, content: str) -> str:
            minute = next(minutes)
            created = f"2026-01-05T{minute // 60:02}:{minute % 60:02}:00Z"
            return server.push(path, tag, created, content).digest

        access = Access(frozenset({server.host}))
        yield House(OciRegistry(FakeClock(), access), server.host, push)


@pytest.fixture(params=["fake", "real"])
def house(request: pytest.FixtureRequest) -> House:
    if request.param == "real":
        found = request.getfixturevalue("real")
        assert isinstance(found, House)
        return found
    fake, host = FakeRegistry(), "registry.test"
    return House(fake, host, lambda path, tag, content: _push(fake, host, path, tag, content))


def _push(fake: FakeRegistry, host: str, path: str, tag: str, content: str) -> str:
    return fake.push(f"{host}/{path}:{tag}", content).digest


def test_a_tag_means_the_digest_that_was_pushed(house: House) -> None:
    """A tag resolves to what was pushed under it last, and the digest to itself."""
    digest = house.push("team/shop", "main", "one")
    image = house.registry.resolve(f"{house.host}/team/shop:main")
    assert (image.repository, image.tag, image.digest) == (
        f"{house.host}/team/shop",
        "main",
        digest,
    )
    again = house.registry.resolve(image.pinned)
    assert (again.digest, again.tag) == (digest, "")


def test_a_tag_that_moves_means_the_new_digest(house: House) -> None:
    """What a tag meant stays there by its digest; the tag means what came later."""
    old = house.push("team/moving", "main", "old")
    new = house.push("team/moving", "main", "new")
    assert old != new
    assert house.registry.resolve(f"{house.host}/team/moving:main").digest == new
    assert house.registry.resolve(f"{house.host}/team/moving@{old}").digest == old


def test_a_tag_that_is_not_there_is_told_with_a_near_one(house: House) -> None:
    """Who mistypes a tag reads the one that was meant."""
    house.push("team/near", "release-12", "one")
    with pytest.raises(UsageError) as caught:
        house.registry.resolve(f"{house.host}/team/near:relaese-12")
    assert caught.value.code == "image.unknown"
    assert "`release-12`" in caught.value.hint


def test_a_repository_that_is_not_there_is_told(house: House) -> None:
    """A repository that nobody pushed to has neither images nor tags."""
    with pytest.raises(UsageError) as caught:
        house.registry.resolve(f"{house.host}/team/nothing:main")
    assert caught.value.code == "image.unknown"
    with pytest.raises(UsageError) as caught:
        house.registry.tags(f"{house.host}/team/nothing")
    assert caught.value.code == "image.unknown"


def test_a_digest_that_is_not_there_is_told(house: House) -> None:
    """A digest that nobody pushed is unknown, whatever tags there are."""
    house.push("team/digest", "main", "one")
    with pytest.raises(UsageError) as caught:
        house.registry.resolve(f"{house.host}/team/digest@sha256:{'0' * 64}")
    assert caught.value.code == "image.unknown"


def test_tags_are_listed_the_newest_first(house: House) -> None:
    """Age, and not the name, is the order; each tag comes with its digest."""
    digests = {tag: house.push("team/ages", tag, tag) for tag in ("b-2", "a-10", "b-1", "a-9")}
    found = house.registry.tags(f"{house.host}/team/ages")
    assert [image.tag for image in found] == ["a-9", "b-1", "a-10", "b-2"]
    assert {image.tag: image.digest for image in found} == digests
    assert found[0].created > found[-1].created


def test_tags_are_filtered_and_bounded(house: House) -> None:
    """Those that contain a word (a branch), and no more than were asked for."""
    for tag in ("main-1", "main-2", "other-1", "main-3"):
        house.push("team/filter", tag, tag)
    found = house.registry.tags(f"{house.host}/team/filter", "main", 2)
    assert [image.tag for image in found] == ["main-3", "main-2"]
    assert house.registry.tags(f"{house.host}/team/filter", "no-such") == []


def test_what_is_no_name_is_refused(house: House) -> None:
    """A name that cannot be one is refused before anybody is asked."""
    for text in ("http://x/y", "../x", "x:a b"):
        with pytest.raises(UsageError):
            house.registry.resolve(text)
