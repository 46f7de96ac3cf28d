"""A cluster that asks for tokens, and speaks TLS with certificates on both sides."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from handrail.adapters.nomad import NomadPlatform, Where
from handrail.errors import PlatformError
from support.nomad import NomadAgent, Secured, raw_job, running_agent

NOBODY = "00000000-1111-2222-3333-444444444444"


def certified(folder: Path, name: str, issuer: tuple[x509.Name, ec.EllipticCurvePrivateKey] | None):  # type: ignore[no-untyped-def]
    """Write `name.pem` and `name.key`, signed by `issuer` or by itself; return who it is."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signer = issuer or (own, key)
    hosts = [x509.DNSName("localhost"), x509.DNSName("server.global.nomad")]
    addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(own)
        .issuer_name(signer[0])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([*hosts, *addresses]), critical=False)
        .sign(signer[1], hashes.SHA256())
    )
    (folder / f"{name}.pem").write_bytes(made.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / f"{name}.key").write_bytes(private)
    return own, key


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("papers")
    authority = certified(folder, "ca", None)
    certified(folder, "agent", authority)
    certified(folder, "team", authority)
    certified(folder, "stranger", certified(folder, "other-ca", None))
    return folder


@pytest.fixture(scope="module")
def secured(papers: Path) -> Iterator[NomadAgent]:
    """One agent for all: starting one takes seconds."""
    files = Secured(papers / "ca.pem", papers / "agent.pem", papers / "agent.key")
    with running_agent(has_acl=True, secured=files) as agent:
        yield agent


def where(agent: NomadAgent, papers: Path, token: str, **other: str | None) -> Where:
    names = {"ca": "ca.pem", "certificate": "team.pem", "key": "team.key"} | other
    files = {key: papers / name if name else None for key, name in names.items()}
    return Where(agent.url, token, **files)  # type: ignore[arg-type]


def refused(place: Where) -> PlatformError:
    with closing(NomadPlatform("platform/prod", place)) as made:
        with pytest.raises(PlatformError) as caught:
            made.jobs()
    assert not caught.value.is_passing
    return caught.value


def test_with_token_and_certificates_everything_is_as_usual(
    secured: NomadAgent, papers: Path
) -> None:
    """It parses, plans and identifies."""
    with closing(NomadPlatform("platform/prod", where(secured, papers, secured.token))) as made:
        spec = made.parse(raw_job("shop"), "shop.nomad", {})
        assert made.dry_run(spec).changes
        assert made.identify().id.startswith("nomad:global/")


@pytest.mark.parametrize("token", ["", NOBODY, "not a token"])
def test_without_the_right_token_nobody_is_let_in(
    secured: NomadAgent, papers: Path, token: str
) -> None:
    """It is told as denied, and the token is not shown."""
    error = refused(where(secured, papers, token))
    assert error.code == "platform.denied"
    assert not token or token not in f"{error.message} {error.hint}"


def test_a_token_that_may_only_look_may_not_deploy(secured: NomadAgent, papers: Path) -> None:
    """What is denied is said by its path."""
    secured.ask(
        "POST",
        "/v1/acl/policy/look",
        {
            "Name": "look",
            "Rules": 'namespace "default" { capabilities = ["read-job", "parse-job"] }',
        },
    )
    token = secured.ask("POST", "/v1/acl/token", {"Type": "client", "Policies": ["look"]})
    with closing(NomadPlatform("platform/prod", where(secured, papers, token["SecretID"]))) as made:
        spec = made.parse(raw_job("shop"), "shop.nomad", {})
        for call in (lambda: made.dry_run(spec), lambda: made.apply(spec, "", {})):
            with pytest.raises(PlatformError) as caught:
                call()
            assert caught.value.code == "platform.denied"
            assert "/v1/job/shop" in caught.value.message


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"ca": "other-ca.pem"}, "certificate that is not trusted"),
        ({"ca": None}, "certificate that is not trusted"),
        ({"certificate": None, "key": None}, "takes no TLS connection"),
        ({"certificate": "stranger.pem", "key": "stranger.key"}, "takes no TLS connection"),
        ({"certificate": "team.pem", "key": "stranger.key"}, "cannot be read"),
        ({"ca": "nowhere.pem"}, "cannot be read"),
    ],
)
def test_a_stranger_is_not_spoken_to(
    secured: NomadAgent, papers: Path, other: dict[str, str | None], said: str
) -> None:
    """Neither a cluster whose certificate nobody vouches for, nor by us without ours."""
    error = refused(where(secured, papers, secured.token, **other))
    assert error.code == "platform.failed"
    assert said in error.message
    assert secured.token not in error.message
