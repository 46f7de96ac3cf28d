"""A directory tree is a store: identity, looking, backup, clone, restore and effects."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from handrail.adapters.files import FilesStore, durable, swapping, tree
from handrail.errors import StoreError
from support.file_trees import (
    ID,
    another_process,
    back_up,
    make_store,
    quiet,
    root_of,
    said,
    set_times,
    texts,
)

MARKER = "a1b2" * 8
FILES = {
    "uploads/1.png": "one",
    "uploads/2.png": "two",
    "uploads/3.png": "three",
    "index.html": "<html>",
    "logs/2024-01-01.log": "x",
}


@pytest.fixture
def store(tmp_path: Path) -> FilesStore:
    """A tree with five files."""
    return make_store(tmp_path / "tree", FILES)


def observed(store: FilesStore, tmp_path: Path) -> Path:
    """Return a new folder in which `store` was observed."""
    into = tmp_path / f"observed-{len(list(tmp_path.iterdir()))}"
    into.mkdir()
    store.observe(into)
    return into


def clone_of(store: FilesStore, tmp_path: Path) -> FilesStore:
    """Return a clone of `store`, by way of a backup."""
    at = tmp_path / "clone"
    at.mkdir()
    made = store.clone(back_up(store, tmp_path / "backup"), at, MARKER, quiet)
    assert isinstance(made, FilesStore)
    return made


# --- identity ----------------------------------------------------------------------------------


def test_identity_is_kept(store: FilesStore) -> None:
    """Adopting twice gives the identity that is there, and leaves no file in the tree or beside."""
    first = store.identify()
    assert store.adopt("0" * 32) == first
    assert (first.id, first.endpoint, first.marker) == (f"files:{ID}", str(root_of(store)), "")
    assert texts(root_of(store)) == FILES
    assert sorted(p.name for p in root_of(store).parent.iterdir()) == ["tree"]


def test_identity_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has no attributes, the identity lies beside the tree."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    monkeypatch.setattr(os, "getxattr", refuse)
    store = make_store(tmp_path / "tree", FILES)
    assert store.identify().id == f"files:{ID}"
    assert texts(tmp_path / "tree") == FILES
    assert (tmp_path / ".tree.handrail").read_text() == f"{ID}\n"


def test_unadopted(tmp_path: Path) -> None:
    """A tree that was never adopted says so."""
    (tmp_path / "tree").mkdir()
    assert FilesStore("store/x", tmp_path / "tree").identify().id == "files:unadopted"


@pytest.mark.parametrize("what", ["missing", "file", "dangling"])
def test_missing(tmp_path: Path, what: str) -> None:
    """What is not there, or is no directory, is an error with a hint, never an empty tree."""
    path = tmp_path / "tree"
    if what == "file":
        path.write_text("x")
    elif what == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    store = FilesStore("store/x", path)
    for look in (store.identify, store.measure, store.fingerprint):
        with pytest.raises(StoreError) as raised:
            look()
        assert raised.value.hint


def test_root_replaced_by_a_link(store: FilesStore, tmp_path: Path) -> None:
    """A link that takes the tree's place later does not lead anywhere else."""
    root_of(store).rename(tmp_path / "elsewhere")
    root_of(store).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError) as raised:
        store.fingerprint()
    assert raised.value.code == "store.not-a-store"


def test_others(store: FilesStore) -> None:
    """Who has a file of the tree open, or works in it, is named; nobody is nobody."""
    assert store.others() == ()
    program = "import sys; f = open(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
    with another_process(program, root_of(store) / "index.html") as other:
        assert [who.rpartition("(")[2] for who in store.others()] == [f"pid {other.pid})"]


# --- looking -----------------------------------------------------------------------------------


def test_measure(store: FilesStore) -> None:
    """A pattern of paths has its files as rows, and the span of their times."""
    os.utime(root_of(store) / "uploads/2.png", (0, 1_000_000_000))
    measure = store.measure()
    found = {table.name: table.rows for table in measure.tables}
    assert found == {"index.html": 1, "logs/*.log": 1, "uploads/*.png": 3}
    assert measure.oldest == "2001-09-09T01:46:40+00:00"
    assert measure.size_bytes == sum(map(len, FILES.values()))


