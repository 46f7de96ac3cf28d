"""The ports: what the core asks of the world, and the values that cross.

Rules:
- The core reaches a clock, a file system, a network, a process or a store through these alone.
- An adapter translates foreign exceptions into `handrail.errors` at this border, with `from`.
- Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from handrail.plans.effect import Effect
from handrail.plans.facts import Backup, Fingerprint, Identity, Measure
from handrail.plans.holding import Report

if TYPE_CHECKING:  # what plans one run does not read what a walk is
    from handrail.plans.standing import Standing
    from handrail.plans.walk import Mark, Signal, Walk

# Called with (done, total) in units of the work; total None while it is not known.
Progress = Callable[[int, int | None], None]


class Clock(Protocol):
    """Time, as an argument."""

    def now(self) -> datetime:
        """Return the wall-clock time, aware, in UTC. May jump either way."""

    def elapsed_s(self) -> float:
        """Return seconds that only grow, also when the wall clock is set back."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class Ids(Protocol):
    """Randomness, as an argument."""

    def new(self) -> str:
        """Return 32 random hexadecimal digits."""


@dataclass(frozen=True)
class Connection:
    """How a script reaches a store.

    Attributes:
        environment: the standard names of the store's own clients, such as `PGHOST`,
            `PGPASSWORD`, `DATABASE_URL`.
        parts: the same by plain name (`url`, `host`, `port`, `user`, `password`, `database`,
            `path`), for an operation's own mapping of environment names.
        sockets: `(host, port)` pairs at which the store listens; empty for files.
        paths: files and directories that the script must be able to write to reach the store:
            a database file's directory, a server's socket directory.
        secrets: values that must never appear in a plan, journal, log, error or page.
    """

    environment: Mapping[str, str]
    parts: Mapping[str, str]
    sockets: tuple[tuple[str, int], ...] = ()
    paths: tuple[Path, ...] = ()
    secrets: tuple[str, ...] = ()


class Store(Protocol):
    """Anything that holds data: one target, or a clone of it.

    Every method but `restore` and `discard` leaves the store's content as it is. All raise
    `StoreError` when the store does not answer or refuses.
    """

    resource: str
    kind: str

    def identify(self) -> Identity:
        """Return who the store says it is. Cheap: one connection, no scan."""

    def adopt(self, new_id: str) -> Identity:
        """Give the store an identity where it has none of its own, and return it.

        A PostgreSQL server has one and is not written to. Twice equals once.
        """

    def measure(self) -> Measure:
        """Return exact rows a table, age span of time columns, and size."""

    def fingerprint(self) -> Fingerprint:
        """Return order-independent checksums of all content, read in one snapshot."""

    def others(self) -> tuple[str, ...]:
        """Return who else is connected now, for people: `psql as ana from 10.0.3.2`.

        Empty where nobody is, or where the kind of store cannot tell.
        """

    def backup(self, backup_id: str, into: Path, progress: Progress) -> Backup:
        """Write a complete backup into the empty directory `into`, durable on return.

        Chooses the fastest form that this store allows. On any error the directory is empty again.
        """

    def restore(self, backup: Backup, progress: Progress) -> tuple[str, ...]:
        """Put the store's content back to `backup`, and return what could not be put back.

        What was there is kept beside it under another name where the store can do that. Twice
        equals once. An error leaves the store as it was.
        """

    def can_restore(self) -> str:
        """Return why `restore` would be refused here and now; empty when nothing is known.

        Cheap: one connection. Asked when a plan is made: an undo that turns out to be impossible
        when it is needed is no undo.
        """

    def clone(self, backup: Backup, at: Path, marker: str, progress: Progress) -> Store:
        """Restore `backup` into the empty directory `at` as a store of its own; return that.

        The clone is readable by the present user alone, has `marker` in its identity, its own
        endpoint, and shares no server, file or credential with the original. `discard` ends it,
        also from another process, also when this call was killed half way.
        """

    def discard(self, at: Path) -> None:
        """End the clone that was made in `at` and remove every byte of it. Twice equals once."""

    def observe(self, into: Path) -> None:
        """Write into the empty directory `into` what `effects` needs to know of the state now."""

    def effects(self, before: Path) -> tuple[Effect, ...]:
        """Return what has changed since `observe(before)`, worst first; empty when nothing has."""

    def connection(self) -> Connection:
        """Return how a script reaches this store (the clone's, when this is a clone)."""

    def ask(self, query: str, timeout_s: float) -> str:
        """Return the first value of the first row of a read-only `query`, as text."""


