"""Questions in mid-run: a script asks, a person answers from anywhere, and the script goes on."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handrail.core import asking, attending, records
from handrail.core.asking import Asked
from handrail.core.desk import Desk, folder_of, path_of
from handrail.core.outcome import Outcome
from handrail.errors import KeysError, RefusedError, UsageError
from handrail.operations import questions
from handrail.operations.model import Question
from handrail.testing.processes import Call
from support.builders import make_operation
from support.declarations import problems
from support.teams import ANA, BEN, CHI, OPERATION, SESSIONS, Team, make_team, signers
from support.worlds import OPERATION as TRIM
from support.worlds import FakeWorld, commit

FAKE_ANA, FAKE_BEN, FAKE_CHI = "ana@example.com", "ben@example.com", "chi@example.com"
QUESTION = "questions:\n  size: {type: int, text: How many sessions to keep?, default: 5}\n"
ASK_S = 30


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that another thread or process brings about."""
    deadline = time.monotonic() + ASK_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def ask(call: Call, *words: str) -> tuple[int, str]:
    """Ask as a script does: by the command in its PATH."""
    done = subprocess.run(
        ["handrail-ask", *words],
        env=dict(call.command.environment),
        capture_output=True,
        text=True,
        timeout=ASK_S,
        check=False,
        executable=_in_path(call.command.environment["PATH"]),
    )
    call.say(done.stderr.encode())
    return done.returncode, done.stdout.strip()


def _in_path(path: str) -> str:
    found = (Path(folder) / "handrail-ask" for folder in path.split(os.pathsep))
    return str(next(one for one in found if one.exists()))


@pytest.fixture
def asks(fake: FakeWorld) -> FakeWorld:
    """A world whose script asks how many sessions to keep, and deletes the others."""
    fake.write("operations/trim.yaml", TRIM.format(undo="restore") + QUESTION)
    fake.write("allowed_signers", "ana ben chi\n")
    commit(fake)

    def trim(call: Call) -> int:
        code, size = ask(call, "size", "there are", str(fake.count()))
        if code:
            return code
        return fake.program(f"DELETE FROM sessions WHERE id > {int(size)}")(call)

    fake.processes.programs = {"trim.sh": trim}
    return fake


@contextmanager
def running(fake: FakeWorld, **options: Any) -> Iterator[Future[Outcome]]:
    """Run what is ready in another thread."""
    decided = fake.make_ready(**options)
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(fake.begin, decided)


def question(fake: FakeWorld) -> Asked:
    """Wait until the run asks, and return the question."""
    wait_for(lambda: bool(asking.open_questions(fake.world())))
    (asked,) = asking.open_questions(fake.world())
    return asked


def answer(
    fake: FakeWorld, value: str, person: str = FAKE_BEN, name: str = "size", **options: Any
) -> asking.Answer:
    world = fake.world(person)
    return asking.answer(world, fake.declared, 1, name, value, lambda: Path(person), **options)


def test_a_rehearsal_answers_by_default(asks: FakeWorld) -> None:
    """In a rehearsal the declared default is the answer, and it is noted what was answered."""
    plan = asks.rehearse().plan
    assert plan.facts.rehearsal is not None
    assert plan.facts.rehearsal.answers == (("size", "5"),)
    assert plan.budget is not None
    assert plan.budget.allowances[0].rows == 15


def test_a_person_answers(asks: FakeWorld) -> None:
    """The run waits, shows the question, gets the answer, and notes whose it was."""
    with running(asks) as run:
        asked = question(asks)
        assert (asked.run, asked.question.name, asked.note) == (1, "size", "there are 20")
        assert (asked.operation, asked.person) == ("trim", FAKE_ANA)
        assert answer(asks, "7").person == FAKE_BEN
        assert run.result(ASK_S).outcome == "confirmed"
    assert asks.count() == 7
    (told,) = records.told_of(asks.journal, "run-1", "asked")
    assert told["asked"]["question"]["text"] == "How many sessions to keep?"
    (noted,) = records.told_of(asks.journal, "run-1", "answered")
    assert noted == {"question": "size", "outcome": "answer", "value": "7", "by": FAKE_BEN}
    assert asking.open_questions(asks.world()) == ()


