"""Registries on bad days, and hostile ones: what is believed, followed, waited for, and shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from handrail.adapters.registry import carrying, oci, reaching
from handrail.adapters.registry.credentials import Access, Credentials
from handrail.adapters.registry.oci import OciRegistry
from handrail.errors import HandrailError, PlatformError, UsageError, render
from handrail.testing.clock import FakeClock
from support.odd_registry import OddRegistry, Said, odd_registry

MAIN = "/v2/team/shop/manifests/main"
TAGS = "/v2/team/shop/tags/list"
SECRET = "hunter2-hunter2"
OTHER = f"sha256:{'0' * 64}"


@pytest.fixture
def odd() -> Iterator[OddRegistry]:
    with odd_registry() as made:
        yield made


@pytest.fixture
def elsewhere() -> Iterator[OddRegistry]:
    with odd_registry() as made:
        yield made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def registry(odd: OddRegistry, clock: FakeClock) -> OciRegistry:
    return OciRegistry(clock, Access(frozenset({odd.host})))


@pytest.fixture
def known(odd: OddRegistry, clock: FakeClock) -> OciRegistry:
    credentials = Credentials("ana", SECRET)
    return OciRegistry(clock, Access(frozenset({odd.host}), credentials))


def _fails(call: Callable[[], object]) -> HandrailError:
    with pytest.raises(HandrailError) as caught:
        call()
    assert SECRET not in render(caught.value)
    return caught.value


def _resolve(registry: OciRegistry, odd: OddRegistry) -> str:
    return registry.resolve(f"{odd.host}/team/shop:main").digest


# What is believed


def test_a_registry_that_says_no_digest_is_asked_for_the_manifest(
    odd: OddRegistry, registry: OciRegistry
) -> None:
    """Without the header, the digest is that of what the manifest's bytes hash to."""
    digest = odd.json(MAIN, {"schemaVersion": 2})
    assert _resolve(registry, odd) == digest
    assert [one.method for one in odd.came] == ["HEAD", "GET"]


def test_one_question_is_enough_where_the_digest_is_said(
    odd: OddRegistry, registry: OciRegistry
) -> None:
    """A HEAD, which limits do not count, and nothing else."""
    odd.say(MAIN, Said(headers={"Docker-Content-Digest": OTHER}))
    assert _resolve(registry, odd) == OTHER
    assert [one.method for one in odd.came] == ["HEAD"]


@pytest.mark.parametrize("said", ["sha256:abc", "x" * 5000, "md5:" + "0" * 32, f"{OTHER}, {OTHER}"])
def test_a_digest_that_is_none_is_not_believed(
    odd: OddRegistry, registry: OciRegistry, said: str
) -> None:
    """What a registry calls a digest and is none is not deployed: the manifest is hashed."""
    digest = odd.json(MAIN, {"schemaVersion": 2}, Docker_Content_Digest=said)
    assert _resolve(registry, odd) == digest


def test_a_registry_without_head_is_asked_with_get(odd: OddRegistry, registry: OciRegistry) -> None:
    """405 for HEAD is no end."""
    body = json.dumps({"schemaVersion": 2}).encode()
    odd.say(MAIN, Said(405), Said(200, body))
    assert _resolve(registry, odd).startswith("sha256:")


def test_another_image_than_the_digest_says_is_refused(
    odd: OddRegistry, registry: OciRegistry
) -> None:
    """Whoever asks by digest gets that, or nothing: by header and by content."""
    path = f"/v2/team/shop/manifests/{OTHER}"
    odd.say(path, Said(headers={"Docker-Content-Digest": f"sha256:{'1' * 64}"}))
    name = f"{odd.host}/team/shop@{OTHER}"
    assert "another image" in _fails(lambda: registry.resolve(name)).message
    odd.json(path, {"schemaVersion": 2})
    assert "something else" in _fails(lambda: registry.resolve(name)).message


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"[" * 100_000, b"\xff\xfe{}"])
def test_what_is_no_manifest_is_refused(
    odd: OddRegistry, registry: OciRegistry, body: bytes
) -> None:
    """A page that asks people to sign in is no image."""
    odd.say(MAIN, Said(200, body))
    assert _fails(lambda: _resolve(registry, odd)).code == "image.unreachable"


