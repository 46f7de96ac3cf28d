"""What a stage is given: the ports, where things lie, and somebody to talk to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from handrail.errors import NotifyError, ScriptError
from handrail.plans.notice import Notifications

if TYPE_CHECKING:
    from handrail.core.kit_act import KitAct
    from handrail.estate.model import Estate, Resource
    from handrail.estate.shapes import Key
    from handrail.operations.model import Operation
    from handrail.plans.facts import Identity
    from handrail.plans.holding import Event, Limits
    from handrail.plans.judging import Guard
    from handrail.plans.notice import Destination
    from handrail.plans.policy import Policy
    from handrail.ports import (
        Checks,
        Clock,
        Ids,
        Journal,
        Keys,
        Locks,
        Notifier,
        Processes,
        Repository,
        Sealer,
        Store,
        StoreGuard,
    )


class Talk(Protocol):
    """Whoever watches a stage. Nothing here changes what a stage does, but `choose`."""

    def begin(self, stage: str, text: str) -> None:
        """Say that a stage has begun."""

    def progress(self, done: int, total: int | None) -> None:
        """Say how far the present stage is, in bytes."""

    def output(self, piece: bytes) -> None:
        """Pass on what the script printed."""

    def end(self, stage: str, text: str, *, ok: bool = True) -> None:
        """Say how a stage ended."""

    def choose(self, question: str, choices: Mapping[str, str], otherwise: str) -> str:
        """Ask for one of `choices` (key to sentence); `otherwise` when nobody can answer."""


@dataclass(frozen=True)
class Kit:
    """What a kit, or a team's own package, registers by the entry point `handrail.kits`.

    Attributes:
        name: of the kit.
        operations: declared changes, beside those in `operations/`.
        kinds: kinds of resource, to the keys that each has besides the common ones.
        guards: named rules, asked after the built-in ones.
        acts: gives, for this machine, how operations that are no scripts are planned and done, by
            `Operation.act`. Called when one is first needed.
        order: gives the order in which its operations go over several targets; else the estate's.
        identify: kinds of resource that say who they are, to how they are asked.
    """

    name: str
    operations: tuple[Operation, ...] = ()
    kinds: Mapping[str, Mapping[str, Key]] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()
    acts: Callable[[World], Mapping[str, KitAct]] = lambda _: {}
    order: Callable[[Estate, tuple[str, ...]], tuple[str, ...]] = lambda _, refs: refs
    identify: Mapping[str, Callable[[World, Resource], Identity]] = field(default_factory=dict)


@dataclass(frozen=True)
class Declared:
    """Everything that the team's repository declares."""

    estate: Estate
    operations: Mapping[str, Operation]
    policy: Policy
    notifications: Notifications = field(default_factory=Notifications)

    @property
    def own_operations(self) -> tuple[str, ...]:
        """Names of the operations that are no kit's acts, which are there without a declaration."""
        return tuple(sorted(name for name, one in self.operations.items() if not one.act))


def no_nodes(node: Resource) -> Processes:
    """Refuse: here nothing runs on a node."""
    raise ScriptError("node.unreachable", f"nothing here can reach {node.ref}")


def no_notifier(destination: Destination) -> Notifier:
    """Refuse: here nobody outside is told anything."""
    raise NotifyError("notify.failed", f"nothing here can tell `{destination.name}`")


@dataclass(frozen=True)
class World:
    """The ports, and where things lie.

    Attributes:
        root: the team's repository, or the present directory where there is none.
        state: Handrail's own directory.
        environment: of this process.
        person: who works here.
        guards: every registered guard, in order.
        open_store: opens the store that a resource declares.
        open_guard: stands between a script and a store while it is held. Given the store, the
            limits, the folder of `observe`, an empty private folder to work in, and who is told
            of events.
        watch_clone: while it is held, an independent process stands by to destroy the clone in
            that directory when this process dies, or after so many seconds.
        open_node: returns what runs scripts on a node. Connects to nothing.
        open_notifier: returns what tells a destination; NotifyError where it cannot be reached by
            what is set here.
        kits: what is registered beside the core.
        secrets: of the stores and people that were asked for so far: it grows.
    """

    root: Path
    state: Path
    environment: Mapping[str, str]
    person: str
    guards: tuple[Guard, ...]
    clock: Clock
    ids: Ids
    journal: Journal
    locks: Locks
    repository: Repository
    keys: Keys
    processes: Processes
    checks: Checks
    sealer: Sealer
    open_store: Callable[[Resource], Store]
    open_guard: Callable[
        [Store, Limits, Path, Path, Callable[[Event], None]], AbstractContextManager[StoreGuard]
    ]
    watch_clone: Callable[[Path, int], AbstractContextManager[None]]
    open_node: Callable[[Resource], Processes] = no_nodes
    open_notifier: Callable[[Destination], Notifier] = no_notifier
    secrets: set[str] = field(default_factory=set)
    kits: tuple[Kit, ...] = ()

    @property
    def allowed_signers(self) -> Path:
        """The file that says whose keys count."""
        return self.root / "allowed_signers"
