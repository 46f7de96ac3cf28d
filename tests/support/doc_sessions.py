"""A reader's session: commands typed one after the other, and whether they print what a page says.

Rules:
- Each command is a `bash` of its own that begins in the folder, with the exported variables and
  with the `$?` that the one before it left. Nobody is at the terminal: stdin is empty.
- What a page shows and what was printed are compared word by word. White space is not compared:
  lines are wrapped, and tables aligned, by the length of paths.
- `...` stands for anything. `VOLATILE` says what differs from run to run, and what is compared of
  it.
- A plan's short digest (`7f3a-91c2`) stands for one digest wherever the page has it, also in what
  is typed: the page reads as a session does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from support.doc_pages import Step

HOME = "/home/ana"
TIMEOUT_S = 60
DIGEST = re.compile(r"\b[0-9a-f]{4}-[0-9a-f]{4}\b")
# What differs between two runs of the same page: how the page spells it, and what may stand there.
VOLATILE = {
    "anything": (r"\s*\.\.\.\s*", r".*?"),
    "digest": (DIGEST.pattern, DIGEST.pattern),
    "uuid or hash": (r"\b[0-9a-f]{7,64}\b", r"[0-9a-f]{7,64}"),
    "SSH fingerprint": (r"SHA256:\S+", r"SHA256:\S+"),
    "time": (
        r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z?",
        r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z?",
    ),
    "duration": (r"\b\d+(?:\.\d+)? s\b", r"\d+(?:\.\d+)? (?:s|min)"),
    "seconds": (r'(?<="seconds": )[\d.e-]+', r"[\d.e-]+"),
    "size": (r"\b[\d,.]+ (?:B|KB|MB|GB)\b", r"[\d,.]+ (?:B|KB|MB|GB)"),
    "bytes": (r"\b[\d,]+ bytes\b", r"[\d,]+ bytes"),
    "years": (r"\b\d+ years\b", r"\d+ years"),
    "a moment ago": (r"\b(?:just now|\d+ min ago)", r"(?:just now|\d+ min ago)"),
    "version": (r"\b(?:SQLite|PostgreSQL) \d+\.[\d.]+", r"(?:SQLite|PostgreSQL) \d[\d.]*"),
    "test database": (r"\bpilot\d+\b", r"pilot\d+"),
    "system identifier": (r"\bpg:\d+|\b\d{19}\b", r"(?:pg:)?\d{15,20}"),
    "port": (r"(?<=127\.0\.0\.1:)\d+", r"\d+"),
}
_TOKEN = re.compile("|".join(f"({spelt})" for spelt, _ in VOLATILE.values()))


class SessionError(Exception):
    """A session does not go as its page says."""


class Session:
    """A reader at a shell, in a home of his own."""

    def __init__(self, home: Path, environment: Mapping[str, str], folder: Path) -> None:
        self.home = home
        self.folder = folder
        self._state = home.parent / f"{home.name}.state"
        self._state.mkdir(mode=0o700)
        self._environment = dict(environment)
        self._known: dict[str, str] = {}
        self._status = 0

    def close(self) -> None:
        """Forget the session."""
        shutil.rmtree(self._state, ignore_errors=True)

    def type(self, step: Step) -> None:
        """Type a command.

        Raises:
            SessionError: it prints something else than the page shows, or fails and the page does
                not say so.
        """
        if self._status and step.command.strip() != "echo $?":
            raise SessionError(
                f"line {step.line}: the command before it ended with {self._status}, and the page "
                "does not show it (`$ echo $?`)"
            )
        command = DIGEST.sub(lambda found: self._known.get(found[0], found[0]), step.command)
        printed, status = self._run(command)
        self._compare(step, printed)
        self._status = status

    def end(self) -> None:
        """Insist that the last command ended well."""
        if self._status:
            raise SessionError(f"the page's last command ended with {self._status}")

    def _run(self, command: str) -> tuple[str, int]:
        script = self._state / "command"
        script.write_text(
            f"[ ! -e {self._state}/variables ] || . {self._state}/variables\n"
            f"cd '{self.folder}'\n"
            f"trap 'pwd > {self._state}/folder; export -p > {self._state}/variables' EXIT\n"
            f"(exit {self._status})\n{command}\n"
        )
        # A file, not a pipe: a process that a command leaves behind holds nobody up.
        with (self._state / "printed").open("w+", encoding="utf-8", errors="replace") as printed:
            done = subprocess.run(
                ["bash", "--noprofile", "--norc", str(script)],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT_S,
                check=False,
            )
            printed.seek(0)
            text = printed.read()
        self.folder = Path((self._state / "folder").read_text().rstrip("\n"))
        return text.replace(os.fspath(self.home), HOME), done.returncode

    def _compare(self, step: Step, printed: str) -> None:
        expected = " ".join(" ".join(step.output).split())
        actual = " ".join(printed.split())
        pattern, names = self._pattern(expected)
        found = re.fullmatch(pattern, actual)
        if found is None:
            shown = "\n".join(step.output)
            raise SessionError(
                f"line {step.line}: `{step.command}` printed\n{printed}\n"
                f"where the page has\n{shown}\n{_difference(self, expected, actual)}"
            )
        self._known |= {shown: found[group] for group, shown in names.items()}

    def _pattern(self, expected: str) -> tuple[str, dict[str, str]]:
        """Return what output must match, and the names of the digests that it shows first."""
        names: dict[str, str] = {}
        kinds = list(VOLATILE)

        def volatile(found: re.Match[str]) -> str:
            kind = kinds[(found.lastindex or 1) - 1]
            shown = found[0]
            if kind != "digest":
                return f"(?:{VOLATILE[kind][1]})"
            if shown in self._known:
                return re.escape(self._known[shown])
            group = f"digest_{shown.replace('-', '_')}"
            if group in names:
                return f"(?P={group})"
            names[group] = shown
            return f"(?P<{group}>{DIGEST.pattern})"

        parts, end = [], 0
        for token in _TOKEN.finditer(expected):
            parts += [re.escape(expected[end : token.start()]), volatile(token)]
            end = token.end()
        return "".join([*parts, re.escape(expected[end:])]), names


def _difference(session: Session, expected: str, actual: str) -> str:
    """Return where the two part, for whoever has to correct the page."""
    words = expected.split(" ")
    for count in range(len(words), 0, -1):
        pattern, _ = session._pattern(" ".join(words[:count]))
        if found := re.match(pattern, actual):
            rest, seen = " ".join(words[count : count + 8]), actual[found.end() : found.end() + 80]
            return f"they part where the page has `{rest}` and it printed `{seen.strip()}`"
    return "they part at the first word"
