"""Who approved what was merged, as GitHub and GitLab say: on a server that answers as they do."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from handrail.adapters.forges import GitHubReviews, GitLabReviews, asking
from handrail.errors import PlatformError, UsageError
from handrail.kits.deploys.ports import Reviews
from handrail.testing.clock import FakeClock
from support.forge import COMMIT, HEAD, Forge, forging

TOKEN = "s3cret-token"
NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
OTHER = "e" * 40


@pytest.fixture
def github() -> Iterator[Forge]:
    with forging("github") as forge:
        yield forge


@pytest.fixture
def gitlab() -> Iterator[Forge]:
    with forging("gitlab") as forge:
        yield forge


@pytest.fixture(params=["github", "gitlab"])
def either(request: pytest.FixtureRequest) -> tuple[Forge, Reviews]:
    forge = request.getfixturevalue(request.param)
    return forge, by_github(forge) if request.param == "github" else by_gitlab(forge)


def by_github(forge: Forge, repository: str = "team/shop", token: str = TOKEN) -> GitHubReviews:
    return GitHubReviews(repository, token, FakeClock(NOW), forge.url)


def by_gitlab(forge: Forge, token: str = TOKEN) -> GitLabReviews:
    return GitLabReviews("team/shop", token, FakeClock(NOW), forge.url)


def failure(reviews: Reviews) -> PlatformError:
    """Return the error, in which there is nothing of the token."""
    with pytest.raises(PlatformError) as caught:
        reviews.reviewers(COMMIT)
    error = caught.value
    assert error.code == "source.unreachable"
    seen: BaseException | None = error
    while seen is not None:  # neither in what it came from, where that is shown
        assert TOKEN not in repr(seen)
        seen = None if seen.__suppress_context__ else seen.__context__
    return error


# --- both --------------------------------------------------------------------------------------


def test_who_approved_is_named(either: tuple[Forge, Reviews]) -> None:
    """By login and forge; of what was merged, and of the pull request's last state."""
    forge, reviews = either
    name = "ben@github" if isinstance(reviews, GitHubReviews) else "ben@gitlab"
    assert reviews.reviewers(COMMIT) == (name,)
    sent = {key.lower(): value for _, one in forge.seen for key, value in one.items()}
    assert TOKEN in {sent.get("private-token"), sent.get("authorization", "")[7:]}


def test_a_commit_that_no_pull_request_brought_has_no_reviewers(
    either: tuple[Forge, Reviews],
) -> None:
    """It was pushed: nobody approved it."""
    forge, reviews = either
    lists = [one for one in forge.answers.values() if isinstance(one, list)]
    lists[0].clear()
    assert reviews.reviewers(COMMIT) == ()


@pytest.mark.parametrize("status", [500, 502, 503])
def test_an_ill_forge_is_worth_another_try(either: tuple[Forge, Reviews], status: int) -> None:
    """It answers with an error of its own."""
    forge, reviews = either
    forge.status = status
    assert failure(reviews).is_passing


@pytest.mark.parametrize("status", [401, 403, 404, 400])
def test_a_refusal_is_final(either: tuple[Forge, Reviews], status: int) -> None:
    """A token that may not, a repository that is not shown: nobody reviewed is not what it says."""
    forge, reviews = either
    forge.status = status
    assert not failure(reviews).is_passing


@pytest.mark.parametrize(
    ("status", "headers", "until"),
    [
        (429, {"Retry-After": "90"}, "2026-01-05T09:01:30Z"),
        (403, {"Retry-After": "60"}, "2026-01-05T09:01:00Z"),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1767607200"}, "T10:00:00Z"),
        (429, {"RateLimit-Reset": "1767607200"}, "2026-01-05T10:00:00Z"),
        (429, {}, ""),
        (429, {"Retry-After": "99999999999"}, ""),
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, ""),
    ],
)
def test_a_limit_says_until_when(
    either: tuple[Forge, Reviews], status: int, headers: dict[str, str], until: str
) -> None:
    """Worth another attempt then; what no clock can wait for is not repeated."""
    forge, reviews = either
    forge.status, forge.headers = status, headers
    error = failure(reviews)
    assert error.is_passing
    assert "wants less to be asked" in error.message
    assert (" until " in error.message, error.message.endswith(until)) == (bool(until), True)


@pytest.mark.parametrize("where", ["http://127.0.0.2:1/x", "https://127.0.0.1/x", "//evil.example"])
def test_another_host_gets_nothing(either: tuple[Forge, Reviews], where: str) -> None:
    """A redirect off the host is an error, and so is the next page of a list."""
    forge, reviews = either
    forge.status, forge.headers = 302, {"Location": where}
    assert "another host" in failure(reviews).message
    forge.status, forge.raw = (
        0,
        (f'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nLink: <{where}>; rel="next"\r\n\r\n[]'.encode()),
    )
    assert "another host" in failure(reviews).message
    assert len(forge.seen) == 2


