"""The only place that chooses adapters, from settings.

Rules:
- Adapters are imported when they are first used: a command pays only for what it uses.
- A setting is an environment variable of `SETTINGS`; the reference page is made from that table.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from handrail.errors import NotifyError, StoreError
from handrail.guards import BUILT_IN

if TYPE_CHECKING:
    from handrail.adapters.temporal.link import Where
    from handrail.adapters.temporal.worker import TemporalWorker
    from handrail.core.world import Declared, Kit, World
    from handrail.estate.model import Address, Resource
    from handrail.plans.holding import Event, Limits
    from handrail.plans.notice import Destination
    from handrail.ports import (
        Act,
        Checks,
        Clock,
        Engine,
        Journal,
        Keys,
        Locks,
        Notifier,
        Processes,
        Sealer,
        Store,
        StoreGuard,
    )

SETTINGS = {
    "HANDRAIL_ROOT": "The team's repository; else the nearest folder upwards that has `estate/`, "
    "`operations/` or `.handrail/`; else the present one.",
    "HANDRAIL_STATE": "Handrail's own directory; else `.handrail/` in the repository.",
    "HANDRAIL_JOURNAL": "The address of a PostgreSQL database that keeps a team's journal and "
    "locks, `postgres://...`; else they are files in Handrail's own directory. It may hold a "
    "password, and is never shown.",
    "HANDRAIL_TEMPORAL": "A Temporal server that runs over several targets go on by, "
    "`host:port/namespace`, with `handrail worker` on any machine; else this process does it. How "
    "it is reached beyond that is Temporal's own configuration (`TEMPORAL_TLS_...`, "
    "`TEMPORAL_API_KEY`).",
    "HANDRAIL_PERSON": "Who works here, as in `allowed_signers`; else `user.email` of git.",
    "HANDRAIL_KEY": "The SSH key that `handrail approve` signs with; else git's "
    "`user.signingkey`, else `~/.ssh/id_ed25519`.",
    "HANDRAIL_AGE_IDENTITY": "The age or SSH private key that opens encrypted backups.",
    "HANDRAIL_POSTGRES_BIN": "The directory of PostgreSQL's programs; else the system's, else "
    "those of the extra `handrail[postgres]`.",
    "HANDRAIL_REDIS_BIN": "The program `redis-server`; else the one on the search path, or that of "
    "the extra `handrail[redis]`.",
    "HANDRAIL_SSH_CONFIG": "What `ssh` reads instead of your own config when scripts run on "
    "nodes; else that.",
    "HANDRAIL_URL": "The server that commands are sent to (`https://...`, or `unix:/path`); else "
    "they work here.",
    "HANDRAIL_TOKEN": "The token that the server knows you by.",
    "HANDRAIL_TOKEN_FILE": "A file that holds it, which nobody else can read.",
    "HANDRAIL_CA": "A PEM file of the authority that signed the server's certificate; else the "
    "system's.",
    "HANDRAIL_INSECURE": "`1`: send the token over plain http to another machine.",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "Where `handrail serve` sends its traces; else it makes none.",
    "NO_COLOR": "Any value: no colour, whatever the terminal can do.",
}
KITS = "handrail.kits"
_OF_A_NODE = frozenset({"address", "user", "port", "host_keys", "work"})
_PACKAGE_SUFFIXES = frozenset({".dist-info", ".egg-info", ".egg"})
T = TypeVar("T")


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
    """Return the built-in kits, and what packages register by the entry point `handrail.kits`."""
    from handrail import kit_wiring

    built_in = kit_wiring.built_in()
    if not any(_mentions_kits(folder) for folder in sys.path):
        return built_in
    from importlib.metadata import entry_points

    return (*built_in, *(point.load() for point in entry_points(group=KITS)))


def _mentions_kits(folder: str) -> bool:
    """Whether a package in `folder` may register a kit.

    A quick look: the library that reads entry points costs every command 20 ms to import.
    """
    path = Path(folder)
    if path.is_file():  # an archive of packages
        return True
    try:
        packages = [entry for entry in path.iterdir() if entry.suffix in _PACKAGE_SUFFIXES]
    except OSError:
        return False
    return any(KITS.encode() in _entry_points(package) for package in packages)


def _entry_points(package: Path) -> bytes:
    for name in ("entry_points.txt", "EGG-INFO/entry_points.txt"):
        try:
            return (package / name).read_bytes()
        except OSError:
            continue
    return b""


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
    from handrail.adapters.git_repository import GitRepository
    from handrail.adapters.system import RandomIds, SystemClock
    from handrail.core.world import World

    clock = SystemClock()
    secrets: set[str] = set()

    def open_known(resource: Resource) -> Store:
        store = open_store(resource, root, environment)
        # One that does not answer says so when it is asked; a clone's kind is never asked.
        with suppress(StoreError):
            secrets.update(store.connection().secrets)
        return store

    def watch_clone(clone: Path, deadline_s: int) -> AbstractContextManager[None]:
        from handrail.adapters.clone_guardian import stand_by

        return stand_by(root, state, clone, deadline_s)

    def open_node(node: Resource) -> Processes:
        from handrail.adapters.ssh import Node, SshProcesses

        config = environment.get("HANDRAIL_SSH_CONFIG")
        known: dict[str, Any] = {k: v for k, v in node.settings.items() if k in _OF_A_NODE}
        return SshProcesses(Node(node.ref, **known), Path(config) if config else None)

    def open_told(destination: Destination) -> Notifier:
        return open_notifier(destination, root, environment, clock, secrets)

    repository = GitRepository(root)
    journal, locks = _journal_and_locks(state, environment, clock, secrets)
    return World(
        root=root,
        state=state,
        environment=environment,
        person=environment.get("HANDRAIL_PERSON") or repository.person(),
        guards=(*BUILT_IN, *(guard for kit in installed for guard in kit.guards)),
        clock=clock,
        ids=RandomIds(),
        journal=journal,
        locks=locks,
        repository=repository,
        keys=_later(_keys),
        processes=_later(_processes),
        open_node=open_node,
        checks=_later(lambda: _checks(root, environment)),
        sealer=_later(lambda: _sealer(environment.get("HANDRAIL_AGE_IDENTITY"))),
        open_store=open_known,
        open_guard=open_guard,
        watch_clone=watch_clone,
        open_notifier=open_told,
        secrets=secrets,
        kits=installed,
    )


def engine(
    world: World, acts: Mapping[str, Act], say: Callable[[str], None] | None = None
) -> Engine:
    """Return what runs walks, over this world's journal. Begins no thread and takes up nothing.

    Args:
        world: the ports.
        acts: what steps are done by, by name; none, for reading.
        say: told what people ought to know; stderr, where nothing is given.
    """
    where = temporal(world.environment)
    if where is not None:
        from handrail.adapters.temporal.engine import TemporalEngine

        return TemporalEngine(world.journal, world.clock, world.ids, world.locks, where, say=say)
    from handrail.adapters.embedded import EmbeddedEngine

    return EmbeddedEngine(world.journal, world.clock, world.ids, world.locks, acts, say=say)


def temporal(environment: Mapping[str, str]) -> Where | None:
    """Return the Temporal server that walks go on by; None where this process does it.

    Raises:
        UsageError: HANDRAIL_TEMPORAL is no address, or the extra is not installed.
    """
    address = environment.get("HANDRAIL_TEMPORAL", "")
    if not address:
        return None
    from handrail.adapters.temporal.link import Where

    return Where.read(address, environment)


def worker(
    world: World,
    acts: Mapping[str, Act],
    where: Where,
    say: Callable[[str], None],
    *,
    most_at_once: int,
    grace_s: float,
) -> TemporalWorker:
    """Return what does the steps of walks for a Temporal server. Begins no thread."""
    from handrail.adapters.temporal.worker import TemporalWorker

    return TemporalWorker(
        world.journal,
        world.clock,
        world.locks,
        acts,
        where,
        say=say,
        secrets=world.secrets,
        most_at_once=most_at_once,
        grace_s=grace_s,
    )


def _journal_and_locks(
    state: Path, environment: Mapping[str, str], clock: Clock, secrets: set[str]
) -> tuple[Journal, Locks]:
    """Return where records and locks are kept; `secrets` grows by those of the address.

    Raises:
        UsageError: HANDRAIL_JOURNAL is no address of PostgreSQL.
    """
    address = environment.get("HANDRAIL_JOURNAL", "")
    if not address:
        from handrail.adapters.file_locks import FileLocks
        from handrail.adapters.sqlite_journal import SqliteJournal

        journal = SqliteJournal(state / "journal.db", clock, secrets=secrets)
        return journal, FileLocks(state / "locks")
    from handrail.adapters.postgres_journal.journal import PostgresJournal
    from handrail.adapters.postgres_journal.link import Link
    from handrail.adapters.postgres_journal.locks import PostgresLocks

    link = Link(address)
    secrets.update(link.secrets)
    return PostgresJournal(link, clock, secrets=secrets), PostgresLocks(link, clock)


class _Later:
    """Stands for a port until something of it is used."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._made: object = None

    def __getattr__(self, name: str) -> Any:
        if self._made is None:
            self._made = self._make()
        return getattr(self._made, name)


