r"""Pages of the documentation as what a reader does with them: files to write, sessions to type.

Rules:
- A fence is of one of `LANGUAGES`; any other, or none, is an error: no block is passed over unseen.
- `console`: lines that begin with `$ ` are typed, in order; a line that ends in `\` goes on in the
  next. What follows is what they print, both streams together.
- A block whose first or second line is a comment that names a path (`# estate/pilot.yaml`) is a
  file of that name.
- `text` is shown and not run: what needs somebody's production, or is no code.
- Front comments (`<!-- needs: postgres -->`) say what a page's blocks need, and what lies ready in
  its folder (`<!-- with: tests/data/x.jsonl -->`, `<!-- starts in: examples/story-1 -->`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = frozenset({"console", "json", "python", "sh", "text", "yaml"})
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>.*)$")
_FRONT = re.compile(r"^<!-- (?P<key>needs|with|starts in): (?P<value>.+) -->$", re.MULTILINE)
_FILE = re.compile(r"^# (?P<path>[A-Za-z0-9_./-]+\.[a-z]+)(?: .*)?$")


class PageError(Exception):
    """A page is not written as a page must be."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, and the line of the page at which they begin."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str:
        """The file that it is; empty when it is none."""
        for line in self.text.splitlines()[:2]:
            if found := _FILE.match(line):
                return found["path"]
        return ""

    def steps(self) -> tuple[Step, ...]:
        """Return what a `console` block types, with what it prints.

        Raises:
            PageError: it begins with output.
        """
        steps: list[Step] = []
        going_on = False
        for number, line in enumerate(self.text.splitlines(), start=self.line):
            if going_on:
                steps[-1].command += f"\n{line}"
            elif line.startswith("$ "):
                steps.append(Step(line[2:], [], number))
            elif steps:
                steps[-1].output.append(line)
            else:
                raise PageError(f"line {number}: output before anything was typed")
            going_on = (going_on or line.startswith("$ ")) and line.endswith("\\")
        return tuple(steps)


@dataclass
class Step:
    """A command that a page types, the lines that it shows then, and where that stands."""

    command: str
    output: list[str]
    line: int


@dataclass(frozen=True)
class Page:
    """A page's blocks, and what its front comments say."""

    path: Path
    blocks: tuple[Block, ...]
    needs: tuple[str, ...]
    files: tuple[str, ...]
    starts_in: str


def read_page(path: Path) -> Page:
    """Return what stands in the page at `path`.

    Raises:
        PageError: a fence has an unknown language, or no end.
    """
    text = path.read_text("utf-8")
    said = [(found["key"], found["value"]) for found in _FRONT.finditer(text)]
    return Page(
        path,
        tuple(_blocks(text)),
        tuple(value for key, value in said if key == "needs"),
        tuple(value for key, value in said if key == "with"),
        next((value for key, value in said if key == "starts in"), ""),
    )


def _blocks(text: str) -> list[Block]:
    blocks: list[Block] = []
    opened: tuple[str, str, int] | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.match(line)
        if opened is None and fence:
            if fence["language"] not in LANGUAGES:
                raise PageError(f"line {number}: a fence of unknown language: {line.strip()!r}")
            opened, lines = (fence["language"], fence["indent"], number + 1), []
        elif opened is not None and fence:
            language, indent, first = opened
            kept = "".join(line.removeprefix(indent) + "\n" for line in lines)
            blocks.append(Block(language, kept, first))
            opened = None
        elif opened is not None:
            lines.append(line)
    if opened is not None:
        raise PageError(f"line {opened[2] - 1}: a fence that does not end")
    return blocks
