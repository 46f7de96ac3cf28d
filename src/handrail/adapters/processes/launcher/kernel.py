"""The calls of Linux that Python 3.11 has no name for.

Rules:
- A call that fails raises `OSError` with the kernel's number; nothing returns a code.
- Numbers are those of the kernel's headers, the same on every machine type but in `NUMBERS`.

Source: include/uapi/linux/{prctl,sched,mount,capability}.h; arch/*/include/uapi/asm/unistd.h.
"""

from __future__ import annotations

import ctypes
import os
import signal

SET_PARENT_DEATH_SIGNAL = 1
SET_NAME = 15
SET_CHILD_SUBREAPER, GET_CHILD_SUBREAPER = 36, 37
DROP_BOUNDING = 24
SET_NO_NEW_PRIVILEGES = 38
AMBIENT, AMBIENT_CLEAR_ALL = 47, 4

NEW_MOUNTS, NEW_NAMES, NEW_IPC = 0x00020000, 0x04000000, 0x08000000
NEW_USERS, NEW_PROCESSES, NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000

MOUNT_READ_ONLY, MOUNT_NO_SETUID, MOUNT_NO_DEVICES, MOUNT_NO_EXEC = 1, 2, 4, 8
MOUNT_RECURSIVE, MOUNT_PRIVATE = 0x4000, 1 << 18
DETACH = 2

HERE = -100  # AT_FDCWD: a path is taken from the working directory
EMPTY_PATH, RECURSIVE = 0x1000, 0x8000
CLONE_TREE, CLOSE_ON_EXEC = 1, os.O_CLOEXEC
MOVE_FROM_DESCRIPTOR = 4

# The same number everywhere since Linux 5.1; those before differ a machine type.
OPEN_TREE, MOVE_MOUNT, SET_MOUNT = 428, 429, 442
NUMBERS = {
    "x86_64": {"clone": 56, "capset": 126, "seccomp": 317},
    "aarch64": {"clone": 220, "capset": 91, "seccomp": 277},
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class MountAttributes(ctypes.Structure):
    """`struct mount_attr`: what to set and clear on a mount."""

    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("users", ctypes.c_uint64),
    )


def checked(result: int, what: str) -> int:
    """Return `result`; raise what the kernel said when it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def call(number: int, *arguments: object, what: str) -> int:
    """Make a system call by number. Integers are passed as machine words."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(_libc.syscall(ctypes.c_long(number), *words), what)


def number_of(name: str) -> int:
    """Return the number of a system call that differs a machine type.

    Raises:
        OSError: this machine type is not known here.
    """
    try:
        return NUMBERS[os.uname().machine][name]
    except KeyError:
        raise OSError(38, "not known for this type of machine", name) from None


def process_control(option: int, value: int, third: int = 0) -> None:
    """Set an attribute of this process (`prctl`)."""
    words = (ctypes.c_ulong(value), ctypes.c_ulong(third), ctypes.c_ulong(0), ctypes.c_ulong(0))
    checked(_libc.prctl(option, *words), "prctl")


def name_process(name: str) -> None:
    """Give this process the name that `ps` shows, of 15 bytes at most."""
    checked(_libc.prctl(SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0), "prctl")


def is_subreaper() -> bool:
    """Return whether orphans below this process become its children."""
    answer = ctypes.c_int(0)
    checked(_libc.prctl(GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0), "prctl")
    return bool(answer.value)


def set_subreaper(*, on: bool) -> None:
    """Say whether orphans below this process become its children, instead of init's."""
    process_control(SET_CHILD_SUBREAPER, int(on))


def die_with_parent() -> None:
    """Ask for SIGKILL when the thread that forked this process ends."""
    process_control(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def unshare(kinds: int) -> None:
    """Leave the namespaces of `kinds` for new ones."""
    checked(_libc.unshare(kinds), "unshare")


def fork_into(kinds: int) -> int:
    """Fork, the child in new namespaces of `kinds`; return its number, or 0 in the child.

    Not `unshare` and `os.fork`: a process that has left its process namespace for its children can
    start no thread any more. Only for a process of one thread: nothing is told of the fork.
    """
    return call(number_of("clone"), kinds | signal.SIGCHLD, 0, 0, 0, 0, what="clone")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Attach a file system of `kind` over `target`; an empty text stands for none."""
    texts = [os.fsencode(text) or None for text in (source, target, kind, options)]
    result = _libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    checked(result, target)


def unmount(path: str) -> None:
    """Take away the mount at `path`, and those below it."""
    checked(_libc.umount2(os.fsencode(path), DETACH), path)


def take_tree(path: str) -> int:
    """Return a descriptor of a copy of the mounts at and below `path`, attached nowhere yet."""
    flags = CLONE_TREE | CLOSE_ON_EXEC | RECURSIVE
    return call(OPEN_TREE, HERE, os.fsencode(path), flags, what=path)


def put_tree(tree: int, path: str) -> None:
    """Attach what `take_tree` gave over `path`, once."""
    flags = MOVE_FROM_DESCRIPTOR
    call(MOVE_MOUNT, tree, b"", HERE, os.fsencode(path), flags, what=path)


def set_tree(tree: int, *, add: int = 0, clear: int = 0) -> None:
    """Change the attributes of all mounts of a tree that is attached nowhere yet."""
    _set_mount(tree, b"", EMPTY_PATH | RECURSIVE, add, clear)


def set_mount(path: str, *, add: int, recursive: bool) -> None:
    """Add attributes to the mount at `path`, and to those below it where `recursive`."""
    _set_mount(HERE, os.fsencode(path), RECURSIVE if recursive else 0, add, 0)


def _set_mount(at: int, path: bytes, flags: int, add: int, clear: int) -> None:
    attributes = MountAttributes(add, clear, 0, 0)
    size = ctypes.sizeof(attributes)
    call(SET_MOUNT, at, path, flags, ctypes.byref(attributes), size, what=os.fsdecode(path))


def drop_capabilities(keep: frozenset[int]) -> None:
    """Give up all capabilities but `keep`, for good: no program can bring one back."""
    process_control(AMBIENT, AMBIENT_CLEAR_ALL)
    for number in range(_last_capability() + 1):
        if number not in keep:
            process_control(DROP_BOUNDING, number)
    mask = sum(1 << number for number in keep) if os.geteuid() == 0 else 0
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    sets = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    call(number_of("capset"), ctypes.byref(header), ctypes.byref(sets), what="capset")


def _last_capability() -> int:
    with open("/proc/sys/kernel/cap_last_cap") as file:  # noqa: PTH123 - pathlib is slow to import
        return int(file.read())
