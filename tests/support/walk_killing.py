"""Kill an engine, at any moment, while walks go on; and a human who knows the truth.

Run as a program it is a process that forks: it reads one JSON object a line (`journal`, `folder`,
`seed`, and `after_s` or `write` with `when`), lets an engine go on in a child until every run has
ended or waits for a human, and answers with how the child ended.

Rules:
- SIGKILL: after a time, or right before or after a write of the journal is durable.
- A step's effect is a line in a file. What the journal says is compared with that file.
- A fork, not a new interpreter: a start costs more than a case.
"""

from __future__ import annotations

import faulthandler
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

if __name__ == "__main__":  # as a program it is not found through pytest's paths
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from handrail.adapters.embedded import EmbeddedEngine
from handrail.adapters.file_locks import FileLocks
from handrail.adapters.sqlite_journal import SqliteJournal
from handrail.adapters.system import RandomIds, SystemClock
from handrail.core.journal import verify_export
from handrail.plans.canonical import time_text
from handrail.plans.moving import show
from handrail.plans.standing import Standing
from handrail.plans.walk import Signal, Walk, step_id
from handrail.plans.walk_records import SIGNALS, read_mark, walk_chain
from handrail.plans.walking import opened, step
from handrail.ports import ActCall, Acted, Engine, Journal
from support.walk_games import look, random_walk

ENDED, HELD = 0, 4
_LONGEST_S = 60.0


