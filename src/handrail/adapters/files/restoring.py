"""Puts a tree back to a backup, at once.

Rules:
- The backup is made into a whole tree beside the present one, and proven, before anything moves.
- The present tree is kept beside as `NAME.before-restore-ID`; what has that name is not written
  over. Processes that have files of it open still have those: they are named.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from handrail.adapters.files import backups, manifest, measuring
from handrail.adapters.files.building import Builder
from handrail.adapters.files.durable import flush, remove
from handrail.adapters.files.identity import UNADOPTED, give, identify
from handrail.adapters.files.openers import openers
from handrail.adapters.files.swapping import Stage, staged
from handrail.adapters.files.tree import Entry, answering
from handrail.plans.facts import Backup
from handrail.ports import Progress

_MANIFEST = "restored"


def restore(resource: str, root: Path, backup: Backup, progress: Progress) -> tuple[str, ...]:
    """Put the tree at `root` back to `backup`; return what could not be put back."""
    found = backups.entries(resource, backup)
    with answering(resource, root), staged(resource, root) as stage:
        builder = Builder(resource, stage.tree)
        made = stage.folder / _MANIFEST
        manifest.write(made, _told(builder.build(found), progress))
        if not builder.lost:
            # What could not be kept is said below; everything else has to be right.
            backups.prove(resource, backup, measuring.fingerprint(manifest.read(made)))
        give(stage.tree, _id(root, backup))
        stage.swap()
        behind = openers(stage.tree)
        _keep(stage, root.with_name(f"{root.name}.before-restore-{backup.id}"))
    left = (f"{who} has files of the former tree open: restart it" for who in behind)
    return (*builder.lost, *left)


def _told(entries: Iterable[Entry], progress: Progress) -> Iterator[Entry]:
    done_bytes = 0
    for entry in entries:
        done_bytes += entry.size_bytes
        progress(done_bytes, None)
        yield entry


def _id(root: Path, backup: Backup) -> str:
    """Return the id that the tree has afterwards: the backup's, else its own."""
    if backup.identity.id != f"files:{UNADOPTED}":
        return backup.identity.id
    try:
        return identify(root).id
    except OSError:
        return ""


def _keep(stage: Stage, name: Path) -> None:
    """Give the tree as it was its name, where nothing has that; and let the stage go."""
    if os.path.lexists(stage.tree) and not os.path.lexists(name):
        stage.tree.rename(name)
        flush(name.parent)
    remove(stage.folder)
