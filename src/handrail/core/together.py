"""Several stores that one script changes, as one store: told apart in everything that is said.

Rules:
- Its name is those of its parts: `store/pilot-db+cache`; effects have the part's own.
- It is a clone, it can be restored, it is the adopted one: where each part is.
- The first part's connection is the script's; another's variables are added where they are free,
  its other parts under its name: `cache.url`.
- What a part keeps in a folder it keeps in its own: `0-postgres`, `1-redis`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from handrail.core.world import World
from handrail.errors import StoreError
from handrail.estate.model import Estate, Resource
from handrail.plans.canonical import encode_plain, sha256
from handrail.plans.effect import Effect, worst_first
from handrail.plans.facts import Backup, Fingerprint, Identity, Measure
from handrail.ports import Connection, Progress, Store

KIND = "together"
AND = " + "
_PARTS = "parts.json"


class Together:
    """`ports.Store` over several; see there.

    Args:
        resource: what they are called together.
        parts: the stores, the one that the script is for first.
    """

    kind = KIND

    def __init__(self, resource: str, parts: Sequence[Store]) -> None:
        self.resource = resource
        self.parts = tuple(parts)

    def identify(self) -> Identity:
        """Return who all of them say they are; a marker only where each has the same."""
        found = [part.identify() for part in self.parts]
        markers = [identity.marker for identity in found]
        marker = markers[0] if len(set(markers)) == 1 else AND.join(markers)
        return replace(joined_identity(found), marker=marker)

    def adopt(self, new_id: str) -> Identity:
        """Give each an identity that has none."""
        return joined_identity([part.adopt(new_id) for part in self.parts])

    def measure(self) -> Measure:
        """Return the tables of all, each named after its store."""
        found = [(part, part.measure()) for part in self.parts]
        tables = [
            replace(table, name=f"{part.resource} {table.name}")
            for part, measure in found
            for table in measure.tables
        ]
        return Measure(tuple(tables), sum(measure.size_bytes for _, measure in found))

    def fingerprint(self) -> Fingerprint:
        """Return the checksums of all, each named after its store."""
        found = [(part, part.fingerprint()) for part in self.parts]
        tables = [
            (f"{part.resource} {name}", checksum)
            for part, fingerprint in found
            for name, checksum in fingerprint.tables
        ]
        schema = sha256("\n".join(fingerprint.schema for _, fingerprint in found))
        return Fingerprint(tuple(tables), schema)

    def others(self) -> tuple[str, ...]:
        """Return who else is connected to any of them."""
        return tuple(who for part in self.parts for who in part.others())

    def backup(self, backup_id: str, into: Path, progress: Progress) -> Backup:
        """Back each up, one after the other, into a folder of its own."""
        made = [
            part.backup(backup_id, folder, progress)
            for part, folder in zip(self.parts, self._folders(into), strict=True)
        ]
        # Where they lie may change as a whole: when the backup gets its name, or is unsealed.
        kept = [
            replace(one, path=str(Path(one.path).resolve().relative_to(into.resolve())))
            for one in made
        ]
        (into / _PARTS).write_text(encode_plain(kept), encoding="utf-8")
        prints = [one.fingerprint for one in made]
        return Backup(
            backup_id,
            str(into.resolve()),
            KIND,
            sum(one.size_bytes for one in made),
            made[0].made_at,
            joined_identity([one.identity for one in made]),
            None if None in prints else self._joined(prints),
        )

    def _joined(self, prints: Sequence[Fingerprint | None]) -> Fingerprint:
        pairs = list(zip(self.parts, prints, strict=True))
        tables = [
            (f"{part.resource} {name}", checksum)
            for part, found in pairs
            if found
            for name, checksum in found.tables
        ]
        schemas = [found.schema for _, found in pairs if found]
        return Fingerprint(tuple(tables), sha256("\n".join(schemas)))

    def can_restore(self) -> str:
        """Return why any of them could not be restored."""
        found = [(part.resource, part.can_restore()) for part in self.parts]
        return "; ".join(f"{resource}: {why}" for resource, why in found if why)

    def restore(self, backup: Backup, progress: Progress) -> tuple[str, ...]:
        """Put the content of each back, one after the other."""
        left = [
            (part.resource, what)
            for part, one in zip(self.parts, _backups(backup, len(self.parts)), strict=True)
            for what in part.restore(one, progress)
        ]
        return tuple(f"{resource} {what}" for resource, what in left)

    def clone(self, backup: Backup, at: Path, marker: str, progress: Progress) -> Store:
        """Make a clone of each in a folder of its own."""
        backups = _backups(backup, len(self.parts))
        clones = [
            part.clone(one, folder, marker, progress)
            for part, one, folder in zip(self.parts, backups, self._folders(at), strict=True)
        ]
        return Together(self.resource, clones)

    def discard(self, at: Path) -> None:
        """End the clone of each, and remove their folders."""
        if not at.exists():
            return
        for part, name in zip(self.parts, self._names(), strict=True):
            part.discard(at / name)
        at.rmdir()

    def observe(self, into: Path) -> None:
        """Keep what each needs to know."""
        for part, folder in zip(self.parts, self._folders(into), strict=True):
            part.observe(folder)

    def effects(self, before: Path) -> tuple[Effect, ...]:
        """Return what was done to any of them."""
        return worst_first(
            effect
            for part, name in zip(self.parts, self._names(), strict=True)
            for effect in part.effects(before / name)
        )

    def connection(self) -> Connection:
        """Return one connection to all of them."""
        return joined_connection([(part.resource, part.connection()) for part in self.parts])

    def ask(self, query: str, timeout_s: float) -> str:
        """Ask the first."""
        return self.parts[0].ask(query, timeout_s)

    def _names(self) -> list[str]:
        return [f"{number}-{part.kind}" for number, part in enumerate(self.parts)]

    def _folders(self, at: Path) -> list[Path]:
        """Make a private folder for each part."""
        folders = [at / name for name in self._names()]
        for folder in folders:
            folder.mkdir(mode=0o700)
        return folders


def _backups(backup: Backup, count: int) -> list[Backup]:
    """Return the backups of the parts, where they lie now."""
    from handrail.core.records import decode  # noqa: PLC0415  a plan that restores nothing does not pay

    whole = Path(backup.path)
    try:
        listed = json.loads((whole / _PARTS).read_text(encoding="utf-8"))
        found = [decode(one, Backup) for one in listed]
    except (OSError, ValueError) as error:
        raise StoreError("backup.damaged", f"{whole / _PARTS} cannot be read") from error
    if len(found) != count:
        raise StoreError("backup.damaged", f"{whole} is a backup of {len(found)} stores")
    return [replace(one, path=str(whole / one.path)) for one in found]


def joined_identity(found: Sequence[Identity]) -> Identity:
    """Return who several stores are, as one."""
    return Identity(
        AND.join(identity.id for identity in found),
        AND.join(identity.endpoint for identity in found),
        ", ".join(identity.version for identity in found),
    )


def joined_connection(found: Sequence[tuple[str, Connection]]) -> Connection:
    """Return one connection to several stores; the first one's parts and variables win."""
    environment: dict[str, str] = {}
    parts: dict[str, str] = {}
    for resource, connection in reversed(found):
        environment.update(connection.environment)
        name = resource.partition("/")[2]
        parts.update({f"{name}.{part}": value for part, value in connection.parts.items()})
    connections = [connection for _, connection in found]
    return Connection(
        environment,
        parts | dict(connections[0].parts),
        tuple(dict.fromkeys(socket for one in connections for socket in one.sockets)),
        tuple(dict.fromkeys(path for one in connections for path in one.paths)),
        tuple(dict.fromkeys(secret for one in connections for secret in one.secrets)),
    )


