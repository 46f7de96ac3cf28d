"""What a web hook says: which branch is at which commit now. Pure.

Rules:
- Read only after its signature was verified; even so every value has its bounds.
- What is no push to a branch (a tag, a deleted branch, a ping) is nothing to deploy, and no error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from handrail.errors import UsageError
from handrail.plans import decoding

_BRANCH = "refs/heads/"
_COMMIT = r"^([0-9a-f]{40}|[0-9a-f]{64})$"
_IMAGE = r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,499}$"
_TASK = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"
Ref = Annotated[str, msgspec.Meta(max_length=300)]
Commit = Annotated[str, msgspec.Meta(pattern=_COMMIT)]


class Pushed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A push, as own clients say it.

    Attributes:
        ref: `refs/heads/main`, or `main`.
        commit: that is to be deployed, all its digits.
        images: task to the image that was built of it; else as the app declares.
        id: what the sender calls this delivery: the same again is the same; else its signature is.
    """

    ref: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    commit: Commit
    images: Annotated[
        dict[
            Annotated[str, msgspec.Meta(pattern=_TASK)],
            Annotated[str, msgspec.Meta(pattern=_IMAGE)],
        ],
        msgspec.Meta(max_length=50),
    ] = {}
    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:-]{0,128}$")] = ""


class _ForgePush(msgspec.Struct, frozen=True):
    """The few keys of a forge's push that count; it has many more."""

    ref: Ref = ""
    after: Annotated[str, msgspec.Meta(max_length=100)] = ""
    object_kind: Annotated[str, msgspec.Meta(max_length=100)] = "push"


@dataclass(frozen=True)
class Push:
    """A branch and where it is now.

    Attributes:
        id: what the sender calls the delivery; empty where the body does not say.
        nothing: why there is nothing to deploy; empty where there is.
    """

    branch: str = ""
    commit: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    nothing: str = ""


def read(by: str, event: str, content: bytes) -> Push:
    """Return what a verified body says.

    Args:
        by: whose form it has: `own`, `github` or `gitlab`.
        event: the forge's name of it; empty for none.
        content: the body.

    Raises:
        UsageError: it is not of that form.
    """
    try:
        if by == "own":
            return _own(decoding.decode_json(content, Pushed))
        return _forge(event, decoding.decode_json(content, _ForgePush))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError("api.request", f"the body is not right: {error}") from error


def _own(said: Pushed) -> Push:
    found = _branch_at(
        said.ref if said.ref.startswith("refs/") else _BRANCH + said.ref, said.commit
    )
    return found if found.nothing else Push(found.branch, found.commit, said.images, said.id)


def _forge(event: str, said: _ForgePush) -> Push:
    if event.lower() not in {"", "push", "push hook"} or said.object_kind != "push":
        return Push(nothing="it is no push")
    return _branch_at(said.ref, said.after)


def _branch_at(ref: str, commit: str) -> Push:
    branch = ref.removeprefix(_BRANCH)
    if not ref.startswith(_BRANCH) or not branch or not branch.isprintable():
        return Push(nothing="it is no branch")
    if re.fullmatch("0+", commit):
        return Push(nothing="the branch was deleted")
    if not re.fullmatch(_COMMIT, commit):
        raise UsageError("api.request", "the body is not right: it names no commit")
    return Push(branch, commit)
