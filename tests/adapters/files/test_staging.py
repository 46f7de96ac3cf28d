"""A script works on a copy of a tree, and the copy is swapped in when it is inside its budget."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handrail.adapters.files import FilesStore, staging, swapping
from handrail.adapters.files.durable import remove
from handrail.errors import StoreError
from handrail.plans import budget as budgets
from handrail.plans.holding import Limits, Report
from handrail.plans.model import Budget
from support.file_trees import (
    ID,
    Act,
    Guarding,
    another_process,
    leftovers,
    make_store,
    root_of,
    said,
    tell,
    texts,
)

FILES = {
    "uploads/1.png": "one",
    "uploads/2.png": "two",
    "uploads/3.png": "three",
    "index.html": "<html>",
    "logs/app.log": "started\n",
}


@pytest.fixture
def store(tmp_path: Path) -> FilesStore:
    """A tree with five files."""
    return make_store(tmp_path / "tree", FILES)


@pytest.fixture
def guarding(tmp_path: Path) -> Guarding:
    """Nothing heard yet."""
    return Guarding(tmp_path)


def empty_uploads(root: Path) -> None:
    """Delete every upload but the third."""
    for name in ("1.png", "2.png"):
        (root / "uploads" / name).unlink()


def budget_of(report: Report) -> Budget:
    """Return a budget of exactly what a report says."""
    return budgets.from_effects(report.effects, relative=0, absolute=0)


def without(*names: str) -> dict[str, str]:
    """Return the files but for `names`."""
    return {name: text for name, text in FILES.items() if name not in names}


# --- the copy, the budget, the swap ------------------------------------------------------------


def test_original_waits(store: FilesStore, guarding: Guarding) -> None:
    """The tree has what the script did only after it was settled, and keeps its identity."""
    with staging.guarded(store, Limits("measure"), guarding.folder(), print) as guard:
        empty_uploads(Path(guard.connection().parts["path"]))
        assert texts(root_of(store)) == FILES
        report = guard.settle()
    assert texts(root_of(store)) == without("uploads/1.png", "uploads/2.png")
    assert said(report.effects) == [("delete", "file", "uploads/*.png", 2)]
    assert (report.how, report.kept, report.stop) == ("copied and swapped in", 1, None)
    assert store.identify().id == f"files:{ID}"


def test_former_tree_is_kept(store: FilesStore, guarding: Guarding) -> None:
    """The tree as it was lies beside, the report says where, and the next swap takes its place."""
    report = guarding.run(store, empty_uploads)
    (former,) = swapping.kept(root_of(store))
    assert texts(former) == FILES
    assert [e.text for e in report.events if e.kind == "kept"] == [f"the tree as it was: {former}"]
    guarding.run(store, lambda root: (root / "index.html").unlink())
    assert [texts(kept) for kept in swapping.kept(root_of(store))] == [
        without("uploads/1.png", "uploads/2.png")
    ]


def test_not_settled(store: FilesStore, guarding: Guarding) -> None:
    """What was not settled never was, and nothing is left beside the tree."""
    with staging.guarded(store, Limits("measure"), guarding.folder(), print) as guard:
        empty_uploads(Path(guard.connection().parts["path"]))
    assert texts(root_of(store)) == FILES
    assert leftovers(root_of(store)) == []


def test_nothing_done(store: FilesStore, guarding: Guarding) -> None:
    """A script that changed nothing swaps nothing."""
    inode = root_of(store).stat().st_ino
    report = guarding.run(store, lambda root: (root / "index.html").read_text())
    assert (report.effects, report.kept) == ((), 0)
    assert root_of(store).stat().st_ino == inode
    assert leftovers(root_of(store)) == []


def test_inside_budget(store: FilesStore, guarding: Guarding, tmp_path: Path) -> None:
    """A run that does what its rehearsal did takes effect."""
    clone = make_store(tmp_path / "clone", FILES)
    rehearsed = guarding.run(clone, empty_uploads)
    report = guarding.run(store, empty_uploads, "hold", budget_of(rehearsed))
    assert report.stop is None
    assert report.effects == rehearsed.effects
    assert texts(root_of(store)) == texts(root_of(clone))


def test_beyond_budget(store: FilesStore, guarding: Guarding, tmp_path: Path) -> None:
    """One file more than the budget, and nothing takes effect."""
    clone = make_store(tmp_path / "clone", FILES)
    rehearsed = guarding.run(clone, lambda root: (root / "uploads/1.png").unlink())
    report = guarding.run(store, empty_uploads, "hold", budget_of(rehearsed))
    assert report.stop is not None
    assert "would delete file uploads/*.png 2 rows; budget 1" in report.stop.what
    assert (report.kept, report.effects) == (0, ())
    assert guarding.heard[-1].kind == "refused"
    assert texts(root_of(store)) == FILES
    assert leftovers(root_of(store)) == []


def test_budget_of_other_stores(store: FilesStore, guarding: Guarding) -> None:
    """What another store is allowed allows nothing here."""
    rehearsed = guarding.run(make_store(root_of(store).with_name("clone"), FILES), empty_uploads)
    budget = budget_of(rehearsed)
    others = tuple(replace(one, resource="store/other") for one in budget.allowances)
    report = guarding.run(store, empty_uploads, "hold", Budget(others, "rehearsal"))
    assert report.stop is not None
    assert texts(root_of(store)) == FILES


def test_read_only(store: FilesStore, guarding: Guarding) -> None:
    """In read-only mode any change is thrown away, and stops the run; a look is fine."""
    report = guarding.run(store, lambda root: (root / "index.html").chmod(0o600), "read-only")
    assert report.stop is not None
    assert guarding.run(store, texts, "read-only").stop is None
    assert leftovers(root_of(store)) == []


def test_observe(store: FilesStore, guarding: Guarding) -> None:
    """An observed script has the tree itself, and its effects are told."""
    report = guarding.run(store, empty_uploads, "observe")
    assert (report.how, said(report.effects)) == (
        "observed only",
        [("delete", "file", "uploads/*.png", 2)],
    )
    assert texts(root_of(store)) == without("uploads/1.png", "uploads/2.png")


@pytest.mark.parametrize("again", [False, True])
def test_removed_root(store: FilesStore, guarding: Guarding, again: bool) -> None:
    """A script that removes the directory is stopped; one that makes it anew is judged by files."""

    def script(root: Path) -> None:
        shutil.rmtree(root)
        if again:
            root.mkdir()
            (root / "new.txt").write_text("n")

    report = guarding.run(store, script)
    assert (report.stop is None) == again
    assert texts(root_of(store)) == ({"new.txt": "n"} if again else FILES)
    assert store.identify().id == f"files:{ID}"


def test_written_in_place(store: FilesStore, guarding: Guarding) -> None:
    """What a script writes in place in its copy does not reach the original by a shared inode."""

    def script(root: Path) -> None:
        with (root / "index.html").open("r+") as stream:
            stream.write("<HTML>")
        assert (root_of(store) / "index.html").read_text() == "<html>"

    report = guarding.run(store, script, "read-only")
    assert report.stop is not None
    assert texts(root_of(store)) == FILES


# --- others write meanwhile --------------------------------------------------------------------


def test_others_wrote(store: FilesStore, guarding: Guarding) -> None:
    """What others created, changed and deleted during the run is there after the swap."""

    def application(root: Path) -> None:
        (root / "uploads/4.png").write_text("new upload")
        (root / "index.html").write_text("<new>")
        (root / "logs/app.log").unlink()
        (root / "sessions/a").mkdir(parents=True)
        (root / "sessions/a/1").write_text("s")
        (root / "sessions/a/2").hardlink_to(root / "sessions/a/1")

    report = guarding.run(store, empty_uploads, meanwhile=application)
    assert said(report.effects) == [("delete", "file", "uploads/*.png", 2)]
    assert texts(root_of(store)) == {
        "uploads/3.png": "three",
        "uploads/4.png": "new upload",
        "index.html": "<new>",
        "sessions/a/1": "s",
        "sessions/a/2": "s",
    }
    root = root_of(store)
    assert (root / "sessions/a/1").samefile(root / "sessions/a/2")
    assert [event.kind for event in guarding.heard] == ["others"]


def write(name: str, text: str) -> Act:
    """Return what writes a file."""
    return lambda root: (root / name).write_text(text)


def delete(name: str) -> Act:
    """Return what deletes a file, or a directory with all that is in it."""
    return lambda root: remove(root / name)


def protect(name: str) -> Act:
    """Return what changes a mode."""
    return lambda root: (root / name).chmod(0o600)


@pytest.mark.parametrize(
    ("script", "application", "named"),
    [
        (write("index.html", "a"), write("index.html", "b"), "index.html"),
        (delete("index.html"), write("index.html", "b"), "index.html"),
        (write("index.html", "a"), delete("index.html"), "index.html"),
        (write("new", "a"), write("new", "b"), "new"),
        (delete("uploads"), write("uploads/9.png", "b"), "uploads/9.png"),
        (write("uploads/9.png", "a"), delete("uploads"), "uploads/9.png"),
        (protect("index.html"), write("index.html", "b"), "index.html"),
    ],
)
def test_both_wrote(
    store: FilesStore, guarding: Guarding, script: Act, application: Act, named: str
) -> None:
    """A path that the script and others touched stops the run, and is named; theirs stays."""
    report = guarding.run(store, script, meanwhile=application)
    assert report.stop is not None
    assert f"`{named}`" in report.stop.what
    other = make_store(root_of(store).with_name("expected"), FILES)
    application(root_of(other))
    assert texts(root_of(store)) == texts(root_of(other))
    assert leftovers(root_of(store)) == []


def test_both_deleted(store: FilesStore, guarding: Guarding) -> None:
    """What both deleted is deleted: there is nothing to disagree about."""
    report = guarding.run(store, empty_uploads, meanwhile=empty_uploads)
    assert report.stop is None
    assert texts(root_of(store)) == without("uploads/1.png", "uploads/2.png")


def test_open_log(store: FilesStore, guarding: Guarding) -> None:
    """Who appends to an open file that the script left alone goes on appending to that file."""
    program = (
        "import sys; f = open(sys.argv[1], 'a'); print('ready', flush=True)\n"
        "for line in sys.stdin: f.write(line); f.flush(); print('written', flush=True)"
    )
    with another_process(program, root_of(store) / "logs/app.log") as application:
        guarding.run(store, empty_uploads)
        tell(application, "after the swap")
    assert (root_of(store) / "logs/app.log").read_text() == "started\nafter the swap\n"
    assert guarding.heard == []


def test_open_log_that_was_changed(store: FilesStore, guarding: Guarding) -> None:
    """Who has a file open that the script replaced is named: it writes where nobody reads."""
    program = "import sys; f = open(sys.argv[1], 'a'); print('ready', flush=True); sys.stdin.read()"
    with another_process(program, root_of(store) / "logs/app.log") as application:
        guarding.run(store, lambda root: (root / "logs/app.log").write_text(""))
        assert [event.kind for event in guarding.heard] == ["unheld"]
        assert f"(pid {application.pid}) uses `logs/app.log`" in guarding.heard[0].text


def test_listening_socket(store: FilesStore, guarding: Guarding) -> None:
    """Who listens on a socket in the tree is still reached by its name."""
    (root_of(store) / "link").symlink_to("index.html")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root_of(store) / "s"))
        listening.listen()
        guarding.run(store, empty_uploads)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(root_of(store) / "s"))


def test_last_moment(
    store: FilesStore, guarding: Guarding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written between the last look and the swap is taken over, or named and kept."""
    swap = swapping.Stage.swap

    def application_first(stage: swapping.Stage) -> None:
        (root_of(store) / "late.txt").write_text("late")
        index = root_of(store) / "index.html"
        about = index.stat()
        index.write_text("<HTML>")
        os.utime(index, ns=(about.st_atime_ns, about.st_mtime_ns))
        (root_of(store) / "uploads/1.png").write_text("late too")
        swap(stage)

    monkeypatch.setattr(swapping.Stage, "swap", application_first)
    guarding.run(store, empty_uploads)
    assert (root_of(store) / "late.txt").read_text() == "late"
    assert (root_of(store) / "index.html").read_text() == "<HTML>"
    assert [event.kind for event in guarding.heard] == ["others", "unheld"]
    assert "`uploads/1.png`" in guarding.heard[1].text
    (former,) = swapping.kept(root_of(store))
    assert (former / "uploads/1.png").read_text() == "late too"