def test_an_image_in_the_old_form_is_refused(odd: OddRegistry, registry: OciRegistry) -> None:
    """Schema 1 has no digest that anybody could deploy."""
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    odd.json(MAIN, {"schemaVersion": 1}, Content_Type=kind)
    assert "old form" in _fails(lambda: _resolve(registry, odd)).message


def test_more_than_a_manifest_can_have_is_not_read(odd: OddRegistry, registry: OciRegistry) -> None:
    """Five megabytes are no manifest."""
    odd.say(MAIN, Said(200, b" " * (5 * 1024 * 1024)))
    assert "more than 4 MB" in _fails(lambda: _resolve(registry, odd)).message


def test_no_word_of_an_answer_is_shown_but_its_code(odd: OddRegistry, known: OciRegistry) -> None:
    """An error page may hold anything; the registry's own code is one word."""
    errors = {"errors": [{"code": "DENIED", "message": f"\x1b[31m{SECRET}"}]}
    odd.json(MAIN, errors, 403)
    odd.say(MAIN, Said(403))
    error = _fails(lambda: known.tags(f"{odd.host}/team/none"))
    odd.json(TAGS, errors, 403)
    error = _fails(lambda: known.tags(f"{odd.host}/team/shop"))
    assert "lets nobody in (DENIED) to team/shop with these credentials" in error.message


# What is waited for


def test_what_passes_is_asked_again(odd: OddRegistry, registry: OciRegistry) -> None:
    """A registry that stumbles twice is asked a third time."""
    good = Said(headers={"Docker-Content-Digest": OTHER})
    odd.say(MAIN, Said(503), Said(500, cut=True), good)
    assert _resolve(registry, odd) == OTHER


def test_what_does_not_pass_in_time_is_told(
    odd: OddRegistry, registry: OciRegistry, clock: FakeClock
) -> None:
    """Three times, with longer pauses, and then it is said that it may pass."""
    odd.say(MAIN, Said(502))
    error = _fails(lambda: _resolve(registry, odd))
    assert isinstance(error, PlatformError)
    assert (error.is_passing, len(odd.came), clock.elapsed_s()) == (True, 3, 3.0)


def test_a_short_limit_is_waited_for(
    odd: OddRegistry, registry: OciRegistry, clock: FakeClock
) -> None:
    """`Retry-After: 7` costs seven seconds and no refusal."""
    odd.say(
        MAIN,
        Said(429, headers={"Retry-After": "7"}),
        Said(headers={"Docker-Content-Digest": OTHER}),
    )
    assert (_resolve(registry, odd), clock.elapsed_s()) == (OTHER, 7.0)


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "3600"},
        {"Retry-After": "Mon, 05 Jan 2026 10:00:00 GMT"},
        {"X-Retry-After": "1767607200"},
        {"X-RateLimit-Reset": "1767607200"},
        {"ratelimit-limit": "100;w=3600"},
    ],
)
def test_a_long_limit_is_told_with_its_end(
    odd: OddRegistry, registry: OciRegistry, clock: FakeClock, headers: dict[str, str]
) -> None:
    """However a registry says it: nobody waits an hour, and everybody knows until when."""
    odd.say(MAIN, Said(429, headers=headers))
    error = _fails(lambda: _resolve(registry, odd))
    assert isinstance(error, PlatformError)
    assert "until 2026-01-05 10:00:00 UTC" in error.message
    assert (error.is_passing, len(odd.came), clock.elapsed_s()) == (True, 1, 0.0)


def test_an_absurd_limit_is_not_believed(
    odd: OddRegistry, registry: OciRegistry, clock: FakeClock
) -> None:
    """A registry that wants a year of peace is given a week in the message, and no overflow."""
    odd.say(MAIN, Said(429, headers={"Retry-After": "9" * 400}))
    week = (clock.now() + timedelta(days=7)).strftime("%Y-%m-%d")
    assert week in _fails(lambda: _resolve(registry, odd)).message


def test_a_registry_that_is_away_is_told(odd: OddRegistry, clock: FakeClock) -> None:
    """Nothing listens there: it may pass, and that is said."""
    with odd_registry() as gone:
        host = gone.host
    registry = OciRegistry(clock, Access(frozenset({host})))
    error = _fails(lambda: registry.resolve(f"{host}/x"))
    assert isinstance(error, PlatformError)
    assert (error.is_passing, error.code) == (True, "image.unreachable")
    del odd


