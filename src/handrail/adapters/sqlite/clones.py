"""Makes clones of a database from a backup, and ends them.

Rules:
- The file `.handrail-clone` is written before anything else, and removed after everything else:
  so what it stands beside is ours to remove, at whatever moment the making or ending was killed.
- A directory without it is removed only when it is empty.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from handrail.adapters.sqlite.connecting import DatabaseFile, answering
from handrail.adapters.sqlite.copying import flush, require_space
from handrail.adapters.sqlite.identity import CLONE_FILE, keep_apart
from handrail.adapters.sqlite.restoring import require_backup
from handrail.errors import StoreError
from handrail.plans.facts import Backup
from handrail.ports import Progress

_CHUNK_BYTES = 32 * 1024 * 1024


def clone(
    file: DatabaseFile, backup: Backup, at: Path, marker: str, progress: Progress
) -> DatabaseFile:
    """Make a database with the content of `backup` in the empty directory `at`."""
    source = require_backup(file, backup)
    made = replace(file, path=Path(os.path.realpath(at)) / file.path.name)
    with answering(made):
        _require_apart(file, made)
        at.chmod(0o700)
        _write_marker(at / CLONE_FILE, marker)
        require_space(made, at, backup.size_bytes)
        _copy_bytes(source.path, made.path, progress)
        keep_apart(made, "")
    return made


def discard(file: DatabaseFile, at: Path) -> None:
    """Remove the clone in `at`, whole or half made; nothing where nothing is."""
    if not os.path.lexists(at):
        return
    with answering(replace(file, path=at)):
        if at.is_symlink() or not at.is_dir():
            raise _not_a_clone(file, at)
        if not os.path.lexists(at / CLONE_FILE):
            if any(at.iterdir()):
                raise _not_a_clone(file, at)
            at.rmdir()
            return
        _empty(at)
        (at / CLONE_FILE).unlink()
        at.rmdir()


def _require_apart(file: DatabaseFile, made: DatabaseFile) -> None:
    if any(made.path.parent.iterdir()) or os.path.realpath(file.path) == str(made.path):
        raise StoreError(
            "clone.not-distinct",
            f"{file.resource}: `{made.path.parent}` is not an empty directory of its own",
            hint="give a new, empty directory for the clone",
        )


def _write_marker(path: Path, marker: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(f"{marker}\n")
    flush(path)
    flush(path.parent)


def _copy_bytes(source: Path, target: Path, progress: Progress) -> None:
    """Copy a file that nobody writes, inside the kernel."""
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
        total, done = os.fstat(reader.fileno()).st_size, 0
        while sent := os.sendfile(writer.fileno(), reader.fileno(), done, _CHUNK_BYTES):
            done += sent
            progress(done, total)


def _empty(at: Path) -> None:
    """Remove everything in `at` but the clone's file; never follow a link out of it."""
    _take_rights(at)
    for path in at.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != CLONE_FILE:
            path.unlink()


def _take_rights(at: Path) -> None:
    """Make every directory removable, also those that a script took the rights away from."""
    at.chmod(0o700)
    for path in at.iterdir():
        if path.is_dir() and not path.is_symlink():
            _take_rights(path)


def _not_a_clone(file: DatabaseFile, at: Path) -> StoreError:
    return StoreError(
        "store.not-a-store",
        f"{file.resource}: `{at}` is not a clone that Handrail made, and is not removed",
        hint="look into it, and remove it by hand if nobody needs it",
    )