def test_many_names(tmp_path: Path) -> None:
    """Very many names without a pattern are told by their ending, on both sides of a run alike."""
    words = [a + b for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghij"]
    store = make_store(tmp_path / "tree", {f"slugs/{word}.html": word for word in words})
    assert [(t.name, t.rows) for t in store.measure().tables] == [("slugs/**.html", len(words))]
    before = observed(store, tmp_path)
    for path in (root_of(store) / "slugs").iterdir():
        path.unlink()
    assert said(store.effects(before)) == [("delete", "file", "slugs/**.html", len(words))]


def test_fingerprint_sees_content_behind_equal_times(store: FilesStore) -> None:
    """Other content of the same length with the same time is another fingerprint."""
    path = root_of(store) / "uploads/1.png"
    before, about = store.fingerprint(), path.stat()
    path.write_text("eno")
    set_times(path, about)
    assert store.fingerprint().differences(before) == ("table uploads/*.png",)


def test_fingerprint_ignores_times(store: FilesStore) -> None:
    """A file deleted and written again with the same content is the same."""
    before = store.fingerprint()
    (root_of(store) / "index.html").unlink()
    (root_of(store) / "index.html").write_text("<html>")
    assert store.fingerprint() == before


def test_fingerprint_sees_holes_as_zeros(tmp_path: Path) -> None:
    """A hole and written zeros are the same content."""
    one, other = make_store(tmp_path / "one"), make_store(tmp_path / "other")
    with (root_of(one) / "f").open("wb") as stream:
        stream.truncate(3_000_000)
        stream.seek(1_000_000)
        stream.write(b"x")
    (root_of(other) / "f").write_bytes((root_of(one) / "f").read_bytes())
    assert one.fingerprint().tables == other.fingerprint().tables


def test_directories_are_the_schema(store: FilesStore) -> None:
    """An empty directory more changes the schema and no table."""
    before = store.fingerprint()
    (root_of(store) / "empty").mkdir()
    assert store.fingerprint().differences(before) == ("schema",)


def test_ask(store: FilesStore) -> None:
    """Asking counts files by a pattern, and says whether a path exists."""
    assert store.ask("count uploads/*.png", 5.0) == "3"
    assert store.ask("count *", 5.0) == "1"
    assert store.ask("exists logs", 5.0) == "yes"
    assert store.ask("exists uploads/9.png", 5.0) == "no"


@pytest.mark.parametrize(
    "query", ["", "rm -r", "exists ../x", "exists /etc", "count", "count a/../b"]
)
def test_ask_refuses(store: FilesStore, query: str) -> None:
    """What is no question, or leads out, is refused."""
    with pytest.raises(StoreError):
        store.ask(query, 5.0)


def test_ask_follows_no_link(store: FilesStore) -> None:
    """A link is not followed out of the tree."""
    (root_of(store) / "out").symlink_to("/etc")
    assert store.ask("exists out/passwd", 5.0) == "no"
    assert store.ask("exists out", 5.0) == "yes"


def test_ask_ends(store: FilesStore) -> None:
    """Counting ends at its time limit."""
    with pytest.raises(StoreError):
        store.ask("count *", -1.0)


def test_connection(store: FilesStore) -> None:
    """A script gets the path, and needs to write there."""
    connection = store.connection()
    assert connection.parts == {"path": str(root_of(store))}
    assert connection.environment == {"HANDRAIL_FILES": str(root_of(store))}
    assert connection.paths == (root_of(store),)


# --- backup, clone, restore --------------------------------------------------------------------


def strange(root: Path) -> None:
    """Put everything in the tree that is no plain file with a plain name."""
    (root / "a\nb\x1b[31m").write_text("control")
    with (root / os.fsdecode(b"\xff\xfe")).open("w") as stream:
        stream.write("no text")
    (root / "lower").write_text("1")
    (root / "LOWER").write_text("2")
    (root / "link").symlink_to("uploads/1.png")
    (root / "dangling").symlink_to("/nowhere/at/all")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "s"))
    (root / "twin").hardlink_to(root / "uploads/2.png")
    (root / "set-id").write_text("x")
    (root / "set-id").chmod(0o4751)
    (root / "secret").mkdir()
    (root / "secret/key").write_text("k")
    (root / "secret/key").chmod(0o400)
    (root / "secret").chmod(0o500)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    os.setxattr(root / "index.html", "user.note", b"kept")
    os.utime(root / "index.html", ns=(1, 1_234_567_890_123_456_789))