def test_a_registry_that_drips_does_not_hold_anybody(odd: OddRegistry, clock: FakeClock) -> None:
    """A byte now and then is no answer in time."""
    odd.say(MAIN, Said(200, b"{" + b" " * 60, drip_s=0.05))
    registry = OciRegistry(clock, Access(frozenset({odd.host})), timeout_s=0.3)
    assert "does not answer within 0.3 s" in _fails(lambda: _resolve(registry, odd)).message


# Who is shown the credentials


def _challenge(odd: OddRegistry, realm: str) -> None:
    header = f'Bearer realm="{realm}",service="s",scope="repository:team/shop:pull,push,delete"'
    good = Said(headers={"Docker-Content-Digest": OTHER})
    odd.say(MAIN, Said(401, headers={"WWW-Authenticate": header}), good)


def test_a_token_is_asked_for_to_pull_one_repository(odd: OddRegistry, known: OciRegistry) -> None:
    """Whatever a registry asks for, no token is had that could push; and it is asked for once."""
    _challenge(odd, f"http://{odd.host}/token?a=b")
    odd.json("/token", {"token": "given", "expires_in": 300})
    assert _resolve(known, odd) == OTHER
    assert _resolve(known, odd) == OTHER
    asked = [one for one in odd.came if one.path.startswith("/token")]
    assert [one.path for one in asked] == [
        "/token?a=b&service=s&scope=repository%3Ateam%2Fshop%3Apull"
    ]
    assert asked[0].authorization.startswith("Basic ")
    assert [one.authorization for one in odd.came if one.path == MAIN] == [
        "",
        "Bearer given",
        "Bearer given",
    ]


def test_a_token_is_asked_for_again_once_it_expired(
    odd: OddRegistry, known: OciRegistry, clock: FakeClock
) -> None:
    """A token that holds a minute is not sent after it."""
    _challenge(odd, f"http://{odd.host}/token")
    odd.json("/token", {"access_token": "given", "expires_in": 60})
    _resolve(known, odd)
    clock.advance(51)
    _resolve(known, odd)
    assert odd.came[-1].authorization == ""


def test_credentials_are_not_shown_to_whom_a_registry_names(
    odd: OddRegistry, elsewhere: OddRegistry, known: OciRegistry
) -> None:
    """A giver of tokens on another host sees nothing, until the app declares it."""
    _challenge(odd, f"http://{elsewhere.host}/token")
    error = _fails(lambda: _resolve(known, odd))
    assert f"registry-realm: {elsewhere.host}" in error.hint
    assert elsewhere.came == []


def test_credentials_are_shown_to_a_declared_giver(
    odd: OddRegistry, elsewhere: OddRegistry, clock: FakeClock
) -> None:
    """Where the app declares who gives out tokens, that is asked."""
    _challenge(odd, f"http://{elsewhere.host}/token")
    elsewhere.json("/token", {"token": "given"})
    access = Access(frozenset({odd.host}), Credentials("ana", SECRET), elsewhere.host)
    assert _resolve(OciRegistry(clock, access), odd) == OTHER


def test_a_stranger_asks_another_host_for_a_token(
    odd: OddRegistry, elsewhere: OddRegistry, registry: OciRegistry
) -> None:
    """Without credentials there is nothing to show, and Docker Hub's images are had so."""
    _challenge(odd, f"http://{elsewhere.host}/token")
    elsewhere.json("/token", {"token": "given"})
    assert _resolve(registry, odd) == OTHER
    assert elsewhere.came[0].authorization == ""


@pytest.mark.parametrize(
    "realm",
    [
        "http://registry.test/token",
        "file:///etc/passwd",
        "ftp://127.0.0.1/token",
        "//x",
        "token",
        "https://ana:b@127.0.0.1/",
        "http://127.0.0.1:port/",
        "https://[::1/",
        "https://x/\\r\\nA: b\x7f",
    ],
)
def test_tokens_are_asked_for_at_no_unsafe_address(
    odd: OddRegistry, known: OciRegistry, registry: OciRegistry, realm: str
) -> None:
    """Unencrypted to another machine, or not the web at all: refused, also without credentials."""
    _challenge(odd, realm)
    assert _fails(lambda: _resolve(known, odd)).code == "image.unreachable"
    _challenge(odd, realm)
    assert _fails(lambda: _resolve(registry, odd)).code == "image.unreachable"


