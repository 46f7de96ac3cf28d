"""Holds a script to its budget on a directory tree: it works on a copy, which is swapped in.

Rules:
- In `hold`, `measure` and `read-only` the script has a copy beside the tree, on the same file
  system. Only `settle` puts it in the tree's place, by one exchange of names, when it is inside
  the limits; whatever ends before that leaves the tree as it was.
- What a script did is its copy against what was copied. What others do to the tree meanwhile is no
  part of that: it is taken over into the copy, and what both touched stops the run.
- After the swap the former tree is looked at once more: what was written there in the last moment
  is taken over too. A process that keeps a file of it open is named: it writes where nobody reads.
- The first look reads all content; a later one what has changed by inode, size or times, and what
  somebody has open. But for root, a process of another user is not seen, and what that writes
  through memory in these seconds, without any time changing, stays in the former tree.
- The former tree is kept beside until the next swap has worked.
- In `observe` the script works on the tree itself, and everybody's changes are counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from handrail.adapters.files import manifest, merging, swapping
from handrail.adapters.files.backups import require_space
from handrail.adapters.files.building import Builder, of_walk
from handrail.adapters.files.changes import effects
from handrail.adapters.files.clones import refuse_lost
from handrail.adapters.files.durable import flush_all
from handrail.adapters.files.identity import give, identify
from handrail.adapters.files.openers import uses
from handrail.adapters.files.swapping import Stage
from handrail.adapters.files.tree import (
    Entry,
    answering,
    digested,
    look,
    scan,
    scan_again,
    shown,
    walk,
)
from handrail.errors import sanitise
from handrail.plans import budget as budgets
from handrail.plans.effect import Effect
from handrail.plans.holding import Event, Limits, Report, Stop
from handrail.plans.model import Breach
from handrail.ports import Connection, Store, StoreGuard

HOW = "copied and swapped in"
_OBSERVED = "observed only"
_REMEDY = "rehearse again, if that is what you meant"
_MOST_LOOKS = 3
_MOST_EVENTS = 1000
_MOST_LINKS = 20
_NODES = frozenset({"socket", "fifo"})


@contextmanager
def guarded(
    store: Store, limits: Limits, folder: Path, hear: Callable[[Event], None]
) -> Iterator[StoreGuard]:
    """Give what stands between a script and the tree of `store`.

    Raises:
        StoreError: no copy can be made here, or none could be put in the tree's place.
    """
    root = Path(store.connection().parts["path"])
    if limits.mode == "observe":
        store.observe(folder)
        yield _Watching(store, folder)
        return
    with answering(store.resource, root), swapping.staged(store.resource, root) as stage:
        guard = _Staging(store.resource, limits, folder, stage, hear)
        guard.begin()
        yield guard


@dataclass
class _Watching:
    """A guard that only looks on."""

    store: Store
    folder: Path
    report: Report | None = None

    def connection(self) -> Connection:
        """Return the tree itself."""
        return self.store.connection()

    def halt(self, elsewhere: str) -> None:
        """Do nothing: a copy takes no effect before it is settled."""

    def settle(self) -> Report:
        """Return everything that has changed, by whomever."""
        if self.report is None:
            found = self.store.effects(self.folder)
            self.report = Report(self.store.resource, _OBSERVED, found, kept=1 if found else 0)
        return self.report


@dataclass
class _Staging:
    """A guard that gives the script a copy.

    The manifests in `folder` are in the order of their making: `base` of the copy as it was made,
    `script` of the copy when the script had ended, `others-N` of the tree at each look.
    """

    resource: str
    limits: Limits
    folder: Path
    stage: Stage
    hear: Callable[[Event], None]
    events: list[Event] = field(default_factory=list)
    links: list[tuple[bytes, bytes]] = field(default_factory=list)
    report: Report | None = None
    _looks: int = 0
    _began_ns: int = 0

    def connection(self) -> Connection:
        """Return the copy."""
        path = str(self.stage.folder / self.stage.root.name)
        return Connection(
            environment={"HANDRAIL_FILES": path},
            parts={"path": path},
            paths=(Path(path),),
        )

    def begin(self) -> None:
        """Make the copy.

        Raises:
            StoreError: something of the tree cannot be in a copy.
        """
        root = self.stage.root
        require_space(self.resource, root, self.stage.folder)
        builder = Builder(self.resource, self.stage.tree)
        found = of_walk(walk(self.resource, root))
        manifest.write(self._at("base"), builder.build(found))
        refuse_lost(self.resource, builder)
        self._tell_ways_out()

    def halt(self, elsewhere: str) -> None:
        """Do nothing: a copy takes no effect before it is settled."""

    def settle(self) -> Report:
        """Judge what the script did to the copy, and put it in the tree's place."""
        if self.report is None:
            with answering(self.resource, self.stage.root):
                self.report = self._settle()
        return self.report

    def _settle(self) -> Report:
        if not self.stage.tree.is_dir() or self.stage.tree.is_symlink():
            return self._stopped(Stop("would remove the directory itself", "", remedy=_REMEDY))
        manifest.write(self._at("script"), scan(self.resource, self.stage.tree))
        done = effects(self.resource, self._read("base")(), self._read("script")())
        stop = self._judge(done)
        if stop is None and done:
            stop = self._take_over()
        if stop is not None:
            return self._stopped(stop)
        if done:
            self._swap()
        return Report(self.resource, HOW, done, events=tuple(self.events), kept=1 if done else 0)

    # --- judging -------------------------------------------------------------------------------

    def _judge(self, done: tuple[Effect, ...]) -> Stop | None:
        if self.limits.mode == "read-only" and done:
            return _stop(Breach(done[0], None))
        if self.limits.mode != "hold" or self.limits.budget is None:
            return None
        found = budgets.breaches(self.limits.budget, done)
        return _stop(found[0]) if found else None

    def _stopped(self, stop: Stop) -> Report:
        self._tell("refused", stop.what)
        return Report(self.resource, HOW, stop=stop, events=tuple(self.events))

    # --- the tree moved meanwhile --------------------------------------------------------------

    def _take_over(self) -> Stop | None:
        """Bring what others changed into the copy, until nothing more changes."""
        last, taken = "base", 0
        for _ in range(_MOST_LOOKS):
            now = self._look()
            found = self._compare(last, now)
            if found.conflicts:
                return _both_stop(found.conflicts)
            if not found.apart and last != "base":
                break
            taken += len(found.apart)
            self._tell_bypasses(found.apart)
            self._taking(self.stage.root, self.stage.tree).take(found.apart)
            last = now
        if taken:
            self._tell("others", f"{taken:,} changes of others during the run were taken over")
        return None

    def _tell_bypasses(self, found: Iterable[merging.Difference]) -> None:
        """Name what changed in the tree itself where a link in the copy leads."""
        for one in found:
            for link, target in self.links:
                if not target or one.path == target or one.path.startswith(target + b"/"):
                    self._tell(
                        "bypass",
                        f"`{shown(one.path)}` changed in the tree itself, where the link "
                        f"`{shown(link)}` leads: by the script, or by others",
                    )

    def _look(self) -> str:
        """Write a manifest of the tree as it is now; return its name."""
        last, self._looks = self._looks, self._looks + 1
        root, name = self.stage.root, f"others-{self._looks}"
        self._write_again(name, root, f"others-{last}" if last else "")
        return name

    def _write_again(self, name: str, root: Path, last: str) -> None:
        """Write a manifest of a tree, with what the `last` one still says of it."""
        clock = self.folder / "clock"
        clock.touch()
        began_ns = clock.stat().st_mtime_ns
        if last:
            in_use = {path for _, path in uses(root)}
            found = scan_again(self.resource, root, self._read(last)(), self._began_ns, in_use)
        else:
            found = map(digested, walk(self.resource, root))
        manifest.write(self._at(name), found)
        self._began_ns = began_ns

    def _compare(self, last: str, now: str) -> merging.Differences:
        return merging.compare(*(self._read(n) for n in ("base", "script", last, now)))

    def _taking(self, source: Path, target: Path) -> merging.Taking:
        return merging.Taking(source, target, self.stage.folder)

    # --- the swap ------------------------------------------------------------------------------

    def _swap(self) -> None:
        """Exchange the trees, and take over what was written in the last moment."""
        root, last = self.stage.root, f"others-{self._looks}"
        left = merging.share(root, self.stage.tree, self.stage.folder, self._in_use())
        for path in left:
            self._tell("unheld", f"`{shown(path)}` is a new node: restart who uses it")
        give(self.stage.tree, identify(root).id)
        self.stage.swap()
        former = self.stage.tree
        self._write_again("former", former, last)
        self._follow(former, last)
        self._tell_left_behind(former)
        swapping.forget(root, but=self.stage.folder)
        self.events.append(Event("kept", f"the tree as it was: {sanitise(str(former))}"))

    def _in_use(self) -> Iterator[Entry]:
        """Yield what the script left alone, and others may have open."""
        open_files = {path for _, path in uses(self.stage.root)}
        both = manifest.joined(self._read("base")(), self._read("script")())
        for path, (was, ours) in both:
            if was is None or ours is None or was.state != ours.state:
                continue
            if ours.kind in _NODES or (ours.kind == "file" and path in open_files):
                yield ours

    def _tell_left_behind(self, former: Path) -> None:
        """Name the processes that still use what is no part of the tree any more."""
        for who, path in dict.fromkeys(uses(former)):
            old, new = look(former, path), look(self.stage.root, path)
            if old is None or new is None or old.seen[:2] != new.seen[:2]:
                self._tell(
                    "unheld",
                    f"{who} uses `{shown(path)}` of the former tree, where nobody reads: "
                    "restart it",
                )

    def _follow(self, former: Path, last: str) -> None:
        """Take over what was written to the former tree after the last look."""
        found = self._compare(last, "former")
        known = {one.path for one in found.apart}
        before = {e.path: e for e in self._read(last)() if e.path in known}
        free: list[merging.Difference] = []
        taken = list(found.conflicts)
        for one in found.apart:
            here, was = look(self.stage.root, one.path), before.get(one.path)
            if (here and here.state) == (was and was.state):
                free.append(one)
            else:
                taken.append(one.path)
        if free:
            self._taking(former, self.stage.root).take(free)
            flush_all(self.stage.root)
            self._tell("others", f"{len(free):,} changes of the last moment were taken over")
        if taken:
            names = merging.named(taken)
            self._tell(
                "unheld", f"written in the last moment, left in {sanitise(str(former))}: {names}"
            )

    # --- what a person should know -------------------------------------------------------------

    def _tell_ways_out(self) -> None:
        """Name what of the copy leads to the real tree, or out of both."""
        for entry in self._ways_out():
            if len(self.events) >= _MOST_LINKS:
                continue
            if entry.kind == "link":
                target = os.fsdecode(bytes.fromhex(entry.digest))
                if Path(target).is_relative_to(self.stage.root):
                    # A caged script comes to its copy by it; what an uncaged one does is told.
                    inside = os.fsencode(Path(target).relative_to(self.stage.root))
                    self.links.append((entry.path, b"" if inside == b"." else inside))
                    continue
                what = (
                    f"what is written through the link `{shown(entry.path)}` is not held: it "
                    f"leads to {sanitise(target)}"
                )
            else:
                what = (
                    f"`{shown(entry.path)}` has another name outside of the tree: the two part "
                    "with the swap"
                )
            self._tell("unheld", what)

    def _ways_out(self) -> Iterator[Entry]:
        inside: dict[tuple[int, int], int] = {}
        several: dict[tuple[int, int], Entry] = {}
        for entry in self._read("base")():
            if entry.kind == "link" and _leads_out(entry):
                yield entry
            elif entry.kind == "file" and entry.names > 1:
                key = (entry.seen[0], entry.seen[1])
                inside[key] = inside.get(key, 0) + 1
                several.setdefault(key, entry)
        yield from (e for key, e in several.items() if inside[key] < e.names)

    def _tell(self, kind: str, text: str) -> None:
        event = Event(kind, text)
        if len(self.events) < _MOST_EVENTS:
            self.events.append(event)
            self.hear(event)

    def _at(self, name: str) -> Path:
        return self.folder / f"{name}.manifest"

    def _read(self, name: str) -> Callable[[], Iterable[Entry]]:
        return lambda: manifest.read(self._at(name))


def _leads_out(link: Entry) -> bool:
    """Whether a link leads out of the tree that it lies in, or by an absolute path into it."""
    target = bytes.fromhex(link.digest)
    if target.startswith(b"/"):
        return True
    depth = link.path.count(b"/")
    for part in target.split(b"/"):
        depth += {b"": 0, b".": 0, b"..": -1}.get(part, 1)
        if depth < 0:
            return True
    return False


def _stop(breach: Breach) -> Stop:
    return Stop(
        sanitise(f"would {budgets.sentence(breach)}"),
        "",
        breach.effect,
        breach.allowed,
        remedy=_REMEDY,
    )


def _both_stop(paths: list[bytes]) -> Stop:
    return Stop(
        f"would overwrite what others changed during the run: {merging.named(paths)}",
        "",
        remedy="run it again, at a time when nobody writes there",
    )
