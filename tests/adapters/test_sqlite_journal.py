"""The journal's file: durable, whole, never forked, and clear when it cannot be used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.adapters.sqlite_journal import _LAST_ANCHOR, _OPEN, SqliteJournal
from handrail.core.journal import verify_export
from handrail.errors import FencedError, JournalError
from handrail.ports import Entry
from handrail.testing.clock import FakeClock

SAMPLE = Path(__file__).parents[1] / "data" / "journal-1"

PRELUDE = """
import sys
from pathlib import Path
from handrail.adapters.sqlite_journal import SqliteJournal
from handrail.adapters.system import SystemClock
journal = SqliteJournal(Path(sys.argv[1]), SystemClock())
"""
APPENDS = (
    PRELUDE + "for n in range(60): journal.append('run-1', 'done', {'by': sys.argv[2], 'n': n})"
)
RUNS = PRELUDE + "print(*(journal.open_run() for _ in range(40)))"
USES = PRELUDE + "print(*(n for n in range(40) if journal.single_use(f'approval {n}')))"
ENDLESS = (
    PRELUDE
    + """
for n in range(10**6):
    journal.append('run-1', 'done', {'n': n})
    print(n, flush=True)
"""
)
ENDLESS_WRITES = (
    PRELUDE
    + """
from handrail.ports import Entry
for n in range(10**6):
    journal.write([Entry('run-1', 'done', {'n': n}), Entry(f'run-{n + 2}', 'done', {'n': n})])
    print(n, flush=True)
"""
)
TAKES = (
    PRELUDE
    + """
from handrail.errors import FencedError
from handrail.ports import Entry
for n in range(40):
    try:
        journal.write([Entry(f'walk-{n}', 'taken', {'by': sys.argv[2]}, 'new')])
    except FencedError:
        continue
    print(n)
"""
)
APPENDS_ONE = PRELUDE + "sys.stdin.readline(); journal.append('signals', 'signal', {})"
READ_ONLY = (
    PRELUDE
    + """
import os
from handrail.errors import JournalError
if os.geteuid() == 0:  # root may write whatever the mode says
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for work in (lambda: journal.append('run-1', 'done', {}), journal.open_run):
    try:
        print(work())
    except JournalError as error:
        print(error.code, error.hint)
"""
)
UNTIL_FULL = (
    """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
"""
    + PRELUDE
    + """
from handrail.errors import FencedError, JournalError
from handrail.ports import Entry
journal.append('run-1', 'done', {'n': 0})
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
n = 0
try:
    while True:
        journal.append('run-1', 'done', {'n': n + 1, 'x': 'x' * 1000})
        n += 1
except JournalError as error:
    print(n, error.code)
"""
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".handrail" / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(path, FakeClock(), busy_timeout_s=0.05)
    yield journal
    journal.shut()


def _start(script: str, path: Path, *more: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", script, str(path), *more]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def _finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    answers = [process.communicate(timeout=50)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return answers


def test_reading_makes_no_file(journal: SqliteJournal, path: Path) -> None:
    """Asking a journal that does not exist leaves the disk as it is; so does closing a chain."""
    journal.last("run-1")
    journal.close("run-1")
    list(journal.export())
    assert not path.parent.exists()


def test_the_file_is_for_one_user(journal: SqliteJournal, path: Path) -> None:
    """Directory and files are readable by their owner alone, whatever the umask."""
    before = os.umask(0)
    try:
        journal.append("run-1", "begun", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "journal.db-wal" in modes


def test_every_commit_is_flushed(journal: SqliteJournal) -> None:
    """The journal's own connection uses WAL with synchronous=FULL."""
    journal.append("run-1", "begun", {})
    assert journal._connection is not None
    assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_opening_writes_nothing(journal: SqliteJournal, path: Path) -> None:
    """Reading an existing journal leaves its file byte for byte as it was."""
    journal.append("run-1", "begun", {})
    journal.shut()
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert journal.last("run-1") is not None
    list(journal.export())
    journal.shut()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [p.name for p in path.parent.iterdir()] == ["journal.db"]


def test_two_processes_never_fork_a_chain(path: Path) -> None:
    """Processes that append to one chain at once write one chain, with every record of each."""
    _finish([_start(APPENDS, path, str(n)) for n in range(3)])
    journal = SqliteJournal(path, FakeClock())
    records = list(journal.records("run-1"))
    assert [record.sequence for record in records] == list(range(1, 181))
    assert len({record.body for record in records}) == 180
    assert len({record.previous for record in records}) == 180
    assert verify_export(journal.export()) == ()
    journal.shut()


