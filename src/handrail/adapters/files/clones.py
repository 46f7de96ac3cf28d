"""Makes clones of a tree from a backup, and ends them.

Rules:
- The file `.handrail-clone` is written before anything else, and removed after everything else:
  so what it stands beside is ours to remove, at whatever moment the making or ending was killed.
- A directory without it is removed only when it is empty.
- A clone whose files cannot have their owners is refused: a script would find other rights there.
"""

from __future__ import annotations

import os
from pathlib import Path

from handrail.adapters.files import backups
from handrail.adapters.files.building import Builder
from handrail.adapters.files.durable import flush, remove
from handrail.adapters.files.identity import CLONE_FILE, give
from handrail.adapters.files.tree import answering
from handrail.errors import StoreError
from handrail.plans.facts import Backup
from handrail.ports import Progress


def clone(
    resource: str, root: Path, backup: Backup, at: Path, marker: str, progress: Progress
) -> Path:
    """Make a tree with the content of `backup` in the empty directory `at`; return where it is."""
    found = backups.entries(resource, backup)
    real = Path(os.path.realpath(at))
    backups.require_apart(resource, root, real)
    made = real / root.name
    with answering(resource, made):
        if any(real.iterdir()):
            raise StoreError(
                "clone.not-distinct",
                f"{resource}: `{real}` is not an empty directory of its own",
                hint="give a new, empty directory for the clone",
            )
        real.chmod(0o700)
        _write_marker(real / CLONE_FILE, marker)
        builder = Builder(resource, made)
        done_bytes = 0
        for entry in builder.build(found):
            done_bytes += entry.size_bytes
            progress(done_bytes, None)
        refuse_lost(resource, builder)
        give(made, backup.identity.id)
    return made


def refuse_lost(resource: str, builder: Builder) -> None:
    """Check that a copy has everything that the tree has.

    Raises:
        StoreError: something could not be kept.
    """
    if builder.lost:
        raise StoreError(
            "store.denied",
            f"{resource}: a copy cannot have the {builder.lost[0]}"
            + (f", and {len(builder.lost) - 1:,} others" if builder.lost[1:] else ""),
            hint="run as the user that the tree belongs to, or as root",
        )


def discard(resource: str, at: Path) -> None:
    """Remove the clone in `at`, whole or half made; nothing where nothing is."""
    if not os.path.lexists(at):
        return
    with answering(resource, at):
        if at.is_symlink() or not at.is_dir():
            raise _not_a_clone(resource, at)
        if not os.path.lexists(at / CLONE_FILE):
            if any(at.iterdir()):
                raise _not_a_clone(resource, at)
            at.rmdir()
            return
        at.chmod(0o700)
        for path in at.iterdir():
            if path.name != CLONE_FILE:
                remove(path)
        (at / CLONE_FILE).unlink()
        at.rmdir()


def _write_marker(path: Path, marker: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(f"{marker}\n")
    flush(path)
    flush(path.parent)


def _not_a_clone(resource: str, at: Path) -> StoreError:
    return StoreError(
        "store.not-a-store",
        f"{resource}: `{at}` is not a clone that Handrail made, and is not removed",
        hint="look into it, and remove it by hand if nobody needs it",
    )
