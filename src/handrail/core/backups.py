"""Backups: where they lie, how they are encrypted, and which are kept.

Rules:
- A backup is complete and durable before it has its name, and before its record is written. What a
  crash leaves under another name, perhaps not yet encrypted, goes with the next backup.
- A sealed backup is opened into a private directory for as long as it is read, and no longer. What
  else is kept of a store's content once a run has ended is sealed like its backups.
- The newest proven backup, and those that a run can still be undone from, are never removed.
"""

from __future__ import annotations

import os
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
_PARTIAL = ".partial"
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
    place = folder(world, declared, resource)
    into = place / f"{backup_id}{_PARTIAL}"
    with world.locks.hold(f"backup/{backup_id}", f"backup of {resource.ref}"):
        _remove_partial(world, place)
        into.mkdir(parents=True, mode=0o700)
        try:
            backup = store.backup(backup_id, into, talk.progress)
            recipients = _recipients(declared, resource)
            if recipients:
                return _seal(world, backup, into, recipients)
            return _publish(backup, into)
        except BaseException:
            shutil.rmtree(into, ignore_errors=True)
            raise


def _remove_partial(world: World, place: Path) -> None:
    for left in place.glob(f"*{_PARTIAL}"):
        backup_id = left.name.lstrip(".").partition(".")[0]
        if world.locks.holder(f"backup/{backup_id}") is None:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _publish(backup: Backup, into: Path) -> Backup:
    """Give a whole backup its name, durably."""
    inner = Path(backup.path).resolve().relative_to(into.resolve())
    named = into.with_suffix("")
    into.rename(named)
    handle = os.open(named.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return replace(backup, path=str(named / inner))


@contextmanager
def opened(world: World, backup: Backup, plain: Path) -> Iterator[Backup]:
    """Give the backup readable: as it is, or decrypted into the private directory `plain`.

    Raises:
        StoreError: it is not there any more.
        KeysError: no key that opens it is configured.
    """
    if not Path(backup.path).exists():
        raise StoreError("backup.damaged", f"backup {backup.id} is not at {backup.path} any more")
    if not backup.form.endswith(SEALED):
        yield backup
        return
    shutil.rmtree(plain, ignore_errors=True)
    plain.mkdir(parents=True, mode=0o700)
    try:
        sealed = Path(backup.path)
        world.sealer.open(sealed, plain)
        inside = plain / backup.inner
        yield replace(
            backup,
            path=str(inside),
            inner="",
            form=backup.form.removesuffix(SEALED),
            size_bytes=_size(inside),
        )
    finally:
        shutil.rmtree(plain, ignore_errors=True)


def put_away(world: World, declared: Declared, resource: Resource, observed: Path) -> None:
    """Seal what was observed of a store, where its backups are sealed: it may be a whole copy."""
    recipients = _recipients(declared, resource)
    if recipients and observed.is_dir():
        world.sealer.seal(observed, observed.with_suffix(".age"), recipients)


@contextmanager
def taken_out(world: World, observed: Path) -> Iterator[None]:
    """Give what was put away, in its place, for the while.

    Raises:
        KeysError: no key that opens it is configured.
    """
    sealed = observed.with_suffix(".age")
    if not sealed.exists():
        yield
        return
    shutil.rmtree(observed, ignore_errors=True)
    observed.mkdir(mode=0o700)
    try:
        world.sealer.open(sealed, observed)
        yield
    finally:
        shutil.rmtree(observed, ignore_errors=True)


def _size(path: Path) -> int:
    """Return the bytes of a backup's files: its recorded size is that of the sealed one."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.lstat().st_size for file in files)


def prune(world: World, declared: Declared, resource: Resource) -> tuple[str, ...]:
    """Remove backups beyond the number that is kept, and return their ids."""
    rule = resource.store.backups if resource.store else None
    keep = rule.keep if rule else _KEPT_BY_DEFAULT
    place = folder(world, declared, resource)
    if not place.is_dir():
        return ()
    whole = [path for path in place.iterdir() if not path.name.endswith(_PARTIAL)]
    found = sorted(whole, key=lambda path: path.stat().st_mtime, reverse=True)
    needed = {
        records.last_proven(world.journal, resource.ref),
        *records.backups_of_unfinished(world.journal, resource.ref),
    }
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
    inner = Path(backup.path).resolve().relative_to(into.resolve())
    sealed = into.parent / f"{backup.id}.age"
    world.sealer.seal(into, sealed, recipients)
    return replace(
        backup,
        path=str(sealed),
        form=backup.form + SEALED,
        inner=str(inner),
        size_bytes=sealed.stat().st_size,
    )
