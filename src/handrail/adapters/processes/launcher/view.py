"""The file system as a confined script sees it, made of mounts in a namespace of its own.

Rules:
- Everything is read-only but what the request names; devices are the six harmless ones.
- `/tmp`, `/var/tmp`, `/run` and `/dev/shm` are new, empty and in memory: what a script leaves there
  is gone with it. What the request names below them stays where it is.
- Of two mounts the deeper one wins, and at the same path `hidden` wins: parents are put first.
- A replaced file takes its whole folder with it: the clone's folder stands there, writable, with
  the real neighbours bound into it read-only. So `rm` and a new file, and what SQLite writes
  beside a database, meet the clone. Bound alone, the clone would be busy; overlaid, its log lost.
- Narrowed for a real run, all stays as it is but what is hidden or replaced, and the next rule; the
  neighbours of a replaced file are then the real ones, writable.
- Sockets of the real world's servers are covered: read-only does not keep anybody from connecting.
"""

# Paths are text here: they go to the kernel as they came.
# ruff: noqa: PTH102, PTH103, PTH106, PTH108, PTH112, PTH115, PTH116, PTH118, PTH120, PTH202, PTH208, PTH211

from __future__ import annotations

import contextlib
import os
import resource
import stat
from typing import Any

from . import kernel

FRESH = (("/tmp", "1777"), ("/var/tmp", "1777"), ("/run", "755"))  # noqa: S108 - they are covered
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))
EMPTY = "/dev/.empty"
STAGE = "/dev/.stage"
# What covers a file where devices stay as they are; sealed, it cannot even be opened.
NOTHING = "/dev/null"
# What SQLite keeps beside a database: the real one's must not be taken for the clone's.
SIDECARS = ("-wal", "-shm", "-journal")
SEALED = kernel.MOUNT_READ_ONLY | kernel.MOUNT_NO_DEVICES | kernel.MOUNT_NO_SETUID
HARMLESS = kernel.MOUNT_NO_DEVICES | kernel.MOUNT_NO_SETUID

FRESH_RANK, TREE_RANK, BESIDE_RANK, FOLDER_RANK, HIDDEN_RANK = range(5)


def neighbours(replaced: list[list[str]]) -> dict[str, tuple[str, list[str]]]:
    """Return, for each folder with a replaced file, the clone's folder and the names to bind."""
    found: dict[str, tuple[str, list[str]]] = {}
    for real, clone in replaced:
        if os.path.isdir(clone):
            continue
        folder, name = os.path.split(real)
        own = {name, *(name + end for end in SIDECARS), *os.listdir(os.path.dirname(clone))}
        earlier = found[folder][1] if folder in found else os.listdir(folder)
        found[folder] = (os.path.dirname(clone), [one for one in earlier if one not in own])
    return found


def place(folders: dict[str, tuple[str, list[str]]]) -> list[str]:
    """Make empty places in the clones' folders for the real neighbours; return what was made.

    Links are made again, as they are. Sockets and pipes have no place: they lead to the real world.
    """
    return [
        os.path.join(clone, name)
        for folder, (clone, names) in folders.items()
        for name in names
        if _place(os.path.join(folder, name), os.path.join(clone, name))
    ]


