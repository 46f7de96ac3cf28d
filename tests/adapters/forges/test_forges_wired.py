"""Which forge an app's declaration means."""

from __future__ import annotations

from pathlib import Path

import pytest

from handrail import kit_wiring, wiring
from handrail.adapters.forges import GitHubReviews, GitLabReviews
from handrail.errors import DeclarationError, HandrailError, UsageError
from handrail.kits.deploys.ports import Reviews
from support.forge import COMMIT, forging

APP = """
environments: {{production: {{production: true}}}}
platforms: {{here: {{kind: supervisor, url: unix:///run/s.sock, folder: /srv/apps}}}}
apps: {{shop: {{repository: ../shop, spec: shop.conf, platform: platform/here{review}}}}}
"""


def opened(root: Path, review: str, **environment: str) -> tuple[Reviews | None, set[str]]:
    (root / "estate").mkdir()
    (root / "estate/all.yaml").write_text(APP.format(review=review))
    kits = wiring.kits()
    app = wiring.declared(root, kits).estate.resources["app/shop"]
    world = wiring.world(root, root / ".handrail", environment, kits)
    return kit_wiring.outside(world).open_reviews(app), set(world.secrets)


@pytest.mark.parametrize(
    ("review", "kind"),
    [
        ("", None),
        (", review: {github: team/shop}", GitHubReviews),
        (", review: {gitlab: group/team/shop}", GitLabReviews),
    ],
)
def test_the_forge_is_as_declared(tmp_path: Path, review: str, kind: type | None) -> None:
    """None where none is: then trailers and signatures count."""
    found, _ = opened(tmp_path, review)
    assert type(found) is (kind or type(None))


def test_a_token_is_read_and_known_as_a_secret(tmp_path: Path) -> None:
    """It is sent to the forge, and kept out of the journal."""
    with forging("github") as forge:
        review = f", review: {{github: team/shop, url: '{forge.url}', token: {{env: FORGE}}}}"
        found, secrets = opened(tmp_path, review, FORGE="s3cret")
        assert found is not None
        assert found.reviewers(COMMIT) == ("ben@github",)
        assert (forge.seen[0][1]["Authorization"], secrets) == ("Bearer s3cret", {"s3cret"})


@pytest.mark.parametrize(
    ("review", "kind"),
    [
        (", review: {}", DeclarationError),
        (", review: {github: team/shop, gitlab: team/shop}", DeclarationError),
        (", review: {github: team/shop, token: {env: FORGE}}", UsageError),
        (", review: {github: team/../shop}", UsageError),
    ],
)
def test_a_forge_that_cannot_be_asked_is_no_silence(
    tmp_path: Path, review: str, kind: type[HandrailError]
) -> None:
    """Who declared one does not get the weaker rule without a word."""
    with pytest.raises(kind):
        opened(tmp_path, review)
