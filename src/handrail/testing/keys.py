"""Signatures without cryptography: enough to test who may sign what, and when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from handrail.errors import KeysError
from handrail.plans.canonical import sha256


class FakeKeys:
    """`ports.Keys` over named keys.

    A key is the path that names it. A signature is the key's path and a checksum of what is
    signed: it can be told from one over something else, and anybody could forge it.
    """

    def __init__(
        self,
        owners: Mapping[Path, tuple[str, ...]],
        valid: Mapping[Path, tuple[datetime, datetime]] | None = None,
    ) -> None:
        """Keep who owns which key, whatever file is asked, and from when to when it is valid."""
        self._owners = dict(owners)
        self._valid = dict(valid or {})

    def sign(self, payload: bytes, key: Path) -> str:
        """Return a signature; see `ports.Keys`."""
        if key not in self._owners:
            raise KeysError("keys.unavailable", f"there is no key `{key}`")
        return f"{sha256(payload)} {key}"

    def verify(
        self, payload: bytes, signature: str, allowed: Path, at: datetime, person: str
    ) -> None:
        """Raise unless `person` signed `payload`; see `ports.Keys`."""
        digest, _, name = signature.partition(" ")
        owners = self.principals(Path(name), allowed)
        if not owners:
            raise KeysError("keys.not-allowed", "the key belongs to nobody")
        if person not in owners:
            raise KeysError("keys.signature", f"the key is {owners[0]}'s, not {person}'s")
        if digest != sha256(payload):
            raise KeysError("keys.signature", "the signature is over something else")
        begin, end = self._valid.get(Path(name), (at, at))
        if not begin <= at <= end:
            raise KeysError("keys.signature", "the key was not valid then")

    def principals(self, key: Path, allowed: Path) -> tuple[str, ...]:  # noqa: ARG002  # the port's
        """Return who owns `key`; see `ports.Keys`."""
        return self._owners.get(key, ())
