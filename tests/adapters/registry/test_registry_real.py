"""The distribution project's own registry: passwords, tokens, indexes and ages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from handrail.adapters.registry import oci
from handrail.adapters.registry.credentials import Access, read_credentials
from handrail.adapters.registry.oci import OciRegistry
from handrail.errors import PlatformError, UsageError, render
from handrail.testing.clock import FakeClock
from support.image_registry import PASSWORD, USER, ImageRegistry, running_registry


@pytest.fixture(scope="module", params=["nobody", "password", "token"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ImageRegistry]:
    with running_registry(tmp_path_factory.mktemp("registry"), request.param) as running:
        yield running


def _opened(server: ImageRegistry, credentials: str = f"{USER}:{PASSWORD}") -> OciRegistry:
    (realm,) = server.realms or ("",)
    access = Access(frozenset({server.host}), read_credentials(credentials), realm)
    return OciRegistry(FakeClock(), access)


def test_whoever_has_the_password_is_let_in(server: ImageRegistry) -> None:
    """However a registry lets people in, what it means by a tag is had with the password."""
    pushed = server.push("team/shop", "main", "2026-01-05T09:00:00Z")
    registry = _opened(server)
    assert registry.resolve(f"{server.host}/team/shop:main").digest == pushed.digest
    (image,) = registry.tags(f"{server.host}/team/shop")
    assert (image.digest, image.created) == (pushed.digest, "2026-01-05T09:00:00Z")


@pytest.mark.parametrize("server", ["password", "token"], indirect=True)
@pytest.mark.parametrize("credentials", ["", f"{USER}:wrong", "nobody:at-all"])
def test_nobody_else_is_let_in(server: ImageRegistry, credentials: str) -> None:
    """Without the password, or with a wrong one, nothing is told, and nothing of it is shown."""
    server.push("team/closed", "main")
    with pytest.raises(PlatformError) as caught:
        _opened(server, credentials).resolve(f"{server.host}/team/closed:main")
    assert (caught.value.code, caught.value.is_passing) == ("image.unreachable", False)
    assert "lets nobody in" in caught.value.message
    assert "wrong" not in render(caught.value)
    assert "at-all" not in render(caught.value)


@pytest.mark.parametrize("server", ["token"], indirect=True)
def test_strangers_get_a_token_for_what_is_open(server: ImageRegistry) -> None:
    """As on Docker Hub: a token is given to anybody, for what anybody may pull."""
    pushed = server.push("open/shop", "main")
    assert _opened(server, "").resolve(f"{server.host}/open/shop:main").digest == pushed.digest
    assert server.asked_tokens[-1]["scope"] == ["repository:open/shop:pull"]


@pytest.mark.parametrize("server", ["token"], indirect=True)
def test_a_token_serves_many_questions(server: ImageRegistry) -> None:
    """A list with ten ages costs one token."""
    for number in range(10):
        server.push("team/many", f"v{number}", f"2026-01-05T09:0{number}:00Z", str(number))
    server.asked_tokens.clear()
    found = _opened(server).tags(f"{server.host}/team/many")
    assert [image.tag for image in found] == [f"v{number}" for number in range(9, -1, -1)]
    assert len(server.asked_tokens) == 1


def test_an_index_is_resolved_to_its_own_digest(server: ImageRegistry) -> None:
    """An image for several platforms is deployed by its index; its age is Linux on amd64's."""
    arm = server.push("team/index", "arm", "2026-01-05T09:00:00Z", "arm")
    amd = server.push("team/index", "amd", "2026-01-05T10:00:00Z", "amd")
    proof = server.push("team/index", "proof", "2026-01-05T11:00:00Z", "proof")
    inner = {"unknown/unknown": proof, "linux/arm64": arm, "linux/amd64": amd}
    index = server.push_index("team/index", "main", inner)
    registry = _opened(server)
    assert registry.resolve(f"{server.host}/team/index:main").digest == index.digest
    (image,) = registry.tags(f"{server.host}/team/index", "main")
    assert (image.digest, image.created) == (index.digest, "2026-01-05T10:00:00Z")


def test_images_that_hide_their_age_come_last_by_name(server: ImageRegistry) -> None:
    """Reproducible images say 1970: what is known to be young comes first, and then the names."""
    for tag, created in (
        ("v1.9", "1970-01-01T00:00:00Z"),
        ("v1.10", ""),
        ("old", "2020-01-01T00:00:00Z"),
    ):
        server.push("team/hidden", tag, created, tag)
    found = _opened(server).tags(f"{server.host}/team/hidden")
    assert [(one.tag, one.created) for one in found] == [
        ("old", "2020-01-01T00:00:00Z"),
        ("v1.10", ""),
        ("v1.9", ""),
    ]


def test_of_many_tags_only_those_shown_are_looked_at(
    server: ImageRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More tags than are read for their age are sorted by name; what is shown has its digest."""
    monkeypatch.setattr(oci, "READ", 3)
    for number in (2, 10, 9, 1):
        server.push("team/lots", f"build-{number}", "2026-01-05T09:00:00Z", str(number))
    found = _opened(server).tags(f"{server.host}/team/lots", limit=2)
    assert [(image.tag, image.created) for image in found] == [
        ("build-10", "2026-01-05T09:00:00Z"),
        ("build-9", "2026-01-05T09:00:00Z"),
    ]


def test_a_repository_whose_last_image_was_deleted_is_told(server: ImageRegistry) -> None:
    """Deleted is not there, by tag and by digest."""
    pushed = server.push("team/deleted", "main")
    server.delete("team/deleted", pushed.digest)
    registry = _opened(server)
    for name in (":main", f"@{pushed.digest}"):
        with pytest.raises(UsageError) as caught:
            registry.resolve(f"{server.host}/team/deleted{name}")
        assert caught.value.code == "image.unknown"
