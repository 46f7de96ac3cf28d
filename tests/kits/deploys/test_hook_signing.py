"""Who sent a web hook, and what it says: signatures and bodies, right and wrong ones."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.errors import UsageError
from handrail.kits.deploys import hook_bodies
from handrail.kits.deploys.hook_bodies import Push
from handrail.kits.deploys.hook_signing import Signed, keys_of, sign, verify

SECRET = "k" * 32
KEYS = keys_of(SECRET)
BODY = b'{"ref": "refs/heads/main"}'
NOW_S = 1_800_000_000
COMMIT = "3fa2b1c" + "0" * 33


def own(header: str, content: bytes = BODY, now_s: float = NOW_S) -> Signed | None:
    return verify(KEYS, {"x-handrail-signature": header}, content, now_s)


def hub(content: bytes = BODY, key: str = SECRET) -> dict[str, str]:
    digest = hmac.new(key.encode(), content, hashlib.sha256).hexdigest()
    return {"x-hub-signature-256": f"sha256={digest}", "x-github-delivery": "d-1"}


def test_own_signature() -> None:
    """What is signed with the app's secret counts, and its id is of what was signed."""
    found = own(sign(KEYS[0], BODY, NOW_S))
    assert found is not None
    assert (found.by, found.late_s, found.is_late) == ("own", 0, False)
    again = own(sign(KEYS[0], BODY, NOW_S))
    assert again == found
    later = own(sign(KEYS[0], BODY, NOW_S + 1))
    assert later is not None
    assert later.id != found.id


def test_id_is_not_changed_by_what_is_added_to_the_header() -> None:
    """Whoever copies a delivery cannot make another one of it by more signatures beside."""
    header = sign(KEYS[0], BODY, NOW_S)
    time, _, right = header.partition(",")
    found = own(f"{time},v1={'0' * 64},{right}")
    assert found == own(header)


@pytest.mark.parametrize("late_s", [0, 299, 300, -300])
def test_time_inside_the_window(late_s: int) -> None:
    """Five minutes either way are the difference of two clocks."""
    found = own(sign(KEYS[0], BODY, NOW_S - late_s))
    assert found is not None
    assert (found.late_s, found.is_late) == (late_s, False)


@pytest.mark.parametrize("late_s", [301, -301, 86400])
def test_time_outside_of_the_window(late_s: int) -> None:
    """Beyond that it is a copy that somebody kept, or a clock that is wrong."""
    found = own(sign(KEYS[0], BODY, NOW_S - late_s))
    assert found is not None
    assert found.is_late


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=1",
        "v1=" + "0" * 64,
        f"t={NOW_S},v1={'0' * 64}",
        f"t={NOW_S},v1=",
        f"t={NOW_S},t={NOW_S},v1={'0' * 64}",
        f"t=-1,v1={'0' * 64}",
        f"t={'9' * 400},v1={'0' * 64}",
        "," * 100_000,
        "t=\u0661,v1=" + "\u0661" * 64,
    ],
)
def test_header_that_is_no_signature(header: str) -> None:
    """Whatever stands in the header, it is a signature or it is none."""
    assert own(header) is None


def test_time_that_was_changed() -> None:
    """The time is signed, too: a copy cannot be made young."""
    header = sign(KEYS[0], BODY, NOW_S - 4000)
    assert own(header.replace(f"t={NOW_S - 4000}", f"t={NOW_S}")) is None


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_other_body(first: bytes, second: bytes) -> None:
    """A signature is of one body."""
    found = own(sign(KEYS[0], first, NOW_S), second)
    assert (found is not None) == (first == second)


def test_forge_signature() -> None:
    """As GitHub, Gitea and Forgejo sign: the body alone, with the delivery's id beside."""
    assert verify(KEYS, hub(), BODY, NOW_S) == Signed("github", "d-1")
    assert verify(KEYS, hub(), BODY + b" ", NOW_S) is None
    assert verify(KEYS, hub(key="x" * 32), BODY, NOW_S) is None


def test_gitlab_token() -> None:
    """The secret itself counts where the app says so, and nowhere else."""
    headers = {"x-gitlab-token": SECRET, "x-gitlab-event-uuid": "u-1"}
    assert verify(KEYS, headers, BODY, NOW_S, takes_tokens=True) == Signed("gitlab", "u-1")
    assert verify(KEYS, headers, BODY, NOW_S) is None
    for wrong in ("", SECRET[:-1], SECRET + "k", "\u00e9" * 32):
        given = {"x-gitlab-token": wrong}
        assert verify(KEYS, given, BODY, NOW_S, takes_tokens=True) is None


