"""Operations over many targets on the command line.

What `plan`, `rehearse`, `run`, `resume`, `undo` and `runs` do where one walk over several targets
is meant, and not one run.

Exit codes as for a run: 0 all confirmed; 1 some failed, or were undone; 3 refused; 4 held, or
waiting for somebody; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from handrail.cli import choosing
from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.cli.solo import Solo
    from handrail.core.fanning import Fanned
    from handrail.plans.fan_out import FanOut
    from handrail.plans.model import Plan
    from handrail.plans.standing import Standing
    from handrail.plans.walk import Mark, Walk
    from handrail.ports import Engine

ALL = "all"
_EXIT = {"allow": 0, "refuse": 3, "require": 4}
# Of more targets than this, what their scripts print is kept, and not shown.
_LOUD = 20
_LANES = 12
_BAR = 30
# What a lane that is under way is called, by its last mark.
_GOING = {"begun": "under way", "later": "watched", "undo-begun": "being undone"}
_MARKS = 40


def are_meant(call: Call) -> bool:
    """Whether the options mean every target of an operation.

    Raises:
        UsageError: some are to be left out of what is for one alone.
    """
    options = call.options
    operation = call.declared.operations.get(options.operation)
    has_waves = operation is not None and operation.waves is not None
    found = options.on == ALL or (options.on is None and has_waves)
    if options.without and not found and recorded(call) is None:
        raise UsageError("usage", "--except leaves targets out of all: --on all --except STORE")
    return found


def recorded(call: Call) -> FanOut | None:
    """Return the fan-out of the digest that is given; None where none is meant."""
    from handrail.core import records
    from handrail.core.records import DIGEST

    name = call.options.operation
    if name in call.declared.operations or not DIGEST.fullmatch(name):
        return None
    return records.find_fan_out(call.world.journal, name)


def _fanned(call: Call) -> Fanned:
    from handrail.core import fanning

    options = call.options
    return fanning.plan(
        call.world,
        call.declared,
        options.operation,
        parameters=choosing.parameters(call),
        because=options.because,
        without=options.without,
    )


def plan(call: Call) -> int:
    """Plan on every target, and show all of it as one."""
    fan_out = _fanned(call).fan_out
    show_fan_out(call, fan_out)
    return _EXIT[fan_out.verdict]


def show_fan_out(call: Call, fan_out: FanOut, *, with_next: bool = True) -> None:
    """Write a fan-out to stdout, as text or as its documented JSON."""
    from handrail.cli import fan_outs, screen
    from handrail.plans.canonical import plain
    from handrail.plans.deeds import next_command

    if call.options.json:
        more = {"verdict": fan_out.verdict, "next": next_command(fan_out.plan)}
        told = replace(fan_out, plan=fan_out.plan.shown)
        screen.write_json({"format": 1, **more, "fan_out": plain(told)})
    else:
        screen.write("\n".join(fan_outs.fan_out_lines(fan_out, with_next=with_next)))


def show_plan(call: Call, plan: Plan, *, with_next: bool) -> bool:
    """Show the fan-out that a plan stands for; return whether it stands for one."""
    from handrail.core import records
    from handrail.plans.fan_out import KIND

    fan_out = records.fan_out(call.world.journal, plan.digest) if plan.target.kind == KIND else None
    if fan_out is not None:
        show_fan_out(call, fan_out, with_next=with_next)
    return fan_out is not None


def rehearse(call: Call) -> int:
    """Rehearse on every target that needs it, one after the other, and show all as one."""
    from handrail.core import fanning

    planned = _fanned(call)
    needed = [child for child in planned.children if fanning.needs_rehearsal(child)]
    count = len(needed)
    if not needed:
        call.talk.end("rehearse", "every target is rehearsed as it is now")
    made, failed = fanning.rehearse(call.world, planned, _Rehearsals(call, count).talk_to)
    for target, error in failed:
        call.talk.end("rehearse", f"{target}: {error.message}", ok=False)
    show_fan_out(call, made.fan_out)
    ended = [child.plan.facts.rehearsal for child in made.children]
    well = all(one and one.ended == "exited" and one.exit_code == 0 for one in ended)
    return 0 if well and not failed else 1


class _Rehearsals:
    """Tells of each rehearsal in one line, with how many are left."""

    def __init__(self, call: Call, count: int) -> None:
        self._talk = call.talk
        self._count = count
        self._begun = 0

    def talk_to(self, target: str) -> _LaneTalk:
        """Return who is told of the rehearsal of one target."""
        self._begun += 1
        self._talk.begin("rehearse", f"{target}   {self._begun}/{self._count}")

        def say(piece: bytes) -> None:
            if self._count <= _LOUD:
                self._talk.output(piece)

        def ended(stage: str, text: str, *, ok: bool) -> None:
            if stage == "undo" or not ok:
                self._talk.end("rehearse", f"{target}   {stage} {text}", ok=ok)

        return _LaneTalk(say, ended)


class _LaneTalk:
    """Somebody to talk to of one target among many: asked nothing, told little."""

    def __init__(self, say: Callable[[bytes], None], ended: Callable[..., None]) -> None:
        self._say = say
        self._ended = ended

    def begin(self, stage: str, text: str) -> None:
        """Say nothing: the walk's own line says it."""

    def progress(self, done: int, total: int | None) -> None:
        """Say nothing."""

    def output(self, piece: bytes) -> None:
        """Pass on what the script printed."""
        self._say(piece)

    def end(self, stage: str, text: str, *, ok: bool = True) -> None:
        """Say how a stage ended, where somebody wants to know."""
        self._ended(stage, text, ok=ok)

    def choose(self, question: str, choices: Mapping[str, str], otherwise: str) -> str:  # noqa: ARG002  the port's
        """Ask nobody: many targets would ask at once."""
        return otherwise


