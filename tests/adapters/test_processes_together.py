"""Several scripts of one process, each in a thread: nobody ends, or reaps, what is another's."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from handrail.adapters.processes.launcher import kernel
from handrail.ports import Command, Finished
from support.scripts import DEADLINE_S, Workshop, require_confinement, wait_for

PATIENT = "echo begun > begun-$NAME; until [ -e go ]; do sleep 0.01; done; exit 4"


def command(shop: Workshop, name: str, body: str) -> Command:
    """Return a command with a script, a mark and an output of its own."""
    return shop.command(
        shop.script(body, f"{name}.sh"),
        environment={"HANDRAIL_RUN": f"test-{name}", "NAME": name},
        output=shop.folder / f"{name}.log",
    )


def run(shop: Workshop, one: Command) -> Finished:
    return shop.processes.run(one, lambda _: None, lambda _: None)


def test_a_killed_launcher_is_its_own_scripts_loss(tmp_path: Path) -> None:
    """A script that kills its launcher, and what it leaves, is ended; the other one goes on."""
    shop = Workshop(tmp_path)
    kills = "kill -KILL $PPID; (setsid sleep 1000 &); sleep 0.1; exit 5"
    with ThreadPoolExecutor(2) as threads:
        patient = threads.submit(run, shop, command(shop, "patient", PATIENT))
        wait_for(tmp_path / "begun-patient")
        killer = threads.submit(run, shop, command(shop, "killer", kills)).result(DEADLINE_S)
        assert killer.survivors == ("sleep",)
        assert not patient.done()
        (tmp_path / "go").write_text("")
        finished = patient.result(DEADLINE_S)
    assert (finished.ended, finished.exit_code) == ("exited", 4)


def test_orphans_are_adopted_until_the_last_one_ends(tmp_path: Path) -> None:
    """The first of two scripts to end does not take from the other who adopts its orphans."""
    shop = Workshop(tmp_path)
    before = kernel.is_subreaper()
    with ThreadPoolExecutor(2) as threads:
        patient = threads.submit(run, shop, command(shop, "patient", PATIENT))
        wait_for(tmp_path / "begun-patient")
        assert run(shop, command(shop, "quick", "exit 0")).exit_code == 0
        assert kernel.is_subreaper()
        (tmp_path / "go").write_text("")
        assert patient.result(DEADLINE_S).exit_code == 4
    assert kernel.is_subreaper() == before


def test_let_go(tmp_path: Path) -> None:
    """A script that somebody lets go of is ended as by Ctrl-C, with all that it started."""
    shop = Workshop(tmp_path)
    over = threading.Event()
    one = command(shop, "patient", PATIENT)
    one = Command(**{**vars(one), "is_over": over.is_set})
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(run, shop, one)
        wait_for(tmp_path / "begun-patient")
        over.set()
        finished = running.result(DEADLINE_S)
    assert finished.ended == "interrupted"


def test_let_go_too_late(tmp_path: Path) -> None:
    """A script that ended by itself has ended so, whatever is said afterwards."""
    shop = Workshop(tmp_path)
    ended_s = time.monotonic() + DEADLINE_S
    one = command(shop, "quick", "exit 3")
    one = Command(**{**vars(one), "is_over": lambda: time.monotonic() > ended_s})
    assert (run(shop, one).ended, run(shop, one).exit_code) == ("exited", 3)


def test_neighbours_that_go(tmp_path: Path) -> None:
    """A file beside a replaced one that goes while a script is caged is no reason to refuse it."""
    shop = Workshop(tmp_path)
    require_confinement(shop.processes)
    real, copies = tmp_path / "real", tmp_path / "copies"
    for folder in (real, copies):
        folder.mkdir()
        (folder / "a.db").write_text("a")
    stop = threading.Event()

    def flicker() -> None:
        while not stop.is_set():
            for number in range(20):
                (real / f"b.db-journal-{number}").write_text("")
            for path in real.glob("b.db-journal-*"):
                path.unlink()

    with ThreadPoolExecutor(1) as threads:
        flickering = threads.submit(flicker)
        try:
            ended = {
                shop.confined("exit 0", replaced=((real / "a.db", copies / "a.db"),), **reach)[0]
                for reach in ({"network_only": True}, {"writable": (copies,)}) * 5
            }
        finally:
            stop.set()
        flickering.result(DEADLINE_S)
    assert {(one.ended, one.exit_code) for one in ended} == {("exited", 0)}