class EffectAct:
    """`ports.Act` whose effects are lines of a file, at some moment of the step."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._path = folder / "effects"
        self._random = Random(seed)
        self._never = threading.Event()

    def do(self, call: ActCall) -> Acted:
        """Act, or fail before that; some go on later."""
        name = step_id(call.target, call.name)
        choice = self._random.random()
        self._take_time()
        if choice < 0.05:
            return Acted("failed", "no luck")
        if choice < 0.1:
            return Acted("later", again_at=time_text(SystemClock().now()))
        self._note("do", call.run, name)
        self._take_time()
        return Acted("done")

    def check(self, call: ActCall) -> Acted:
        """Say what the file says; sometimes nobody can tell."""
        if self._random.random() < 0.2:
            return Acted("unknown")
        found = effects(self._path.parent)["do", call.run, step_id(call.target, call.name)]
        return Acted("done" if found else "never")

    def undo(self, call: ActCall) -> Acted:
        """Undo it."""
        self._take_time()
        self._note("undo", call.run, step_id(call.target, call.name))
        self._take_time()
        return Acted("done")

    def _take_time(self) -> None:
        """Let a step last for a moment, in which it may be killed."""
        self._never.wait(self._random.random() * 0.004)

    def _note(self, what: str, run: int, name: str) -> None:
        with self._path.open("a") as stream:
            stream.write(f"{what} {run} {name}\n")


def effects(folder: Path) -> Counter[tuple[str, int, str]]:
    """Return how often each step really acted, and was undone."""
    path = folder / "effects"
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter((what, int(run), name) for what, run, name in map(str.split, lines))


@contextmanager
def journal_at(address: str) -> Iterator[Journal]:
    """Give the journal at a file's path, or at a server's address."""
    clock = SystemClock()
    if "://" not in address:
        with ExitStack() as held:
            file = SqliteJournal(Path(address), clock)
            held.callback(file.shut)
            yield file
        return
    from handrail.adapters.postgres_journal.journal import PostgresJournal
    from handrail.adapters.postgres_journal.link import Link

    with closing(Link(address)) as link:
        yield PostgresJournal(link, clock)


class Killer:
    """The forking process, seen from a test."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, **asked: object) -> dict[str, Any]:
        """Let an engine go on, and be killed as asked; return `killed` and `code`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)


class Trial:
    """Walks in one journal, killed again and again until they have ended."""

    def __init__(self, journal: Journal, address: str, folder: Path, seed: int) -> None:
        self.journal, self.address, self.folder = journal, address, folder
        self.random = Random(seed)
        self.kills = 0
        self.walks: dict[int, Walk] = {}
        self.engine = self._engine()
        self._words = 0

    def _engine(self) -> Engine:
        """Return an engine that only submits, speaks and looks: it takes nothing up."""
        clock = SystemClock()
        locks = FileLocks(self.folder / "locks")
        return EmbeddedEngine(self.journal, clock, RandomIds(), locks, {}, say=print)

    def submit(self, count: int) -> None:
        """Record walks; the next process takes them up."""
        self.engine.close()  # one that is closed drives nothing
        for number in range(count):
            walk = quick(random_walk(self.random))
            self.walks[self.engine.submit(walk, f"walk {len(self.walks)} {number}")] = walk

    def go_on(self, killer: Killer, *, is_killed: bool) -> None:
        """Let one process go on, and kill it where that is asked."""
        asked: dict[str, object] = {"seed": self.random.getrandbits(32)}
        if is_killed and self.random.random() < 0.5:
            asked["after_s"] = self.random.random() * 0.06
        elif is_killed:
            asked["write"] = self.random.randint(1, 25)
            asked["when"] = self.random.choice(["before", "after"])
        answer = killer.run(journal=self.address, folder=str(self.folder), **asked)
        self.kills += answer["killed"]
        assert answer["killed"] or answer["code"] in {ENDED, HELD}, answer

    def speak(self) -> bool:
        """Answer every run that waits for a human; return whether one has not ended."""
        is_open = False
        truth = effects(self.folder)
        for run in self.walks:
            found = self._standing(run)
            is_open = is_open or not found.outcome
            if found.outcome or not found.awaits:
                continue
            self._answer(run, found, truth)
        return is_open

    def _answer(self, run: int, found: Standing, truth: Counter[tuple[str, int, str]]) -> None:
        if found.state == "waiting":
            self._say(run, "approval")
            return
        for name, one in found.steps.items():
            if one.state == "unknown":
                happened = truth["do", run, name] > 0
                said = "accept" if happened else "rerun"
                self._say(run, said, step=name, attempt=one.attempts)
                return
            if one.state == "undo-unknown":
                self._say(run, "undo")
                return
        is_failed = any(one.state == "failed" for one in found.steps.values())
        choice = self.random.random()
        self._say(run, "undo" if choice < 0.2 else "rerun" if is_failed else "resume")

    def _say(self, run: int, name: str, **body: object) -> None:
        self._words += 1
        digest = self.walks[run].digest
        said = Signal(f"w{self._words}", name, "ben", digest, body)
        self.journal.append(SIGNALS, "signal", {"run": run, "signal": vars_of(said)})

    def _standing(self, run: int) -> Standing:
        return self.engine.load(run)

    def judge(self) -> None:
        """Assert that every run ended truthfully, and that nothing was done twice."""
        truth = effects(self.folder)
        for run, walk in self.walks.items():
            try:
                self._judge(run, walk, truth)
            except AssertionError as error:
                told = [(one.kind, one.body) for one in self.journal.records(walk_chain(run))]
                raise AssertionError(f"run {run}: {error}: {told[1:]}") from error
        assert verify_export(self.journal.export()) == ()

    def _judge(self, run: int, walk: Walk, truth: Counter[tuple[str, int, str]]) -> None:
        course = opened(walk)
        for record in self.journal.records(walk_chain(run)):
            mark = read_mark(record.kind, record.time, record.body)
            look(course, mark)
            course = step(course, mark)
            states = [(n.rsplit("/", 1)[0], one.state) for n, one in course.steps.items()]
            unknown = Counter(target for target, state in states if state == "unknown")
            assert not unknown or max(unknown.values()) == 1, "two unknown steps on one target"
        found = show(course, SystemClock().now())
        assert found.outcome, found
        for number, name in enumerate(course.layout.ids):
            recovery = course.layout.steps[number].recovery
            times = truth["do", run, name]
            assert recovery == "retry" or times <= 1, f"{name} ({recovery}) acted {times} times"
            if course.steps[name].state == "done":
                assert times, f"{name} is done, and never acted"
            if course.steps[name].state == "waiting":
                assert not times, f"{name} acted, and nobody knows"
            if course.steps[name].state == "undone":
                assert truth["undo", run, name], f"{name} is undone, and never was"


def quick(walk: Walk) -> Walk:
    """Return the walk without the times that it would wait for."""
    waves = tuple(replace(wave, soak_s=0) for wave in walk.waves)
    return replace(walk, waves=waves, begins_at="", expires_at="")


def vars_of(said: Signal) -> dict[str, object]:
    """Return a word as the journal has it."""
    return {
        name: getattr(said, name) for name in ("id", "name", "person", "digest", "body", "time")
    }


def serve() -> None:
    """Answer until there is nothing more to read."""
    faulthandler.enable()
    import msgspec  # noqa: F401  imported once, before the forks
    import psycopg  # noqa: F401  the same

    for line in sys.stdin:
        asked = json.loads(line)
        number = os.fork()
        if number == 0:
            _child(asked)
        status = _wait(number, asked.get("after_s"))
        answer = {
            "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
            "code": os.waitstatus_to_exitcode(status),
        }
        print(json.dumps(answer), flush=True)


def _wait(number: int, after_s: float | None) -> int:
    """Return how the child ended; kill it then."""
    if after_s is None:
        return os.waitpid(number, 0)[1]
    until_s = time.monotonic() + after_s
    while time.monotonic() < until_s:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return status
        time.sleep(0.0005)
    os.kill(number, signal.SIGKILL)
    return os.waitpid(number, 0)[1]


def _child(asked: dict[str, Any]) -> None:
    code = 70
    try:
        code = _drive(asked)
    except BaseException as error:  # noqa: BLE001  said, and seen by its exit code
        print(repr(error), file=sys.stderr, flush=True)
    os._exit(code)


def _drive(asked: dict[str, Any]) -> int:
    folder = Path(asked["folder"])
    with journal_at(asked["journal"]) as journal:
        if "write" in asked:
            _install(journal, asked["write"], asked["when"])
        clock, locks = SystemClock(), FileLocks(folder / "locks")
        act = EffectAct(folder, asked["seed"])
        engine = EmbeddedEngine(journal, clock, RandomIds(), locks, {"fake": act})
        engine.recover()
        runs = [run for run, _ in engine.list()]
        states = [engine.follow(run, lambda _: None, _LONGEST_S).state for run in runs]
        engine.close()
    return ENDED if set(states) <= {"ended"} else HELD


def _install(journal: Journal, at: int, when: str) -> None:
    """Let the journal end this process at its so many-th write."""
    counting = itertools.count(1)  # several threads write: each has its own number
    whole: Callable[..., Any] = journal.write

    def write(entries: object) -> Any:
        number = next(counting)
        if number == at and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = whole(entries)
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    journal.write = write  # type: ignore[method-assign]  # that is what this is for


if __name__ == "__main__":
    serve()
