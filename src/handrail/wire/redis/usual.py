"""What clients have sent before, and may send again without being taken apart a second time.

Rules:
- Only what was taken apart once, noted in the trace and found to pass in every case is in here.
- The bytes of a command say where it ends: where what came is made up of what is in here, a parser
  would find these commands and no others.
- A key that differs from one before in its digits alone has the same pattern, where that pattern
  has no digit: it needs no second look either.
- Memory is bounded; what is forgotten is taken apart again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from handrail.wire.redis.plan import blank, pattern

MOST_COMMAND_BYTES = 256
MOST_COMMANDS = 20_000
_DIGIT = re.compile(r"\d")
_ALIKE = bytes.maketrans(b"123456789", b"000000000")


@dataclass(frozen=True, slots=True)
class Shape:
    """How a command was: most that come are like the last one.

    Attributes:
        lead: its bytes up to the length of its second word.
        span: bytes of the whole command; 0 for none.
        after: bytes that come after its second word.
        rests: what came after the lead before, each of them a whole command with it.
        forms: the same with all digits of the second word alike; each with how that word's length
            was written, as far as it was the key and that its pattern has no digit.
    """

    lead: bytes
    span: int
    after: int
    rests: set[bytes]
    forms: dict[bytes, bytes]

    def count(self, data: bytes) -> int:
        """Return how many commands `data` is, all of which pass; 0 where one may not."""
        nothing, *rests = data.split(self.lead)
        if nothing:
            return 0
        known, forms, after = self.rests, self.forms, self.after
        for rest in rests:
            if rest not in known:
                length = forms.get(rest[:-after].translate(_ALIKE) + rest[-after:])
                if length is None or not rest.startswith(length):
                    return 0
        return len(rests)


NO_SHAPE = Shape(b"\0", 0, 1, set(), {})


class Usual:
    """What came before in one database.

    Attributes:
        alone: commands that came alone, each with nothing before and after it.
    """

    def __init__(self) -> None:
        self.alone: set[bytes] = set()
        self._shapes: dict[bytes, Shape] = {}
        self._count = 0

    def shape_of(self, data: bytes) -> Shape:
        """Return how commands were that began as `data` does."""
        lead = data[: data.find(b"\r\n$", data.find(b"\r\n$") + 1) + 3]
        return self._shapes.get(lead, NO_SHAPE)

    def learn(
        self, words: Sequence[bytes], raw: bytes, *, is_alone: bool, has_key: bool = False
    ) -> Shape:
        """Note a command that passes; return how it looks, or `NO_SHAPE` where it is too long.

        Args:
            words: it.
            raw: the same as it came.
            is_alone: whether nothing came with it.
            has_key: whether its second word is its only key.
        """
        if len(words) < 2 or len(raw) > MOST_COMMAND_BYTES:  # noqa: PLR2004  a name and more
            return NO_SHAPE
        lead, length = _lead(words), b"%d\r\n" % len(words[1])
        if not raw.startswith(lead + length):  # two bytes were no line's end: the server skips them
            return NO_SHAPE
        if self._count >= MOST_COMMANDS:
            self._forget()
        self._count += 1
        before = self._shapes.get(lead, NO_SHAPE)
        rests, forms = (before.rests, before.forms) if before.span else (set[bytes](), {})
        second_end = len(lead) + len(length) + len(words[1])
        shape = Shape(lead, len(raw), len(raw) - second_end, rests, forms)
        self._shapes[lead] = shape
        if has_key and not _DIGIT.search(pattern(blank(words[1]))):
            forms[raw[len(lead) : second_end].translate(_ALIKE) + raw[second_end:]] = length
        rests.add(raw[len(lead) :])
        if is_alone:
            self.alone.add(raw)
        return shape

    def _forget(self) -> None:
        # Sessions hold shapes: what is in them must go, too.
        for shape in self._shapes.values():
            shape.rests.clear()
            shape.forms.clear()
        self._shapes.clear()
        self.alone.clear()
        self._count = 0


def _lead(words: Sequence[bytes]) -> bytes:
    return b"*%d\r\n$%d\r\n%s\r\n$" % (len(words), len(words[0]), words[0])
