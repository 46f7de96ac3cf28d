"""Web hooks on a real server: who is let in, how often, what of, and what they are told."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handrail.api.openapi import description
from handrail.core import records
from handrail.kits.deploys import hook_records
from handrail.kits.deploys.hook_bodies import Push
from handrail.kits.deploys.hook_signing import Signed, sign
from support.served import Reply, Served, serving, until
from support.teams import make_team

SECRET, OTHER, OLD = "s" * 40, "t" * 40, "o" * 40
ESTATE = """\
environments:
  test: {}
platforms:
  here: {kind: supervisor, url: "unix:///tmp/handrail-nobody.sock"}
apps:
  shop:
    repository: ./apps/shop.git
    spec: shop.ini
    platform: platform/here
    environment: test
    auto: {branches: [main, release/1], secret: {env: SHOP_SECRET}}
  other:
    repository: ./apps/other.git
    spec: other.ini
    platform: platform/here
    auto: {branches: [main], secret: {file: data/other-secret}, tokens: true}
  unset:
    repository: ./apps/unset.git
    spec: unset.ini
    platform: platform/here
    auto: {branches: [main], secret: {env: NOT_SET}}
  short:
    repository: ./apps/short.git
    spec: short.ini
    platform: platform/here
    auto: {branches: [main], secret: {env: SHORT_SECRET}}
  silent:
    repository: ./apps/silent.git
    spec: silent.ini
    platform: platform/here
"""
COMMIT = "3fa2b1c" + "0" * 33
ENVIRONMENT = {"SHOP_SECRET": f"{SECRET} {OLD}", "SHORT_SECRET": "short"}
WIDE = ("--rate", "100000", "--hook-rate", "100000")


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of a team with apps, whose platform nobody answers for."""
    team = make_team(tmp_path_factory.mktemp("hooked") / "team", {"estate/apps.yaml": ESTATE})
    (team.root / "data" / "other-secret").write_text(f"{OTHER}\n")
    with serving(team, *WIDE, environment=ENVIRONMENT) as running:
        yield running


def body(ref: str = "main", commit: str = COMMIT, **more: Any) -> bytes:
    return json.dumps({"ref": ref, "commit": commit, **more}).encode()


def post(served: Served, content: bytes, headers: Mapping[str, str], app: str = "shop") -> Reply:
    return served.ask("POST", f"/hooks/deploy/{app}", raw=content, token=None, headers=headers)


def own(
    served: Served, content: bytes, app: str = "shop", *, late_s: int = 0, secret: str = SECRET
) -> Reply:
    header = sign(secret.encode(), content, int(time.time()) - late_s)
    return post(served, content, {"X-Handrail-Signature": header}, app)


