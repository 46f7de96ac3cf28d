"""The declared world as frozen values: resources, what they need, and what harms them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from handrail.errors import Place


@dataclass(frozen=True)
class Need:
    """A resource needs another: hard (it stops without it) or soft (it degrades)."""

    target: str
    hard: bool


@dataclass(frozen=True)
class Check:
    """A probe of health: `kind` is `http`, `tcp`, `sql` or `command`.

    Attributes:
        kind: which probe.
        value: the address, query or program.
        expect: text that must be in the answer; empty when any good answer will do.
        store: for `sql`, the store that is asked.
    """

    kind: str
    value: tuple[str, ...]
    expect: str = ""
    store: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(self.value)}"


@dataclass(frozen=True)
class Contraindication:
    """An operation that harms this resource although it is right elsewhere.

    Attributes:
        operation: name of the operation.
        because: the incident that taught it.
        unless: parameters under which it is harmless.
        expires: date after which it must be looked at again, `YYYY-MM-DD`; empty for never.
        owner: who looks at it then.
        replay: number of a run that it would have refused: what it is tried on; 0 for none.
    """

    operation: str
    because: str
    unless: Mapping[str, str]
    expires: str
    place: Place
    owner: str = ""
    replay: int = 0


@dataclass(frozen=True)
class Action:
    """What was to be done after an incident."""

    do: str
    owner: str
    is_open: bool
    link: str
    place: Place


@dataclass(frozen=True)
class Address:
    """Where something is: by value, from an environment variable, or from a file."""

    value: str = ""
    env: str = ""
    file: str = ""

    def __str__(self) -> str:
        if self.env:
            return f"${self.env}"
        return f"file {self.file}" if self.file else self.value


@dataclass(frozen=True)
class BackupRule:
    """How a store is backed up: where to, how often, how many are kept, how old a proof may be."""

    to: str
    every_s: int
    keep: int
    prove_s: int


@dataclass(frozen=True)
class Environment:
    """A class of resources with the same rules.

    Attributes:
        production: whether real data and real users live here.
        max_age_s: the oldest that data may be here; None for any age.
        max_rows: the most rows that a store may hold here; None for any number.
    """

    name: str
    production: bool
    max_age_s: int | None
    max_rows: int | None
    place: Place


@dataclass(frozen=True)
class StoreSettings:
    """What only a store declares."""

    kind: str
    url: Address
    durability: str
    holds: tuple[str, ...]
    identity: str
    backups: BackupRule | None


@dataclass(frozen=True)
class Resource:
    """Anything that exists, addressed `kind/name`.

    Attributes:
        parts: the stores that it is made of, where one operation touches several; else empty.
    """

    kind: str
    name: str
    place: Place
    environment: str = ""
    needs: tuple[tuple[Need, Place], ...] = ()
    checks: tuple[Check, ...] = ()
    contraindications: tuple[Contraindication, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    store: StoreSettings | None = None
    parts: tuple[Resource, ...] = ()

    @property
    def ref(self) -> str:
        """The address, `kind/name`."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class Estate:
    """Everything that is declared. Empty when nothing is: a machine that never saw an estate."""

    environments: Mapping[str, Environment] = field(default_factory=dict)
    resources: Mapping[str, Resource] = field(default_factory=dict)

    @cached_property
    def stores(self) -> Mapping[str, Resource]:
        """The stores, by `store/name`."""
        return {ref: r for ref, r in self.resources.items() if r.kind == "store"}

    def of_kinds(self, kinds: Sequence[str]) -> Iterable[Resource]:
        """Return the resources of these kinds, in the order of the files."""
        if tuple(kinds) == ("store",):
            return self.stores.values()
        return tuple(r for r in self.resources.values() if r.kind in kinds)

    @cached_property
    def needed_by(self) -> Mapping[str, list[tuple[str, bool]]]:
        """Each resource that something needs, to what needs it, and whether that need is hard."""
        found: defaultdict[str, list[tuple[str, bool]]] = defaultdict(list)
        for ref, resource in self.resources.items():
            for need, _ in resource.needs:
                found[need.target].append((ref, need.hard))
        return dict(found)

    @cached_property
    def harmed(self) -> tuple[Resource, ...]:
        """The resources that some operation harms."""
        return tuple([r for r in self.resources.values() if r.contraindications])