def test_a_redirect_on_the_host_is_followed_but_not_for_ever(
    either: tuple[Forge, Reviews],
) -> None:
    """A repository that was renamed is found; a circle ends."""
    forge, reviews = either
    forge.status, forge.headers = 301, {"Location": "/again"}
    assert "without end" in failure(reviews).message
    assert len(forge.seen) == 4


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"{}", b"null", b"3", b"[" * 100_000, b"\xff\xfe", b"[1, null, [], {}]"],
)
def test_an_odd_answer_is_no_approval(either: tuple[Forge, Reviews], body: bytes) -> None:
    """What is not as the API describes it is an error, or nobody."""
    forge, reviews = either
    forge.raw = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    try:
        assert reviews.reviewers(COMMIT) == ()
    except PlatformError:
        assert "does not describe" in failure(reviews).message


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, [None], {"user": 3}])
def test_an_odd_item_is_no_approval(either: tuple[Forge, Reviews], value: Any) -> None:
    """Whatever stands where something else should, nobody is named who did not approve."""
    forge, reviews = either
    for answer in list(forge.answers.values()):
        item = answer[0] if isinstance(answer, list) else answer
        for key in [one for one in item if item[one] != value]:
            kept, item[key] = item[key], value
            try:
                assert set(reviews.reviewers(COMMIT)) <= {"ben@github", "ben@gitlab"}
            except PlatformError as error:
                assert re.search("does not describe|no such repo", error.message)  # noqa: PT017
            item[key] = kept


def test_an_answer_is_bounded(
    either: tuple[Forge, Reviews], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bytes, and packed ones are not unpacked; in pages."""
    forge, reviews = either
    monkeypatch.setattr(asking, "_SIZE_BYTES", 1000)
    forge.raw = b"HTTP/1.1 200 OK\r\n\r\n[" + b" " * 2000
    assert "more than is read" in failure(reviews).message
    forge.raw = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + b"\x1f\x8b"
    assert "does not describe" in failure(reviews).message
    forge.raw, forge.pages = None, 1
    first = next(one for one in forge.answers.values() if isinstance(one, list))
    first += first * 20
    monkeypatch.setattr(asking, "_SIZE_BYTES", 10**6)
    assert "more to say than is read" in failure(reviews).message


def test_a_forge_that_drips_is_cut(monkeypatch: pytest.MonkeyPatch, github: Forge) -> None:
    """Headers that never end: time is up for the whole answer, not for each piece of it."""
    monkeypatch.setattr(asking.Forge.__init__, "__kwdefaults__", {"timeout_s": 0.4})
    github.drips = True
    before = threading.active_count()
    error = failure(by_github(github))
    assert (error.is_passing, "in time" in error.message) == (True, True)
    assert threading.active_count() <= before + 1  # the server's own


def test_nobody_there_is_worth_another_try(github: Forge) -> None:
    """Nobody listens at the address."""
    reviews = by_github(github)
    github.server_close()
    assert failure(reviews).is_passing


@pytest.mark.parametrize("commit", ["", "main", "../../user", "c" * 39, "c" * 40 + "/..", "é" * 40])
def test_only_a_whole_commit_is_asked_for(either: tuple[Forge, Reviews], commit: str) -> None:
    """Nothing else gets into an address."""
    forge, reviews = either
    with pytest.raises(UsageError):
        reviews.reviewers(commit)
    assert forge.seen == []


@pytest.mark.parametrize("token", ["a\r\nX: y", "word word", "tokén", "a\0", f"{TOKEN}\n"])
def test_a_token_that_cannot_be_sent_is_not_shown(github: Forge, token: str) -> None:
    """A line end in it would begin another header."""
    for make in (by_github, by_gitlab):
        with pytest.raises(PlatformError) as caught:
            make(github, token=token)
        assert token not in str(caught.value.as_json())
        assert TOKEN not in str(caught.value.as_json())


@pytest.mark.parametrize(
    "url",
    ["http://git.example/api", "ftp://git.example", "git.example", "https://u:s3cret@git.example",
     "https://", "https://git.example/?x=y", "https://git.example:x", "http://127.0.0.1.example"],
)  # fmt: skip
def test_an_address_that_is_not_safe_is_refused(url: str) -> None:
    """A token goes over https, or to this machine."""
    with pytest.raises(PlatformError) as caught:
        GitHubReviews("team/shop", TOKEN, FakeClock(), url)
    assert "s3cret" not in str(caught.value.as_json())


@pytest.mark.parametrize("name", ["", "shop", "../shop", "team/..", "team/shop?x", "a/b#c", "a//b"])
def test_a_name_stays_in_its_place(name: str) -> None:
    """A repository's name with odd characters does not become another address."""
    for kind in (GitHubReviews, GitLabReviews):
        with pytest.raises(UsageError, match="no name of a repository"):
            kind(name, TOKEN, FakeClock())


def test_without_a_token_none_is_sent(github: Forge) -> None:
    """A public repository needs none."""
    assert by_github(github, token="").reviewers(COMMIT) == ("ben@github",)
    assert not [one for _, headers in github.seen for one in headers if one == "Authorization"]


# --- GitHub ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "CHANGES_REQUESTED"},
        {"state": "DISMISSED"},
        {"state": "COMMENTED"},
        {"commit_id": OTHER},
        {"author_association": "NONE"},
        {"author_association": "CONTRIBUTOR"},
        {"user": {"login": "robot[bot]", "type": "Bot"}},
        {"user": {"login": "Ana", "type": "User"}},
        {"user": None},
    ],
)
def test_a_review_that_does_not_count(github: Forge, changes: dict[str, Any]) -> None:
    """Taken back, of an earlier state, by an outsider, a robot, nobody, or the author."""
    github.at("/reviews")[0].update(changes)
    assert by_github(github).reviewers(COMMIT) == ()