def test_what_was_answered_is_held_to_the_budget(asks: FakeWorld) -> None:
    """An answer lets a script do no more than it did in rehearsal."""
    with running(asks) as run:
        question(asks)
        answer(asks, "0")
        assert run.result(ASK_S).outcome == "over-budget"
    assert asks.count() == 20


def test_given_beforehand(asks: FakeWorld) -> None:
    """An answer given with -p is part of the plan: nobody is asked, in rehearsal and run alike."""
    decided = asks.make_ready(parameters={"size": "9"})
    assert decided.plan.request.parameters == {"size": "9"}
    assert asks.begin(decided).outcome == "confirmed"
    assert asks.count() == 9
    assert asks.journal.chains(asking.PREFIX) == ()
    assert asks.decide().plan.digest != decided.plan.digest


@pytest.mark.parametrize("value", ["", "x", "1.5", "7\n8", "99999999999999999999", "true"])
def test_wrong_answer(asks: FakeWorld, value: str) -> None:
    """What the type does not allow is told so, and the question stays open."""
    with running(asks) as run:
        question(asks)
        with pytest.raises(UsageError, match="`size` is answered by a whole number") as raised:
            answer(asks, value)
        assert raised.value.code == "question.answer"
        answer(asks, "7")
        assert run.result(ASK_S).outcome == "confirmed"


def test_second_answer(asks: FakeWorld) -> None:
    """The first answer counts; whoever comes later is told whose it was."""
    with running(asks) as run:
        question(asks)
        answer(asks, "7")
        with pytest.raises(UsageError, match="has answered `7`") as raised:
            answer(asks, "8", FAKE_CHI)
        assert raised.value.code == "question.answered"
        assert run.result(ASK_S).outcome == "confirmed"
    assert asks.count() == 7


def test_two_answers_at_once(asks: FakeWorld) -> None:
    """Of two answers in the same moment one counts."""
    with running(asks) as run:
        question(asks)
        barrier = threading.Barrier(2)

        def one(value: str, person: str) -> bool:
            barrier.wait(20)
            try:
                answer(asks, value, person)
            except UsageError:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            took = list(pool.map(one, ("7", "8"), (FAKE_BEN, FAKE_CHI)))
        assert sorted(took) == [False, True]
        run.result(ASK_S)
    assert asks.count() == (7 if took[0] else 8)


def test_refused(asks: FakeWorld) -> None:
    """Somebody may say that there will be no answer: the script fails, and changes nothing."""
    with running(asks) as run:
        question(asks)
        answer(asks, "", refused=True, because="not today")
        ended = run.result(ASK_S)
    assert (ended.outcome, "exit 4" in ended.why) == ("failed", True)
    assert asks.count() == 20


def test_expires(asks: FakeWorld) -> None:
    """Silence is no answer: when its time is over the script gets exit code 4."""
    with running(asks) as run:
        question(asks)
        asks.clock.advance(86400)
        assert run.result(ASK_S).outcome == "failed"
    assert asks.kinds(asking.chain_of(1, "size")) == ["asked", "expired"]
    with pytest.raises(UsageError, match="has expired"):
        answer(asks, "7")


def test_expires_with_the_clock_set_back(asks: FakeWorld) -> None:
    """A wall clock that is set back lets a question wait for no longer than it was declared."""
    with running(asks) as run:
        question(asks)
        asks.clock.jump(-7 * 86400)
        asks.clock.advance(86400)
        assert run.result(ASK_S).outcome == "failed"
    assert asks.kinds(asking.chain_of(1, "size")) == ["asked", "expired"]