def test_two_processes_never_get_one_run_number(path: Path) -> None:
    """Run numbers that processes ask for at once are all different."""
    answers = _finish([_start(RUNS, path) for _ in range(2)])
    assert sorted(int(n) for answer in answers for n in answer.split()) == list(range(1, 81))


def test_two_processes_never_use_one_approval(path: Path) -> None:
    """Of two processes that use a key at once, exactly one is allowed to."""
    answers = _finish([_start(USES, path) for _ in range(2)])
    assert sorted(int(n) for answer in answers for n in answer.split()) == list(range(40))


def test_threads_take_turns(journal: SqliteJournal) -> None:
    """One journal may be used from several threads."""
    threads = [
        threading.Thread(target=lambda: [journal.append("run-1", "said", {}) for _ in range(20)])
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(journal.records("run-1"))) == 60
    assert verify_export(journal.export()) == ()


def test_another_process_that_closes_is_seen(path: Path) -> None:
    """An append after another journal closed the chain reopens it in the anchors."""
    mine, other = (SqliteJournal(path, FakeClock()) for _ in range(2))
    mine.append("run-1", "begun", {})
    other.close("run-1")
    mine.append("run-1", "done", {})
    other.append("run-1", "done", {})
    mine.append("run-1", "done", {})
    assert [anchor.kind for anchor in mine.anchors()] == ["opened", "closed", "reopened"]
    assert verify_export(mine.export()) == ()
    mine.shut()
    other.shut()


def test_another_process_that_writes_elsewhere_is_no_hindrance(path: Path) -> None:
    """What others write to other chains does not change where the next record of this one goes."""
    mine, other = (SqliteJournal(path, FakeClock()) for _ in range(2))
    for n in range(3):
        mine.append("run-1", "done", {"n": n})
        other.append("run-2", "done", {"n": n})
        other.close("run-2")
    assert [record.sequence for record in mine.records("run-1")] == [1, 2, 3]
    assert verify_export(mine.export()) == ()
    mine.shut()
    other.shut()


@pytest.mark.parametrize("by", ["mine", "other"])
def test_a_close_just_before_an_append_is_seen(path: Path, by: str) -> None:
    """However often a chain is closed between two appends, it is reopened each time."""
    journals = {name: SqliteJournal(path, FakeClock()) for name in ("mine", "other")}
    for _ in range(3):
        journals["mine"].append("run-1", "done", {})
        journals[by].close("run-1")
    kinds = [anchor.kind for anchor in journals["mine"].anchors()]
    assert kinds == ["opened", *["closed", "reopened"] * 2, "closed"]
    assert verify_export(journals["mine"].export()) == ()
    for journal in journals.values():
        journal.shut()


def test_a_closed_chain_refuses_a_record(journal: SqliteJournal, path: Path) -> None:
    """The file itself refuses a record that follows the end of a closed chain."""
    last = journal.append("run-1", "done", {})
    journal.close("run-1")
    by_hand = sqlite3.connect(path)
    row = ("run-1", 2, last.time, "done", "{}", last.hash, "h")
    with pytest.raises(sqlite3.IntegrityError, match="reopened"):
        by_hand.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    by_hand.close()


def test_another_file_in_its_place_is_begun_anew(journal: SqliteJournal, path: Path) -> None:
    """After `shut`, what was written to a file that is gone is not continued in a new one."""
    journal.append("run-1", "begun", {})
    journal.shut()
    path.unlink()
    assert journal.append("run-1", "begun", {}).sequence == 1
    assert verify_export(journal.export()) == ()


def test_the_last_anchor_is_found_without_reading_all(journal: SqliteJournal) -> None:
    """Whether a chain is open is one look into an index, however many chains there are."""
    journal.append("run-1", "begun", {})
    assert journal._connection is not None
    plan = journal._connection.execute(f"EXPLAIN QUERY PLAN {_LAST_ANCHOR}", ("run-1",)).fetchall()
    assert [row[-1] for row in plan] == ["SEARCH records USING INDEX anchors_of_chain (<expr>=?)"]


