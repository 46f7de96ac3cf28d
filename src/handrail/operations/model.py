"""An operation as declared: what runs, on what, how it is undone and watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from handrail.errors import Place
from handrail.estate.model import Check


@dataclass(frozen=True)
class Parameter:
    """One typed parameter. `default` None makes it required.

    Attributes:
        type: `text`, `int`, `bool` or `choice`.
        choices: for `choice`, the words.
    """

    name: str
    type: str
    default: str | None = None
    choices: tuple[str, ...] = ()
    summary: str = ""


@dataclass(frozen=True)
class Undo:
    """How a step is undone: `restore` (the backup), `script`, or `irreversible` with its reason."""

    kind: str
    argv: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Watch:
    """What is watched after a run.

    Attributes:
        checks: probes of this operation's own.
        services: resources whose checks are watched besides the target and its dependants.
        soak_s: how long everything must stay healthy.
        every_s: between two probes.
    """

    checks: tuple[Check, ...] = ()
    services: tuple[str, ...] = ()
    soak_s: int = 60
    every_s: int = 5


@dataclass(frozen=True)
class Selector:
    """Which resources an operation is for: a kind, and what its members must have."""

    kind: str
    name: str = ""
    environment: str = ""


@dataclass(frozen=True)
class DeclaredEffect:
    """An effect somebody wrote down: a verb, `table sessions`, and the most rows."""

    verb: str
    kind: str
    name: str
    rows: int | None


@dataclass(frozen=True)
class Operation:
    """A declared change.

    Attributes:
        name: how people call it.
        argv: the program, relative to the repository, and its arguments; `{name}` stands for a
            parameter, as one argument: no shell ever reads it.
        on: what it is for.
        environment: names of environment variables that the script reads, to the part of the
            connection that they hold (`host`, `port`, `user`, `password`, `database`, `url`,
            `path`).
        inherit: names of variables that it gets from whoever runs it.
        uses: files and folders of the repository that it uses besides its own folder.
        function: for a Python operation, the function in `argv[0]`.
        kit: for an operation of an installed package, its module; such files lie outside.
        declared: False for a script that nobody has declared.
        also: other stores that it touches: measured, budgeted, held and undone with the target.
    """

    name: str
    argv: tuple[str, ...]
    on: Selector
    undo: Undo
    watch: Watch
    place: Place
    summary: str = ""
    parameters: tuple[Parameter, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    inherit: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    timeout_s: int = 3600
    effects: tuple[DeclaredEffect, ...] = ()
    function: str = ""
    kit: str = ""
    declared: bool = True
    also: tuple[str, ...] = ()