def test_person_who_left(asks: FakeWorld) -> None:
    """An answer by somebody who leaves before the script got it is noted, and does not count."""
    with running(asks) as run:
        asked = question(asks)
        owners = asks.keys._owners
        ben = owners[Path(FAKE_BEN)]
        world = asks.world(FAKE_BEN)
        unsigned = asking.prepare(world, asks.declared, 1, "size", "7")
        signature = asks.keys.sign(asking.payload(asked, unsigned), Path(FAKE_BEN))
        # As if the answer had come in a moment before Ben was taken out of the file.
        body = asking._body(replace(unsigned, signature=signature))
        del owners[Path(FAKE_BEN)]
        asks.journal.append(asked.chain, "answered", body)
        wait_for(lambda: asks.kinds(asked.chain)[-1] == "rejected")
        with pytest.raises(KeysError):
            answer(asks, "8")
        answer(asks, "6", FAKE_CHI)
        assert run.result(ASK_S).outcome == "confirmed"
        owners[Path(FAKE_BEN)] = ben
    assert asks.count() == 6
    rejected = records.told_of(asks.journal, asked.chain, "rejected")
    assert rejected[0]["person"] == FAKE_BEN


def test_forged_answer(asks: FakeWorld) -> None:
    """An answer that somebody wrote by hand into the journal is not given to the script."""
    with running(asks) as run:
        asked = question(asks)
        unsigned = asking.prepare(asks.world(FAKE_BEN), asks.declared, 1, "size", "0")
        own = asks.keys.sign(asking.payload(asked, unsigned), Path(FAKE_CHI))
        for forged in (unsigned, replace(unsigned, signature=own)):
            asks.journal.append(asked.chain, "answered", asking._body(forged))
            wait_for(lambda: asks.kinds(asked.chain)[-1] == "rejected")
        answer(asks, "7")
        assert run.result(ASK_S).outcome == "confirmed"
    assert asks.count() == 7


def test_of_a_group(asks: FakeWorld) -> None:
    """Where a group answers, others are told whom to ask; also whoever runs it."""
    fakes = TRIM.format(undo="restore") + QUESTION.replace("default", "by: dba, default")
    asks.write("operations/trim.yaml", fakes)
    asks.write("policy.yaml", "groups: {dba: [chi@example.com]}\n")
    commit(asks)
    with running(asks) as run:
        question(asks)
        for person in (FAKE_BEN, FAKE_ANA):
            with pytest.raises(RefusedError) as raised:
                answer(asks, "7", person)
            assert raised.value.hint == "ask one of chi@example.com"
        answer(asks, "7", FAKE_CHI)
        assert run.result(ASK_S).outcome == "confirmed"


def test_whoever_runs_it_may_answer(asks: FakeWorld) -> None:
    """A question is no approval: the person who runs it may answer."""
    with running(asks) as run:
        question(asks)
        answer(asks, "7", FAKE_ANA)
        assert run.result(ASK_S).outcome == "confirmed"


def test_without_allowed_signers(asks: FakeWorld) -> None:
    """Where nobody can be told apart, an answer needs no key, and is noted with its person."""
    (asks.root / "allowed_signers").unlink()
    with running(asks) as run:
        question(asks)
        assert answer(asks, "7", FAKE_ANA).signature == ""
        assert run.result(ASK_S).outcome == "confirmed"


def test_of_nothing(asks: FakeWorld) -> None:
    """A question that is not asked, or not any more, cannot be answered."""
    with pytest.raises(UsageError) as raised:
        answer(asks, "7")
    assert raised.value.code == "question.unknown"
    with running(asks) as run:
        question(asks)
        with pytest.raises(UsageError, match="run 1 asks no question `sice`") as raised:
            answer(asks, "7", name="sice")
        assert raised.value.hint == "did you mean `size`?"
        answer(asks, "7")
        run.result(ASK_S)


def test_run_that_is_gone(asks: FakeWorld) -> None:
    """When nobody holds the target any more, the question is not shown, nor answered."""
    asked = asking.make(asks.world(), 1, Question("size", "int", "?"), "", "store/pilot-db", "trim")
    asking.ask(asks.world(), asked)
    assert asking.open_questions(asks.world()) == ()
    with pytest.raises(UsageError):
        answer(asks, "7")
    asking.clear(asks.world(), 1)
    asking.clear(asks.world(), 1)
    assert asks.kinds(asked.chain) == ["asked", "over"]


