"""What crosses between a workflow and its activities: plain JSON values, and packed pieces of them.

Rules:
- Nothing here depends on anything but its arguments: it runs inside of workflows too.
- A payload stays far below the server's limit of 2 MB: what may be larger is packed and cut.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

from handrail.plans.canonical import plain
from handrail.plans.moving import Acting, Call, Check, Do, Undo
from handrail.plans.walk import Mark

Plain = dict[str, Any]
PIECE_BYTES = 1024 * 1024
_VERBS = {Do: "do", Check: "check", Undo: "undo"}
_MOVES = {"do": Do, "check": Check, "undo": Undo}


def pack(value: object) -> bytes:
    """Return a value as compressed JSON."""
    return zlib.compress(msgspec.json.encode(value), 1)


def unpack(packed: bytes) -> Any:
    """Return what `pack` was given."""
    return msgspec.json.decode(zlib.decompress(packed))


def mark_out(mark: Mark) -> Plain:
    """Return a mark as JSON values."""
    return {"kind": mark.kind, "step": mark.step, "time": mark.time, "body": plain(mark.body)}


def mark_in(told: Mapping[str, Any]) -> Mark:
    """Return the mark that `mark_out` made this of."""
    return Mark(told["kind"], told["step"], told["time"], told["body"])


def verb(move: Acting) -> str:
    """Return what an act is asked: `do`, `check` or `undo`."""
    return _VERBS[type(move)]


def move_out(move: Acting) -> Plain:
    """Return a move as JSON values."""
    found: Plain = {"verb": verb(move), "step": move.step, "attempt": move.attempt}
    return {**found, "goes_on": True} if isinstance(move, Do) and move.goes_on else found


def move_in(told: Mapping[str, Any]) -> Acting:
    """Return the move that `move_out` made this of."""
    if told["verb"] == "do":
        return Do(told["step"], told["attempt"], bool(told.get("goes_on")))
    found: Check | Undo = _MOVES[told["verb"]](told["step"], told["attempt"])
    return found


def call_out(call: Call) -> Plain:
    """Return what an act is told, as JSON values."""
    return {
        "act": call.act,
        "target": call.target,
        "name": call.name,
        "body": plain(call.body),
        "attempt": call.attempt,
        "before": plain(call.before),
        "earlier": plain(dict(call.earlier)),
    }


def call_in(told: Mapping[str, Any]) -> Call:
    """Return the call that `call_out` made this of."""
    return Call(**told)
