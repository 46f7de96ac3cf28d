"""What clients have sent before, and may send again without being taken apart a second time.

Rules:
- Only what was taken apart once, noted in the trace and found to pass in every case is in here.
- The bytes of a command say where it ends: where what came is made up of what is in here, a parser
  would find these commands and no others.
- Memory is bounded; what is forgotten is taken apart again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_COMMAND_BYTES = 256
MOST_COMMANDS = 20_000


@dataclass(frozen=True, slots=True)
class Shape:
    """How a command was: most that come are like the last one.

    Attributes:
        lead: its bytes up to the length of its second word.
        span: bytes of the whole command; 0 for none.
        rests: what came after the lead before, each of them a whole command with it.
    """

    lead: bytes
    span: int
    rests: set[bytes]

    def count(self, data: bytes) -> int:
        """Return how many commands `data` is, all of which came before; 0 where one may not be."""
        if not self.span:
            return 0
        nothing, *rests = data.split(self.lead)
        return 0 if nothing or not self.rests.issuperset(rests) else len(rests)


NO_SHAPE = Shape(b"", 0, set())


class Usual:
    """What came before in one database.

    Attributes:
        alone: commands that came alone, each with nothing before and after it.
    """

    def __init__(self) -> None:
        self.alone: set[bytes] = set()
        self._rests: dict[bytes, set[bytes]] = {}
        self._count = 0

    def learn(self, words: Sequence[bytes], raw: bytes, *, is_alone: bool) -> Shape:
        """Note a command that passes; return how it looks, or `NO_SHAPE` where it is too long."""
        if len(words) < 2 or len(raw) > MOST_COMMAND_BYTES:  # noqa: PLR2004  a name and more
            return NO_SHAPE
        lead = _lead(words)
        if not raw.startswith(lead):  # as the server, the parser skips two bytes, whatever they are
            return NO_SHAPE
        if self._count >= MOST_COMMANDS:
            self._forget()
        self._count += 1
        rests = self._rests.setdefault(lead, set())
        rests.add(raw[len(lead) :])
        if is_alone:
            self.alone.add(raw)
        return Shape(lead, len(raw), rests)

    def _forget(self) -> None:
        # Shapes hold the sets: they must become empty, too.
        for rests in self._rests.values():
            rests.clear()
        self._rests.clear()
        self.alone.clear()
        self._count = 0


def _lead(words: Sequence[bytes]) -> bytes:
    return b"*%d\r\n$%d\r\n%s\r\n$" % (len(words), len(words[0]), words[0])