def _later(make: Callable[[], T]) -> T:
    return cast("T", _Later(make))


def _keys() -> Keys:
    if shutil.which("ssh-keygen"):
        from handrail.adapters.ssh_keys import SshKeys

        return SshKeys()
    from handrail.adapters.ed25519_keys import Ed25519Keys

    return Ed25519Keys()


def _processes() -> Processes:
    from handrail.adapters.processes import LocalProcesses

    return LocalProcesses()


def _checks(root: Path, environment: Mapping[str, str]) -> Checks:
    from handrail.adapters.probes import Probes

    return Probes(root, environment)


def _sealer(identity: str | None) -> Sealer:
    from handrail.adapters.age_sealer import AgeSealer

    return AgeSealer(Path(identity).expanduser() if identity else None)


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
    if resource.store.kind == "redis":
        from handrail.adapters.redis import RedisStore

        return RedisStore(resource.ref, address)
    if resource.store.kind == "files":
        from handrail.adapters.files import FilesStore

        return FilesStore(resource.ref, root / Path(address).expanduser())
    from handrail.adapters.postgres import PostgresStore

    return PostgresStore(resource.ref, address)


def open_guard(
    store: Store, limits: Limits, before: Path, folder: Path, hear: Callable[[Event], None]
) -> AbstractContextManager[StoreGuard]:
    """Return what stands between a script and `store` while it is held.

    Args:
        store: the target, or a clone of it.
        limits: what the script is held to.
        before: the folder of `store.observe`; need not be there when the mode is `observe`.
        folder: an empty private folder to work in.
        hear: told each event as it happens, from any thread.

    Raises:
        StoreError: the store does not answer, or its kind has no guard.
    """
    if store.kind == "postgres":
        from handrail.adapters.postgres import gate
        from handrail.wire import postgres

        look = None
        if limits.mode != "observe":
            look = gate.looker(store.resource, before, store.connection().parts["url"])
        return postgres.guarded(store, limits, folder, hear, look)
    if store.kind == "redis":
        from handrail.wire import redis

        return redis.guarded(store, limits, folder, hear)
    if store.kind == "files":
        from handrail.adapters.files import staging

        return staging.guarded(store, limits, folder, hear)
    from handrail.adapters.sqlite import staging as swapping

    return swapping.guarded(store, limits, folder, hear)


