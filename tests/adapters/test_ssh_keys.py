"""Signatures by the real ssh-keygen and ssh-agent; and the contract that its fake keeps too."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handrail.adapters.ssh_keys import SshKeys
from handrail.adapters.ssh_signers import public_key, signers, signing_key
from handrail.errors import KeysError, sanitise
from handrail.ports import Keys
from handrail.testing.keys import FakeKeys
from support.ssh_people import make_key, needs_ssh_keygen, public

pytestmark = needs_ssh_keygen

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LATER = datetime(2028, 6, 1, 12, tzinfo=UTC)
PASSPHRASE = "correct horse battery"


@dataclass(frozen=True)
class World:
    """Keys of three people; `eva` is in nobody's file."""

    keys: Keys
    ana: Path
    ben: Path
    eva: Path
    allowed: Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ssh")
    for name in ("ana", "ben", "eva", "authority"):
        make_key(folder, name)
    make_key(folder, "locked", PASSPHRASE)
    return folder


@pytest.fixture(params=["ssh", "fake"])
def world(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> World:
    ana, ben, eva = (folder / name for name in ("ana", "ben", "eva"))
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(
        f'ana,ana@example.com {public(ana)}\nben valid-before="20270101" {public(ben)}\n'
    )
    if request.param == "ssh":
        return World(_keys(), ana, ben, eva, allowed)
    begin, end = datetime(1970, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    fake = FakeKeys({ana: ("ana", "ana@example.com"), ben: ("ben",)}, {ben: (begin, end)})
    return World(fake, ana, ben, eva, allowed)


def _keys(environment: dict[str, str] | None = None) -> SshKeys:
    # Never asks: a developer's terminal is not a test's.
    return SshKeys({"PATH": os.environ["PATH"], **(environment or {})}, asks=False)


def _refused(
    keys: Keys, payload: bytes, signature: str, allowed: Path, person: str, at: datetime = NOW
) -> str:
    with pytest.raises(KeysError) as caught:
        keys.verify(payload, signature, allowed, at, person)
    return caught.value.code


def test_a_signature_is_its_owners(world: World) -> None:
    """What a key signed verifies as its owner's."""
    for key, owner in ((world.ana, "ana"), (world.ben, "ben")):
        signature = world.keys.sign(b"payload\0\n", key)
        world.keys.verify(b"payload\0\n", signature, world.allowed, NOW, owner)


def test_every_name_of_a_key_counts(world: World) -> None:
    """A person may be named as any of the names that own the key."""
    signature = world.keys.sign(b"payload", world.ana)
    for name in world.keys.principals(world.ana, world.allowed):
        world.keys.verify(b"payload", signature, world.allowed, NOW, name)


@pytest.mark.parametrize("person", ["ana", "nobody", "", "ben*", "*", "-h", "a\0b"])
def test_another_person_is_refused(world: World, person: str) -> None:
    """A signature counts for the person who made it, and for nobody else."""
    signature = world.keys.sign(b"payload", world.ben)
    assert _refused(world.keys, b"payload", signature, world.allowed, person) == "keys.signature"


def test_another_payload_is_refused(world: World) -> None:
    """A signature is over exactly what was signed."""
    signature = world.keys.sign(b"payload", world.ana)
    assert _refused(world.keys, b"payload\n", signature, world.allowed, "ana") == "keys.signature"


def test_a_key_is_valid_in_its_time(world: World) -> None:
    """Validity is judged at the time that is asked about."""
    signature = world.keys.sign(b"payload", world.ben)
    world.keys.verify(b"payload", signature, world.allowed, NOW, "ben")
    assert (
        _refused(world.keys, b"payload", signature, world.allowed, "ben", LATER) == "keys.signature"
    )


def test_owners_are_named_in_order(world: World) -> None:
    """A key's owner may have several names; a key that nobody has, has none."""
    assert world.keys.principals(world.ana, world.allowed) == ("ana", "ana@example.com")
    assert world.keys.principals(world.eva, world.allowed) == ()


def test_a_key_that_is_not_there_cannot_sign(world: World) -> None:
    """A missing key is an error that names it."""
    with pytest.raises(KeysError, match="nobody") as caught:
        world.keys.sign(b"payload", world.ana.with_name("nobody"))
    assert caught.value.code == "keys.unavailable"


def test_a_stranger_is_refused(folder: Path, tmp_path: Path) -> None:
    """A good signature by a key that is in nobody's line is nobody's."""
    allowed = tmp_path / "allowed"
    allowed.write_text(f"# people\n\nana {public(folder / 'ana')} # the laptop\nbroken\n")
    signature = _keys().sign(b"payload", folder / "eva")
    assert _refused(_keys(), b"payload", signature, allowed, "eva") == "keys.not-allowed"


def test_a_pattern_names_nobody(folder: Path, tmp_path: Path) -> None:
    """A line for `*@example.com` does not say who signed, and does not hide the line that does."""
    allowed = tmp_path / "allowed"
    allowed.write_text(f"*@example.com,a?a {public(folder / 'ana')}\n")
    keys, signature = _keys(), _keys().sign(b"payload", folder / "ana")
    assert keys.principals(folder / "ana", allowed) == ()
    assert _refused(keys, b"payload", signature, allowed, "ana@example.com") == "keys.not-allowed"
    with allowed.open("a") as file:
        file.write(f'"ana@example.com" {public(folder / "ana")}\n')
    keys.verify(b"payload", signature, allowed, NOW, "ana@example.com")


def test_two_keys_of_one_person(folder: Path, tmp_path: Path) -> None:
    """A person may have several keys, and a key that is on two lines has one owner."""
    allowed = tmp_path / "allowed"
    lines = [f"ana {public(folder / name)}\n" for name in ("ana", "ben", "ana")]
    allowed.write_text("".join(lines))
    keys = _keys()
    for name in ("ana", "ben"):
        signature = keys.sign(b"payload", folder / name)
        keys.verify(b"payload", signature, allowed, NOW, "ana")
        assert keys.principals(folder / name, allowed) == ("ana",)


def test_a_line_for_another_namespace_is_refused(folder: Path, tmp_path: Path) -> None:
    """A key that may only sign git commits approves nothing; one for `handrail` does."""
    allowed = tmp_path / "allowed"
    keys, signature = _keys(), _keys().sign(b"payload", folder / "ana")
    allowed.write_text(f'ana namespaces="git" {public(folder / "ana")}\n')
    assert _refused(keys, b"payload", signature, allowed, "ana") == "keys.signature"
    allowed.write_text(f'ana namespaces="git,handrail" {public(folder / "ana")}\n')
    keys.verify(b"payload", signature, allowed, NOW, "ana")


def test_a_signature_for_another_namespace_is_refused(folder: Path, tmp_path: Path) -> None:
    """What was signed as a git commit or a file is no approval."""
    allowed, payload = tmp_path / "allowed", tmp_path / "payload"
    allowed.write_text(f"ana {public(folder / 'ana')}\n")
    payload.write_bytes(b"payload")
    options = ["-Y", "sign", "-q", "-n", "git", "-f", str(folder / "ana"), str(payload)]
    subprocess.run(["ssh-keygen", *options], check=True, capture_output=True)
    signature = Path(f"{payload}.sig").read_text()
    assert _refused(_keys(), b"payload", signature, allowed, "ana") == "keys.signature"


def test_times_are_utc_wherever_it_runs(folder: Path, tmp_path: Path) -> None:
    """The same line gives the same answer in every time zone."""
    allowed = tmp_path / "allowed"
    allowed.write_text(f'ana valid-after="20260601120000" {public(folder / "ana")}\n')
    signature = _keys().sign(b"payload", folder / "ana")
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        keys = _keys({"TZ": zone})
        keys.verify(b"payload", signature, allowed, NOW, "ana")
        early = datetime(2026, 6, 1, 11, 59, tzinfo=UTC)
        assert _refused(keys, b"payload", signature, allowed, "ana", early) == "keys.signature"


def test_a_certificate_names_its_signer(folder: Path, tmp_path: Path) -> None:
    """A key that the team's authority certified belongs to the name in its certificate."""
    key = make_key(tmp_path, "dan")
    options = ["-q", "-s", str(folder / "authority"), "-I", "id", "-n", "dan@example.com"]
    times = ["-V", "20260101:20270101"]
    subprocess.run(["ssh-keygen", *options, *times, f"{key}.pub"], check=True)
    allowed = tmp_path / "allowed"
    allowed.write_text(f"*@example.com cert-authority {public(folder / 'authority')}\n")
    keys = _keys()
    signature = keys.sign(b"payload", Path(f"{key}-cert.pub"))
    keys.verify(b"payload", signature, allowed, NOW, "dan@example.com")
    assert _refused(keys, b"payload", signature, allowed, "dan@example.com", LATER) != ""
    for other in ("eva@example.com", "*@example.com", "", "dan@example.com\0"):
        assert _refused(keys, b"payload", signature, allowed, other) != ""
    # The authority's own key certifies people; it is none itself.
    assert keys.principals(folder / "authority", allowed) == ()
    own = keys.sign(b"payload", folder / "authority")
    assert _refused(keys, b"payload", own, allowed, "authority@example.com") == "keys.not-allowed"


def test_a_locked_key_without_a_terminal_says_what_to_do(folder: Path) -> None:
    """A passphrase that cannot be asked for is an error that points to ssh-agent."""
    with pytest.raises(KeysError) as caught:
        _keys().sign(b"payload", folder / "locked")
    assert caught.value.code == "keys.unavailable"
    assert "ssh-add" in caught.value.hint


def test_a_locked_key_still_has_an_owner(folder: Path, tmp_path: Path) -> None:
    """Whose key it is can be told without its passphrase, and without the public file."""
    allowed = tmp_path / "allowed"
    allowed.write_text(f"ana {public(folder / 'locked')}\n")
    alone = tmp_path / "alone"
    shutil.copy(folder / "locked", alone)
    for key in (folder / "locked", Path(f"{folder / 'locked'}.pub"), alone):
        assert _keys().principals(key, allowed) == ("ana",)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    socket = f"{tmp_path}/agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it listens from then on
        yield socket
        process.terminate()


@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="ssh-agent is not installed")
def test_a_key_may_lie_in_the_agent(agent: str, tmp_path: Path) -> None:
    """With only the public key on disk, the agent signs; without the agent, nobody does."""
    key = make_key(tmp_path, "dan")
    environment = {"SSH_AUTH_SOCK": agent}
    subprocess.run(["ssh-add", "-q", str(key)], check=True, env={**os.environ, **environment})
    key.unlink()
    allowed = tmp_path / "allowed"
    allowed.write_text(f"dan {public(key)}\n")
    signature = _keys(environment).sign(b"payload", Path(f"{key}.pub"))
    _keys().verify(b"payload", signature, allowed, NOW, "dan")
    with pytest.raises(KeysError):
        _keys().sign(b"payload", Path(f"{key}.pub"))


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys_sign(tmp_path: Path, kind: str) -> None:
    """RSA and ECDSA keys work as Ed25519 ones do."""
    key = make_key(tmp_path, "dan", kind=kind)
    allowed = tmp_path / "allowed"
    allowed.write_text(f"dan {public(key)}\n")
    signature = _keys().sign(b"payload", key)
    _keys().verify(b"payload", signature, allowed, NOW, "dan")
    assert _keys().principals(key, allowed) == ("dan",)


@pytest.mark.parametrize("signature", ["", "x", "x" * 100_000, "-----BEGIN SSH-----\nU1NI"])
def test_what_is_no_signature_is_refused(folder: Path, tmp_path: Path, signature: str) -> None:
    """Text that is no signature is refused before any program reads it."""
    allowed = tmp_path / "allowed"
    allowed.write_text(f"ana {public(folder / 'ana')}\n")
    assert _refused(_keys(), b"payload", signature, allowed, "ana") == "keys.signature"


def test_a_missing_file_of_people_is_an_error(folder: Path, tmp_path: Path) -> None:
    """Without `allowed_signers` nobody is allowed, and the error names the file."""
    signature = _keys().sign(b"payload", folder / "ana")
    assert _refused(_keys(), b"payload", signature, tmp_path / "none", "ana") == "keys.not-allowed"


def test_without_ssh_keygen_the_error_says_what_to_install(folder: Path) -> None:
    """A machine without OpenSSH is told what it needs."""
    with pytest.raises(KeysError) as caught:
        SshKeys({}, program="/no/such/ssh-keygen").sign(b"payload", folder / "ana")
    assert caught.value.code == "keys.unavailable"
    assert "openssh" in caught.value.hint


def test_errors_hold_no_key_material(folder: Path, tmp_path: Path) -> None:
    """Whatever is wrong with a key's file, nothing of its content is told."""
    content = (folder / "ana").read_text().splitlines()
    broken = tmp_path / "broken"
    broken.write_text("\n".join([*content[:2], "x" * 70, *content[3:]]) + "\n")
    broken.chmod(0o600)
    with pytest.raises(KeysError) as caught:
        _keys().sign(b"payload", broken)
    told = sanitise(f"{caught.value.message} {caught.value.hint}")
    assert not any(line[:20] in told for line in content[1:-1])


def test_lines_are_read_as_ssh_keygen_reads_them() -> None:
    """Comments, quotes, options with spaces, and lines that are none."""
    blob = "AAAAC3NzaC1lZDI1NTE5AAAAIPjB"
    text = "\n".join(
        [
            "# a comment",
            "",
            "ana",
            "ana ssh-ed25519",
            f"ana ssh-ed25519 {blob} a comment",
            f'"ana,ben" namespaces="a b,c",cert-authority ssh-ed25519 {blob}',
            f"!ana,b* ssh-ed25519 {blob}",
            "ana ssh-ed25519 not!base64",
            f"ana sk-ssh-ed25519@openssh.com {blob}",
            f"ana not-a-type {blob}",
        ]
    )
    read = [(signer.principals, signer.is_authority) for signer in signers(text)]
    assert read == [(("ana",), False), (("ana", "ben"), True), ((), False), (("ana",), False)]


@pytest.mark.parametrize("content", [b"", b"\xff" * 50, b"ssh-ed25519 !", b"-----BEGIN A-----"])
def test_what_is_no_key_is_none(content: bytes) -> None:
    """Bytes that are no key have no public key, and are no signature's."""
    assert public_key(content) is None
    assert signing_key(content.decode("latin-1")) is None


def test_a_key_file_that_was_cut_off_is_none(folder: Path) -> None:
    """A private key's file that ends anywhere early has no public key, or the right one."""
    content = (folder / "ana").read_bytes()
    right = public_key(content)
    assert right is not None
    assert {public_key(content[:at]) for at in range(len(content) - 1)} <= {None, right}