def hub(content: bytes, name: str, event: str = "push", secret: str = SECRET) -> dict[str, str]:
    digest = hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
    signed = {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Delivery": name}
    return signed | {"X-GitHub-Event": event}


def forge_push(commit: str, ref: str = "refs/heads/main") -> bytes:
    return json.dumps({"ref": ref, "after": commit, "repository": {"id": 1}}).encode()


def taken(served: Served, app: str = "shop") -> list[str]:
    """Return the chains of what was taken."""
    return list(served.team.world().journal.chains(f"hook-{app}/"))


def unlike(answers: list[Reply]) -> set[Any]:
    """Return the different answers, without each request's own id."""
    return {(r.status, str({k: v for k, v in r.json.items() if k != "request"})) for r in answers}


def test_forged(hooked: Served) -> None:
    """No signature, a wrong one, an unknown app, one without hook or secret: one answer for all."""
    content = body()
    now = int(time.time())
    before = taken(hooked)
    answers = [
        post(hooked, content, {}),
        post(hooked, content, {"X-Handrail-Signature": f"t={now},v1={'0' * 64}"}),
        own(hooked, content, secret=OTHER),
        own(hooked, content, "nobody"),
        own(hooked, content, "silent"),
        own(hooked, content, "unset"),
        own(hooked, content, "short", secret="short"),
        own(hooked, content, "pilot-db"),
        own(hooked, content, "%2e%2e"),
        post(hooked, content, hub(content, "d-0", secret=OTHER)),
        # The secret itself counts for an app that says so, and for no other.
        post(hooked, content, {"X-Gitlab-Token": SECRET}),
        post(hooked, content, {"Authorization": f"Bearer {SECRET}"}),
    ]
    assert len(unlike(answers)) == 1
    assert (answers[0].status, answers[0].json["code"]) == (401, "deploys.hook")
    assert "www-authenticate" not in {name.lower() for name in answers[0].headers}
    assert taken(hooked) == before


def test_right_token_is_no_signature(hooked: Served) -> None:
    """A person's token, an admin's even, opens no web hook."""
    reply = hooked.ask("POST", "/hooks/deploy/shop", raw=body())
    assert reply.status == 401


@pytest.mark.parametrize("late_s", [301, 86400, -400])
def test_late(hooked: Served, late_s: int) -> None:
    """What was signed more than five minutes from now counts no more, and says so."""
    before = taken(hooked)
    reply = own(hooked, body(), late_s=late_s)
    assert (reply.status, reply.json["code"]) == (401, "deploys.hook")
    assert f"s {'before' if late_s > 0 else 'after'} now" in reply.json["detail"]
    assert taken(hooked) == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff",
        body("x" * 400),
        body("", ""),
    ],
)
def test_signed_and_not_as_described(hooked: Served, content: bytes) -> None:
    """A signed body of another form is a 400 that says where; nothing is taken."""
    before = taken(hooked)
    reply = own(hooked, content)
    assert (reply.status, reply.json["code"]) == (400, "api.request")
    assert taken(hooked) == before


def test_not_json_by_its_own_word(hooked: Served) -> None:
    """What a page's form can send is refused, signed or not."""
    content = body()
    header = sign(SECRET.encode(), content, int(time.time()))
    headers = {"X-Handrail-Signature": header, "Content-Type": "application/x-www-form-urlencoded"}
    assert post(hooked, content, headers).status == 400


def test_huge(hooked: Served) -> None:
    """Beyond 1 MiB a body is not read, by its own word and by what arrives."""
    assert own(hooked, b" " * (1024 * 1024 + 1)).status == 413
    connection = hooked.connected()
    pieces = (b" " * 65536 for _ in range(40))
    try:
        connection.request("POST", "/hooks/deploy/shop", pieces, {}, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # it hung up in the middle of it: as good
    finally:
        connection.close()


def test_other_methods(hooked: Served) -> None:
    """Only POST is a web hook; whoever looks with a browser is told so, and nothing else."""
    for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
        reply = hooked.ask(method, "/hooks/deploy/shop", token=None)
        assert reply.status == 405
        assert reply.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (body("feature/x"), "the branch is not in `auto`"),
        (body("release"), "the branch is not in `auto`"),
        (body("MAIN"), "the branch is not in `auto`"),
        (body("refs/tags/main"), "it is no branch"),
        (body("main", "0" * 40), "the branch was deleted"),
    ],
)
def test_other_branch(hooked: Served, content: bytes, why: str) -> None:
    """What the app does not deploy by itself is ignored, and said to be; nothing is recorded."""
    before = taken(hooked)
    reply = own(hooked, content)
    assert (reply.status, reply.json["state"], reply.json["why"]) == (200, "ignored", why)
    assert taken(hooked) == before


def test_ping_of_a_forge(hooked: Served) -> None:
    """What a forge sends when its web hook is made is answered well."""
    content = json.dumps({"zen": "Design for failure.", "hook_id": 7}).encode()
    reply = post(hooked, content, hub(content, "ping-1", "ping"))
    assert (reply.status, reply.json["why"]) == (200, "it is no push")