def run(call: Call, opened: Callable[[int], None] = lambda _: None) -> int:
    """Plan anew, and run it over every target, in waves; `opened` is told the walk's number.

    Raises:
        UsageError: the glass is to be broken for all of them at once.
    """
    if call.options.break_glass is not None:
        raise UsageError(
            "usage",
            "the glass is broken for one target at a time",
            hint=f"handrail run {call.options.operation} --on STORE --break-glass WHY",
        )
    fan_out = recorded(call)
    return run_fanned(call, _anew(call, fan_out) if fan_out else _fanned(call), opened)


def _anew(call: Call, fan_out: FanOut) -> Fanned:
    from handrail.core import fanning

    world, because = call.world, call.options.because
    return fanning.anew(world, call.declared, fan_out, person=world.person, because=because)


def run_fanned(call: Call, fanned: Fanned, opened: Callable[[int], None] = lambda _: None) -> int:
    """Run what was planned just now."""
    from handrail.core import walks
    from handrail.plans.fan_out import walk_of

    fan_out = fanned.fan_out
    if fan_out.verdict != "allow":
        show_fan_out(call, fan_out)
        return _EXIT[fan_out.verdict]
    board = Board(call, len(fan_out.children))
    engine = engine_of(call, board)
    number = engine.submit(walk_of(fan_out, call.world.person), call.world.ids.new())
    opened(number)
    board.catch_up(walks.standing(call.world, number))
    return follow(call, engine, number, board)


def run_one(call: Call, plan: Plan, opened: Callable[[int], None] = lambda _: None) -> int:
    """Run a judged plan of a kit: a walk of one lane; `opened` is told its number."""
    from handrail.core import kit_running

    walk = kit_running.walk_of(plan, call.world.person)
    board = board_of(call, walk)
    engine = engine_of(call, board)
    number = engine.submit(walk, call.world.ids.new())
    opened(number)
    return follow(call, engine, number, board)


def board_of(call: Call, walk: Walk, stands: Standing | None = None) -> Board | Solo:
    """Return who is told of a walk; of one that is under way, with what happened before."""
    from handrail.cli import solo

    if solo.is_meant(walk):
        return solo.Solo(call, walk)
    return Board(call, len(walk.lanes), stands)


