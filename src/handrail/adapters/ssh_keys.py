"""SSH signatures by `ssh-keygen -Y`, in the namespace `handrail` or another.

Rules:
- `ssh-keygen` signs and decides; no key material passes through here, nor through an error's text.
- Keys may lie in files, in ssh-agent (name the public key) or on a token that wants to be touched.
- Validity is judged at the time that is asked about, not now; times in `allowed_signers` are read
  as UTC, so that the answer is the same on every machine.
- Works with OpenSSH 8.2; validity intervals need 8.8 (an older one refuses lines that have them).
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from handrail.adapters.ssh_signers import (
    is_certificate,
    owners,
    public_key,
    read_allowed,
    signing_key,
)
from handrail.errors import KeysError

NAMESPACE = "handrail"

_ANSWER_S = 15.0
_PERSON_S = 120.0  # somebody types a passphrase or looks for the token to touch
_SIGNATURE_CHARACTERS = 64 * 1024
_KEY_MATERIAL = re.compile(r"[A-Za-z0-9+/=]{40,}")
_MESSAGE_CHARACTERS = 200


class SshKeys:
    """`ports.Keys` by the `ssh-keygen` program."""

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        program: str = "ssh-keygen",
        asks: bool = True,
        namespace: str = NAMESPACE,
    ) -> None:
        """Start nothing yet.

        Args:
            environment: of `ssh-keygen`, which finds the agent by it; None for this process's own.
            program: name or path of `ssh-keygen`.
            asks: whether a passphrase may be asked for on the terminal.
            namespace: what signatures are for: one made for another use does not verify.
        """
        self._environment = dict(os.environ if environment is None else environment)
        self._program = program
        self._asks = asks
        self._namespace = namespace

    def sign(self, payload: bytes, key: Path) -> str:
        """Return an armoured signature; see `ports.Keys`."""
        if not key.is_file():
            raise KeysError(
                "keys.unavailable",
                f"there is no SSH key `{key}`",
                hint="name the key with `--key`, or make one: ssh-keygen -t ed25519",
            )
        done = self._run(["sign", "-n", self._namespace, "-f", str(key)], payload, _PERSON_S)
        if done.returncode != 0:
            raise self._unsigned(key, _said(done))
        return done.stdout.decode("ascii")

    def verify(
        self, payload: bytes, signature: str, allowed: Path, at: datetime, person: str
    ) -> None:
        """Raise unless `person` signed `payload`; see `ports.Keys`."""
        text = read_allowed(allowed)
        key = signing_key(signature) if len(signature) <= _SIGNATURE_CHARACTERS else None
        if key is None:
            raise KeysError(
                "keys.signature",
                "the signature is not one of SSH",
                hint="sign again: handrail approve",
            )
        _refuse_other(key, text, person, allowed)
        with tempfile.TemporaryDirectory(prefix="handrail-") as directory:
            file = Path(directory) / "signature"
            file.write_text(signature, encoding="utf-8")
            options = ["-I", person, "-n", self._namespace, "-s", str(file), _time(at)]
            done = self._run(["verify", "-f", str(allowed), *options], payload, _ANSWER_S)
        if done.returncode != 0:
            raise KeysError(
                "keys.signature",
                f"the signature does not verify as {person}'s: {_said(done)}",
                hint="what was signed has changed, or the key was not valid then; sign again",
            )

    def principals(self, key: Path, allowed: Path) -> tuple[str, ...]:
        """Return who owns `key`; see `ports.Keys`. In the order of the file; never a pattern."""
        return owners(self._public(key), read_allowed(allowed))

    def _public(self, key: Path) -> bytes:
        """Return the public half of `key`, without asking for its passphrase."""
        for file in (key, Path(f"{key}.pub")):
            try:
                found = public_key(file.read_bytes())
            except OSError:
                continue
            if found is not None:
                return found
        raise KeysError(
            "keys.unavailable",
            f"the public half of the SSH key `{key}` cannot be read",
            hint=f"write it beside the key: ssh-keygen -y -f {key} > {key}.pub",
        )

    def _run(
        self, arguments: Sequence[str], payload: bytes, timeout_s: float
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {**self._environment, "TZ": "UTC", "LC_ALL": "C"}
        if not self._asks:
            environment["SSH_ASKPASS_REQUIRE"] = "never"
        try:
            return subprocess.run(
                [self._program, "-Y", *arguments],
                input=payload,
                capture_output=True,
                check=False,
                env=environment,
                timeout=timeout_s,
                start_new_session=not self._asks,  # away from the terminal it could ask on
            )
        except subprocess.TimeoutExpired as error:
            raise KeysError(
                "keys.unavailable",
                f"`ssh-keygen` gave no answer within {timeout_s:g} s",
                hint="touch the token or type the passphrase in time, or use ssh-agent",
            ) from error
        except OSError as error:
            raise KeysError(
                "keys.unavailable",
                f"`{self._program}` cannot be started: {error.strerror}",
                hint="install OpenSSH 8.2 or newer, on Debian: apt install openssh-client",
            ) from error

    def _unsigned(self, key: Path, said: str) -> KeysError:
        if "passphrase" in said:
            hint = f"add the key to ssh-agent first: ssh-add {key}"
        elif "option" in said or "usage" in said:
            hint = "this ssh-keygen cannot sign; install OpenSSH 8.2 or newer"
        else:
            hint = f"try the key by hand: ssh-keygen -Y sign -n {self._namespace} -f {key} FILE"
        return KeysError("keys.unavailable", f"the SSH key `{key}` cannot sign: {said}", hint=hint)


def _time(at: datetime) -> str:
    return f"-Overify-time={at.astimezone(UTC):%Y%m%d%H%M%S}"


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the last thing that ssh-keygen said, without anything that may be a key."""
    lines = [line.strip() for line in done.stderr.decode("utf-8", "replace").splitlines()]
    telling = [line for line in lines if line and not line.startswith("Signing data")]
    said = telling[-1] if telling else f"it ended with {done.returncode}"
    return _KEY_MATERIAL.sub("...", said)[:_MESSAGE_CHARACTERS]


def _refuse_other(key: bytes, text: str, person: str, allowed: Path) -> None:
    """Raise when `key` is not by name a key of `person`.

    ssh-keygen would take a pattern (`*@example.com`) for anybody who fits it. For a certificate,
    the names are in it, and ssh-keygen compares them.
    """
    names = owners(key, text)
    if person in names or (is_certificate(key) and person.isprintable()):
        return
    if names:
        raise KeysError(
            "keys.signature",
            f"the key that signed is {names[0]}'s, not {person}'s",
            hint=f"sign with a key of {person}, or as {names[0]}",
        )
    raise KeysError(
        "keys.not-allowed",
        f"the key that signed belongs to nobody in `{allowed}`",
        hint="add a line with the person's name and public key, and have it reviewed",
    )
