"""What a step takes along to a node: one archive of its files, its settings, and how it starts.

Rules:
- The files are those of the plan, byte for byte as it was judged: another digest is not packed.
- A name is only ever data: it is quoted where a shell reads it, and refused where it could not be.
- The environment goes in a file that is removed as the script begins; parameters beside it.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from handrail.adapters.ssh.connecting import Node, quoted
from handrail.errors import ScriptError
from handrail.ports import Command

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNFIT = re.compile(r"[\x00-\x1f\x7f\\]")
_EXECUTABLE = "+x"
_ROUNDED_KIB = 1024


@dataclass(frozen=True)
class Place:
    """A step's folder on a node.

    Attributes:
        mark: of the run, as in `HANDRAIL_RUN`.
        folder: absolute path there.
        grace_s: between asking the step to end and killing it.
    """

    mark: str
    folder: str
    grace_s: int


@cache
def shell() -> bytes:
    """Return what the node's shell is told, without comments: it is read byte by byte."""
    lines = Path(__file__).with_name("node.sh").read_bytes().splitlines()
    return b"\n".join(line.lstrip() for line in lines if not line.lstrip().startswith(b"#"))


def verb(
    node: Node, mark: str, words: str, settings: Mapping[str, object], place: Place | None = None
) -> bytes:
    """Return what the node's shell is to read: settings, all that it knows, and what to do."""
    values: dict[str, object] = {"work": node.work, "mark": mark, **settings}
    if place is not None:
        values |= {"dir": place.folder, "grace": place.grace_s}
    return _assigned(values) + shell() + f"\n{words}\n".encode()


def pack(command: Command, place: Place, environment: Mapping[str, str]) -> bytes:
    """Return the archive of a step.

    Args:
        command: what runs; its program is one of its `files`.
        place: where.
        environment: the whole of it, but for what the node itself says.

    Raises:
        ScriptError: a file is not as it was planned with, or cannot be taken along.
    """
    program = program_of(command)
    names = [name for name, _ in command.files]
    if program not in names:
        raise _unfit(f"`{program}` is not among the files of the plan")
    made = io.BytesIO()
    with tarfile.open(
        fileobj=made,
        mode="w",
        format=tarfile.GNU_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        digests = b""
        for name, digest in command.files:
            content = _read(command.cwd, name, digest.removesuffix(_EXECUTABLE))
            is_executable = digest.endswith(_EXECUTABLE)
            _add(archive, f"files/{name}", content, 0o700 if is_executable else 0o600)
            digests += digest.removesuffix(_EXECUTABLE).encode() + b"  " + os.fsencode(name) + b"\n"
        _add(archive, "digests", digests)
        _add(archive, "start", _start(command, program, environment))
        _add(archive, "settings", _settings(command, place))
        _add(archive, "node", shell() + b"\n", 0o700)
    return made.getvalue()


def program_of(command: Command) -> str:
    """Return the program's name among its files.

    Raises:
        ScriptError: it is none of them.
    """
    program = Path(command.argv[0])
    if program.is_absolute() and not program.is_relative_to(command.cwd):
        raise _unfit(f"`{program}` lies outside of the repository")
    return (program.relative_to(command.cwd) if program.is_absolute() else program).as_posix()


def _read(root: Path, name: str, digest: str) -> bytes:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or _UNFIT.search(name):
        raise _unfit(f"the file `{name}`")
    try:
        content = (root / name).read_bytes()
    except OSError as error:
        raise ScriptError("script.start", f"`{name}` cannot be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise ScriptError("script.start", f"`{name}` has changed since it was planned")
    return content


def _unfit(what: str) -> ScriptError:
    return ScriptError("node.unfit", f"{what} cannot be taken to a node")


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o600) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _start(command: Command, program: str, environment: Mapping[str, str]) -> bytes:
    """Return the shell's way from a clean environment to the script's first instruction."""
    lines = [b"rm -f start"]
    for name, value in environment.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise _unfit(f"the variable `{name}`")
        lines.append(b"export " + name.encode() + b"=" + _quoted(value))
    words = (f"./{program}", *command.argv[1:])
    if any("\0" in word for word in words):
        raise _unfit("a parameter with a NUL")
    lines += [b"cd files || exit 126", b"exec " + b" ".join(_quoted(word) for word in words)]
    return b"\n".join(lines) + b"\n"


def _settings(command: Command, place: Place) -> bytes:
    return _assigned(
        {
            "mark": place.mark,
            "grace": place.grace_s,
            "timeout": max(1, round(command.timeout_s)),
            "limit": command.output_limit_bytes,
        }
    )


def reserve_kib(command: Command) -> int:
    """Return how much of the node's disk must be free."""
    return command.reserve_bytes // _ROUNDED_KIB


def _assigned(values: Mapping[str, object]) -> bytes:
    return b"".join(name.encode() + b"=" + _quoted(str(v)) + b"\n" for name, v in values.items())


def _quoted(text: str) -> bytes:
    return os.fsencode(quoted(text))