class StoreGuard(Protocol):
    """What stands between one script and one store: nothing beyond its limits takes effect.

    Made by `World.open_guard`, which ends it on leaving. A server's guard holds each transaction
    at its COMMIT; a file's or a directory's gives the script a copy, and `settle` swaps it in.
    """

    def connection(self) -> Connection:
        """Return how the script reaches the store: through the guard alone."""

    def settle(self) -> Report:
        """Say what was done, once the script and all that it started have ended.

        What waited for that takes effect now, where it is inside the limits. Nobody reaches the
        store through this guard any more. Twice equals once.
        """

    def halt(self, elsewhere: str) -> None:
        """Refuse everything from now on: the guard of the store `elsewhere` stopped the run.

        From any thread. A guard whose script has a copy need do nothing: it is not settled then.
        """


@runtime_checkable
class Asks(Protocol):
    """Whoever hears a guard's events and can be asked about a statement."""

    def ask(self, statement: str, why: str, is_over: Callable[[], bool]) -> bool:
        """Let a statement wait for somebody's word; return whether it may begin.

        Called from a thread of its own; returns False once `is_over` says so.
        """


def _never() -> bool:
    return False


OUTPUT_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Forward:
    """A socket here that a script elsewhere reaches by a port there.

    Attributes:
        mark: stands for that port in the script's environment until it is known.
    """

    mark: str
    host: str
    port: int


@dataclass(frozen=True)
class Command:
    """A process to run.

    Attributes:
        argv: program and arguments; the program is an absolute path.
        cwd: working directory.
        environment: the whole environment; nothing is inherited.
        timeout_s: after this many seconds it is ended with everything it started.
        output: file that keeps stdout and stderr as they came, interleaved.
        output_limit_bytes: of the file; what is beyond is counted and thrown away.
        reserve_bytes: it is ended when the disk of `output` has less than this free.
        confine: keep it away from the real world, or from all but its guard, where this machine
            can.
        watched: in a rehearsal: the files below this folder that it opens are told in `read`.
        inherits: its standard streams are this process's own: it may ask somebody at a terminal;
            nothing is kept in `output`.
        is_over: asked again and again, from any thread: once it is true, the program is ended as by
            Ctrl-C, and `Finished.ended` is `interrupted`.
        files: for a node: what is taken there, by name below `cwd`, with its SHA-256 and `+x`
            where it may be executed. Its environment is then without what the node itself says.
        forwards: for a node: the sockets of this machine that the script reaches from there.
        tethered: for a node: it is ended when the connection is cut, for nobody would come for it.
    """

    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]
    timeout_s: float
    output: Path
    output_limit_bytes: int = OUTPUT_LIMIT_BYTES
    reserve_bytes: int = 256 * 1024 * 1024
    confine: Confine | None = None
    watched: Path | None = None
    inherits: bool = False
    is_over: Callable[[], bool] = _never
    files: tuple[tuple[str, str], ...] = ()
    forwards: tuple[Forward, ...] = ()
    tethered: bool = False


@dataclass(frozen=True)
class Confine:
    """What a confined script may reach.

    Attributes:
        writable: files and directories that it may write; the rest is read-only.
        replaced: real path to the clone's path: the script that opens the first gets the second.
        hidden: files and directories that it must not read, such as Handrail's state and keys.
        sockets: `(host, port)` on this machine that it may reach; no other address answers.
        network_only: for a real run: files are as usual, but for what is `hidden` and `replaced`;
            no other server's socket answers; `Finished.reached` names addresses alone.
    """

    writable: tuple[Path, ...] = ()
    replaced: tuple[tuple[Path, Path], ...] = ()
    hidden: tuple[Path, ...] = ()
    sockets: tuple[tuple[str, int], ...] = ()
    network_only: bool = False


