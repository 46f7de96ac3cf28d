"""Who approved the merge request that brought a commit, as GitLab says.

Rules:
- The commit must be what was merged, or the merge request's last state.
- An approval of the merge request's author does not count; neither does one from before its last
  state, where GitLab says when it was given. Where it does not (before 17.8), the project's
  setting "remove all approvals when commits are added" must be on.
- Reviewers are named `login@gitlab`.

Source: https://docs.gitlab.com/api/commits, https://docs.gitlab.com/api/merge_request_approvals
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

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

URL = "https://gitlab.com/api/v4"


class GitLabReviews:
    """`ports.Reviews` of one project."""

    def __init__(self, project: str, token: str, clock: Clock, url: str = "") -> None:
        """Connect to nothing yet.

        Args:
            project: `group/name`.
            token: may be empty for a public project.
            clock: to say when a limit ends.
            url: of the API, where it is not the public one.

        Raises:
            PlatformError: the token or the address cannot be used.
            UsageError: that is no name.
        """
        headers = {"PRIVATE-TOKEN": header("GitLab", token)} if token else {}
        self._forge = Forge("GitLab", url or URL, headers, clock)
        check_name(project)
        self._at = f"/projects/{quote(project, safe='')}"

    def reviewers(self, commit: str) -> tuple[str, ...]:
        """Return who approved; see `ports.Reviews`."""
        check_commit(commit)
        with self._forge.asking() as asking:
            asked = asking.items(f"{self._at}/repository/commits/{commit}/merge_requests")
            found = [login for one in asked for login in self._approved(asking, one, commit)]
        return people(found, "gitlab")

    def _approved(self, asking: Asking, asked: Any, commit: str) -> Iterator[str]:
        states = {said(asked, key) for key in ("sha", "merge_commit_sha", "squash_commit_sha")}
        number = asked.get("iid") if isinstance(asked, dict) else None
        if said(asked, "state") != "merged" or commit not in states:
            return
        if not isinstance(number, int):
            raise asking.forge.odd()
        at = f"{self._at}/merge_requests/{number}"
        given = asking.item(f"{at}/approvals").get("approved_by")
        if not isinstance(given, list):
            raise asking.forge.odd()
        changed = _changed(asking, at) if any(said(one, "approved_at") for one in given) else None
        author = said(asked, "author", "username").casefold()
        for one in given:
            login, when = said(one, "user", "username"), _time(said(one, "approved_at"))
            is_stale = changed is not None and when is not None and when < changed
            if login.casefold() != author and not is_stale:
                yield login


def _changed(asking: Asking, at: str) -> datetime | None:
    """Return when the merge request got its last state."""
    times = [_time(said(one, "created_at")) for one in asking.items(f"{at}/versions")]
    return max((one for one in times if one is not None), default=None)


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
