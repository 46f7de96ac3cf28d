"""What a node tells of a step: its output as it comes, and how it ended.

Rules:
- Each byte of output is taken once, over however many connections it comes.
- The node is not believed beyond what was agreed: longer pieces, other words, and more output than
  its limit end the connection.
- The kept file is as that of a script on this machine: first half, a line for what is left out,
  last half.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from handrail.adapters.ssh.connecting import Call, CutError
from handrail.errors import ScriptError
from handrail.ports import Finished

PIECE_LIMIT_BYTES = 256 * 1024
_SURVIVORS_LIMIT = 50
_NAME_CHARACTERS = 60
_REASONS = frozenset({"timeout", "interrupted", "disk-full"})


@dataclass
class Followed:
    """A step's output so far, and its end.

    Attributes:
        kept: file of the output, made anew.
        limit_bytes: of it.
        show: told each piece as it comes.
        have_bytes: of the output's first half: where a later connection goes on.
        finished: how it ended; None while it has not.
        is_lost: its keeper on the node is gone, and nobody noted how it ended.
    """

    kept: Path
    limit_bytes: int
    show: Callable[[bytes], None]
    have_bytes: int = 0
    finished: Finished | None = None
    is_lost: bool = False
    _rest_bytes: int = 0
    _noted: dict[str, str] = field(default_factory=dict)
    _survivors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the file, readable by the present user alone; a link is refused."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(self.kept, flags, 0o600)
        except OSError as error:
            message = f"the output cannot be kept in `{self.kept}`: {error.strerror}"
            raise ScriptError("script.start", message) from error
        os.fchmod(file, 0o600)
        os.close(file)

    def hear(self, call: Call, heard: Callable[[], None]) -> None:
        """Take all that the node tells until the end; `heard` is called after each word of it.

        Raises:
            CutError: the connection was cut, or what came is none of ours.
            ScriptError: the node says that there is no such step, or what was kept has no place.
        """
        self._noted, self._survivors, self._rest_bytes = {}, [], 0
        is_rest = False
        while (line := call.line()) != "end":
            word, _, value = line.partition(" ")
            if word == "out":
                self._take(call.bytes(_count(value, PIECE_LIMIT_BYTES)), is_rest=is_rest)
            elif word == "rest":
                self._begin_rest(is_first=not is_rest)
                is_rest = True
            elif word == "lost-keeper":
                self.is_lost = True
            elif word == "fail":
                raise ScriptError(
                    "node.unfit", f"the node has no such step any more ({value[:40]})"
                )
            else:
                self._note(word, value)
            heard()
        self.finished = self._end()

    def _take(self, piece: bytes, *, is_rest: bool) -> None:
        if is_rest:
            self._rest_bytes += len(piece)
        else:
            self.have_bytes += len(piece)
        if self.have_bytes + self._rest_bytes > self.limit_bytes:
            raise CutError
        self._write(piece)
        self.show(piece)

    def _begin_rest(self, *, is_first: bool) -> None:
        if not is_first:
            return
        with contextlib.suppress(OSError):
            os.truncate(self.kept, self.have_bytes)  # an earlier connection may have begun it
        lost = _count(self._noted.get("lost", "0"))
        if lost:
            line = f"\n[handrail: {lost:,} bytes left out here]\n".encode()
            self._write(line)
            self.show(line)

    def _write(self, piece: bytes) -> None:
        try:
            with self.kept.open("ab") as file:
                file.write(piece)
        except OSError as error:
            message = f"the output cannot be kept in `{self.kept}`: {error.strerror}"
            raise ScriptError("store.disk-full", message) from error

    def _note(self, word: str, value: str) -> None:
        if word == "survivor":
            if len(self._survivors) < _SURVIVORS_LIMIT:
                self._survivors.append(value[:_NAME_CHARACTERS])
        elif word in {"exit", "seconds", "why", "lost", "ring"}:
            self._noted[word] = value
        elif word != "tick":
            raise CutError

    def _end(self) -> Finished:
        noted = self._noted
        why = noted.get("why", "")
        ended = "lost" if self.is_lost else why if why in _REASONS else "exited"
        lost = _count(noted.get("lost", "0"))
        return Finished(
            exit_code=-1 if self.is_lost else _count(noted.get("exit", ""), 255),
            ended=ended,
            duration_s=float(_count(noted.get("seconds", "0"))),
            output_bytes=self.have_bytes + self._rest_bytes + lost,
            survivors=tuple(self._survivors),
        )


def _count(text: str, most: int = 2**62) -> int:
    """Return a number that the node told; one that is none, or too large, ends the connection."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20) or int(text) > most:  # noqa: PLR2004  digits
        raise CutError
    return int(text)
