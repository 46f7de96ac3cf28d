"""What an errand says reaches whoever follows it, to its last word."""

from __future__ import annotations

import asyncio
from typing import Any

from handrail.api.errands import Errand
from handrail.api.route import Asked
from handrail.api.routes.errands import events


class _Ends(list[dict[str, Any]]):
    """Events of an errand that ends in the very moment in which they are read."""

    errand: Errand

    def __getitem__(self, part: Any) -> Any:
        found = super().__getitem__(part)
        if self.errand.state == "working":
            self.append({"event": "ended", "n": 2, "exit_code": 0})
            self.errand.state = "ended"
            for listener in list(self.errand.listeners):
                listener()
        return found


class _Server:
    """Knows one errand."""

    def __init__(self, errand: Errand) -> None:
        self.errands = self
        self._errand = errand

    def find(self, name: str) -> Errand:
        """Return it."""
        del name
        return self._errand


def test_last_word_is_told_however_late_it_comes() -> None:
    """An errand that ends while its events are sent is followed to `ended`."""
    errand = Errand("ab12", "run", "ana", ())
    errand.events = _Ends([{"event": "begun", "n": 1, "run": 7}])
    errand.events.errand = errand
    asked: Any = Asked(_Server(errand), None, None, None, {"id": "ab12"})  # type: ignore[arg-type]

    async def follow() -> list[bytes]:
        stream = events(asked).stream
        assert stream is not None
        return [piece async for piece in stream]

    told = asyncio.run(asyncio.wait_for(follow(), 30))
    assert b"event: ended" in told[-1]
