"""The terminal while something runs: one line a stage, rewritten in place where that is possible.

Rules:
- All of it goes to stderr; stdout is the result.
- On a pipe, with `--plain`, or for a screen reader, the same facts come as plain lines.
- The script's own output stands in between, dimmed, and sanitised.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from handrail.cli.screen import WIDTH
from handrail.errors import sanitise
from handrail.plans.amounts import size

_DIM, _RED, _GREEN, _OFF = "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[0m"
_EVERY_S = 0.2


class Terminal:
    """Whoever sits in front of `stream`."""

    def __init__(self, stream: TextIO, *, plain: bool = False, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._moves = stream.isatty() and not plain and os.environ.get("TERM") != "dumb"
        self._colours = self._moves and "NO_COLOR" not in os.environ
        self._stage = ""
        self._text = ""
        self._open = False
        self._began_s = 0.0
        self._drawn_s = 0.0
        self._half = b""
        # What stands below everything else, and is rewritten: `below`.
        self._board: list[str] = []

    def begin(self, stage: str, text: str) -> None:
        """Say that a stage has begun."""
        self._stage, self._text = stage, text
        self._began_s = time.monotonic()
        if self._moves:
            self._draw(text)

    def progress(self, done: int, total: int | None) -> None:
        """Rewrite the present line with how far it is, its rate and an end estimate."""
        now = time.monotonic()
        if not self._moves or not done or now - self._drawn_s < _EVERY_S:
            return
        passed_s = max(now - self._began_s, 0.001)
        if self._stage == "watch":
            self._draw(f"{self._text}   {done}/{total} s")
            return
        text = f"{self._text}   {size(done)}   {size(int(done / passed_s))}/s"
        if total and 0 < done < total:
            text += f"   {100 * done // total} %, {passed_s * (total - done) / done:.0f} s left"
        self._draw(text)

    def output(self, piece: bytes) -> None:
        """Show what the script printed, line by line."""
        lines = (self._half + piece).split(b"\n")
        self._half = lines.pop()[-WIDTH * 4 :]
        for line in lines:
            self._line(self._dim("      " + sanitise(line.decode("utf-8", "replace"))))

    def end(self, stage: str, text: str, *, ok: bool = True) -> None:
        """Say how a stage ended."""
        if self._half:
            self.output(b"\n")
        mark = "ok" if ok else "x "
        colour = _GREEN if ok else _RED
        shown = f"{colour}{mark}{_OFF}" if self._colours else mark
        self._line(f"  {shown}  {stage:<9} {sanitise(text)}")

    def below(self, lines: Sequence[str]) -> None:
        """Keep `lines` below everything else, rewritten in place; nothing where that cannot be."""
        if not self._moves or self._quiet:
            return
        self._lift()
        width = min(WIDTH, _width(self._stream))
        self._board = [sanitise(line)[: width - 1] for line in lines]
        self._lay()

    def _lift(self) -> None:
        if self._board:
            self._stream.write(f"\r\x1b[{len(self._board)}A\x1b[J")

    def _lay(self) -> None:
        self._stream.write("".join(f"{line}\n" for line in self._board))
        self._stream.flush()

    def choose(self, question: str, choices: Mapping[str, str], otherwise: str) -> str:
        """Ask on the terminal; `otherwise` when nobody is there."""
        if self._quiet or not sys.stdin.isatty():
            return otherwise
        self._line(sanitise(question))
        for key, sentence in choices.items():
            self._line(f"  {key:<6} {sentence}")
        while True:
            self._stream.write(f"which? [{otherwise}] ")
            self._stream.flush()
            answer = sys.stdin.readline().strip() or otherwise
            if answer in choices:
                return answer

    def key(self, question: str, keys: Mapping[str, str], otherwise: str) -> str:
        """Ask for one key, without Enter; `otherwise` for any other, and when nobody is there."""
        if self._quiet or not self._moves or not sys.stdin.isatty():
            return otherwise
        said = ", ".join(f"{key}: {sentence}" for key, sentence in keys.items())
        self._stream.write(f"{sanitise(question)}  [{said}] ")
        self._stream.flush()
        pressed = _pressed(sys.stdin)
        self._stream.write(f"{sanitise(pressed)}\n")
        return pressed if pressed in keys else otherwise

    def _draw(self, text: str) -> None:
        if self._quiet:
            return
        self._drawn_s = time.monotonic()
        width = min(WIDTH, _width(self._stream))
        line = f"  ..  {self._stage:<9} {sanitise(text)}"[: width - 1]
        self._stream.write(f"\r\x1b[2K{line}")
        self._stream.flush()
        self._open = True

    def _line(self, text: str) -> None:
        if self._quiet:
            return
        if self._open:
            self._stream.write("\r\x1b[2K")
            self._open = False
        self._lift()
        self._stream.write(text + "\n")
        self._lay()

    def _dim(self, text: str) -> str:
        return f"{_DIM}{text}{_OFF}" if self._colours else text


def _pressed(stream: TextIO) -> str:
    """Return the key that is pressed next; its terminal is put back as it was, also by Ctrl-C."""
    import termios
    import tty

    number = stream.fileno()
    was = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        return os.read(number, 1).decode("utf-8", "replace").lower()
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, was)


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or WIDTH
    except (OSError, ValueError):
        return WIDTH