def test_what_was_returned_survives_kill_9(path: Path) -> None:
    """Every record that `append` returned is there after a kill, and the chain verifies."""
    process = _start(ENDLESS, path)
    assert process.stdout is not None
    last = [process.stdout.readline() for _ in range(25)][-1]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    journal = SqliteJournal(path, FakeClock())
    assert len(list(journal.records("run-1"))) > int(last)
    assert verify_export(journal.export()) == ()
    journal.append("run-1", "resumed", {})
    journal.shut()


def test_a_full_disk_writes_nothing(path: Path) -> None:
    """A record for which there is no room is an error, and every record before it is whole."""
    (answer,) = _finish([_start(UNTIL_FULL, path)])
    count, code = answer.split()
    assert (int(count) > 0, code) == (True, "journal.unwritable")
    journal = SqliteJournal(path, FakeClock())
    assert len(list(journal.records("run-1"))) == int(count) + 1
    assert verify_export(journal.export()) == ()
    journal.shut()


def test_a_journal_that_is_busy_says_so(journal: SqliteJournal, path: Path) -> None:
    """While another process writes for longer than the patience, an append is an error."""
    journal.append("run-1", "begun", {})
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="another process") as caught:
        journal.append("run-1", "done", {})
    other.execute("ROLLBACK")
    other.close()
    assert caught.value.code == "journal.unwritable"
    assert journal.append("run-1", "done", {}).sequence == 2


def test_a_failed_append_leaves_nothing(journal: SqliteJournal) -> None:
    """When the anchor is written and the record is refused, neither is there."""
    secrets = ["run-1 has a secret"]
    guarded = SqliteJournal(journal._path, FakeClock(), secrets=secrets)
    with pytest.raises(JournalError):
        guarded.append("run-1", "begun", {"x": secrets[0]})
    assert list(guarded.anchors()) == []
    guarded.shut()


def test_a_journal_that_is_moved_away_is_noticed(journal: SqliteJournal, path: Path) -> None:
    """A chain does not begin in a file that nobody can find again."""
    journal.append("run-1", "begun", {})
    path.rename(path.with_name("away"))
    with pytest.raises(JournalError, match="moved") as caught:
        journal.append("run-2", "begun", {})
    assert caught.value.code == "journal.unwritable"


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """Where the state directory cannot be, the error names the journal."""
    (tmp_path / "file").write_text("")
    journal = SqliteJournal(tmp_path / "file" / "journal.db", FakeClock())
    with pytest.raises(JournalError) as caught:
        journal.append("run-1", "begun", {})
    assert caught.value.code == "journal.unwritable"


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough for a header" * 99])
def test_a_file_that_is_no_journal_is_damaged(path: Path, content: bytes) -> None:
    """A file that is empty, or something else, is refused and left as it is."""
    path.parent.mkdir()
    path.write_bytes(content)
    journal = SqliteJournal(path, FakeClock())
    with pytest.raises(JournalError) as caught:
        journal.append("run-1", "begun", {})
    assert caught.value.code == "journal.damaged"
    with pytest.raises(JournalError) as caught:
        journal.last("run-1")
    assert caught.value.code == "journal.damaged"
    assert path.read_bytes() == content


def test_another_database_is_damaged(path: Path) -> None:
    """A database of something else is not taken for a journal."""
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (a)")
    other.close()
    with pytest.raises(JournalError) as caught:
        SqliteJournal(path, FakeClock()).last("run-1")
    assert caught.value.code == "journal.damaged"


def test_damaged_pages_are_an_error(journal: SqliteJournal, path: Path) -> None:
    """Bytes that the disk lost are `journal.damaged`, not wrong records."""
    for n in range(100):
        journal.append("run-1", "done", {"n": n, "x": "x" * 500})
    journal.shut()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(JournalError) as caught:
        list(journal.export())
    assert caught.value.code == "journal.damaged"


def test_a_newer_format_is_refused(journal: SqliteJournal, path: Path) -> None:
    """A journal of a newer Handrail is neither read nor written."""
    journal.append("run-1", "begun", {})
    journal.shut()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(JournalError) as caught:
        journal.append("run-1", "done", {})
    assert caught.value.code == "journal.format"
    with pytest.raises(JournalError) as caught:
        list(journal.export())
    assert caught.value.code == "journal.format"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE records SET body = '{}'",
        "DELETE FROM records",
        "UPDATE runs SET number = 7",
        "DELETE FROM runs",
        "INSERT INTO records VALUES ('run-1', 3, 't', 'k', '{}', 'p', 'h')",
        "INSERT INTO records VALUES ('run-1', 2, 't', 'k', '{}', 'p', 'h')",
        "INSERT INTO records SELECT chain, 1, time, kind, body, previous, hash FROM records",
    ],
)
def test_accidents_are_refused(journal: SqliteJournal, path: Path, statement: str) -> None:
    """SQL by hand changes and removes nothing, and adds nothing that does not follow."""
    journal.open_run()
    journal.append("run-1", "begun", {})
    before = list(journal.export())
    by_hand = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError):
        by_hand.execute(statement)
    by_hand.close()
    assert list(journal.export()) == before


