"""One address of the API: what it takes, what it answers, and who may ask.

Rules:
- Every address has a rule: the least role, and on which resources it must be held. One without a
  rule is a defect that a test finds.
- What a handler is given has been checked: the token, the role, the body and the query.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from handrail.core.people import Token
from handrail.core.world import Declared, World
from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.api.server import Server

On = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Asked:
    """One request that may be answered.

    Attributes:
        world: the ports, with the person of the token.
        declared: what the repository declares now.
        path: the variable parts of the address.
        query: as the route's `query` type; None without one.
        body: as the route's `body` type; None without one.
    """

    server: Server
    world: World
    declared: Declared
    token: Token
    path: Mapping[str, str]
    query: Any = None
    body: Any = None

    @property
    def number(self) -> int:
        """The run's number in the address.

        Raises:
            UsageError: no run has so large a number.
        """
        text = self.path["number"]
        if len(text) > 18:  # noqa: PLR2004  what the journal's database can count to
            raise UsageError("plan.unknown", f"there is no run {text[:30]}", hint="handrail runs")
        return int(text)


@dataclass(frozen=True)
class Answer:
    """What is sent back.

    Attributes:
        stream: pieces of the body, where it is made bit by bit; then `value` is None.
    """

    value: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    stream: AsyncIterator[bytes] | None = None


def nothing(_: Asked) -> On:
    """The rule of what concerns no single resource."""
    return ()


@dataclass(frozen=True)
class Route:
    """One address.

    Attributes:
        path: with `{name}` for what varies.
        does: one sentence, for the description.
        role: the least that its caller must have.
        do: answers; in a thread of its own.
        on: which resources the role must be held on; given what is asked.
        body: type of the JSON body; None for none.
        query: type of the query; None for none.
        answer: type of the answer; None for none.
        status: when all went well.
        content_type: of the answer.
        is_once: whether an `Idempotency-Key` makes a second request give the first one's answer.
        ends: whether it ends something: then also a server that is about to end takes it.
    """

    method: str
    path: str
    does: str
    role: str
    do: Callable[[Asked], Answer]
    on: Callable[[Asked], On] = nothing
    body: type | None = None
    query: type | None = None
    answer: Any = None
    status: int = 200
    content_type: str = "application/json"
    is_once: bool = False
    ends: bool = False

    @property
    def begins(self) -> bool:
        """Whether something may begin by it."""
        return self.method != "GET" and not self.ends

    @property
    def name(self) -> str:
        """How metrics and logs call it."""
        return f"{self.method} {self.path}"


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query without parameters."""