@pytest.mark.parametrize(
    "body",
    [{}, {"token": ""}, {"token": 7}, {"token": "a b"}, {"token": "a\r\nX: y"}, {"token": "é"}],
)
def test_a_token_that_is_none_is_not_sent(
    odd: OddRegistry, known: OciRegistry, body: dict[str, object]
) -> None:
    """A giver of tokens cannot put lines of its own into our requests."""
    _challenge(odd, f"http://{odd.host}/token")
    odd.json("/token", body)
    assert "tokens that are none" in _fails(lambda: _resolve(known, odd)).message


def test_a_password_is_sent_where_it_is_asked_for(odd: OddRegistry, known: OciRegistry) -> None:
    """`Basic`, as ECR wants it: only once asked, and from then on at once."""
    good = Said(headers={"Docker-Content-Digest": OTHER})
    odd.say(MAIN, Said(401, headers={"WWW-Authenticate": 'Basic realm="x"'}), good)
    _resolve(known, odd)
    _resolve(known, odd)
    sent = [one.authorization.partition(" ")[0] for one in odd.came]
    assert sent == ["", "Basic", "Basic"]


def test_a_refused_token_is_forgotten(odd: OddRegistry, known: OciRegistry) -> None:
    """What opened it a moment ago, and does not any more, is not sent again."""
    _challenge(odd, f"http://{odd.host}/token")
    odd.json("/token", {"token": "given"})
    assert _resolve(known, odd) == OTHER
    odd.say(MAIN, Said(401))
    _fails(lambda: _resolve(known, odd))
    _fails(lambda: _resolve(known, odd))
    sent = [one.authorization for one in odd.came if one.path == MAIN]
    assert sent == ["", "Bearer given", "Bearer given", ""]


def test_what_a_bucket_asks_for_is_not_given(
    odd: OddRegistry, elsewhere: OddRegistry, known: OciRegistry
) -> None:
    """Only the registry itself may ask for credentials, and not where it sends us."""
    odd.say(MAIN, Said(307, headers={"Location": f"http://{elsewhere.host}/bucket"}))
    elsewhere.say("/bucket", Said(401, headers={"WWW-Authenticate": "Basic"}))
    _fails(lambda: _resolve(known, odd))
    assert [one.authorization for one in (*odd.came, *elsewhere.came)] == ["", ""]


def test_a_token_by_itself_is_sent_as_it_is(odd: OddRegistry, clock: FakeClock) -> None:
    """Who declares a token alone wants it to be sent, and not exchanged."""
    access = Access(frozenset({odd.host}), Credentials("", SECRET))
    _challenge(odd, f"http://{odd.host}/token")
    _resolve(OciRegistry(clock, access), odd)
    assert odd.came[-1].authorization == f"Bearer {SECRET}"


def test_a_refused_token_is_told(odd: OddRegistry, known: OciRegistry) -> None:
    """Two refusals are an answer: what was declared does not open it."""
    odd.say(MAIN, Said(401, headers={"WWW-Authenticate": "Basic"}))
    error = _fails(lambda: _resolve(known, odd))
    assert "with these credentials" in error.message
    assert len(odd.came) == 2


