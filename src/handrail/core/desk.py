"""The desk: a folder in a script's private home through which it asks, and is answered.

Layout, which anything that runs scripts elsewhere may carry over as files:

`commands/handrail-ask`  in the script's PATH; a cage makes such folders read-only
`NAME.question`          for each question that may be asked
`open`                   while somebody attends
`NAME.ask`               written by the command: one line of what the script says besides
`NAME.answer`            written for it: `answer`, `expired` or `refused`; then the value's line

Rules:
- The script owns the folder, and is not believed: nothing is followed out of it, and nothing of
  any length is read.
- A question that was answered is answered: asking it again gives the same.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from handrail.errors import ScriptError

COMMAND = "handrail-ask"
FOLDER = ".handrail"
COMMANDS = "commands"
_NOTE_BYTES = 2000
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_SCRIPT = r"""#!/bin/sh
# handrail-ask NAME [WORDS...]: ask the people behind this run, and print what they answer.
# Exit code: 0 answered, 2 called wrongly, 4 refused, expired, or nobody is asked here.
desk=$(dirname -- "$0")/..
name=${1-}
case $name in
'' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*)
    echo "usage: handrail-ask NAME [WORDS...]" >&2
    exit 2
    ;;
esac
shift
if [ ! -e "$desk/$name.question" ]; then
    echo "handrail-ask: the operation declares no question \`$name\`" >&2
    exit 2
fi
if [ ! -e "$desk/$name.answer" ] && [ ! -e "$desk/$name.ask" ]; then
    printf '%s\n' "$*" >"$desk/$name.asking.$$" &&
        mv -f "$desk/$name.asking.$$" "$desk/$name.ask" || exit 4
fi
while [ ! -e "$desk/$name.answer" ]; do
    if [ ! -e "$desk/open" ]; then
        echo "handrail-ask: nobody is asked here" >&2
        exit 4
    fi
    sleep 0.2 2>/dev/null || sleep 1
done
{ IFS= read -r kind; IFS= read -r value; } <"$desk/$name.answer"
if [ "$kind" = answer ]; then
    printf '%s\n' "$value"
    exit 0
fi
echo "handrail-ask: \`$name\` was not answered: $kind${value:+, $value}" >&2
exit 4
"""


def folder_of(home: Path) -> Path:
    """Return the desk's folder in a script's home."""
    return home / FOLDER


def path_of(home: Path) -> Path:
    """Return the folder for the script's PATH."""
    return folder_of(home) / COMMANDS


class Desk:
    """One script's desk, while somebody attends. Use as a context manager."""

    def __init__(self, home: Path, names: Iterable[str]) -> None:
        """Write the command, and which questions there are.

        Args:
            home: the script's; exists.
            names: of the questions.

        Raises:
            ScriptError: the folder cannot be written.
        """
        folder = folder_of(home)
        self._folder = -1
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # What is opened now stays this folder, whatever the script puts in its place.
            self._folder = os.open(folder, _FOLDER_FLAGS)
            path_of(home).mkdir(mode=0o700, exist_ok=True)
            self._put(COMMAND, _SCRIPT, mode=0o700, within=COMMANDS)
            for name in names:
                self._put(f"{name}.question", "")
            self._put("open", "")
        except OSError as error:
            self.close()
            raise ScriptError(
                "script.start", f"the script's own folder cannot be written: {error.strerror}"
            ) from error

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let whoever asks now, or later, know that nobody attends. Twice equals once."""
        if self._folder >= 0:
            with suppress(OSError):
                os.unlink("open", dir_fd=self._folder)
            os.close(self._folder)
            self._folder = -1

    def asked(self, name: str) -> str | None:
        """Return what the script says besides the question; None where it has not asked it."""
        try:
            file = os.open(
                f"{name}.ask", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._folder
            )
        except OSError:
            return None
        try:
            is_file = stat.S_ISREG(os.fstat(file).st_mode)
            line = os.read(file, _NOTE_BYTES).decode("utf-8", "replace") if is_file else ""
        finally:
            os.close(file)
        return " ".join(line.split())

    def answer(self, name: str, kind: str, value: str = "") -> None:
        """Let the script go on: with `kind` `answer` it gets `value`, else exit code 4.

        A script that removed its own folder has an exit code 4 of its own making.
        """
        with suppress(OSError):
            self._put(f"{name}.answer", f"{kind}\n{value}\n")

    def _put(self, name: str, text: str, mode: int = 0o600, within: str = ".") -> None:
        """Write a whole file; one of that name, or a link, is replaced and never followed."""
        new = f".{name}.{os.urandom(8).hex()}"
        folder = os.open(within, _FOLDER_FLAGS, dir_fd=self._folder)
        try:
            with os.fdopen(os.open(new, _NEW_FLAGS, mode, dir_fd=folder), "wb") as file:
                file.write(text.encode())
            os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.close(folder)