def _place(real: str, at: str) -> bool:
    mode = _mode(real)
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(real), at)
    elif stat.S_ISDIR(mode):
        os.mkdir(at)
    elif stat.S_ISREG(mode):
        os.close(os.open(at, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    else:
        return False
    return True


def clear(made: list[str]) -> None:
    """Take away what `place` made. What is no longer empty is the script's, and stays."""
    for at in made:
        with contextlib.suppress(OSError):
            mode = os.lstat(at).st_mode
            if stat.S_ISDIR(mode):
                os.rmdir(at)
            elif stat.S_ISLNK(mode) or os.path.getsize(at) == 0:
                os.unlink(at)


def build(confine: dict[str, Any], folders: dict[str, tuple[str, list[str]]]) -> None:
    """Make the view. The caller is alone in new mount and process namespaces.

    Raises:
        OSError: a mount is not allowed here, or a named path does not exist.
    """
    kernel.mount("", "/", "", kernel.MOUNT_PRIVATE | kernel.MOUNT_RECURSIVE)
    layers = _layers(confine, folders)
    staged = [(folder, kernel.take_tree(folder)) for folder in folders]
    devices = [(name, kernel.take_tree(f"/dev/{name}")) for name in DEVICES]
    kernel.set_mount("/", add=SEALED, recursive=True)
    _devices(devices)
    for path, rank, tree in sorted(layers, key=lambda layer: (layer[0].count("/"), layer[1])):
        _put(path, rank, tree)
        if rank == FOLDER_RANK:
            _bind_neighbours(path, folders[path][1], dict(staged)[path])
    for path in confine["servers"]:
        _cover_server(path)
    _close(confine["hidden"])


def narrow(confine: dict[str, Any], folders: dict[str, tuple[str, list[str]]]) -> None:
    """Leave all as it is, but for what is hidden or replaced, and the sockets of other servers.

    Raises:
        OSError: a mount is not allowed here, or a named path does not exist.
    """
    kernel.mount("", "/", "", kernel.MOUNT_PRIVATE | kernel.MOUNT_RECURSIVE)
    hidden = confine["hidden"]
    layers = [(path, HIDDEN_RANK, 0) for path in hidden]
    # What is hidden may hold what the script needs: its home, the guard's own sockets.
    layers += [
        (path, TREE_RANK, _take(path, writable=True))
        for path in confine["writable"]
        if any(path.startswith(one + "/") for one in hidden)
    ]
    for real, clone in confine["replaced"]:
        if os.path.isdir(clone):
            layers.append((real, FOLDER_RANK, _take(clone, writable=True)))
    for folder, (clone, names) in folders.items():
        layers.append((folder, FOLDER_RANK, _take(clone, writable=True)))
        layers += _neighbours_as_they_are(folder, names)
    for path, rank, tree in sorted(layers, key=lambda layer: (layer[0].count("/"), layer[1])):
        if rank == HIDDEN_RANK and not os.path.isdir(path):
            _cover(path, NOTHING)
        else:
            _put(path, rank, tree)
    for path in confine["servers"]:
        _cover_server(path, NOTHING)
    _seal(hidden)


def _neighbours_as_they_are(folder: str, names: list[str]) -> list[tuple[str, int, int]]:
    """Take what stands beside a replaced file, to be put beside its copy, writable."""
    _most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # one descriptor a neighbour
    found = []
    for path in (os.path.join(folder, name) for name in names):
        mode = _mode(path)
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            with contextlib.suppress(FileNotFoundError):
                found.append((path, BESIDE_RANK, _take(path, writable=True)))
    return found


def _mode(path: str) -> int:
    """Return what a neighbour is; 0 where it has gone since: another program's journal, say."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


def _layers(
    confine: dict[str, Any], folders: dict[str, tuple[str, list[str]]]
) -> list[tuple[str, int, int]]:
    """Take every tree while the whole of the file system can still be seen."""
    writable = set(confine["writable"])
    covered = {os.path.realpath(path): mode for path, mode in FRESH if os.path.isdir(path)}
    layers = [(path, FRESH_RANK, 0) for path in covered if path not in writable]
    taken = writable | set(folders) | set(covered) | {"/"}
    layers += [(p, TREE_RANK, _take(p, writable=False)) for p in confine["kept"] if p not in taken]
    layers += [(path, TREE_RANK, _take(path, writable=True)) for path in writable]
    for real, clone in confine["replaced"]:
        if os.path.isdir(clone):
            layers.append((real, TREE_RANK, _take(clone, writable=True)))
    for folder, (clone, _names) in folders.items():
        layers.append((folder, FOLDER_RANK, _take(clone, writable=True)))
    return layers + [(path, HIDDEN_RANK, 0) for path in confine["hidden"]]


def _take(path: str, *, writable: bool) -> int:
    tree = kernel.take_tree(path)
    kernel.set_tree(tree, add=HARMLESS if writable else SEALED)
    return tree


def _put(path: str, rank: int, tree: int) -> None:
    if rank == FRESH_RANK:
        mode = dict(FRESH).get(path, "755")
        kernel.mount("tmpfs", path, "tmpfs", HARMLESS, f"mode={mode}")
    elif rank == HIDDEN_RANK:
        _hide(path)
    else:
        is_folder = stat.S_ISDIR(os.fstat(tree).st_mode)
        _make_place(path, is_folder=is_folder)
        try:
            kernel.put_tree(tree, path)
        except FileNotFoundError:
            # Linux attaches nothing that was removed since it was taken: the neighbour has gone.
            if rank != BESIDE_RANK:
                raise
            (os.rmdir if is_folder else os.unlink)(path)
        finally:
            os.close(tree)


def _make_place(path: str, *, is_folder: bool) -> None:
    """Make what a mount needs to stand on: it is missing only in what is new and empty."""
    if os.path.lexists(path):
        return
    os.makedirs(path if is_folder else os.path.dirname(path), exist_ok=True)
    if not is_folder:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _hide(path: str) -> None:
    if not os.path.lexists(path):
        return  # already out of sight, below something that is new and empty
    if os.path.isdir(path):
        kernel.mount("tmpfs", path, "tmpfs", HARMLESS, "mode=755")
    else:
        _cover(path)


def _cover(path: str, empty: str = EMPTY) -> None:
    """Put an empty file over another, that nobody can write to."""
    tree = _take(empty, writable=False)
    kernel.put_tree(tree, path)
    os.close(tree)


def _close(hidden: list[str]) -> None:
    """Make the covers read-only, and what they were made with."""
    _seal(hidden)
    os.rmdir(STAGE)
    kernel.set_mount("/dev", add=kernel.MOUNT_READ_ONLY, recursive=False)


def _seal(hidden: list[str]) -> None:
    """Make the covers read-only, now that nothing more has to be put below them."""
    for path in hidden:
        if os.path.isdir(path):
            kernel.set_mount(path, add=kernel.MOUNT_READ_ONLY, recursive=False)


def _bind_neighbours(folder: str, names: list[str], tree: int) -> None:
    kernel.set_tree(tree, add=SEALED)
    kernel.put_tree(tree, STAGE)
    os.close(tree)
    for name in names:
        source, target = os.path.join(STAGE, name), os.path.join(folder, name)
        mode = _mode(source)
        if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
            with contextlib.suppress(FileNotFoundError):
                _bind(source, target)
    kernel.unmount(STAGE)


def _bind(source: str, target: str) -> None:
    tree = kernel.take_tree(source)
    try:
        kernel.put_tree(tree, target)
    finally:
        os.close(tree)


def _cover_server(path: str, empty: str = EMPTY) -> None:
    with contextlib.suppress(
        PermissionError, FileNotFoundError
    ):  # the script cannot reach it either
        if stat.S_ISSOCK(os.stat(path).st_mode):
            _cover(path, empty)


def _devices(trees: list[tuple[str, int]]) -> None:
    flags = kernel.MOUNT_NO_SETUID | kernel.MOUNT_NO_EXEC
    kernel.mount("tmpfs", "/dev", "tmpfs", flags, "mode=755")
    for name, tree in trees:
        os.close(os.open(f"/dev/{name}", os.O_CREAT | os.O_WRONLY, 0o666))
        kernel.put_tree(tree, f"/dev/{name}")
        os.close(tree)
    for name, end in LINKS:
        os.symlink(f"/proc/self/fd{end}", f"/dev/{name}")
    os.close(os.open(EMPTY, os.O_CREAT | os.O_WRONLY, 0o444))
    os.mkdir(STAGE)
    os.mkdir("/dev/shm")  # noqa: S108 - a new one
    kernel.mount("tmpfs", "/dev/shm", "tmpfs", HARMLESS, "mode=1777")  # noqa: S108 - a new one
    _terminals()


def _terminals() -> None:
    os.mkdir("/dev/pts")
    os.symlink("pts/ptmx", "/dev/ptmx")
    with contextlib.suppress(OSError):  # a script that opens a terminal is rare; it says so itself
        kernel.mount("devpts", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=620")


def mount_processes() -> None:
    """Show the processes of the new namespace alone, and nothing in there to write to."""
    flags = HARMLESS | kernel.MOUNT_NO_EXEC
    kernel.mount("proc", "/proc", "proc", flags)
    kernel.set_mount("/proc", add=kernel.MOUNT_READ_ONLY, recursive=False)