def test_the_end_of_a_run_closes_its_questions(asks: FakeWorld) -> None:
    """A script that asks and does not wait leaves no open question behind."""

    def ask_and_go(call: Call) -> int:
        folder = folder_of(Path(call.command.environment["HOME"]))
        (folder / "size.ask").write_text("no hurry\n")
        if "runs" in str(call.command.output):
            wait_for(lambda: bool(asks.journal.chains(asking.PREFIX)))
        return asks.program("DELETE FROM sessions WHERE id > 5")(call)

    asks.processes.programs = {"trim.sh": ask_and_go}
    assert asks.begin().outcome == "confirmed"
    assert asks.kinds(asking.chain_of(1, "size")) == ["asked", "over"]
    assert asks.journal.open_chains(asking.PREFIX) == ()


def test_without_a_default(asks: FakeWorld) -> None:
    """A rehearsal that cannot answer lets the script fail, and says what to give."""
    asks.write(
        "operations/trim.yaml",
        TRIM.format(undo="restore") + "questions: {size: {type: int, text: How many?}}\n",
    )
    commit(asks)
    rehearsal = asks.rehearse().plan.facts.rehearsal
    assert rehearsal is not None
    assert (rehearsal.exit_code, rehearsal.answers) == (4, (("size", "refused"),))
    output = asks.processes.runs[-1].output.read_text()
    assert "give -p size=..., or declare a default" in output


def test_asked_twice(asks: FakeWorld) -> None:
    """The same question gets the same answer, and nobody is asked again."""
    told: list[tuple[int, str]] = []

    def twice(call: Call) -> int:
        told.extend([ask(call, "size"), ask(call, "size")])
        return asks.program("DELETE FROM sessions WHERE id > 5")(call)

    asks.processes.programs = {"trim.sh": twice}
    with running(asks) as run:
        question(asks)
        told.clear()
        answer(asks, "11")
        run.result(ASK_S)
    assert told == [(0, "11"), (0, "11")]


def test_waiting_is_not_the_scripts_time(asks: FakeWorld) -> None:
    """A script that may run for an hour may wait for its answers besides, in a run alone."""
    asks.rehearse()
    rehearsed = asks.processes.runs[-1]
    with running(asks) as run:
        question(asks)
        answer(asks, "7")
        run.result(ASK_S)
    assert rehearsed.timeout_s == 3600
    assert asks.processes.runs[-1].timeout_s == 3600 + 86400


def test_no_journal_no_answer(asks: FakeWorld) -> None:
    """When the question cannot be recorded, the script gets exit code 4."""
    codes: list[int] = []

    def trim(call: Call) -> int:
        if "runs" in str(call.command.output):
            asks.journal.fails = True
            codes.append(ask(call, "size")[0])
            asks.journal.fails = False
        return asks.program("DELETE FROM sessions WHERE id > 5")(call)

    asks.processes.programs = {"trim.sh": trim}
    ready = asks.make_ready()
    from handrail.errors import JournalError

    with pytest.raises(JournalError):
        asks.begin(ready)
    assert codes == [4]


# --- the desk, and a script that is not to be trusted ---------------------------------------------


