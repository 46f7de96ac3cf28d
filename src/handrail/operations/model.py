"""An operation as declared: what runs, on what, how it is undone and watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

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
class Question:
    """What a script may ask people while it runs.

    Attributes:
        type: `text`, `int`, `bool` or `choice`.
        text: as people read it.
        choices: for `choice`, the words.
        expires_s: how long it waits for an answer.
        default: what a rehearsal answers; None where only a given answer can.
        by: group whose members may answer; empty for anybody in `allowed_signers`.
    """

    name: str
    type: str
    text: str
    choices: tuple[str, ...] = ()
    expires_s: int = 86400
    default: str | None = None
    by: str = ""


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
    """Which resources an operation is for: a kind (`app|group`: one of them), and what it has."""

    kind: str
    name: str = ""
    environment: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds, one each."""
        return tuple(self.kind.split("|"))


@dataclass(frozen=True)
class DeclaredEffect:
    """An effect somebody wrote down: a verb, `table sessions`, and the most rows."""

    verb: str
    kind: str
    name: str
    rows: int | None


@dataclass(frozen=True)
class Waves:
    """How an operation goes over many targets.

    Attributes:
        sizes: of each wave: a number of targets, a percentage of all (rounded up), or `all` for
            whatever is left, which is the last.
        soak_s: how long each wave is left alone before the next one begins: one for all, or one a
            pause.
        at_once: targets that are under way at once.
        at_once_per: the same for each member of a group: `{site: 2}`.
        failures: failed targets that are borne; one more stops it.
        failures_per: the same for each member of a group.
        then: what stopping means: `hold` for a human, or `undo` what was done.
        first: targets that go first, in this order.
    """

    sizes: tuple[str, ...] = ("1", "10%", "all")
    soak_s: tuple[int, ...] = (0,)
    at_once: int = 10
    at_once_per: Mapping[str, int] = field(default_factory=dict)
    failures: int = 0
    failures_per: Mapping[str, int] = field(default_factory=dict)
    then: Literal["hold", "undo"] = "hold"
    first: tuple[str, ...] = ()
    place: Place | None = None


@dataclass(frozen=True)
class Schedule:
    """When an operation begins by itself, and by when it is expected to have succeeded.

    Attributes:
        name: tells it from the operation's other schedules; empty for the only one.
        cron: five fields, read in `zone`; empty for an operation that others begin.
        zone: an IANA name, or UTC.
        jitter_s: it begins up to so much later: how much is told by operation and time alone.
        late_s: so long after its time it may still begin.
        missed: what becomes of a time that could not be kept even so: `skip` it, or make up for
            all of them `once`.
        on: the target, where the operation leaves a choice.
        parameters: as with -p.
        rehearse: rehearse first, where the newest rehearsal does not count any more.
        expect_s: at most so long after a success there must be the next one; 0 for any time.
        by: times of day, or a cron expression, by each of which there must have been a success
            since the one before; empty for none.
    """

    place: Place
    name: str = ""
    cron: str = ""
    zone: str = "UTC"
    jitter_s: int = 0
    late_s: int = 3600
    missed: str = "skip"
    on: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    rehearse: bool = False
    expect_s: int = 0
    by: str = ""

    @property
    def key(self) -> str:
        """What its records are found by: with another time it is another schedule."""
        return " ".join(part for part in (self.name, self.cron, self.zone, self.on) if part)

    @property
    def expects(self) -> bool:
        """Whether a success is expected by some time."""
        return bool(self.expect_s or self.by)


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
        questions: what its script may ask while it runs.
        act: for an operation of a kit that is no script, how it is done: a key of `World.kit_acts`.
        also: other stores that it touches: measured, budgeted, held and undone with the target.
        schedules: when it begins by itself, and is expected to have succeeded.
        waves: how it goes over all of its targets; None where it is for one at a time.
        runs_on: the node that its scripts run on, `node/web-1`; empty for this machine.
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
    questions: tuple[Question, ...] = ()
    also: tuple[str, ...] = ()
    act: str = ""
    waves: Waves | None = None
    runs_on: str = ""
    schedules: tuple[Schedule, ...] = ()