def test_replayed(hooked: Served) -> None:
    """The same request again is answered 200 with the first answer, and begins nothing."""
    content = body(commit="a" * 40, id="build-1")
    header = sign(SECRET.encode(), content, int(time.time()))
    first = post(hooked, content, {"X-Handrail-Signature": header})
    assert (first.status, first.json["commit"]) == (202, "a" * 40)
    again = post(hooked, content, {"X-Handrail-Signature": header})
    retried = own(hooked, content)  # signed anew, the same delivery by its id
    rotated = own(hooked, content, secret=OLD)
    assert [r.status for r in (again, retried, rotated)] == [200, 200, 200]
    assert {r.json["delivery"] for r in (first, again, retried, rotated)} == {
        first.json["delivery"]
    }
    assert again.json == first.json
    other = own(hooked, body(commit="b" * 40, id="build-1"))
    assert (other.status, other.json["code"]) == (409, "api.repeated")


def test_replayed_forge(hooked: Served) -> None:
    """A forge's push counts once by its delivery, by its bytes, and by its commit."""
    content = forge_push("c" * 40)
    first = post(hooked, content, hub(content, "d-1"))
    assert first.status == 202, first.content
    more = content[:-1] + b', "x": 1}'
    for told, name in ((content, "d-1"), (content, "d-2"), (more, "d-3")):
        reply = post(hooked, told, hub(told, name))
        assert (reply.status, reply.json["delivery"]) == (200, first.json["delivery"])
    clash = forge_push("d" * 40)
    assert post(hooked, clash, hub(clash, "d-1")).status == 409


def test_gitlab_where_it_is_declared(hooked: Served) -> None:
    """GitLab's header is the secret itself: for an app that says that it takes it."""
    content = json.dumps(
        {"object_kind": "push", "ref": "refs/heads/main", "after": "e" * 40}
    ).encode()
    headers = {"X-Gitlab-Token": OTHER, "X-Gitlab-Event": "Push Hook"}
    assert post(hooked, content, headers, "other").status == 202
    assert post(hooked, content, headers | {"X-Gitlab-Token": SECRET}, "other").status == 401


def test_what_cannot_be_planned_tells_no_secret(hooked: Served) -> None:
    """Why a push is refused stands in the journal and the notice; its sender learns a code."""
    reply = own(hooked, body(commit="1" * 40))
    assert reply.status == 202
    chain = f"hook-shop/{reply.json['delivery']}"
    journal = hooked.team.world().journal
    until(lambda: journal.last(chain).kind in {"refused", "superseded"})  # type: ignore[union-attr]
    found = own(hooked, body(commit="1" * 40, id="")).json
    last = journal.last(chain)
    assert last is not None
    told = records.body(last)
    if last.kind == "refused":
        assert told["why"]
        assert told["why"] not in json.dumps(found)
    assert str(hooked.team.root) not in json.dumps(found)


def test_secrets_are_nowhere(hooked: Served) -> None:
    """Neither log nor journal holds a secret or a signature."""
    content = body(commit="2" * 40)
    header = sign(SECRET.encode(), content, int(time.time()))
    post(hooked, content, {"X-Handrail-Signature": header})
    told = "".join(hooked.logged) + hooked.team.journal_text()
    for secret in (SECRET, OTHER, OLD, header.rpartition("=")[2]):
        assert secret not in told


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["ref", "commit", "images", "id", "x"]), inner, max_size=4
        )
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(_JSON, st.sampled_from(["own", "github"]))
def test_signed_nonsense(hooked: Served, said: Any, by: str) -> None:
    """Whatever whoever knows the secret sends, it is answered as described, and never a defect."""
    content = json.dumps(said).encode()
    reply = (
        own(hooked, content) if by == "own" else post(hooked, content, hub(content, "fuzz-" + "0"))
    )
    assert reply.status in {200, 202, 400, 409, 429}, reply.content


