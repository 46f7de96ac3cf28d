"""Directory trees for tests, with everything in them that makes copies go wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from handrail.adapters.files import FilesStore, staging
from handrail.plans.effect import Effect
from handrail.plans.facts import Backup
from handrail.plans.holding import Event, Limits, Mode, Report
from handrail.plans.model import Budget

ID = "5d0c" * 8
Act = Callable[[Path], object]


def make_store(at: Path, files: dict[str, str] | None = None) -> FilesStore:
    """Return an adopted store at the new directory `at`."""
    at.mkdir()
    for name, text in (files or {}).items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text(text)
    store = FilesStore("store/uploads", at)
    store.adopt(ID)
    return store


def root_of(store: FilesStore) -> Path:
    """Return where `store` is."""
    return Path(store.connection().parts["path"])


def quiet(done: int, total: int | None) -> None:
    """Take progress and say nothing."""


def back_up(store: FilesStore, into: Path, backup_id: str = "b1") -> Backup:
    """Return a backup of `store` in the new directory `into`."""
    into.mkdir()
    return store.backup(backup_id, into, quiet)


def said(effects: tuple[Effect, ...]) -> list[tuple[str, str, str, int | None]]:
    """Return effects without their details."""
    return [(e.verb, e.kind, e.name, e.rows) for e in effects]


def texts(root: Path) -> dict[str, str]:
    """Return the content of every regular file below `root`."""
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def leftovers(root: Path) -> list[str]:
    """Return what Handrail has beside the tree."""
    return sorted(p.name for p in root.parent.iterdir() if p.name.startswith(f".{root.name}."))


class Guarding:
    """Runs scripts behind a guard, and keeps what was heard."""

    def __init__(self, at: Path) -> None:
        self._at = at
        self._number = 0
        self.heard: list[Event] = []

    def folder(self) -> Path:
        """Return a new private folder."""
        self._number += 1
        made = self._at / f"guard-{self._number}"
        made.mkdir(mode=0o700)
        return made

    def run(
        self,
        store: FilesStore,
        script: Act,
        mode: Mode = "measure",
        budget: Budget | None = None,
        meanwhile: Act = lambda _: None,
    ) -> Report:
        """Run `script` on what the guard gives, `meanwhile` on the tree itself, and settle."""
        limits = Limits(mode, budget)
        with staging.guarded(store, limits, self.folder(), self.heard.append) as guard:
            script(Path(guard.connection().parts["path"]))
            meanwhile(root_of(store))
            report = guard.settle()
            assert guard.settle() is report
            return report


@contextmanager
def another_process(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Give a process that runs `program` and has printed `ready`; it is killed in the end."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str], line: str) -> str:
    """Write a line to a process, and return the line that it answers with."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def set_times(path: Path, like: os.stat_result) -> None:
    """Give `path` the times of another file."""
    os.utime(path, ns=(like.st_atime_ns, like.st_mtime_ns))