# --- ways out ----------------------------------------------------------------------------------


def test_links_out_are_told(store: FilesStore, guarding: Guarding, tmp_path: Path) -> None:
    """Links that lead out of the tree are told before the script runs; those inside are not."""
    root = root_of(store)
    (root / "etc").symlink_to("/etc")
    (root / "up").symlink_to("../elsewhere")
    (root / "uploads/in").symlink_to("../index.html")
    (tmp_path / "outside").hardlink_to(root / "uploads/3.png")
    with staging.guarded(store, Limits("measure"), guarding.folder(), guarding.heard.append):
        pass
    told = " ".join(event.text for event in guarding.heard)
    assert {event.kind for event in guarding.heard} == {"unheld"}
    assert len(guarding.heard) == 3
    assert all(name in told for name in ("`etc`", "`up`", "`uploads/3.png`"))


def test_bypass_through_an_absolute_link(store: FilesStore, guarding: Guarding) -> None:
    """A script that reaches the tree itself through a link of its copy is an event."""
    (root_of(store) / "current").symlink_to(root_of(store) / "uploads")

    def script(root: Path) -> None:
        (root / "current/1.png").write_text("through the link")
        (root / "index.html").unlink()

    report = guarding.run(store, script)
    bypasses = [event.text for event in report.events if event.kind == "bypass"]
    assert len(bypasses) == 1
    assert "`uploads/1.png`" in bypasses[0]