def test_one_form_at_a_time() -> None:
    """A wrong signature is not made good by another header beside it."""
    headers = hub() | {"x-handrail-signature": f"t={NOW_S},v1={'0' * 64}"}
    assert verify(KEYS, headers, BODY, NOW_S) is None


@pytest.mark.parametrize("secret", ["", " ", "short", "a b c d e f g h i j k l m n o p"])
def test_secret_that_is_none(secret: str) -> None:
    """An empty or short secret lets nobody in, also not those who know it."""
    assert keys_of(secret) == ()
    header = sign(secret.encode(), BODY, NOW_S)
    assert verify(keys_of(secret), {"x-handrail-signature": header}, BODY, NOW_S) is None
    token = {"x-gitlab-token": secret}
    assert verify((), token, BODY, NOW_S, takes_tokens=True) is None
    # What is compared with where there is no key is no key.
    header = sign(bytes(32), BODY, NOW_S)
    assert verify((), {"x-handrail-signature": header}, BODY, NOW_S) is None


def test_two_secrets() -> None:
    """While a secret is changed, both count."""
    keys = keys_of(f"{'a' * 20}\n{'b' * 20}")
    ids = set()
    for key in keys:
        found = verify(keys, {"x-handrail-signature": sign(key, BODY, NOW_S)}, BODY, NOW_S)
        assert found is not None
        ids.add(found.id)
    assert len(ids) == 1


def body(**said: object) -> bytes:
    return json.dumps(said).encode()


def test_own_body() -> None:
    """A branch by its name or its ref, a commit, and the images that were built of it."""
    images = {"web": "ghcr.io/team/shop:1", "web/app": "ghcr.io/team/shop@sha256:" + "0" * 64}
    said = body(ref="refs/heads/feature/x", commit=COMMIT, images=images, id="build-7")
    assert hook_bodies.read("own", "", said) == Push("feature/x", COMMIT, images, "build-7")
    assert hook_bodies.read("own", "", body(ref="feature/x", commit=COMMIT)).branch == "feature/x"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        body(ref="main"),
        body(ref="main", commit="main"),
        body(ref="main", commit=COMMIT[:39]),
        body(ref="main", commit=COMMIT.upper()),
        body(ref="", commit=COMMIT),
        body(ref="x" * 301, commit=COMMIT),
        body(ref="main", commit=COMMIT, more=1),
        body(ref="main", commit=COMMIT, images={"web": "a,b=c"}),
        body(ref="main", commit=COMMIT, images={"web": "a b"}),
        body(ref="main", commit=COMMIT, images={"web=x": "a"}),
        body(ref="main", commit=COMMIT, images={"web": "-a"}),
        body(ref="main", commit=COMMIT, images={str(n): "a" for n in range(51)}),
        body(ref="main", commit=COMMIT, id="a b"),
        body(ref="main", commit=COMMIT + "\n"),
    ],
)
def test_body_that_is_not_as_described(content: bytes) -> None:
    """A signed body has its bounds, too: nothing of it becomes another parameter or option."""
    with pytest.raises(UsageError) as caught:
        hook_bodies.read("own", "", content)
    assert caught.value.code == "api.request"


@pytest.mark.parametrize(("by", "event"), [("github", "push"), ("gitlab", "Push Hook")])
def test_body_of_a_forge(by: str, event: str) -> None:
    """Of the many keys of a forge's push the branch and the commit count."""
    more = {"repository": {"name": "shop"}, "commits": [{"id": COMMIT}], "object_kind": "push"}
    said = body(ref="refs/heads/main", before="0" * 40, after=COMMIT, **more)
    assert hook_bodies.read(by, event, said) == Push("main", COMMIT)


@pytest.mark.parametrize(
    ("by", "event", "said", "why"),
    [
        ("github", "ping", {"zen": "x"}, "it is no push"),
        ("github", "push", {"ref": "refs/tags/v1", "after": COMMIT}, "it is no branch"),
        ("github", "push", {"ref": "refs/heads/x", "after": "0" * 40}, "the branch was deleted"),
        ("gitlab", "Push Hook", {"object_kind": "tag_push", "ref": "x"}, "it is no push"),
        ("own", "", {"ref": "refs/tags/v1", "commit": COMMIT}, "it is no branch"),
        ("own", "", {"ref": "main", "commit": "0" * 40}, "the branch was deleted"),
    ],
)
def test_nothing_to_deploy(by: str, event: str, said: dict[str, object], why: str) -> None:
    """A ping, a tag and a deleted branch are nothing to deploy, and no error."""
    assert hook_bodies.read(by, event, body(**said)).nothing == why
