"""The only place that chooses adapters, from settings.

Rules:
- Adapters are imported when they are chosen: a command pays only for what it uses.
- A setting is an environment variable of `SETTINGS`; the reference page is made from that table.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.errors import StoreError
from handrail.guards import BUILT_IN

if TYPE_CHECKING:
    from handrail.core.world import Declared, Kit, World
    from handrail.estate.model import Address, Resource
    from handrail.ports import Store

SETTINGS = {
    "HANDRAIL_ROOT": "The team's repository; else the nearest folder upwards that has `estate/`, "
    "`operations/` or `.handrail/`; else the present one.",
    "HANDRAIL_STATE": "Handrail's own directory; else `.handrail/` in the repository.",
    "HANDRAIL_PERSON": "Who works here, as in `allowed_signers`; else `user.email` of git.",
    "HANDRAIL_KEY": "The SSH key that `handrail approve` signs with; else git's "
    "`user.signingkey`, else `~/.ssh/id_ed25519`.",
    "HANDRAIL_AGE_IDENTITY": "The age or SSH private key that opens encrypted backups.",
    "HANDRAIL_POSTGRES_BIN": "The directory of PostgreSQL's programs; else the system's, else "
    "those of the extra `handrail[postgres]`.",
    "NO_COLOR": "Any value: no colour, whatever the terminal can do.",
}
KITS = "handrail.kits"


def find_root(start: Path, environment: Mapping[str, str]) -> Path:
    """Return the team's repository, seen from `start`."""
    if "HANDRAIL_ROOT" in environment:
        return Path(environment["HANDRAIL_ROOT"]).resolve()
    for folder in (start, *start.parents):
        if any((folder / name).is_dir() for name in ("estate", "operations", ".handrail")):
            return folder
    return start


def find_state(root: Path, environment: Mapping[str, str]) -> Path:
    """Return Handrail's own directory."""
    return Path(environment.get("HANDRAIL_STATE") or root / ".handrail").resolve()


def kits() -> tuple[Kit, ...]:
    """Return what installed packages register by the entry point `handrail.kits`."""
    from importlib.metadata import entry_points

    return tuple(point.load() for point in entry_points(group=KITS))


def declared(root: Path, installed: tuple[Kit, ...]) -> Declared:
    """Return everything that is declared below `root`.

    Raises:
        DeclarationErrors: with every problem.
    """
    from handrail.core import declaring

    guards = (*BUILT_IN, *(guard for kit in installed for guard in kit.guards))
    return declaring.load(root, installed, guards)


def world(
    root: Path, state: Path, environment: Mapping[str, str], installed: tuple[Kit, ...] = ()
) -> World:
    """Return the ports of this machine. Opens nothing and writes nothing."""
    from handrail.adapters.age_sealer import AgeSealer
    from handrail.adapters.clone_guardian import stand_by
    from handrail.adapters.file_locks import FileLocks
    from handrail.adapters.git_repository import GitRepository
    from handrail.adapters.probes import Probes
    from handrail.adapters.processes import LocalProcesses
    from handrail.adapters.sqlite_journal import SqliteJournal
    from handrail.adapters.ssh_keys import SshKeys
    from handrail.adapters.system import RandomIds, SystemClock
    from handrail.core.world import World

    def watch_clone(clone: Path, deadline_s: int) -> AbstractContextManager[None]:
        return stand_by(root, state, clone, deadline_s)

    clock = SystemClock()
    secrets: set[str] = set()

    def open_known(resource: Resource) -> Store:
        store = open_store(resource, root, environment)
        secrets.update(store.connection().secrets)
        return store

    repository = GitRepository(root)
    identity = environment.get("HANDRAIL_AGE_IDENTITY")
    return World(
        root=root,
        state=state,
        environment=environment,
        person=environment.get("HANDRAIL_PERSON") or repository.person(),
        guards=(*BUILT_IN, *(guard for kit in installed for guard in kit.guards)),
        clock=clock,
        ids=RandomIds(),
        journal=SqliteJournal(state / "journal.db", clock, secrets=secrets),
        locks=FileLocks(state / "locks"),
        repository=repository,
        keys=SshKeys(),
        processes=LocalProcesses(),
        checks=Probes(),
        sealer=AgeSealer(Path(identity).expanduser() if identity else None),
        open_store=open_known,
        watch_clone=watch_clone,
    )


def open_store(resource: Resource, root: Path, environment: Mapping[str, str]) -> Store:
    """Return the store that `resource` declares. Connects to nothing.

    Raises:
        StoreError: its address cannot be read, or the resource is no store.
    """
    if resource.store is None:
        raise StoreError("store.not-a-store", f"`{resource.ref}` is not a store", at=resource.place)
    address = read_address(resource.store.url, resource, root, environment)
    if resource.store.kind == "sqlite":
        from handrail.adapters.sqlite import SqliteStore

        path = Path(
            address.removeprefix("sqlite:///") if address.startswith("sqlite:") else address
        )
        return SqliteStore(resource.ref, root / path.expanduser())
    from handrail.adapters.postgres import PostgresStore

    return PostgresStore(resource.ref, address)


def read_address(
    address: Address, resource: Resource, root: Path, environment: Mapping[str, str]
) -> str:
    """Return where a store is, with its secrets: for the adapter alone.

    Raises:
        StoreError: the variable is not set, or the file cannot be read.
    """
    if address.env:
        if address.env not in environment:
            raise StoreError(
                "store.url",
                f"`{resource.ref}` is at ${address.env}, which is not set",
                at=resource.place,
                hint=f"export {address.env}=...",
            )
        return environment[address.env]
    if address.file:
        try:
            return (root / address.file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise StoreError(
                "store.url",
                f"the address of `{resource.ref}` is in {address.file}: {error.strerror}",
                at=resource.place,
            ) from error
    return address.value