def parts_of(store: Store) -> tuple[Store, ...]:
    """Return the stores that `store` is made of; itself, where it is one."""
    return store.parts if isinstance(store, Together) else (store,)


def folder_of(store: Store, number: int, folder: Path) -> Path:
    """Return which folder of `folder` is a part's own."""
    return folder / store._names()[number] if isinstance(store, Together) else folder  # noqa: SLF001  its own module


# --- what is declared -------------------------------------------------------------------------


def joined(resource: Resource, also: Sequence[Resource], estate: Estate) -> Resource:
    """Return several stores as one resource: the strictest of all that is declared of them."""
    every = (resource, *also)
    settings = [one.store for one in every if one.store]
    declared = [one.identity.partition("@") for one in settings]
    identity = ""
    if all(one.identity for one in settings):
        ids, endpoints = zip(*((one[0], one[2]) for one in declared), strict=True)
        identity = f"{AND.join(ids)}@{AND.join(endpoints)}"
    durability = "durable" if any(one.durability == "durable" for one in settings) else "lossy"
    return replace(
        resource,
        name="+".join(one.name for one in every),
        environment=_strictest(every, estate),
        checks=tuple(dict.fromkeys(check for one in every for check in one.checks)),
        contraindications=tuple(c for one in every for c in one.contraindications),
        store=replace(
            settings[0],
            kind=KIND,
            durability=durability,
            holds=tuple(dict.fromkeys(what for one in settings for what in one.holds)),
            identity=identity,
        ),
        parts=every,
    )


def _strictest(every: Sequence[Resource], estate: Estate) -> str:
    """Return the environment of production, else the first that is declared."""
    named = [one.environment for one in every if one.environment in estate.environments]
    real = [name for name in named if estate.environments[name].production]
    return next(iter((*real, *named)), every[0].environment)


def opened(world: World, resource: Resource) -> Store:
    """Return the store that a resource declares, or the several that it is."""
    if not resource.parts:
        return world.open_store(resource)
    return Together(resource.ref, [world.open_store(part) for part in resource.parts])


def refs(resource: Resource) -> tuple[str, ...]:
    """Return the resource's name, and those of its parts."""
    return (resource.ref, *(part.ref for part in resource.parts))


def of_kind(world: World, at: Path, of_one: Callable[[World, str], Store]) -> Store:
    """Return a store of the kinds that a clone in `at` has: `discard` needs no target."""
    kinds = [path.name.partition("-")[2] for path in sorted(at.glob("[0-9]*-*"))]
    return Together("store/clone", [of_one(world, kind) for kind in kinds])