def test_mount_as_root(
    store: FilesStore, guarding: Guarding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that is a mount point is refused before the script runs: no rename takes its place."""
    monkeypatch.setattr(swapping, "mount_points", lambda: (root_of(store),))
    with pytest.raises(StoreError) as raised:
        guarding.run(store, empty_uploads)
    assert raised.value.code == "store.unsupported"
    assert "mount point" in raised.value.message


# --- killed, and recovered ---------------------------------------------------------------------

_KILLED = """
import os, signal, sys
from pathlib import Path
from handrail.adapters.files import FilesStore, staging, swapping
from handrail.plans.holding import Limits
WATCHED = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "open", "os.chmod"}
seen, at = None, 0
def hook(event, arguments):
    global seen
    if seen is None or event not in WATCHED or str(arguments[0]).startswith("/proc"):
        return
    seen += 1
    if seen == at:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
def settle(root, folder, how):
    global seen
    if how == "renames":
        swapping._exchange = lambda one, other: False
    store = FilesStore("store/uploads", root)
    folder.mkdir()
    with staging.guarded(store, Limits("measure"), folder, lambda event: None) as guard:
        copy = Path(guard.connection().parts["path"])
        (copy / "uploads/1.png").unlink()
        (copy / "uploads/9.png").write_text("nine")
        (root / "theirs.txt").write_text("theirs")
        seen = 0
        guard.settle()
        print(seen, flush=True)
        seen = None
    os._exit(0)
