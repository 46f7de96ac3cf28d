"""What a client has prepared and bound: which statements a message executes.

Rules:
- What the guard has not seen prepared is unknown, and so is a name that was prepared twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from handrail.wire.postgres import frames
from handrail.wire.postgres.frames import Frame
from handrail.wire.postgres.statement import Statement

Statements = tuple[Statement, ...]
UNKNOWN = Statement("", "(a statement that the guard has not seen)", "unknown")
_Q, _P, _B, _E, _C = (ord(letter) for letter in "QPBEC")


class Prepared:
    """The prepared statements and portals of one session."""

    def __init__(self, classify: Callable[[bytes], Statements]) -> None:
        self._classify = classify
        self._statements: dict[bytes, Statements] = {}
        self._portals: dict[bytes, Statements] = {}
        # What each Execute of the group taken last runs, by its position: a name may be bound anew
        # within a group.
        self.executed: dict[int, Statements] = {}

    def take(self, group: Sequence[Frame]) -> Statements:
        """Note what a group prepares, binds and closes; return what it executes, in order.

        Raises:
            FrameError: a message is not what its letter says.
        """
        if group[0].kind == _Q:
            return self._classify(frames.text(group[0].body)[0])
        self.executed = {}
        for position, frame in enumerate(group):
            if frame.kind == _P:
                self._prepare(frame.body)
            elif frame.kind == _B:
                portal, after = frames.text(frame.body)
                name, _ = frames.text(frame.body, after)
                self._portals[portal] = self._statements.get(name, (UNKNOWN,))
            elif frame.kind == _E:
                portal, _ = frames.text(frame.body)
                self.executed[position] = self._portals.get(portal, (UNKNOWN,))
            elif frame.kind == _C:
                name, _ = frames.text(frame.body, 1)
                (self._statements if frame.body[:1] == b"S" else self._portals).pop(name, None)
        return tuple(s for statements in self.executed.values() for s in statements)

    def lone_reading(self, data: bytes) -> str | None:
        """Return the template of what one short group executes; None unless it only reads."""
        name = frames.lone_execution(data)
        found = self._statements.get(name, ()) if name is not None else ()
        if len(found) != 1 or found[0].kind != "read":
            return None
        self._portals[b""] = found
        return found[0].template

    def _prepare(self, body: bytes) -> None:
        name, after = frames.text(body)
        statements = self._classify(frames.text(body, after)[0])
        if name and name in self._statements:
            # The server refuses it, or the first one was deallocated where nobody saw it: either
            # may be what is bound later.
            statements = (UNKNOWN,)
        self._statements[name] = statements

    def forget(self) -> None:
        """All of them were deallocated."""
        self._statements.clear()