def test_an_export_is_of_one_moment(journal: SqliteJournal) -> None:
    """What is appended while an export is read is not in it, and it verifies."""
    for n in range(5):
        journal.append(f"run-{n}", "begun", {})
    export = journal.export()
    lines = [next(export)]
    journal.append("run-0", "done", {})
    journal.append("run-9", "begun", {})
    lines += export
    assert len(lines) == 11
    assert verify_export(lines) == ()


@pytest.mark.parametrize("layout", [1, 2])
def test_a_journal_of_an_earlier_layout_is_read(tmp_path: Path, layout: int) -> None:
    """A journal that an earlier Handrail wrote has the same records today, and can go on."""
    sample = SAMPLE.with_name(f"journal-{layout}")
    shutil.copytree(sample, tmp_path / "old")
    journal = SqliteJournal(tmp_path / "old" / "journal.db", FakeClock())
    lines = (sample / "export.jsonl").read_text("utf-8").split("\n")[:-1]
    assert list(journal.export()) == lines
    assert verify_export(lines) == verify_export(journal.export()) == ()
    assert not journal.single_use("approval 7f3a91c2")
    assert journal.open_run() == 2
    journal.append("run-1", "reviewed", {})
    assert verify_export(journal.export()) == ()
    journal.shut()


def test_two_processes_never_take_one_walk(path: Path) -> None:
    """Of processes that open one chain behind a fence at once, exactly one is let through."""
    answers = _finish([_start(TAKES, path, str(n)) for n in range(2)])
    assert sorted(int(n) for answer in answers for n in answer.split()) == list(range(40))


def test_a_write_is_whole_after_kill_9(path: Path) -> None:
    """Of a write that was cut off by a kill, all records are there or none."""
    process = _start(ENDLESS_WRITES, path)
    assert process.stdout is not None
    last = [process.stdout.readline() for _ in range(25)][-1]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    journal = SqliteJournal(path, FakeClock())
    records = list(journal.records("run-1"))
    assert len(records) == len(journal.chains("run-")) - 1 > int(last)
    assert verify_export(journal.export()) == ()
    journal.shut()