print("ready", flush=True)
for line in sys.stdin:
    root, folder, at, how = line.strip().split("|")
    at = int(at)
    child = os.fork()
    if child == 0:
        settle(Path(root), Path(folder), how)
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        print("killed", flush=True)
"""


@pytest.mark.parametrize("how", ["exchange", "renames"])
def test_killed_at_every_step(tmp_path: Path, how: str) -> None:
    """SIGKILL at any step of settling leaves the old tree or the new one, whole; leftovers go."""
    new = {**without("uploads/1.png"), "uploads/9.png": "nine", "theirs.txt": "theirs"}
    old = {**FILES, "theirs.txt": "theirs"}
    seen = set()
    with another_process(_KILLED) as process:
        whole = make_store(tmp_path / "whole", FILES)
        steps = int(tell(process, f"{root_of(whole)}|{tmp_path / 'folder'}|0|{how}"))
        assert texts(root_of(whole)) == new
        for at in range(1, steps + 1):
            store = make_store(tmp_path / f"tree-{at}", FILES)
            folder = tmp_path / f"folder-{at}"
            assert tell(process, f"{root_of(store)}|{folder}|{at}|{how}") == "killed"
            store.identify()  # what a killed swap left is put right by whoever looks next
            found = texts(root_of(store))
            assert found in (old, new)
            seen.add(found == new)
            swapping.recover(root_of(store))
            assert texts(root_of(store)) == found
            kept = [texts(former) for former in swapping.kept(root_of(store))]
            assert kept == ([old] if found == new else [])
            assert store.identify().id == f"files:{ID}"
    assert seen == {True, False}


def test_leftovers_are_found(store: FilesStore, guarding: Guarding) -> None:
    """What a killed run left is removed by the next one; what a living one holds is not."""
    left = root_of(store).with_name(".tree.handrail-abcdefgh")
    shutil.copytree(root_of(store), left / "tree")
    with staging.guarded(store, Limits("measure"), guarding.folder(), print) as living:
        path = Path(living.connection().parts["path"])
        guarding.run(store, lambda root: (root / "uploads/1.png").unlink())
        assert not left.exists()
        assert path.is_dir()


# --- laws --------------------------------------------------------------------------------------

_NAMES = st.sampled_from(["a", "b", "a.b", "1.png", "22.png", "é", "x*y", "d/a", "d/1", "e/f/a"])
_TEXT = st.sampled_from(["", "x", "y", "xx", "long " * 100])
_ACT = st.one_of(
    st.tuples(st.just("write"), _NAMES, _TEXT),
    st.tuples(st.just("remove"), _NAMES, st.just("")),
    st.tuples(st.just("chmod"), _NAMES, st.sampled_from(["600", "644"])),
    st.tuples(st.just("link"), _NAMES, st.sampled_from(["a", "/nowhere"])),
    st.tuples(st.just("move"), _NAMES, _NAMES),
)
_TREES = st.dictionaries(_NAMES, _TEXT, max_size=6)


def act(root: Path, verb: str, name: str, more: str) -> None:
    """Do one thing to a tree, where it can be done."""
    path = root / name
    try:
        if verb == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(more)
            os.utime(path, ns=(5, 5))
        elif verb == "remove":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        elif verb == "chmod":
            path.chmod(int(more, 8))
        elif verb == "link":
            path.unlink(missing_ok=True)
            path.symlink_to(more)
            os.utime(path, ns=(5, 5), follow_symlinks=False)
        else:
            path.rename(root / more)
    except OSError:
        pass


def build(at: Path, files: dict[str, str]) -> FilesStore:
    """Return a store with `files`, all of one time."""
    store = make_store(at)
    for name, text in files.items():
        act(root_of(store), "write", name, text)
    return store


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(_TREES, st.lists(_ACT, max_size=6))
def test_law_of_the_budget(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, str],
    acts: list[tuple[str, str, str]],
) -> None:
    """What the copy shows is what really changed; with one less allowed nothing changes."""
    at = tmp_path_factory.mktemp("law")
    guarding = Guarding(at)

    def script(root: Path) -> None:
        for one in acts:
            act(root, *one)

    clone, real, less, direct = (build(at / name, files) for name in ("clone", "real", "less", "d"))
    rehearsed = guarding.run(clone, script)
    observed = [guarding.folder(), guarding.folder()]
    real.observe(observed[0])
    direct.observe(observed[1])
    report = guarding.run(real, script, "hold", budget_of(rehearsed))
    script(root_of(direct))
    assert report.stop is None
    assert report.effects == rehearsed.effects == real.effects(observed[0])
    assert report.effects == direct.effects(observed[1])
    assert real.fingerprint() == direct.fingerprint()
    if rehearsed.effects:
        budget = budget_of(rehearsed)
        first, *rest = budget.allowances
        smaller = Budget((replace(first, rows=(first.rows or 0) - 1), *rest), budget.source)
        before = less.fingerprint()
        assert guarding.run(less, script, "hold", smaller).stop is not None
        assert less.fingerprint() == before


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(_TREES, st.lists(_ACT, max_size=4), st.lists(_ACT, max_size=4))
def test_law_of_others(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, str],
    acts: list[tuple[str, str, str]],
    theirs: list[tuple[str, str, str]],
) -> None:
    """Nothing that others did is ever lost: it is there after the swap, or the run was stopped."""
    at = tmp_path_factory.mktemp("others")
    guarding = Guarding(at)

    def run(what: list[tuple[str, str, str]], root: Path) -> None:
        for one in what:
            act(root, *one)

    real, alone = build(at / "real", files), build(at / "alone", files)
    folder = guarding.folder()
    alone.observe(folder)
    report = guarding.run(
        real, lambda root: run(acts, root), meanwhile=lambda root: run(theirs, root)
    )
    run(theirs, root_of(alone))
    if report.stop is not None:
        assert real.fingerprint() == alone.fingerprint()
        return
    changed = {path for path in _states(alone) if _states(alone)[path] != files.get(path)}
    after = _states(real)
    assert {path: after.get(path) for path in changed} == {
        path: _states(alone)[path] for path in changed
    }


def _states(store: FilesStore) -> dict[str, str]:
    """Return every path of a tree: a file's content, a link's target, a directory's slash."""
    root, found = root_of(store), {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text()
    return found
