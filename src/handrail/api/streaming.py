"""Server-sent events, as the HTML standard has them."""

from __future__ import annotations

PING = b": still here\n\n"
PING_S = 15.0


def event_line(kind: str, data: str, number: int) -> bytes:
    """Return one event; `data` is JSON of one line."""
    return f"id: {number}\nevent: {kind}\ndata: {data}\n\n".encode()
