"""The server's log: JSON lines on stderr, one an event.

Rules:
- What is told of a request: its id, person, route, status, duration. Never a header, a body, a
  query or a token.
- Text from outside passes `sanitise`.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import TextIO

from handrail.errors import sanitise

_LOCK = threading.Lock()


def tell(event: str, *, level: str = "info", stream: TextIO | None = None, **facts: object) -> None:
    """Write one line."""
    told = {name: _plain(value) for name, value in facts.items() if value not in {None, ""}}
    line = json.dumps(
        {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "event": event,
            **told,
        }
    )
    target = stream or sys.stderr
    with _LOCK:
        target.write(line + "\n")
        target.flush()


def _plain(value: object) -> object:
    return value if isinstance(value, int | float | bool) else sanitise(str(value))


class Handler(logging.Handler):
    """Passes on what libraries log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a library's line, from warnings upwards."""
        if record.levelno >= logging.WARNING:
            tell(
                "library",
                level=record.levelname.lower(),
                library=record.name,
                text=record.getMessage()[:2000],
            )
