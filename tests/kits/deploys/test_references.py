"""What an image is called, and what is no image's name."""

from __future__ import annotations

import pytest

from handrail.errors import UsageError, render
from handrail.kits.deploys.references import parse, parse_repository

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("text", "host", "path", "wanted"),
    [
        ("nginx", "registry-1.docker.io", "library/nginx", "latest"),
        ("team/shop:1.4", "registry-1.docker.io", "team/shop", "1.4"),
        ("docker.io/nginx", "registry-1.docker.io", "library/nginx", "latest"),
        ("GHCR.io/team/shop:main", "ghcr.io", "team/shop", "main"),
        ("localhost/x", "localhost", "x", "latest"),
        ("localhost:5000/x", "localhost:5000", "x", "latest"),
        ("[::1]:5000/x:y", "[::1]:5000", "x", "y"),
        (f"a.b/c/d/e@{DIGEST}", "a.b", "c/d/e", DIGEST),
        (f"nginx:1@{DIGEST}", "registry-1.docker.io", "library/nginx", DIGEST),
        (
            "1.dkr.ecr.eu-west-1.amazonaws.com/a__b/c-d",
            "1.dkr.ecr.eu-west-1.amazonaws.com",
            "a__b/c-d",
            "latest",
        ),
    ],
)
def test_names_are_read_as_docker_does(text: str, host: str, path: str, wanted: str) -> None:
    """Host, path and tag or digest of a name are those that `docker pull` would take."""
    found = parse(text)
    assert (found.host, found.path, found.wanted) == (host, path, wanted)
    assert text.startswith(found.repository)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " nginx",
        "Nginx",
        "nginx:",
        "/x",
        "x/",
        "a//b",
        "../x",
        "a.b/../c",
        "http://a.b/c",
        "localhost:99999/x",
        "localhost:0/x",
        "x:tag with space",
        "x:..",
        "x?y",
        "x#y",
        "x%2f",
        "x\n",
        "ghcr.io/x:\x1b[1m",
        f"x@{DIGEST[:-1]}",
        f"x@{DIGEST.upper()}",
        "x@md5:ab",
        "a" * 256,
        "a" * 100_000,
        "ghcr.io/x:" + "t" * 129,
        "täg",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """A name that could mean another address, or none, is refused before anybody is asked."""
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.code == "image.unknown"


def test_a_password_in_a_name_is_not_shown() -> None:
    """Who writes a password into an image's name does not read it in an error."""
    with pytest.raises(UsageError) as caught:
        parse("ana:hunter2@ghcr.io/team/shop")
    assert "hunter2" not in render(caught.value)


def test_a_repository_has_no_tag() -> None:
    """Tags are listed of a repository, not of an image."""
    assert parse_repository("nginx").path == "library/nginx"
    with pytest.raises(UsageError):
        parse_repository("nginx:1")
