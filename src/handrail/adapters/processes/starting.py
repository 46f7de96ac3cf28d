"""Why a script cannot be started, said so that the next step is clear.

Rules:
- What can be seen beforehand is said beforehand: then the journal has no beginning without a
  script.
- What only the kernel can say is translated from its number, with the script looked at again.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from handrail.errors import ScriptError
from handrail.ports import Command

SHEBANG_BYTES = 256
HINTS = {
    errno.E2BIG: "its parameters and environment are too long: pass them in a file",
    errno.ETXTBSY: "somebody is writing it: try again when it is written",
}


def check_startable(command: Command) -> None:
    """Look at everything that can be seen before a start.

    Raises:
        ScriptError: the script is missing, not a file, not executable, or has no interpreter; its
            folder is missing; the disk of its output is already too full.
    """
    program = Path(command.argv[0])
    if not stat.S_ISDIR(_mode(command.cwd)):
        raise _error(f"the folder `{command.cwd}` does not exist", "create it, or correct `cwd`")
    free = shutil.disk_usage(command.output.parent).free
    if free < command.reserve_bytes:
        message = f"the disk has {free:,} bytes free, and {command.reserve_bytes:,} are kept free"
        raise _error(message, f"free some space in `{command.output.parent}`")
    if not stat.S_ISREG(_mode(program)) or not os.access(program, os.X_OK):
        number = errno.ENOENT if _is_missing(program) else errno.EACCES
        raise not_started(program, "program", number)


def not_started(program: Path, stage: str, number: int) -> ScriptError:
    """Return the error for a start that failed at `stage` with the kernel's `number`."""
    if stage != "program":
        message = f"`{program}` could not be started in its folder: {os.strerror(number)}"
        return _error(message, "look at `ls -ld` of the folder, and of those above it")
    if number == errno.ENOENT:
        return _missing(program)
    if number == errno.EACCES:
        return _denied(program)
    if number == errno.ENOEXEC:
        hint = "begin it with a line such as `#!/bin/sh`"
        return _error(f"`{program}` is neither a program nor says which one reads it", hint)
    hint = HINTS.get(number, f"try `{program}` by hand")
    return _error(f"`{program}` could not be started: {os.strerror(number)}", hint)


def _missing(program: Path) -> ScriptError:
    if _is_missing(program):
        return _error(f"`{program}` does not exist", "correct the path, or commit the script")
    hint = f"install it, or correct the first line of `{program.name}`"
    return _error(f"`{program}` is to be read by {_interpreter(program)}, which is missing", hint)


def _denied(program: Path) -> ScriptError:
    mode = _mode(program)
    if stat.S_ISDIR(mode):
        return _error(f"`{program}` is a folder", "name the script in it")
    if mode == 0:
        return _error(f"this user may not look at `{program}`", "look at the folders above it")
    if not stat.S_ISREG(mode):
        return _error(f"`{program}` is not a file", "name a script")
    if not mode & 0o111:
        return _error(f"`{program}` is not executable", f"chmod +x {program}")
    if os.statvfs(program).f_flag & os.ST_NOEXEC:
        hint = "move it to another disk, or mount this one without `noexec`"
        return _error(f"`{program}` is on a disk that runs no programs", hint)
    hint = f"look at `ls -l {program}` and at its interpreter, {_interpreter(program)}"
    return _error(f"this user may not execute `{program}`", hint)


def _mode(path: Path) -> int:
    """Return what a path is and who may do what; 0 where this user cannot see it."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _is_missing(program: Path) -> bool:
    try:
        program.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _interpreter(program: Path) -> str:
    """Return what the first line names, for people."""
    try:
        with program.open("rb") as file:
            first = file.read(SHEBANG_BYTES).partition(b"\n")[0]
    except OSError:
        return "an interpreter"
    if not first.startswith(b"#!"):
        return "a loader"
    name = first[2:].decode(errors="replace").strip()
    # A file from Windows: the interpreter's name then ends in a carriage return that nobody sees.
    return f"`{name}`" + (" (the line ends as on Windows)" if first.endswith(b"\r") else "")


def _error(message: str, hint: str) -> ScriptError:
    return ScriptError("script.start", message, hint=hint)