def engine_of(call: Call, board: Board | Solo) -> Engine:
    """Return what runs walks, telling `board`."""
    from handrail import wiring
    from handrail.core import acts

    return wiring.engine(call.world, acts.acts(call.world, call.declared, board.talk_to))


def follow(call: Call, engine: Engine, number: int, board: Board | Solo, *, undone: int = 1) -> int:
    """Follow a walk until it ended or waits for a human; show that, and return the exit code.

    Args:
        call: of the command.
        engine: runs it, unless another process does.
        number: of the walk.
        board: told what happens.
        undone: exit code of a walk that is undone: 0 where that was asked for.
    """
    try:
        stands = engine.follow(number, board.told)
    except KeyboardInterrupt:
        engine.close()
        board.clear()
        show_walk(call, number)
        return 130
    finally:
        engine.close()
    board.clear()
    code = exit_code(stands, undone)
    show_walk(call, number, code)
    return code


def exit_code(stands: Standing, undone: int = 1) -> int:
    """Return what a command exits with that saw a walk come to where it stands."""
    if stands.state != "ended":
        return 4
    return {"done": 0, "undone": undone}.get(stands.outcome, 1)


class Board:
    """The terminal while a walk runs: a line for each lane that ended, and one for what goes on."""

    def __init__(self, call: Call, count: int, stands: Standing | None = None) -> None:
        self._talk = call.talk
        self._count = count
        self._lock = threading.Lock()
        self._states: dict[str, str] = {}
        self._wave = ""
        if stands is not None:
            self.catch_up(stands)

    def catch_up(self, stands: Standing) -> None:
        """Know what happened before anybody told it."""
        with self._lock:
            self._wave = stands.walk.waves[stands.wave].name
            self._states = {
                name.rpartition("/")[0]: one.state
                for name, one in stands.steps.items()
                if one.state in {"done", "failed", *_GOING}
            }

    def told(self, mark: Mark) -> None:
        """Show what a mark says."""
        with self._lock:
            self._show(mark)

    def _show(self, mark: Mark) -> None:
        target = mark.step.rpartition("/")[0]
        why = str(mark.body.get("why", ""))
        if target:
            self._states[target] = mark.kind
            self._draw()
        if mark.kind == "wave-begun":
            self._wave = str(mark.body.get("wave", ""))
        elif mark.kind == "soaking":
            self._talk.end("soak", f"wave {_soak(mark)}")
        elif mark.kind in {"done", "undo-done"}:
            self._talk.end("undo" if mark.kind == "undo-done" else "run", _of(target, mark, why))
        elif mark.kind in {"failed", "unknown", "undo-failed", "undo-unknown"}:
            self._talk.end(mark.kind, _of(target, mark, why), ok=False)
        self._draw()

    def _draw(self) -> None:
        counts = Counter(self._states.values())
        ended = counts["done"] + counts["undo-done"]
        failed = sum(counts[kind] for kind in ("failed", "unknown", "undo-failed"))
        going = [(t, _GOING[kind]) for t, kind in self._states.items() if kind in _GOING]
        lines = [f"  ..  {target:<30} {word}" for target, word in going[:_LANES]]
        if len(going) > _LANES:
            lines.append(f"  ..  and {len(going) - _LANES} more")
        bar = "#" * (_BAR * ended // self._count) if self._count else ""
        said = f"  {self._wave:<10} [{bar:<{_BAR}}] {ended:,}/{self._count:,} done"
        self._talk.below([*lines, said + (f", {failed} failed" if failed else "")])

    def talk_to(self, target: str) -> _LaneTalk:
        """Return who is told of one target's run."""

        def say(piece: bytes) -> None:
            if self._count <= _LOUD:
                with self._lock:
                    for line in piece.splitlines():
                        self._talk.output(f"{target}: ".encode() + line + b"\n")

        def ended(stage: str, text: str, *, ok: bool) -> None:
            if not ok and stage not in {"run", "watch"}:
                with self._lock:
                    self._talk.end(stage, f"{target}   {text}", ok=False)

        return _LaneTalk(say, ended)

    def clear(self) -> None:
        """Leave no half line behind."""
        self._talk.below(())


def _soak(mark: Mark) -> str:
    until = str(mark.body.get("until", ""))[:19].replace("T", " ")
    return f"{mark.body.get('wave', '')} is left alone until {until} UTC"


def _of(target: str, mark: Mark, why: str) -> str:
    body = mark.body.get("body")
    run = body.get("run") if isinstance(body, Mapping) else None
    return f"{target}   {f'run {run}, ' if run else ''}{why}"


def resume(call: Call, number: int) -> int:
    """Go on with a walk that is held, or that nobody drives any more."""
    from handrail.core import walks

    options = call.options
    stands = walks.standing(call.world, number)
    word, body = _word(call, number, stands)
    board = board_of(call, stands.walk, stands)
    engine = engine_of(call, board)
    if word:
        _say(call, engine, number, word, body)
    return follow(call, engine, number, board, undone=0 if options.undo else 1)


def _word(call: Call, number: int, stands: Standing) -> tuple[str, dict[str, Any]]:
    """Return the word that the options mean, and its body; empty to take it up as it is."""
    options = call.options
    chosen = [n for n in ("undo", "accept", "rerun", "leave") if getattr(options, n)]
    if options.on and chosen not in (["accept"], ["rerun"]):
        raise UsageError("usage", "--on names one target to --accept or to --rerun")
    if not chosen:
        if stands.state == "ended":
            raise UsageError(
                "run.nothing",
                f"run {number} has ended: {stands.outcome}",
                hint=f"handrail runs show {number}",
            )
        return ("resume" if stands.state == "held" else ""), {}
    if chosen == ["undo"]:
        return "undo", {}
    if chosen == ["leave"]:
        return "accept", {}
    if chosen == ["rerun"]:
        return "rerun", {"step": _step(stands, options.on)} if options.on else {}
    step = _step(stands, options.on or _only_doubtful(number, stands))
    _settle(call, number, step.rpartition("/")[0])
    return "accept", {"step": step}


def _step(stands: Standing, target: str) -> str:
    """Return the step of a target, which may be named without its kind."""
    from handrail.estate.shapes import nearest
    from handrail.plans.walk import step_id

    steps = {lane.target: lane.steps[-1].name for lane in stands.walk.lanes}
    ref = target if target in steps else f"store/{target}"
    if ref not in steps:
        raise UsageError(
            "operations.target",
            f"`{target}` is none of the targets of this run",
            hint=nearest(ref, tuple(steps)),
        )
    return step_id(ref, steps[ref])


def _only_doubtful(number: int, stands: Standing) -> str:
    """Return the one target that a word can be about.

    Raises:
        UsageError: there is none, or more than one.
    """
    from handrail.core import walks

    found = [lane.target for lane in walks.lanes(stands) if lane.state in walks.DOUBTFUL]
    if len(found) == 1:
        return found[0]
    said = f"{len(found)} targets failed or are unknown" if found else "no target failed"
    raise UsageError(
        "run.nothing",
        f"which target of run {number} is to be taken as done? {said}",
        hint=f"handrail resume {number} --accept --on {found[0]}" if found else "handrail runs",
    )


def _settle(call: Call, number: int, target: str) -> None:
    """Let a child that was cut off go on from what is there, before its lane counts as done."""
    from handrail.core import recalling, records, running, walks

    child = walks.child_of(call.world, number, target)
    if child is not None and child in records.unfinished(call.world.journal, target):
        decided = recalling.recorded(call.world, call.declared, child, None)
        outcome = running.resume(call.world, child, decided, call.talk, choice="accept")
        if outcome.outcome != "confirmed":
            raise UsageError(
                "run.nothing",
                f"run {child} on {target} ended otherwise: {outcome.outcome}: {outcome.why}",
                hint=f"handrail resume {number}",
            )


def _say(call: Call, engine: Engine, number: int, word: str, body: Mapping[str, Any]) -> None:
    from handrail.core import walks
    from handrail.plans.canonical import time_text
    from handrail.plans.walk import Signal

    world = call.world
    digest = walks.standing(world, number).walk.digest
    now = time_text(world.clock.now())
    engine.signal(number, Signal(world.ids.new(), word, world.person, digest, body, now))


def undo(call: Call, number: int) -> int:
    """Put back what a walk did: its runs, in reverse order; never what did not begin."""
    from handrail.core import walks

    stands = walks.standing(call.world, number)
    board = board_of(call, stands.walk, stands)
    engine = engine_of(call, board)
    _say(call, engine, number, "undo", {})
    return follow(call, engine, number, board, undone=0)


def show_walk(call: Call, number: int, code: int | None = None) -> None:
    """Write where a walk stands, as text or as its documented JSON."""
    from handrail.cli import fan_outs, screen, solo
    from handrail.core import walks

    stands = walks.standing(call.world, number)
    if call.options.json:
        screen.write_json(as_json(call, number, stands, code))
        return
    if solo.is_meant(stands.walk) and stands.state == "ended":
        screen.write("\n".join(solo.lines(call, number, stands)))
        return
    lines = fan_outs.walk_lines(number, stands)
    if stands.outcome == "done":
        until = call.world.clock.now() + timedelta(seconds=call.declared.policy.undo_age_s)
        lines.append(f"undo until {until:%Y-%m-%d %H:%M} UTC")
    screen.write("\n".join(lines))


def as_json(
    call: Call, number: int, stands: Standing, code: int | None = None
) -> dict[str, object]:
    """Return the documented JSON shape of a walk."""
    from handrail.core import walks
    from handrail.plans.canonical import plain

    found = walks.summary(call.world, number)
    lanes = [plain(lane) for lane in walks.lanes(stands)]
    waves = plain(stands.walk.waves)
    told = {"state": stands.state, "wave": stands.wave, "waves": waves, "lanes": lanes}
    more = {} if code is None else {"exit_code": code}
    return {"format": 1, "walk": {**found, **told, "awaits": list(stands.awaits)}, **more}


def show_story(call: Call, number: int) -> int:
    """Show one walk for `runs show`: where it stands, its waves, and what happened."""
    from handrail.cli import fan_outs, screen
    from handrail.core import walks

    stands = walks.standing(call.world, number)
    told = walks.marks(call.world, number)
    if call.options.json:
        found = as_json(call, number, stands)
        marks = [{"time": m.time, "kind": m.kind, "step": m.step, "body": m.body} for m in told]
        # The walk itself stands in the journal once; here it would be all there is to see.
        screen.write_json({**found, "marks": [m for m in marks if m["kind"] != "opened"]})
        return 0
    lines = fan_outs.walk_lines(number, stands)
    rows = [
        (mark.time[:19].replace("T", " "), mark.kind, mark.step.rpartition("/")[0], _why(mark))
        for mark in told
        if mark.kind not in {"later", "begun", "taken"}
    ]
    shown = rows if call.options.all else rows[-_MARKS:]
    if len(shown) < len(rows):
        hidden = len(rows) - len(shown)
        lines += ["", f"  {hidden:,} marks before these: handrail runs show {number} --all"]
    lines += ["", *screen.columns(shown)]
    screen.write("\n".join(lines))
    return 0


def _why(mark: Mark) -> str:
    if mark.kind == "signal":
        signal = mark.body.get("signal")
        said = signal if isinstance(signal, Mapping) else {}
        ignored = f": ignored, {mark.body['ignored']}" if mark.body.get("ignored") else ""
        return f"{said.get('name', '')} by {said.get('person', '')}{ignored}"
    if mark.kind == "wave-begun":
        return str(mark.body.get("wave", ""))
    if mark.kind == "soaking":
        return _soak(mark)
    return _of("", mark, str(mark.body.get("why", "") or mark.body.get("outcome", ""))).strip()


def is_walk(call: Call, number: int) -> bool:
    """Whether a number is of a walk, and not of one run."""
    from handrail.core import records

    return records.is_walk(call.world.journal, number)