def test_a_later_word_counts(github: Forge) -> None:
    """Who wanted changes after an approval has not approved; a mere comment changes nothing."""
    github.again("/reviews", state="COMMENTED")
    assert by_github(github).reviewers(COMMIT) == ("ben@github",)
    github.again("/reviews", state="CHANGES_REQUESTED")
    assert by_github(github).reviewers(COMMIT) == ()
    github.again("/reviews", state="APPROVED")
    assert by_github(github).reviewers(COMMIT) == ("ben@github",)


def test_who_wrote_a_commit_does_not_approve_it(github: Forge) -> None:
    """Also where another one opened the pull request."""
    github.again("/commits", author={"login": "Ben"})
    assert by_github(github).reviewers(COMMIT) == ()


@pytest.mark.parametrize(
    "changes", [{"merged_at": None}, {"merge_commit_sha": OTHER, "head": {"sha": OTHER}}]
)
def test_what_was_not_merged_as_it_is_does_not_count(
    github: Forge, changes: dict[str, Any]
) -> None:
    """An open pull request; a commit in the middle of one, which nobody approved."""
    github.at("/pulls")[0].update(changes)
    assert by_github(github).reviewers(COMMIT) == ()


def test_the_last_state_of_a_pull_request_counts(github: Forge) -> None:
    """Deployed from its branch after it was merged."""
    pulls = github.at(f"{COMMIT}/pulls")
    github.answers[f"/repos/team/shop/commits/{HEAD}/pulls"] = pulls
    assert by_github(github).reviewers(HEAD) == ("ben@github",)


def test_reviews_on_later_pages_count(github: Forge) -> None:
    """A long discussion: the word that counts is its last."""
    for number in range(8):
        github.again("/reviews", user={"login": f"p{number}", "type": "User"}, state="COMMENTED")
    github.again("/reviews", state="DISMISSED")
    github.again("/reviews", user={"login": "chi", "type": "User"})
    github.pages = 3
    assert by_github(github).reviewers(COMMIT) == ("chi@github",)


# --- GitLab ------------------------------------------------------------------------------------


def test_an_approval_of_the_author_does_not_count(gitlab: Forge) -> None:
    """Nobody approves their own merge request."""
    gitlab.at("/approvals")["approved_by"][0]["user"]["username"] = "Ana"
    assert by_gitlab(gitlab).reviewers(COMMIT) == ()


def test_an_approval_of_an_earlier_state_does_not_count(gitlab: Forge) -> None:
    """What was pushed after it was not approved; where no time is told, it counts."""
    gitlab.at("/versions")[0]["created_at"] = "2026-01-04T13:00:00.000Z"
    assert by_gitlab(gitlab).reviewers(COMMIT) == ()
    del gitlab.at("/approvals")["approved_by"][0]["approved_at"]
    assert by_gitlab(gitlab).reviewers(COMMIT) == ("ben@gitlab",)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"state": "opened"}, ()),
        ({"state": "closed"}, ()),
        ({"merge_commit_sha": OTHER}, ()),
        ({"merge_commit_sha": None, "squash_commit_sha": COMMIT}, ("ben@gitlab",)),
        ({"merge_commit_sha": None, "sha": COMMIT}, ("ben@gitlab",)),
    ],
)
def test_what_was_merged_counts(
    gitlab: Forge, changes: dict[str, Any], expected: tuple[str, ...]
) -> None:
    """By a merge commit, squashed, or fast-forward; not what is open or only on the way."""
    gitlab.at("/merge_requests")[0].update(changes)
    assert by_gitlab(gitlab).reviewers(COMMIT) == expected
