"""Where a commit is on a branch: its head, behind that, or not on it at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handrail.kits.deploys.ports import Sources

HEADS = "refs/heads/"


@dataclass(frozen=True)
class Placed:
    """Where a commit is.

    Attributes:
        head: the branch's last commit.
        is_on: whether the branch leads to the commit; False also where that cannot be told.
    """

    head: str
    is_on: bool


def place(sources: Sources, repository: str, branch: str, commit: str) -> Placed:
    """Return where a commit is on a branch, fetched now.

    Raises:
        UsageError: the repository has no such branch or commit.
        PlatformError: it does not answer.
    """
    # Its whole name: a tag of the same name is not meant.
    head = sources.open(repository, HEADS + branch).commit.id
    if head == commit:
        return Placed(head, is_on=True)
    beside = sources.open(repository, commit).since(head, 1)
    return Placed(head, is_on=beside == ())
