"""Who approved the pull request that brought a commit, as GitHub says.

Rules:
- The commit must be what was merged, or the pull request's last state: one in its middle was not
  what anybody approved.
- An approval counts that is the person's last word, over the last state, and not dismissed; of
  somebody who belongs to the repository, is no robot, and neither opened the pull request nor
  wrote a commit of it.
- Reviewers are named `login@github`: the API does not say mail addresses.

Source: https://docs.github.com/rest/commits/commits, https://docs.github.com/rest/pulls/reviews
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from handrail.adapters.forges.asking import (
    Asking,
    Forge,
    check_commit,
    check_name,
    header,
    people,
    said,
)

if TYPE_CHECKING:
    from handrail.ports import Clock

URL = "https://api.github.com"
_DECIDING = frozenset({"APPROVED", "CHANGES_REQUESTED", "DISMISSED"})
_OF_THE_HOUSE = frozenset({"OWNER", "MEMBER", "COLLABORATOR"})


class GitHubReviews:
    """`ports.Reviews` of one repository."""

    def __init__(self, repository: str, token: str, clock: Clock, url: str = "") -> None:
        """Connect to nothing yet.

        Args:
            repository: `owner/name`.
            token: may be empty for a public repository.
            clock: to say when a limit ends.
            url: of the API, where it is not the public one.

        Raises:
            PlatformError: the token or the address cannot be used.
            UsageError: that is no name.
        """
        headers = {
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
            **({"Authorization": f"Bearer {header('GitHub', token)}"} if token else {}),
        }
        self._forge = Forge("GitHub", url or URL, headers, clock)
        check_name(repository)
        self._at = f"/repos/{repository}"

    def reviewers(self, commit: str) -> tuple[str, ...]:
        """Return who approved; see `ports.Reviews`."""
        check_commit(commit)
        with self._forge.asking() as asking:
            pulls = asking.items(f"{self._at}/commits/{commit}/pulls")
            found = [one for pull in pulls for one in self._approved(asking, pull, commit)]
        return people(found, "github")

    def _approved(self, asking: Asking, pull: Any, commit: str) -> Iterator[str]:
        head = said(pull, "head", "sha")
        number = pull.get("number") if isinstance(pull, dict) else None
        if not said(pull, "merged_at") or commit not in {said(pull, "merge_commit_sha"), head}:
            return
        if not isinstance(number, int):
            raise asking.forge.odd()
        at = f"{self._at}/pulls/{number}"
        reviews = asking.items(f"{at}/reviews")
        approved = [login for login, one in _last(reviews).items() if _counts(one, head)]
        if approved:
            writers = set(_writers(pull, asking.items(f"{at}/commits")))
            yield from (login for login in approved if login.casefold() not in writers)


def _last(reviews: tuple[Any, ...]) -> Mapping[str, Any]:
    """Return each person's last review that decides anything; they come in the order of time."""
    return {said(one, "user", "login"): one for one in reviews if said(one, "state") in _DECIDING}


def _counts(review: Any, head: str) -> bool:
    return (
        said(review, "state") == "APPROVED"
        and said(review, "commit_id") == head
        and said(review, "user", "type") != "Bot"
        and said(review, "author_association") in _OF_THE_HOUSE
    )


def _writers(pull: Any, commits: tuple[Any, ...]) -> Iterator[str]:
    yield said(pull, "user", "login").casefold()
    for one in commits:
        yield said(one, "author", "login").casefold()
        yield said(one, "committer", "login").casefold()
