"""Locks in files: one process holds a resource, and its death releases it.

Rules:
- The kernel's lock (flock) decides; the text in the file only says who, for people. Text that a
  dead process left is never believed.
- A lock's file is never removed: another process may be about to lock it.
- One process that asks twice is refused like any other.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from handrail.errors import RefusedError
from handrail.plans.canonical import encode, sha256

_LONGEST_NAME_CHARACTERS = 200
# `holder` looks by locking for some microseconds; `hold` must not take that for a holder.
_ATTEMPTS = 5
_ATTEMPT_S = 0.01


class FileLocks:
    """`ports.Locks` in a directory of this machine, usually `.handrail/locks`."""

    def __init__(self, directory: Path) -> None:
        """Make nothing yet; `hold` makes `directory`, for the present user alone."""
        self._directory = directory

    @contextmanager
    def hold(self, resource: str, who: str) -> Iterator[None]:
        """Hold `resource` for the time of a `with`; see `ports.Locks`."""
        number = self._open(resource)
        try:
            if not _lock(number):
                raise _held(resource, number)
            _say(number, {"pid": os.getpid(), "who": who})
            try:
                yield
            finally:
                _say(number, None)
        finally:
            os.close(number)

    def holder(self, resource: str) -> str | None:
        """Return who holds `resource` now; see `ports.Locks`."""
        try:
            number = os.open(self._path(resource), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(resource, error) from error
        try:
            fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(number)[0]
        else:
            return None
        finally:
            os.close(number)

    def _path(self, resource: str) -> Path:
        name = quote(resource, safe="")
        if len(name) > _LONGEST_NAME_CHARACTERS:
            name = sha256(resource)
        return self._directory / f"{name}.lock"

    def _open(self, resource: str) -> int:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._path(resource), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(resource, error) from error


def _lock(number: int) -> bool:
    for attempt in range(_ATTEMPTS):
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if attempt + 1 < _ATTEMPTS:
                time.sleep(_ATTEMPT_S)
        else:
            return True
    return False


def _say(number: int, text: dict[str, object] | None) -> None:
    """Replace the file's text. A full disk leaves it empty: the lock holds all the same."""
    os.ftruncate(number, 0)
    if text is not None:
        try:
            os.pwrite(number, encode(text).encode(), 0)
        except OSError:
            os.ftruncate(number, 0)


def _read(number: int) -> tuple[str, int | None]:
    """Return who holds a lock that is held, and the process id, as far as the text tells."""
    try:
        text = json.loads(os.pread(number, 65536, 0))
        return str(text["who"]), int(text["pid"])
    except (ValueError, KeyError, TypeError):
        # The holder has not written it yet, or is letting go.
        return "somebody", None


def _held(resource: str, number: int) -> RefusedError:
    who, process = _read(number)
    named = who if process is None else f"{who} (process {process})"
    return RefusedError(
        "run.locked",
        f"`{resource}` is held by {named}",
        hint="wait until that has ended; `handrail runs` shows what it is doing",
    )


def _unusable(resource: str, error: OSError) -> RefusedError:
    return RefusedError(
        "run.locked",
        f"`{resource}` cannot be locked: {error.strerror or error}",
        hint="make Handrail's state directory writable for you; nothing is done without the lock",
    )