@dataclass(frozen=True)
class Finished:
    """How a process ended.

    Attributes:
        exit_code: 0-255, or minus the signal that ended it.
        ended: `exited`, `timeout`, `disk-full`, `interrupted`, or `lost` (nobody knows: it killed
            what watched it); of one behind a guard also `not-settled`, in a rehearsal `stopped`.
        duration_s: from start to the end of the process itself.
        output_bytes: all that it printed, kept or not.
        survivors: processes that it left behind, by name; they were ended.
        reached: what it tried to reach besides its store and its directory, where that could be
            seen: `10.0.3.9:6379`, `/tmp/pilot.lock`.
        read: regular files that it opened for reading, where that could be seen; absolute paths.
        confined: empty when it was confined; else why it was not.
        traced: empty when `reached` is complete; else why it is not.
    """

    exit_code: int
    ended: str
    duration_s: float
    output_bytes: int
    survivors: tuple[str, ...] = ()
    reached: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    confined: str = ""
    traced: str = ""


class Processes(Protocol):
    """Runs a team's own programs, on this machine or on a node."""

    def ready(self) -> None:
        """Raise where nothing can be run at all. Changes nothing.

        Raises:
            ScriptError: the node is away, is another one, or lets nobody in.
        """

    def run(
        self, command: Command, started: Callable[[int], None], output: Callable[[bytes], None]
    ) -> Finished:
        """Run `command` to its end with everything that it starts.

        Args:
            command: what to run.
            started: called once with the process id, before the program's first instruction.
            output: called with each piece of output as it comes.

        Raises:
            ScriptError: it could not be started (missing, not executable, no interpreter).
            WaitingError: the node that it runs on does not answer any more: look again later.
            KeyboardInterrupt: passed on after the process and its children have ended.
        """

    def collect(
        self, token: str, kept: Path, timeout_s: float, output: Callable[[bytes], None]
    ) -> Finished | None:
        """Return how a script ended whose starter was killed, waiting for that if it still runs.

        For recovery: where the script was kept by somebody else, as on a node.

        Args:
            token: `HANDRAIL_RUN` of the script.
            kept: file of its output, made anew.
            timeout_s: its own.
            output: called with each piece of output as it comes.

        Returns:
            None where nobody knows.

        Raises:
            ScriptError: the node is away: look again later.
            WaitingError: it went away meanwhile.
        """

    def forget(self, tokens: Sequence[str]) -> tuple[str, ...]:
        """Remove what is kept of scripts whose results are safe; end what is left of them.

        Returns:
            The names of what was left.

        Raises:
            ScriptError: the node is away.
        """

    def can_confine(self) -> str:
        """Return why this machine cannot confine a script, in one sentence; empty when it can."""

    def end_leftovers(self, token: str) -> tuple[str, ...]:
        """End processes whose environment has `HANDRAIL_RUN=token`; return their names.

        For recovery: the process that started them was killed.
        """

    def find_program(self, name: str) -> Path | None:
        """Return where a program is on the search path."""


@dataclass(frozen=True)
class Change:
    """The last commit that touched a path."""

    commit: str
    author: str
    reviewers: tuple[str, ...]
    when: str


class Repository(Protocol):
    """The team's git repository, read only."""

    root: Path

    def commit(self, paths: Sequence[str]) -> str | None:
        """Return the last commit that touched any of `paths`; None when nothing is committed."""

    def uncommitted(self, paths: Sequence[str]) -> tuple[str, ...]:
        """Return which of `paths` (files below them) differ from the last commit, or are new."""

    def last_change(self, path: str) -> Change | None:
        """Return the last commit that touched `path`; None when it is not committed."""

    def person(self) -> str:
        """Return who works here, as `user.email` of git says; empty when it does not."""


class Keys(Protocol):
    """SSH signatures, in the namespace `handrail`."""

    def sign(self, payload: bytes, key: Path) -> str:
        """Return an armoured signature over `payload`.

        Raises:
            KeysError: the key is missing, locked or refused.
        """

    def verify(
        self, payload: bytes, signature: str, allowed: Path, at: datetime, person: str
    ) -> None:
        """Raise unless `person`, a principal in `allowed`, made `signature`, valid at `at`.

        A key may have several names; each of them counts, a pattern does not.

        Raises:
            KeysError: nobody's or another's, not over this payload, or not valid then.
        """

    def principals(self, key: Path, allowed: Path) -> tuple[str, ...]:
        """Return the principals in `allowed` that own the (public or private) `key`."""