def test_answers_are_as_described(hooked: Served) -> None:
    """The description has the address, what it takes, and what it answers."""
    told = description()
    found = told["paths"]["/hooks/deploy/{app}"]["post"]
    whole = {"$ref": "#/components/schemas/Hooked", "components": told["components"]}
    reply = own(hooked, body("feature/y"))
    jsonschema.Draft202012Validator(whole).validate(reply.json)
    assert found["security"] == [{"signature": []}, {"forge": []}]
    assert set(found["responses"]) >= {"200", "202", "400", "401", "409", "413", "429"}


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Served]:
    """A server of its own, whose buckets nobody has drunk from."""
    team = make_team(tmp_path / "team", {"estate/apps.yaml": ESTATE})
    with serving(team, environment=ENVIRONMENT) as running:
        yield running


def test_flooded_with_wrong_ones(narrow: Served) -> None:
    """A flood of forged ones is slowed down; a right one beside it still gets in."""
    answers = [post(narrow, body(), {}) for _ in range(45)]
    assert {r.status for r in answers} == {401, 429}
    slow = next(r for r in answers if r.status == 429)
    assert int(slow.headers["retry-after"]) >= 1
    until(lambda: own(narrow, body("feature/x")).status == 200)


def test_flooded_by_who_knows_the_secret(narrow: Served) -> None:
    """Of one app so many pushes a minute are taken; of what is taken the newest is carried out."""

    def one(number: int) -> Reply:
        return own(narrow, body(commit=f"{number:040x}"))

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(one, range(1, 61)))
    statuses = [r.status for r in answers]
    assert set(statuses) == {202, 429}, statuses
    assert statuses.count(202) < 60
    chains = taken(narrow)
    assert len(chains) == statuses.count(202)
    journal = narrow.team.world().journal
    until(lambda: not journal.open_chains("hook-"))
    ends = [journal.last(chain) for chain in chains]
    assert {one.kind for one in ends if one} <= {"superseded", "refused"}


def test_copies_that_come_at_once(narrow: Served) -> None:
    """Of many copies of a push that come in one moment, one is taken."""
    content = body(commit="f" * 40)
    header = {"X-Handrail-Signature": sign(SECRET.encode(), content, int(time.time()))}
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: post(narrow, content, header), range(8)))
    assert sorted(r.status for r in answers) == [200] * 7 + [202]
    assert len(taken(narrow)) == 1


def test_server_that_died_between_taken_and_begun(tmp_path: Path) -> None:
    """A push that was taken by a server that died is carried out by the next one."""
    team = make_team(tmp_path / "team", {"estate/apps.yaml": ESTATE})
    push = Push("main", COMMIT)
    name, _ = hook_records.take(team.world(), "shop", Signed("own", "x"), push, b"{}")
    with serving(team, environment=ENVIRONMENT) as served:
        journal = team.world().journal
        until(lambda: journal.last(f"hook-shop/{name}").kind == "refused")  # type: ignore[union-attr]
        kinds = [record.kind for record in journal.records(f"hook-shop/{name}")]
        assert kinds == ["taken", "tried", "refused"], "".join(served.logged)
    assert team.call("log", "verify").code == 0


def test_broken_declarations(narrow: Served) -> None:
    """While the declarations are broken a stranger is told that much, and not what is in them."""
    path = narrow.team.root / "estate" / "apps.yaml"
    text = path.read_text()
    path.write_text(text + "  broken: [\n")
    try:
        until(lambda: own(narrow, body("x")).status == 503)
        reply = own(narrow, body("x"))
        assert reply.json["code"] == "api.broken"
        assert "apps.yaml" not in reply.content.decode()
    finally:
        path.write_text(text)
    until(lambda: own(narrow, body("x")).status == 200)


def test_slow_body(narrow: Served) -> None:
    """A body that does not arrive is given up; others are answered meanwhile."""
    host, _, port = narrow.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as slow:
        head = "POST /hooks/deploy/shop HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
        slow.sendall(head.encode())
        assert own(narrow, body("x")).status == 200
        answer = http.client.HTTPResponse(slow)
        answer.begin()
        assert answer.status == 408