def make_call(home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return how the command is called with that home."""
    command = path_of(home) / "handrail-ask"

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", str(command), *words],
            capture_output=True,
            text=True,
            timeout=ASK_S,
            check=False,
        )

    return call


@pytest.mark.parametrize("words", [(), ("",), ("../x",), ("-x",), (".x",), ("a b",), ("a/b",)])
def test_called_wrongly(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A name that cannot be one is a usage error; nothing is written."""
    with Desk(tmp_path, ["size"]):
        before = sorted(folder_of(tmp_path).iterdir())
        done = make_call(tmp_path)(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert sorted(folder_of(tmp_path).iterdir()) == before


def test_not_declared(tmp_path: Path) -> None:
    """A question that the operation does not declare is told so at once."""
    with Desk(tmp_path, ["size"]):
        done = make_call(tmp_path)("count")
    assert (done.returncode, "declares no question `count`" in done.stderr) == (2, True)


def test_nobody_attends(tmp_path: Path) -> None:
    """Where nobody attends, as in an undo, asking fails at once."""
    Desk(tmp_path, ["size"]).close()
    done = make_call(tmp_path)("size")
    assert (done.returncode, "nobody is asked here" in done.stderr) == (4, True)


@pytest.mark.parametrize("value", ["7", "a b  c", 'it\'s "$HOME" `x` \\n', "-n", "äöü", "%s"])
def test_values_pass_as_they_are(tmp_path: Path, value: str) -> None:
    """What was answered is printed, byte for byte."""
    with Desk(tmp_path, ["size"]) as desk:
        desk.answer("size", "answer", value)
        done = make_call(tmp_path)("size")
    assert (done.returncode, done.stdout) == (0, f"{value}\n")


def test_hostile_desk(tmp_path: Path) -> None:
    """A script that puts links in the place of files gets nothing written, or read, outside."""
    secret, home = tmp_path / "secret", tmp_path / "home"
    secret.write_text("password\n")
    home.mkdir()
    with Desk(home, ["size", "pipe", "folder"]) as desk:
        folder = folder_of(home)
        (folder / "size.ask").symlink_to(secret)
        (folder / "size.answer").symlink_to(secret)
        os.mkfifo(folder / "pipe.ask")
        (folder / "folder.ask").mkdir()
        assert desk.asked("size") is None
        assert desk.asked("pipe") == ""
        assert desk.asked("folder") == ""
        desk.answer("size", "answer", "7")
        assert secret.read_text() == "password\n"
        assert (folder / "size.answer").read_text() == "answer\n7\n"
        folder.rename(home / "away")
        folder.symlink_to(tmp_path)
        desk.answer("pipe", "answer", "8")
        assert (home / "away/pipe.answer").exists()
        assert not (tmp_path / "pipe.answer").exists()


def test_a_desk_that_is_a_link(tmp_path: Path) -> None:
    """A folder that is not one's own is not used."""
    from handrail.errors import ScriptError

    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").mkdir()
    folder_of(tmp_path / "home").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ScriptError):
        Desk(tmp_path / "home", ["size"])
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_long_note_is_cut(tmp_path: Path) -> None:
    """What a script says besides is one line, and not a book."""
    with Desk(tmp_path, ["size"]) as desk:
        (folder_of(tmp_path) / "size.ask").write_bytes(b"a\nb\xff " + b"x" * 5_000_000)
        said = desk.asked("size")
    assert said is not None
    assert (said.startswith("a b"), len(said) <= 2000, "\n" in said) == (True, True, False)


def test_no_questions_no_desk(fake: FakeWorld) -> None:
    """An operation that declares none has no command in its PATH, and no folder."""
    found: list[Path] = []

    def trim(call: Call) -> int:
        found.extend(Path(call.command.environment["HOME"]).iterdir())
        return fake.program("DELETE FROM sessions WHERE id > 5")(call)

    fake.processes.programs = {"trim.sh": trim}
    fake.begin()
    assert found == []
    assert all("PATH" not in command.environment for command in fake.processes.runs)


def test_a_clerk_that_breaks_leaves_nobody_waiting(tmp_path: Path) -> None:
    """A defect behind the desk ends the asking; the script does not wait for its timeout."""
    clerk = attending.Clerk((Question("size", "int", "?"),), {}, _broken, lambda *_: None)
    broken: list[object] = []
    before, threading.excepthook = threading.excepthook, broken.append
    try:
        with attending.attending(tmp_path, clerk):
            assert make_call(tmp_path)("size").returncode == 4
    finally:
        threading.excepthook = before
    assert len(broken) == 1


def _broken(question: Question, said: str) -> attending.Reply:
    raise ZeroDivisionError


# --- declarations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("questions: {size: {type: int}}", "estate.missing-key"),
        ("questions: {size: {type: float, text: x}}", "estate.wrong-type"),
        ("questions: {size: {type: int, text: x, default: many}}", "operations.question"),
        ("questions: {size: {type: choice, text: x}}", "operations.question"),
        ("questions: {size: {text: x, choices: [a, b], default: c}}", "operations.question"),
        ('questions: {size: {text: x, choices: [a, "b\\nc"]}}', "operations.question"),
        ("questions: {size: {text: x, expires: 0s}}", "operations.question"),
        ("questions: {../size: {text: x}}", "estate.bad-name"),
        ("questions: {size: {text: x, by: dba}}", "policy.unknown-group"),
        (
            "questions: {size: {text: x}}\nparameters: {size: {type: int}}",
            "operations.question",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(fake: FakeWorld, text: str, code: str) -> None:
    """What cannot be asked as it is declared is an error with its file and line."""
    fake.write("operations/trim.yaml", TRIM.format(undo="restore") + text + "\n")
    found = problems(fake.root)
    assert [one.code for one in found] == [code]
    assert found[0].at is not None
    assert found[0].at.file == "operations/trim.yaml"


def test_not_on_a_node() -> None:
    """An operation whose script runs on a node asks no questions: nobody could bring the answer."""
    asks = make_operation(questions=(Question("size", "int", "?"),), runs_on="node/web")
    (problem,) = questions.errors(asks)
    assert (problem.code, "node/web" in problem.message) == ("operations.question", True)


# --- real processes -------------------------------------------------------------------------------

KEEP = """\
#!/bin/sh
set -eu
size=$(handrail-ask size)
exec python3 -S "$(dirname "$0")/../lib/sql.py" "DELETE FROM sessions WHERE id > $size"
"""


@pytest.fixture
def team(tmp_path: Path) -> Team:
    """A team with a script that asks."""
    made = make_team(tmp_path / "team")
    made.commit(
        {
            "operations/keep.yaml": OPERATION.format(name="keep", undo="restore") + QUESTION,
            "scripts/keep/run.sh": KEEP,
            "allowed_signers": signers(made, ANA, BEN, CHI),
        }
    )
    return made


def test_from_another_process(team: Team) -> None:
    """A real script asks, `handrail` shows it, another person answers, and the run is confirmed."""
    rehearsed = team.call("rehearse", "keep")
    assert rehearsed.code == 0, rehearsed.out + rehearsed.err
    assert "it asked, and was answered there: size with 5" in rehearsed.out
    team.approve(team.decide("keep"))
    with team.spawn("run", "keep", stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as ran:
        wait_for(lambda: bool(asking.open_questions(team.world())))
        assert "How many sessions to keep?" in team.call().out
        assert "size: How many sessions to keep?  until" in team.call("runs", "show", "1").out
        assert team.call("complete", "answer", "").out.split() == ["1", "size"]
        shown = team.call("answer", "1")
        assert "handrail answer 1 size ..." in shown.out
        wrong = team.call("answer", "1", "size", "many", person=CHI)
        assert (wrong.code, "question.answer" in wrong.err) == (2, True)
        done = team.call("answer", "1", "size", "8", person=CHI)
        assert (done.code, f"answered with 8, says {CHI}" in done.out) == (0, True)
        out, _ = ran.communicate(timeout=60)
    assert (ran.returncode, "confirmed: run 1" in out) == (0, True), out
    assert team.query("SELECT count(*) FROM sessions") == 8
    assert SESSIONS == 20
    assert team.call("log", "verify").code == 0


def test_killed_while_it_asks(team: Team) -> None:
    """A run that is killed while a person is asked asks nobody any more, and is put back."""
    team.make_ready("keep")
    with team.spawn("run", "keep") as ran:
        wait_for(lambda: bool(asking.open_questions(team.world())))
        ran.kill()
        ran.communicate(timeout=60)
    assert asking.open_questions(team.world()) == ()
    assert "How many" not in team.call().out
    late = team.call("answer", "1", "size", "8", person=BEN)
    assert (late.code, "question" in late.err) == (2, True)
    undone = team.call("resume", "1", "--undo")
    assert (undone.code, "undone: run 1" in undone.out) == (1, True), undone.out + undone.err
    assert team.world().journal.open_chains(asking.PREFIX) == ()
    assert team.query("SELECT count(*) FROM sessions") == SESSIONS
    assert team.call("log", "verify").code == 0