def test_clone_of_everything(store: FilesStore, tmp_path: Path) -> None:
    """Links, FIFOs, sockets, hard links, modes, times, attributes and bad names come back equal."""
    strange(root_of(store))
    before = store.fingerprint()
    clone = clone_of(store, tmp_path)
    copy = root_of(clone)
    assert clone.fingerprint().differences(before) == ()
    assert (copy / "twin").samefile(copy / "uploads/2.png")
    assert not (copy / "twin").samefile(root_of(store) / "twin")
    assert (copy / "index.html").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert os.getxattr(copy / "index.html", "user.note") == b"kept"
    assert stat.S_IMODE((copy / "set-id").stat().st_mode) == 0o4751
    assert stat.S_IMODE((copy / "sticky").stat().st_mode) == 0o1777
    assert (copy / "dangling").readlink() == Path("/nowhere/at/all")
    assert stat.S_ISFIFO((copy / "pipe").lstat().st_mode)
    assert stat.S_ISSOCK((copy / "s").lstat().st_mode)
    store.discard(tmp_path / "clone")
    assert not (tmp_path / "clone").exists()


def test_clone_is_another(store: FilesStore, tmp_path: Path) -> None:
    """A clone has the marker, its own endpoint, the same id, and nobody else may look into it."""
    clone = clone_of(store, tmp_path)
    who = clone.identify()
    assert who.marker == MARKER
    assert who.id == store.identify().id
    assert who.endpoint != store.identify().endpoint
    assert (tmp_path / "clone").stat().st_mode & 0o077 == 0
    (root_of(clone) / "uploads/1.png").write_text("changed in place")
    assert texts(root_of(store)) == FILES
    for _ in range(2):
        store.discard(tmp_path / "clone")
    with pytest.raises(StoreError):
        clone.identify()


def test_effects_show_safe_names(store: FilesStore, tmp_path: Path) -> None:
    """A name with control characters or bytes that are no text is shown without them."""
    before = observed(store, tmp_path)
    strange(root_of(store))
    names = {effect.name for effect in store.effects(before)}
    assert "a\\nb\\x1b[*m" in {name.replace("31", "*") for name in names}
    assert all(name.isprintable() for name in names)