@dataclass(frozen=True)
class Record:
    """One line of the journal.

    Attributes:
        chain: what it belongs to: `run-412`, `rehearsal-7f3a91c2`, `approvals`.
        sequence: from 1, without gaps, a chain.
        time: wall clock, ISO 8601 UTC; it may go back, the sequence does not.
        kind: what happened.
        body: canonical JSON text.
        previous: hash of the record before it; of the chain's opening anchor for the first.
        hash: SHA-256 over all the others.
    """

    chain: str
    sequence: int
    time: str
    kind: str
    body: str
    previous: str
    hash: str


@dataclass(frozen=True)
class Entry:
    """One record to write.

    Attributes:
        after: hash of the record that it must follow: the chain has one writer, and this is its
            fence; empty for whatever is last; `new` for a chain that must not be there yet.
    """

    chain: str
    kind: str
    body: Mapping[str, Any]
    after: str = ""


class Journal(Protocol):
    """The hash-chained record. Append only, durable when a method that writes returns.

    The chains `anchors` and `used` are written by the journal itself.
    """

    def append(self, chain: str, kind: str, body: Mapping[str, Any]) -> Record:
        """Write one record and return it, durable. The first opens the chain.

        A chain that was closed is open again from then on.

        Raises:
            JournalError: it could not be made durable. Nothing was written.
        """

    def close(self, chain: str) -> None:
        """Anchor a chain's length and last hash: its end can no longer be cut off unseen.

        Twice equals once; a chain that does not exist stays so.

        Raises:
            JournalError: it could not be made durable. Nothing was written.
        """

    def open_run(self) -> int:
        """Return a new run number, never given before, from 1."""

    def single_use(self, key: str) -> bool:
        """Mark `key` (an approval) as used; return False when it was used before.

        Of two processes that ask at once, one gets True. Recorded in the chain `used`.
        """

    def write(self, entries: Sequence[Entry]) -> tuple[Record, ...]:
        """Write all of `entries`, to any chains, in one durable transaction: all or none.

        Returns:
            The records, in the order of `entries`.

        Raises:
            FencedError: a chain has gone on beyond an entry's `after`: somebody else writes it.
                Nothing was written.
            JournalError: it could not be made durable, or nobody knows whether it was
                (`journal.unknown`: read the chain again before anything else).
        """

    def records(self, chain: str, after: int = 0) -> Iterator[Record]:
        """Yield a chain's records beyond sequence `after`, in order; none without such a chain."""

    def open_chains(self, prefix: str) -> tuple[str, ...]:
        """Return the chains that begin with `prefix` and are not closed, oldest first."""

    def open_ends(self, prefix: str) -> tuple[Record, ...]:
        """Return the last record of each of `open_chains(prefix)`, in their order, at once."""

    def wait(self, chain: str, after: int, timeout_s: float) -> bool:
        """Return whether `chain` has a record beyond sequence `after`, once it has or time is up.

        Cheap enough to be called for ever; may return False too early.
        """

    def chains(self, prefix: str = "") -> tuple[str, ...]:
        """Return the chains whose name begins with `prefix`, in the order of their opening."""

    def last(self, chain: str) -> Record | None:
        """Return a chain's last record."""

    def anchors(self) -> Iterator[Record]:
        """Yield the chain of chains: a record when a chain opens, and one when it ends."""

    def export(self) -> Iterator[str]:
        """Yield the whole journal as JSON lines of one moment: anchors, records, an end line."""

    def take_over(self, records: Sequence[Record], runs: int) -> None:
        """Write another journal's records as they are, in one durable transaction: all or none.

        Args:
            records: in an order in which they may have been written.
            runs: the highest run number that was given there; the next is beyond it.

        Raises:
            JournalError: this journal has records already, or one does not follow.
        """


@dataclass(frozen=True)
class Acted:
    """What became of a step.

    Attributes:
        outcome: `done` or `failed`; of a check also `never` (it has not begun to act) and
            `unknown`; `later`, with `again_at`, for one that goes on without a thread meanwhile;
            `asked`, with `body` the question, for one that waits for a human.
        why: one sentence for people; empty where there is nothing to say.
        body: JSON values, kept in the journal: small, and no secret.
        again_at: ISO 8601 UTC.
    """

    outcome: str
    why: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    again_at: str = ""


