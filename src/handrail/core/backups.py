"""Backups: where they lie, how they are encrypted, and which are kept.

Rules:
- A backup is complete and durable before its record is written.
- A sealed backup is opened into a private directory for as long as it is read, and no longer.
- The newest proven backup, and those that a run can still be undone from, are never removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from handrail.core import records
from handrail.core.world import Declared, Talk, World
from handrail.errors import StoreError
from handrail.estate.model import Resource
from handrail.plans.facts import Backup
from handrail.ports import Store

SEALED = "+age"
_KEPT_BY_DEFAULT = 14


def folder(world: World, declared: Declared, resource: Resource) -> Path:
    """Return the directory that keeps the backups of `resource`."""
    rule = resource.store.backups if resource.store else None
    if rule is None:
        return world.state / "backups" / resource.name
    path = Path(str(declared.estate.resources[rule.to].settings["path"])).expanduser()
    return (world.root / path / resource.name).absolute()


def make(world: World, declared: Declared, resource: Resource, store: Store, talk: Talk) -> Backup:
    """Back up `store`, encrypted where recipients are declared, and return the backup.

    Raises:
        StoreError: it could not be made; nothing is left of it.
    """
    backup_id = world.ids.new()[:12]
    into = folder(world, declared, resource) / backup_id
    into.mkdir(parents=True, mode=0o700)
    try:
        backup = store.backup(backup_id, into, talk.progress)
        recipients = _recipients(declared, resource)
        if recipients:
            backup = _seal(world, backup, into, recipients)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise
    return backup


@contextmanager
def opened(world: World, backup: Backup) -> Iterator[Backup]:
    """Give the backup readable: as it is, or decrypted into a private directory for the while.

    Raises:
        StoreError: it is not there any more.
        KeysError: no key that opens it is configured.
    """
    if not Path(backup.path).exists():
        raise StoreError("backup.damaged", f"backup {backup.id} is not at {backup.path} any more")
    if not backup.form.endswith(SEALED):
        yield backup
        return
    plain = world.state / "opened" / world.ids.new()[:12]
    plain.mkdir(parents=True, mode=0o700)
    try:
        sealed = Path(backup.path)
        world.sealer.open(sealed, plain)
        yield replace(
            backup, path=str(plain / backup.inner), inner="", form=backup.form.removesuffix(SEALED)
        )
    finally:
        shutil.rmtree(plain, ignore_errors=True)


def prune(world: World, declared: Declared, resource: Resource) -> tuple[str, ...]:
    """Remove backups beyond the number that is kept, and return their ids."""
    rule = resource.store.backups if resource.store else None
    keep = rule.keep if rule else _KEPT_BY_DEFAULT
    place = folder(world, declared, resource)
    if not place.is_dir():
        return ()
    found = sorted(place.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    proven = records.proof(world.journal, resource.ref)
    needed = {proven.backup if proven else ""}
    youngest_s = world.clock.now().timestamp() - declared.policy.undo_age_s
    gone = []
    for path in found[keep:]:
        if path.stem in needed or path.stat().st_mtime > youngest_s:
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        gone.append(path.stem)
    return tuple(gone)


def _recipients(declared: Declared, resource: Resource) -> tuple[str, ...]:
    rule = resource.store.backups if resource.store else None
    if rule is None:
        return ()
    found = declared.estate.resources[rule.to].settings.get("recipients", ())
    return tuple(str(recipient) for recipient in found)  # type: ignore[attr-defined]  # a list by its shape


def _seal(world: World, backup: Backup, into: Path, recipients: tuple[str, ...]) -> Backup:
    inner = Path(backup.path).relative_to(into)
    sealed = into.parent / f"{backup.id}.age"
    world.sealer.seal(into, sealed, recipients)
    return replace(
        backup,
        path=str(sealed),
        form=backup.form + SEALED,
        inner=str(inner),
        size_bytes=sealed.stat().st_size,
    )