def open_notifier(
    destination: Destination,
    root: Path,
    environment: Mapping[str, str],
    clock: Clock,
    secrets: set[str],
) -> Notifier:
    """Return what tells `destination`; its secrets are added to `secrets`. Connects to nothing.

    Raises:
        NotifyError: a secret or an address that it needs is not set here.
    """
    from handrail.plans.notice import Email, Slack

    channel = destination.channel
    authority = root / channel.authority if channel.authority else None

    def read(address: Address | None) -> str:
        found = _referenced(address, destination, root, environment) if address else ""
        if address is not None and not address.value:
            secrets.update(found.split())
        return found

    if isinstance(channel, Email):
        from handrail.adapters.notify_email import EmailNotifier, Mail

        mail = Mail(
            channel.server,
            channel.sender,
            channel.to,
            channel.tls,
            read(channel.user),
            read(channel.password),
            authority,
        )
        return EmailNotifier(mail, clock)
    from handrail.adapters.notify_http import Hook

    hook = Hook(read(channel.url), authority, channel.plain)
    if isinstance(channel, Slack):
        from handrail.adapters.notify_slack import SlackNotifier

        return SlackNotifier(hook)
    from handrail.adapters.notify_webhook import WebhookNotifier

    return WebhookNotifier(hook, read(channel.secret), clock)


def _referenced(
    address: Address, destination: Destination, root: Path, environment: Mapping[str, str]
) -> str:
    """Return what stands in a variable or a file, without the blanks around it.

    Raises:
        NotifyError: it is not set, or cannot be read.
    """
    if address.value:
        return address.value
    found = environment.get(address.env, "") if address.env else ""
    if address.file:
        with suppress(OSError, UnicodeDecodeError):
            found = (root / address.file).read_text(encoding="utf-8")
    if not found.strip():
        raise NotifyError(
            "notify.failed",
            f"`{destination.name}` needs {address}, which is not set here",
            at=destination.place,
            hint=f"export {address.env}=..." if address.env else f"write it to {address.file}",
        )
    return found.strip()


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