class Act(Protocol):
    """How a kind of step is done, undone, and found out about. From any thread."""

    def do(self, call: ActCall) -> Acted:
        """Do it. An exception of `handrail.errors` is `failed`, with its message."""

    def check(self, call: ActCall) -> Acted:
        """Say what became of it, after the engine that began it died. Changes nothing."""

    def undo(self, call: ActCall) -> Acted:
        """Undo what it did. Twice equals once."""


@dataclass(frozen=True)
class ActCall:
    """One step to act on.

    Attributes:
        run: number of the run.
        target: of the lane.
        name: of the step.
        body: as the walk gives it.
        attempt: from 1.
        before: bodies of what this step's earlier `later` and `done` returned, the last one's.
        earlier: bodies of the lane's steps that are done, by name.
        is_over: whether the run was cancelled or the engine ends: return soon.
    """

    run: int
    target: str
    name: str
    body: Mapping[str, Any]
    attempt: int = 1
    before: Mapping[str, Any] = field(default_factory=dict)
    earlier: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_over: Callable[[], bool] = lambda: False


class Engine(Protocol):
    """Runs walks that survive the death of whatever runs them.

    All methods are for any thread and any process. What an engine did stands in the journal,
    chain `walk-<run>`, in the form of `plans/walk.py`, the same under every engine.
    """

    def submit(self, walk: Walk, request_id: str) -> int:
        """Record `walk` as a run and return its number; the same for the same `request_id`."""

    def signal(self, run: int, signal: Signal) -> bool:
        """Record a word to a run; False when that id was there already.

        Raises:
            RefusedError: it is for another digest, the run has ended, or expects no such word.
        """

    def cancel(self, run: int, person: str, why: str) -> None:
        """Let nothing new begin, end what runs, and hold; twice equals once."""

    def load(self, run: int) -> Standing:
        """Return where a run stands.

        Raises:
            UsageError: there is no such run.
        """

    def list(self, *, ended: bool = False) -> Iterator[tuple[int, Standing]]:
        """Yield the open runs, or those that have ended."""

    def recover(self) -> int:
        """Take up every open run that no living engine has; return how many. Twice equals once."""

    def follow(
        self, run: int, told: Callable[[Mark], None], timeout_s: float | None = None
    ) -> Standing:
        """Return where a run stands once it has ended, waits for a human, or time is up.

        Each mark that it writes meanwhile is told. An engine of this process drives it here.
        """

    def close(self) -> None:
        """Let running steps end, begin none, and return once all is recorded."""


class Notifier(Protocol):
    """Tells people outside."""

    def send(self, notice: Mapping[str, Any]) -> None:
        """Deliver one notice, once or more.

        Raises:
            NotifyError: it was not taken; worth another attempt where `is_passing`.
        """


class Locks(Protocol):
    """Which process holds a resource; the holder's death releases it."""

    def hold(self, resource: str, who: str) -> AbstractContextManager[None]:
        """Hold `resource` for the time of a `with`.

        Raises:
            RefusedError: another live process holds it; says who.
        """

    def holder(self, resource: str) -> str | None:
        """Return who holds `resource` now; None when nobody does."""


@dataclass(frozen=True)
class CheckResult:
    """One probe: whether it was healthy, and what was seen, for people."""

    healthy: bool
    seen: str


class Checks(Protocol):
    """Probes of health: http, tcp, command. A `sql` check asks a `Store`."""

    def probe(self, check: Mapping[str, Any], timeout_s: float) -> CheckResult:
        """Probe once. Never raises for an ill target: that is a result."""


class Sealer(Protocol):
    """Encrypts backups at rest."""

    def seal(self, directory: Path, sealed: Path, recipients: Sequence[str]) -> None:
        """Pack `directory` into one encrypted file, and remove the directory."""

    def open(self, sealed: Path, directory: Path) -> None:
        """Unpack what `seal` made into the empty `directory`.

        Raises:
            KeysError: no key that opens it is configured.
        """
