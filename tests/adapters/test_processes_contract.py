"""What every `Processes` promises, the real one and the fake."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handrail.errors import ScriptError
from handrail.ports import Command, Finished, Processes
from handrail.testing.processes import Call, FakeProcesses
from support.scripts import Workshop

PROGRAMS: dict[str, tuple[str, Callable[[Call], int]]] = {
    "greet": ("echo hello; exit 3", lambda call: _say(call, b"hello\n", 3)),
    "killed": ("kill -KILL $$", lambda call: -9),
    "long": ("printf '%01000d' 7", lambda call: _say(call, b"0" * 999 + b"7", 0)),
    "silent": ("exit 0", lambda call: 0),
}


def _say(call: Call, piece: bytes, code: int) -> int:
    call.say(piece)
    return code


class Subject:
    """One implementation, with the programs above."""

    def __init__(self, processes: Processes, workshop: Workshop) -> None:
        self.processes = processes
        self.workshop = workshop
        self.seen: list[Any] = []

    def run(self, name: str, **settings: Any) -> Finished:
        command = self.command(name, **settings)
        return self.processes.run(command, self.seen.append, self.seen.append)

    def command(self, name: str, **settings: Any) -> Command:
        return self.workshop.command(self.workshop.folder / name, **settings)


@pytest.fixture(params=["local", "fake"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    workshop = Workshop(tmp_path)
    for name, (body, _) in PROGRAMS.items():
        workshop.script(body, name)
    if request.param == "fake":
        return Subject(FakeProcesses({name: act for name, (_, act) in PROGRAMS.items()}), workshop)
    return Subject(workshop.processes, workshop)


def test_exit_code(subject: Subject) -> None:
    """A script's exit code is told as it is."""
    finished = subject.run("greet")
    assert (finished.exit_code, finished.ended) == (3, "exited")


def test_signal(subject: Subject) -> None:
    """A script that a signal ended has minus that signal as its exit code."""
    finished = subject.run("killed")
    assert (finished.exit_code, finished.ended) == (-9, "exited")


def test_order(subject: Subject) -> None:
    """The process id is told once, and before anything that the script prints."""
    subject.run("greet")
    assert isinstance(subject.seen[0], int)
    assert b"".join(subject.seen[1:]) == b"hello\n"


def test_kept(subject: Subject) -> None:
    """What is shown live is kept, counted, and readable by the present user alone."""
    finished = subject.run("greet")
    assert subject.workshop.output.read_bytes() == b"hello\n"
    assert finished.output_bytes == 6
    assert stat.S_IMODE(subject.workshop.output.stat().st_mode) == 0o600


def test_kept_anew(subject: Subject) -> None:
    """An earlier output in the same place is replaced, with its rights."""
    subject.workshop.output.write_text("an earlier run that printed more than this one")
    subject.workshop.output.chmod(0o644)
    subject.run("greet")
    assert subject.workshop.output.read_bytes() == b"hello\n"
    assert stat.S_IMODE(subject.workshop.output.stat().st_mode) == 0o600


def test_limit(subject: Subject) -> None:
    """Of more output than the limit the first and last half are kept, and the gap is counted."""
    finished = subject.run("long", output_limit_bytes=100)
    kept = subject.workshop.output.read_bytes()
    gap = b"\n[handrail: 900 bytes left out here]\n"
    assert kept == b"0" * 50 + gap + b"0" * 49 + b"7"
    assert finished.output_bytes == 1000


def test_limit_met(subject: Subject) -> None:
    """Output of exactly the limit is kept whole."""
    subject.run("long", output_limit_bytes=1000)
    assert subject.workshop.output.read_bytes() == b"0" * 999 + b"7"


def test_missing(subject: Subject) -> None:
    """A script that does not exist is an error of the start, and no process id is told."""
    with pytest.raises(ScriptError) as raised:
        subject.run("nowhere")
    assert raised.value.code == "script.start"
    assert subject.seen == []


def test_refused_start(subject: Subject) -> None:
    """What `started` raises is passed on, and the script never ran."""

    def refuse(_pid: int) -> None:
        raise ValueError("the journal is full")

    with pytest.raises(ValueError, match="the journal is full"):
        subject.processes.run(subject.command("greet"), refuse, subject.seen.append)
    assert subject.seen == []


def test_unconfined(subject: Subject) -> None:
    """A run that asked for no confinement says that it had none."""
    finished = subject.run("silent")
    assert finished.confined
    assert finished.traced


def test_no_leftovers(subject: Subject) -> None:
    """A token that nothing carries ends nothing."""
    assert subject.processes.end_leftovers("never-used-token") == ()


def test_unknown_program(subject: Subject) -> None:
    """A program that is nowhere on the search path is not found."""
    assert subject.processes.find_program("no-such-program-anywhere") is None
