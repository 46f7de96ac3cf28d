"""What registries write into headers and documents, and what is made of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.adapters.registry import challenges, manifests, waiting
from handrail.adapters.registry.challenges import Challenge
from handrail.adapters.registry.credentials import Access, Credentials, read_credentials
from handrail.errors import UsageError, render
from handrail.testing.clock import START

DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="x:y:pull,push"',
            (Challenge("bearer", "https://auth.docker.io/token", "registry.docker.io"),),
        ),
        ('Basic realm="x"', (Challenge("basic"),)),
        ("Basic", (Challenge("basic"),)),
        (
            'Basic realm="a, b", bearer Realm=https://x/t , service=s',
            (Challenge("bearer", "https://x/t", "s"), Challenge("basic")),
        ),
        ('Bearer realm="https://x/\\"t"', (Challenge("bearer", 'https://x/"t'),)),
        ("Negotiate, Basic realm=x", (Challenge("basic"),)),
        ('Bearer service="x"', ()),
        ("", ()),
        ("Bearer realm=" + "x" * 10_000, ()),
    ],
)
def test_challenges_are_read(header: str, found: tuple[Challenge, ...]) -> None:
    """The ways in that are understood are found among others, tokens first."""
    assert challenges.read(header) == found


@given(st.text(max_size=300))
def test_no_challenge_breaks_the_reader(header: str) -> None:
    """Whatever stands in the header, something is made of it, or nothing."""
    for one in challenges.read(header):
        assert one.scheme in {"basic", "bearer"}


@given(
    st.dictionaries(st.sampled_from(["retry-after", "x-retry-after", "ratelimit-limit"]), st.text())
)
def test_no_limit_breaks_the_reader(headers: dict[str, str]) -> None:
    """Whatever is said, it is nothing, or between now and a week."""
    found = waiting.seconds(headers, START)
    assert found is None or 0 <= found <= waiting.LONGEST_S


@pytest.mark.parametrize(
    ("said", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "999999999"}, waiting.LONGEST_S),
        ({"x-retry-after": "9" * 400}, waiting.LONGEST_S),
        ({"x-ratelimit-reset": "1000000000"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "\u0667"}, None),
        ({"ratelimit-limit": "100;w=21600"}, 21600.0),
        ({}, None),
    ],
)
def test_limits_are_read(said: dict[str, str], wait_s: float | None) -> None:
    """Seconds, dates and moments; what is past is now, and nothing takes longer than a week."""
    assert waiting.seconds(said, START) == wait_s


@pytest.mark.parametrize(
    ("said", "created"),
    [
        ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"),
        ("2026-01-02", "2026-01-02T00:00:00Z"),
        ("1970-01-01T00:00:00Z", ""),
        ("1980-01-01T00:00:01Z", ""),
        ("0001-01-01T00:00:00+01:00", ""),
        ("9999-12-31T23:59:59-01:00", ""),
        ("yesterday", ""),
        (1767607200, ""),
        (None, ""),
        ("2026-01-02T03:04:05Z" + " " * 100, ""),
    ],
)
def test_when_an_image_was_made_is_read(said: object, created: str) -> None:
    """Moments are understood in every zone; what is none, or a way to say nothing, is nothing."""
    assert manifests.created({"created": said}) == created


def test_an_annotation_counts_before_the_configuration() -> None:
    """Who annotates an image says it on purpose."""
    annotations = {"org.opencontainers.image.created": "2026-02-01T00:00:00Z"}
    document = {"annotations": annotations, "created": "2020-01-01T00:00:00Z"}
    assert manifests.created(document) == "2026-02-01T00:00:00Z"


@pytest.mark.parametrize(
    "index",
    [{}, {"manifests": 1}, {"manifests": [1, {}, {"digest": 7}, {"digest": "md5:1"}]}],
)
def test_an_index_of_nothing_has_no_image(index: dict[str, object]) -> None:
    """What is no list of images leads to none."""
    assert manifests.one_of(index) == ""


def test_linux_on_amd64_stands_for_an_index() -> None:
    """It is looked at first; without it, the first that is an image."""
    proof = {"digest": OTHER, "platform": {"os": "unknown", "architecture": "unknown"}}
    arm = {"digest": OTHER, "platform": {"os": "linux", "architecture": "arm64"}}
    amd = {"digest": DIGEST, "platform": {"os": "linux", "architecture": "amd64"}}
    assert manifests.one_of({"manifests": [proof, arm, amd]}) == DIGEST
    assert manifests.one_of({"manifests": [proof, {"digest": DIGEST}, arm]}) == DIGEST


def test_names_are_sorted_by_their_numbers() -> None:
    """v1.10 is newer than v1.9, however long the numbers are."""
    tags = ["v1.9", "v1.10", "latest", "v1.10-rc1", "2026", "v2", "9" * 30]
    assert sorted(tags, key=manifests.newest_by_name, reverse=True) == [
        "9" * 30,
        "2026",
        "v2",
        "v1.10-rc1",
        "v1.10",
        "v1.9",
        "latest",
    ]


def test_credentials_are_a_user_with_a_password_or_a_token() -> None:
    """The first colon parts them; a token has none; nothing of either is shown."""
    assert read_credentials("AWS:ey:J\n") == Credentials("AWS", "ey:J")
    assert read_credentials("ghp_1234") == Credentials("", "ghp_1234")
    assert read_credentials(" \n") is None
    assert "ghp" not in repr(Access(frozenset({"x"}), read_credentials("ana:ghp_1234")))


@pytest.mark.parametrize("text", ["a b", ":secret-1", "ana:", "ana:secret-1\nX: y", "ana:sécret-1"])
def test_what_are_no_credentials_are_refused_unseen(text: str) -> None:
    """What cannot be sent is refused, and not shown."""
    with pytest.raises(UsageError) as caught:
        read_credentials(text)
    assert "cret-1" not in render(caught.value)


def test_credentials_are_for_declared_hosts_and_their_givers() -> None:
    """Docker Hub's and GitLab's givers of tokens are known, others are declared."""
    credentials = Credentials("ana", "x")
    access = Access(frozenset({"registry-1.docker.io"}), credentials)
    assert access.of("registry-1.docker.io") is credentials
    assert access.of("ghcr.io") is None
    assert access.gives("auth.docker.io", "registry-1.docker.io")
    assert not access.gives("evil.test", "registry-1.docker.io")
    assert Access(frozenset(), credentials, "git.test").gives("git.test", "registry.test")