def test_discard_refuses(store: FilesStore, tmp_path: Path) -> None:
    """A directory that is no clone is not removed; one that was never begun is no matter."""
    with pytest.raises(StoreError):
        store.discard(root_of(store))
    assert texts(root_of(store)) == FILES
    store.discard(tmp_path / "never")
    (tmp_path / "empty").mkdir()
    store.discard(tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_clone_inside_the_tree(store: FilesStore, tmp_path: Path) -> None:
    """A backup or clone inside the tree would hold itself, and is refused."""
    inside = root_of(store) / "inside"
    inside.mkdir()
    with pytest.raises(StoreError):
        store.backup("b1", inside, quiet)
    backup = back_up(store, tmp_path / "backup")
    with pytest.raises(StoreError):
        store.clone(backup, inside, MARKER, quiet)
    assert list(inside.iterdir()) == []


def test_huge_sparse_file(store: FilesStore, tmp_path: Path) -> None:
    """A file of 10 TiB with a few bytes in it fills neither backup nor clone, and comes back."""
    with (root_of(store) / "huge").open("wb") as stream:
        stream.truncate(10 * 2**40)
        stream.seek(7 * 2**40 + 12345)
        stream.write(b"here")
    before = store.fingerprint()
    clone = clone_of(store, tmp_path)
    huge = root_of(clone) / "huge"
    assert huge.stat().st_size == 10 * 2**40
    assert huge.stat().st_blocks * 512 < 2_000_000
    assert clone.fingerprint() == before
    on_disk = sum(p.stat().st_size for p in (tmp_path / "backup").rglob("*") if p.is_file())
    assert on_disk < 2_000_000
    with huge.open("rb") as stream:
        stream.seek(7 * 2**40 + 12345)
        assert stream.read(4) == b"here"


def test_deep_tree(tmp_path: Path) -> None:
    """A tree far deeper than a path may be long is copied and removed."""
    store = make_store(tmp_path / "tree")
    parent = os.open(root_of(store), os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d" * 100, dir_fd=parent)
        deeper = os.open("d" * 100, os.O_RDONLY, dir_fd=parent)
        os.close(parent)
        parent = deeper
    os.close(parent)
    assert store.fingerprint().tables == ()
    clone = clone_of(store, tmp_path)
    assert clone.fingerprint() == store.fingerprint()
    store.discard(tmp_path / "clone")
    assert not (tmp_path / "clone").exists()
    durable.remove(root_of(store))


def test_restore(store: FilesStore, tmp_path: Path) -> None:
    """Restoring puts everything back at once, keeps what was there, and twice equals once."""
    strange(root_of(store))
    before, who = store.fingerprint(), store.identify()
    backup = back_up(store, tmp_path / "backup")
    shutil.rmtree(root_of(store) / "uploads")
    (root_of(store) / "new").write_text("new")
    for _ in range(2):
        assert store.restore(backup, quiet) == ()
        assert store.fingerprint() == before
    assert store.identify() == who
    kept = tmp_path / "tree.before-restore-b1"
    assert (kept / "new").read_text() == "new"
    assert not (kept / "uploads").exists()


def test_restore_of_what_is_gone(store: FilesStore, tmp_path: Path) -> None:
    """A tree that was removed whole comes back with its identity."""
    backup = back_up(store, tmp_path / "backup")
    durable.remove(root_of(store))
    assert store.restore(backup, quiet) == ()
    assert texts(root_of(store)) == FILES
    assert store.identify().id == f"files:{ID}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backup", "tree"]


@pytest.mark.parametrize("damage", ["content", "missing", "manifest", "gone"])
def test_damaged_backup(store: FilesStore, tmp_path: Path, damage: str) -> None:
    """A backup that is not as it was written is an error, and the tree stays as it was."""
    backup = back_up(store, tmp_path / "backup")
    kept = Path(backup.path)
    if damage == "content":
        (kept / "content/uploads/1.png").write_text("oen")
    elif damage == "missing":
        (kept / "content/uploads/1.png").unlink()
    elif damage == "manifest":
        lines = (kept / "manifest").read_text().splitlines(keepends=True)
        (kept / "manifest").write_text("".join(lines[:-1]))
    else:
        kept.rename(tmp_path / "elsewhere")
    (root_of(store) / "index.html").write_text("newer")
    before = store.fingerprint()
    with pytest.raises(StoreError) as raised:
        store.restore(backup, quiet)
    assert raised.value.code == "backup.damaged"
    assert store.fingerprint() == before
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_open_file_of_the_former_tree(store: FilesStore, tmp_path: Path) -> None:
    """Who has a file of the former tree open after a restore is named."""
    backup = back_up(store, tmp_path / "backup")
    program = "import sys; f = open(sys.argv[1], 'a'); print('ready', flush=True); sys.stdin.read()"
    with another_process(program, root_of(store) / "index.html") as other:
        left = store.restore(backup, quiet)
        assert len(left) == 1
        assert f"(pid {other.pid})" in left[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_parent_may_not_be_written(store: FilesStore) -> None:
    """A tree whose parent may not be written cannot be swapped, and that is said beforehand."""
    root_of(store).parent.chmod(0o500)
    try:
        assert "may not be written" in store.can_restore()
    finally:
        root_of(store).parent.chmod(0o700)


def test_can_restore(store: FilesStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that can be swapped has no reason against it; one that is a mount has."""
    assert store.can_restore() == ""
    monkeypatch.setattr(swapping, "mount_points", lambda: (root_of(store),))
    assert "mount point" in store.can_restore()


def test_mount_table() -> None:
    """The system's table of mounts is read, spaces in names too."""
    assert Path("/") in tree.mount_points()


@pytest.mark.root
def test_mount_inside(store: FilesStore, tmp_path: Path) -> None:
    """What is mounted inside of the tree is refused, also when it is of the same file system."""
    if subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no mounts of its own here: needs root")
    program = (
        "import sys; from pathlib import Path; from handrail.adapters.files import FilesStore\n"
        "FilesStore('store/x', Path(sys.argv[1])).fingerprint()"
    )
    (root_of(store) / "mounted here").mkdir()
    script = 'mount --bind "$1/uploads" "$1/mounted here" && exec "$3" -c "$2" "$1"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(root_of(store)), program]
    ended = subprocess.run([*command, sys.executable], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "`mounted here` is another file system, mounted inside of the tree" in ended.stderr


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a device")
def test_device(store: FilesStore, tmp_path: Path) -> None:
    """A device is refused: a copy of it would be the same device."""
    os.mknod(root_of(store) / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (tmp_path / "backup").mkdir()
    with pytest.raises(StoreError) as raised:
        store.backup("b1", tmp_path / "backup", quiet)
    assert raised.value.code == "store.unsupported"
    assert list((tmp_path / "backup").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(store: FilesStore) -> None:
    """What may not be read is an error, never left out."""
    (root_of(store) / "index.html").chmod(0)
    with pytest.raises(StoreError) as raised:
        store.fingerprint()
    assert raised.value.code == "store.denied"


# --- effects -----------------------------------------------------------------------------------


def test_no_effects(store: FilesStore, tmp_path: Path) -> None:
    """Nothing done, nothing said: also not about having looked."""
    strange(root_of(store))
    before = observed(store, tmp_path)
    store.measure()
    store.fingerprint()
    assert store.effects(before) == ()


def test_effects(store: FilesStore, tmp_path: Path) -> None:
    """Created, changed and deleted files, directories and links are counted by their pattern."""
    before = observed(store, tmp_path)
    root = root_of(store)
    (root / "uploads/1.png").unlink()
    (root / "uploads/2.png").unlink()
    (root / "uploads/3.png").write_text("changed")
    (root / "uploads/4.png").write_text("four")
    (root / "empty").mkdir()
    (root / "link").symlink_to("index.html")
    (root / "index.html").chmod(0o600)
    found = store.effects(before)
    assert said(found) == [
        ("delete", "file", "uploads/*.png", 2),
        ("update", "file", "uploads/*.png", 1),
        ("alter", "file", "index.html", 1),
        ("insert", "directory", "empty", 1),
        ("insert", "file", "uploads/*.png", 1),
        ("insert", "link", "link", 1),
    ]
    assert [e.detail for e in found[:2]] == ["6 B", "7 B"]


def test_replaced_by_another_kind(store: FilesStore, tmp_path: Path) -> None:
    """A link in a file's place is a replacement, and destructive."""
    before = observed(store, tmp_path)
    (root_of(store) / "index.html").unlink()
    (root_of(store) / "index.html").symlink_to("uploads/1.png")
    found = store.effects(before)
    assert said(found) == [("replace", "file", "index.html", 1)]
    assert found[0].is_destructive


def test_exchanged_names(store: FilesStore, tmp_path: Path) -> None:
    """Two files of equal length and time that exchanged their names are two changed files."""
    root = root_of(store)
    os.utime(root / "uploads/1.png", ns=(1, 1))
    os.utime(root / "uploads/2.png", ns=(1, 1))
    before = observed(store, tmp_path)
    (root / "uploads/1.png").rename(root / "t")
    (root / "uploads/2.png").rename(root / "uploads/1.png")
    (root / "t").rename(root / "uploads/2.png")
    assert said(store.effects(before)) == [("update", "file", "uploads/*.png", 2)]


def test_written_through_memory(store: FilesStore, tmp_path: Path) -> None:
    """What is written through a mapping that was there before is seen, whatever the times say."""
    path = root_of(store) / "uploads/3.png"
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        mapped[0:1] = b"T"  # the page is dirty from here on: no later write is noted at once
        before, about = observed(store, tmp_path), path.stat()
        mapped[0:1] = b"X"
        set_times(path, about)
        assert said(store.effects(before)) == [("update", "file", "uploads/*.png", 1)]


def test_everything_gone(store: FilesStore, tmp_path: Path) -> None:
    """A tree that was removed is the deletion of everything in it."""
    before = observed(store, tmp_path)
    durable.remove(root_of(store))
    found = said(store.effects(before))
    assert ("delete", "directory", ".", 1) in found
    assert ("delete", "file", "uploads/*.png", 3) in found