def test_credentials_of_the_app_are_not_for_other_registries(
    odd: OddRegistry, elsewhere: OddRegistry, known: OciRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A specification that names a registry of its own gets nothing that the app declares."""
    monkeypatch.setattr(reaching, "where", lambda _: "public")
    monkeypatch.setattr(reaching, "is_here", lambda _: False)
    elsewhere.say("/v2/x/manifests/1", Said(401, headers={"WWW-Authenticate": "Basic"}))
    assert "lets nobody in" in _fails(lambda: known.resolve(f"{elsewhere.host}/x:1")).message
    assert [one.authorization for one in elsewhere.came] == [""]
    del odd


# Where it leads


def test_a_registry_on_this_machine_must_be_declared(odd: OddRegistry, clock: FakeClock) -> None:
    """A specification cannot make Handrail ask what listens on its own machine."""
    error = _fails(lambda: OciRegistry(clock).resolve(f"{odd.host}/x"))
    assert (odd.came, "must be declared" in error.hint) == ([], True)


def _config(odd: OddRegistry, where: str) -> None:
    digest = odd.json("/blob", {"created": "2026-01-02T03:04:05.678Z"})
    odd.say(f"/v2/team/shop/blobs/{digest}", Said(307, headers={"Location": where}))
    odd.json(MAIN, {"schemaVersion": 2, "config": {"digest": digest}})
    odd.json(TAGS, {"tags": ["main"]})


def test_a_blob_is_fetched_where_it_was_moved_without_credentials(
    odd: OddRegistry, elsewhere: OddRegistry, known: OciRegistry
) -> None:
    """Registries keep blobs in buckets: the bucket is asked, and is told nothing of us."""
    _config(odd, f"http://{elsewhere.host}/bucket?signed=1")
    elsewhere.say("/bucket", odd.next("/blob"))
    good = odd.next(TAGS)
    odd.say(TAGS, Said(401, headers={"WWW-Authenticate": "Basic"}), good)
    (image,) = known.tags(f"{odd.host}/team/shop")
    assert image.created == "2026-01-02T03:04:05Z"
    assert odd.came[-1].authorization.startswith("Basic ")
    assert [(one.path, one.authorization) for one in elsewhere.came] == [("/bucket?signed=1", "")]


@pytest.mark.parametrize(
    "where",
    [
        "",
        "http://registry.test/x",
        "file:///etc/passwd",
        "http://127.0.0.1:99999/",
        "ftp://x/",
        "https://a@b/",
    ],
)
def test_a_blob_is_not_fetched_from_an_unsafe_address(
    odd: OddRegistry, registry: OciRegistry, where: str
) -> None:
    """A redirect to nowhere safe costs the age of an image, and nothing else happens."""
    _config(odd, where)
    (image,) = registry.tags(f"{odd.host}/team/shop")
    assert image.created == ""


def test_a_blob_with_another_content_is_not_believed(
    odd: OddRegistry, registry: OciRegistry
) -> None:
    """A bucket that sends something else than the digest says tells nothing."""
    _config(odd, "/elsewhere")
    odd.json("/elsewhere", {"created": "2030-01-01T00:00:00Z"})
    (image,) = registry.tags(f"{odd.host}/team/shop")
    assert image.created == ""


def test_a_registry_that_sends_us_round_and_round_is_told(
    odd: OddRegistry, registry: OciRegistry
) -> None:
    """Redirects end."""
    odd.say(MAIN, Said(302, headers={"Location": MAIN}))
    assert "round and round" in _fails(lambda: _resolve(registry, odd)).message


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("https://x/v2/a", "/b?c", "https://x/b?c"),
        ("https://x/v2/a", "https://y/b", "https://y/b"),
        ("http://127.0.0.1/v2/a", "http://127.0.0.1:8/b", "http://127.0.0.1:8/b"),
        ("http://127.0.0.1/v2/a", "https://y/b", "https://y/b"),
        ("https://x/v2/a", "http://127.0.0.1/b", ""),
        ("https://x/v2/a", "http://y/b", ""),
        ("https://x/v2/a", "https://[", ""),
        ("https://x/v2/a", "https://y/\x7f", ""),
    ],
)
def test_a_redirect_never_leads_back_to_http(url: str, location: str, target: str) -> None:
    """What was encrypted stays so, and what cannot be read is not followed."""
    assert carrying.moved(url, location) == target


@pytest.mark.parametrize(
    ("home", "target", "may"),
    [
        ("93.184.216.34", "93.184.216.35", True),
        ("93.184.216.34", "10.0.0.5", False),
        ("93.184.216.34", "127.0.0.1", False),
        ("10.0.0.5", "192.168.1.1", True),
        ("10.0.0.5", "127.0.0.1", False),
        ("10.0.0.5", "169.254.169.254", False),
        ("10.0.0.5", "fd00:ec2::254", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.0.0.5", False),
        ("169.254.1.1", "169.254.169.254", False),
        ("93.184.216.34", "::ffff:10.0.0.5", False),
        ("93.184.216.34", "64:ff9b::7f00:1", False),
        ("93.184.216.34", "2002:7f00:1::", False),
        ("93.184.216.34", "0.0.0.0", False),
    ],
)
def test_who_sends_us_on_sends_us_no_nearer(
    home: str, target: str, *, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A public registry leads to no private address; none leads to a cloud's secrets."""
    names = {"home.test": home, "target.test": target}
    tried: list[str] = []
    monkeypatch.setattr(reaching, "_addresses", lambda host, _: [names[host]])
    reach = reaching.Reach("home.test", is_declared=True)
    monkeypatch.setattr(
        reach, "_inner", type("Inner", (), {"connect_tcp": lambda _, at, *__: tried.append(at)})()
    )
    reach.begin(1)
    reach.connect_tcp("home.test", 443)
    if may:
        reach.connect_tcp("target.test", 443)
    else:
        with pytest.raises(reaching.NotReachedError):
            reach.connect_tcp("target.test", 443)
    assert tried == [home, target][: 2 if may else 1]


def test_a_name_of_a_public_registry_that_means_a_private_address_is_not_asked(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is the address, judged when it is connected to, and not how it is called."""
    monkeypatch.setattr(reaching, "_addresses", lambda *_: ["10.255.255.1"])
    error = _fails(lambda: OciRegistry(clock).resolve("ghcr.io/x/y:1"))
    assert "is not asked: it is not public" in error.message


def test_a_registry_without_tls_is_told(
    odd: OddRegistry, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """http:// is for this machine alone: elsewhere, what speaks no TLS is not spoken to."""
    monkeypatch.setattr(reaching, "_addresses", lambda *_: ["127.0.0.1"])
    host = odd.host.replace("127.0.0.1", "registry.test")
    registry = OciRegistry(clock, Access(frozenset({host}), Credentials("ana", SECRET)))
    assert "speaks no TLS" in _fails(lambda: registry.resolve(f"{host}/x")).message
    assert odd.came == []


# Tags


def test_pages_of_tags_are_read_to_the_end(
    odd: OddRegistry, registry: OciRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are followed by their links, as ECR (whole addresses) and others (paths) write them."""
    monkeypatch.setattr(oci, "READ", 0)
    odd.say(f"{TAGS}?n=1000", _page(["v1.9"], f'<{TAGS}?n=1000&last=a>; rel="next"'))
    odd.say(
        f"{TAGS}?n=1000&last=a", _page(["v1.10"], f"<http://{odd.host}{TAGS}?last=b>; rel=next")
    )
    odd.say(f"{TAGS}?last=b", _page(["v1.2", 7, "bad tag", None], ""))
    for tag in ("v1.9", "v1.10", "v1.2"):
        odd.json(f"/v2/team/shop/manifests/{tag}", {"schemaVersion": 2})
    found = registry.tags(f"{odd.host}/team/shop")
    assert [image.tag for image in found] == ["v1.10", "v1.9", "v1.2"]


def _page(tags: list[object], link: str) -> Said:
    return Said(200, json.dumps({"tags": tags}).encode(), {"Link": link} if link else {})


@pytest.mark.parametrize(
    "link",
    ["http://127.0.0.1:1/v2/team/shop/tags/list", "/v2/other/tags/list", "/token?x", "https://[/"],
)
def test_a_next_page_is_of_the_same_list(
    odd: OddRegistry, registry: OciRegistry, link: str
) -> None:
    """A link leads to no other host, repository or path."""
    odd.say(TAGS, _page(["a"], f'<{link}>; rel="next"'))
    assert "next page" in _fails(lambda: registry.tags(f"{odd.host}/team/shop")).message
    assert {one.path.partition("?")[0] for one in odd.came} == {TAGS}


def test_pages_without_end_end(
    odd: OddRegistry, registry: OciRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list whose last page leads to itself is not read for ever."""
    monkeypatch.setattr(oci, "PAGES", 5)
    odd.say(TAGS, _page(["a"], f'<{TAGS}?n=1>; rel="next"'))
    assert "more than 5 pages" in _fails(lambda: registry.tags(f"{odd.host}/team/shop")).message
    assert len(odd.came) == 5


def test_a_tag_that_goes_while_it_is_looked_at_is_left_out(
    odd: OddRegistry, registry: OciRegistry
) -> None:
    """Somebody deletes a tag between the list and the look: it is not there, and no error."""
    odd.json(TAGS, {"tags": ["main", "gone"]})
    odd.json(MAIN, {"schemaVersion": 2})
    assert [one.tag for one in registry.tags(f"{odd.host}/team/shop")] == ["main"]


def test_an_unknown_tag_is_told_though_the_list_is_not_to_be_had(
    odd: OddRegistry, registry: OciRegistry
) -> None:
    """What is wrong is told even where no near names can be found."""
    odd.say(MAIN, Said(404))
    odd.say(TAGS, Said(403))
    error = _fails(lambda: _resolve(registry, odd))
    assert isinstance(error, UsageError)
    assert error.code == "image.unknown"