def test_waiting_ends_with_another_processs_record(journal: SqliteJournal, path: Path) -> None:
    """What another process appends is seen by whoever waits, soon."""
    arguments = [sys.executable, "-c", APPENDS_ONE, str(path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert not journal.wait("signals", 0, 0.01)
        process.stdin.write("go on\n")
        process.stdin.flush()
        assert journal.wait("signals", 0, 40)
        assert process.wait(20) == 0


def test_another_process_that_overtakes_is_seen(path: Path) -> None:
    """A fence that stood for this process, and no longer does, refuses what it remembers."""
    mine, other = (SqliteJournal(path, FakeClock()) for _ in range(2))
    (first,) = mine.write([Entry("walk-1", "opened", {}, "new")])
    other.write([Entry("walk-1", "taken", {}, first.hash)])
    with pytest.raises(FencedError):
        mine.write([Entry("walk-1", "begun", {}, first.hash)])
    assert [record.kind for record in mine.records("walk-1")] == ["opened", "taken"]
    mine.shut()
    other.shut()


def test_a_busy_journal_says_so_to_every_thread(journal: SqliteJournal, path: Path) -> None:
    """What befalls a transaction is told to each thread whose records were in it."""
    journal.append("run-1", "begun", {})
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    codes: list[str] = []

    def work(chain: str) -> None:
        try:
            journal.append(chain, "done", {})
        except JournalError as error:
            codes.append(error.code)

    threads = [threading.Thread(target=work, args=(f"run-{n}",)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.execute("ROLLBACK")
    other.close()
    assert codes == ["journal.unwritable"] * 4
    assert [journal.append(f"run-{n}", "done", {}).sequence for n in (1, 2)] == [2, 1]


def test_an_older_format_is_copied_and_brought_up(tmp_path: Path) -> None:
    """A journal of format 1 is brought up with its chains; as it was it is kept beside it."""
    path = tmp_path / "journal.db"
    shutil.copy(SAMPLE / "journal.db", path)
    with sqlite3.connect(path) as old:
        before = old.execute("SELECT * FROM records").fetchall()
    old.close()
    journal = SqliteJournal(path, FakeClock())
    assert len(journal.chains("run-")) > 0
    shown = {chain: journal.open_chains("") for chain in journal.chains()}
    closed = {"closed": False, "opened": True, "reopened": True}
    last = {json.loads(anchor.body)["chain"]: closed[anchor.kind] for anchor in journal.anchors()}
    assert {chain: chain in found for chain, found in shown.items()} == last
    journal.shut()
    with sqlite3.connect(tmp_path / "journal-format-1.db") as kept:
        assert kept.execute("PRAGMA user_version").fetchone() == (1,)
        assert kept.execute("SELECT * FROM records").fetchall() == before
    kept.close()
    assert stat.S_IMODE((tmp_path / "journal-format-1.db").stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["journal-format-1.db", "journal.db"]


def test_an_older_format_without_room_for_its_copy_stays(tmp_path: Path) -> None:
    """Where the copy cannot be made, the journal is left in its format, and the error says why."""
    path = tmp_path / "journal.db"
    shutil.copy(SAMPLE / "journal.db", path)
    (tmp_path / "journal-format-1.db").mkdir()
    journal = SqliteJournal(path, FakeClock())
    with pytest.raises(JournalError) as caught:
        journal.append("run-1", "x", {})
    assert caught.value.code == "journal.unwritable"
    with sqlite3.connect(path) as old:
        assert old.execute("PRAGMA user_version").fetchone() == (1,)
    old.close()
    assert not list(tmp_path.glob(".journal-*"))


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM chains",
        "UPDATE chains SET is_open = 0",
        "UPDATE chains SET opened = 7",
        "UPDATE chains SET chain = 'run-7'",
        "INSERT INTO chains VALUES ('run-7', 1, 1)",
    ],
)
def test_which_chains_are_open_is_not_changed_by_hand(
    journal: SqliteJournal, path: Path, statement: str
) -> None:
    """SQL by hand does not make a chain look closed, or another."""
    journal.append("run-1", "begun", {})
    by_hand = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError):
        by_hand.execute(statement)
    by_hand.close()
    assert journal.open_chains("") == ("run-1",)


def test_open_chains_are_found_without_reading_all(journal: SqliteJournal) -> None:
    """Which chains are open is one range of an index that holds no closed one."""
    journal.append("run-1", "begun", {})
    assert journal._connection is not None
    plan = journal._connection.execute(f"EXPLAIN QUERY PLAN {_OPEN}", ("run-", "run.")).fetchall()
    assert plan[0][-1] == "SEARCH chains USING INDEX open_chains (chain>? AND chain<?)"


def test_processes_bring_one_journal_up(tmp_path: Path) -> None:
    """Processes that open a journal of an older layout at once bring it up once, and all write."""
    path = tmp_path / "journal.db"
    shutil.copy(SAMPLE / "journal.db", path)
    _finish([_start(APPENDS, path, str(n)) for n in range(3)])
    journal = SqliteJournal(path, FakeClock())
    assert len(list(journal.records("run-1"))) > 180
    assert verify_export(journal.export()) == ()
    assert "run-1" in journal.open_chains("")
    journal.shut()


def test_a_read_only_journal_writes_nothing() -> None:
    """Where neither the file nor its directory may be written, the error says so."""
    with tempfile.TemporaryDirectory(prefix="hrt-") as name:
        folder = Path(name)
        journal = SqliteJournal(folder / "journal.db", FakeClock())
        journal.append("run-1", "begun", {})
        before = list(journal.export())
        journal.shut()
        (folder / "journal.db").chmod(0o444)
        folder.chmod(0o555)  # and others may look into it: root is nobody there
        (answer,) = _finish([_start(READ_ONLY, folder / "journal.db")])
        folder.chmod(0o755)
        said = answer.splitlines()
        assert [line.split()[0] for line in said] == ["journal.unwritable"] * 2
        assert "writable" in said[0]
        assert list(journal.export()) == before
        journal.shut()
