"""The filter that stops a script's calls that name a path or an address, for somebody to look.

Rules:
- Every stopped call goes on afterwards as if nothing had been: looking changes nothing.
- The filter is inherited by everything that the script starts, and cannot be taken off.
- Calls of another machine type (32-bit programs on a 64-bit machine) are not stopped.

Source: seccomp_unotify(2); include/uapi/linux/{seccomp,audit,filter}.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from dataclasses import dataclass

from . import kernel

SET_FILTER, NEW_LISTENER, WAIT_KILLABLE = 1, 1 << 3, 1 << 5
ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
AT_NUMBER, AT_MACHINE, AT_ARGUMENT = 0, 4, 16


@dataclass(frozen=True)
class Named:
    """One path among a call's arguments: where the path is, and what it is relative to.

    Attributes:
        path: which argument points to the text.
        folder: which argument is the folder's descriptor; -1 where it is the working directory.
        deed: `open`, `make` (only where nothing is yet), `change` (only where something is),
            `run`, or `connect`.
    """

    path: int
    folder: int
    deed: str


# Calls by name, with the paths that each may change. `open` decides by its flags.
CALLS: dict[str, tuple[Named, ...]] = {
    "open": (Named(0, -1, "open"),),
    "openat": (Named(1, 0, "open"),),
    "openat2": (Named(1, 0, "open"),),
    "creat": (Named(0, -1, "make"), Named(0, -1, "change")),
    "connect": (Named(1, -1, "connect"),),
    "sendto": (Named(4, -1, "connect"),),
    "execve": (Named(0, -1, "run"),),
    "execveat": (Named(1, 0, "run"),),
    "truncate": (Named(0, -1, "change"),),
    "rename": (Named(0, -1, "change"), Named(1, -1, "change")),
    "renameat": (Named(1, 0, "change"), Named(3, 2, "change")),
    "renameat2": (Named(1, 0, "change"), Named(3, 2, "change")),
    "mkdir": (Named(0, -1, "make"),),
    "mkdirat": (Named(1, 0, "make"),),
    "rmdir": (Named(0, -1, "change"),),
    "unlink": (Named(0, -1, "change"),),
    "unlinkat": (Named(1, 0, "change"),),
    "link": (Named(1, -1, "make"),),
    "linkat": (Named(3, 2, "make"),),
    "symlink": (Named(1, -1, "make"),),
    "symlinkat": (Named(2, 1, "make"),),
    "chmod": (Named(0, -1, "change"),),
    "fchmodat": (Named(1, 0, "change"),),
    "chown": (Named(0, -1, "change"),),
    "lchown": (Named(0, -1, "change"),),
    "fchownat": (Named(1, 0, "change"),),
    "utimensat": (Named(1, 0, "change"),),
}
ADDRESSED = frozenset({"connect", "sendto"})
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "open": 2,
        "connect": 42,
        "sendto": 44,
        "execve": 59,
        "truncate": 76,
        "rename": 82,
        "mkdir": 83,
        "rmdir": 84,
        "creat": 85,
        "link": 86,
        "unlink": 87,
        "symlink": 88,
        "chmod": 90,
        "chown": 92,
        "lchown": 94,
        "openat": 257,
        "mkdirat": 258,
        "fchownat": 260,
        "unlinkat": 263,
        "renameat": 264,
        "linkat": 265,
        "symlinkat": 266,
        "fchmodat": 268,
        "utimensat": 280,
        "renameat2": 316,
        "execveat": 322,
        "openat2": 437,
    },
    "aarch64": {
        "mkdirat": 34,
        "unlinkat": 35,
        "symlinkat": 36,
        "linkat": 37,
        "renameat": 38,
        "truncate": 45,
        "fchmodat": 53,
        "fchownat": 54,
        "openat": 56,
        "utimensat": 88,
        "connect": 203,
        "sendto": 206,
        "execve": 221,
        "renameat2": 276,
        "execveat": 281,
        "openat2": 437,
    },
}


class Program(ctypes.Structure):
    """`struct sock_fprog`: a filter's instructions."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def install(*, network_only: bool = False) -> int:
    """Put the filter on this process, and return the descriptor that its calls are read from.

    Args:
        network_only: stop only the calls that name an address.

    Raises:
        OSError: this kernel or container does not allow it.
    """
    code = _instructions(os.uname().machine, ADDRESSED if network_only else frozenset(CALLS))
    program = Program(len(code) // 8, code)
    with contextlib.suppress(OSError):  # older than Linux 5.19
        return _install(program, NEW_LISTENER | WAIT_KILLABLE)
    return _install(program, NEW_LISTENER)


def _install(program: Program, flags: int) -> int:
    number = kernel.number_of("seccomp")
    return kernel.call(number, SET_FILTER, flags, ctypes.byref(program), what="seccomp")


def _instructions(machine: str, told: frozenset[str]) -> bytes:
    """Return the filter: this machine's calls of `told` are told, everything else is allowed."""
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, "not known for this type of machine", "seccomp")
    numbers = {name: number for name, number in NUMBERS[machine].items() if name in told}
    sendto = numbers.pop("sendto")
    low = AT_ARGUMENT + 8 * CALLS["sendto"][0].path
    address = [  # a send without an address goes where an earlier connect led
        (LOAD, 0, 0, low),
        (IF_EQUAL, 0, 3, 0),
        (LOAD, 0, 0, low + 4),
        (IF_EQUAL, 0, 1, 0),
    ]
    count = len(numbers)
    to_allow = len(address) + 1
    code = [(LOAD, 0, 0, AT_MACHINE), (IF_EQUAL, 0, count + 1 + to_allow, MACHINES[machine])]
    code += [(LOAD, 0, 0, AT_NUMBER)]
    for left, number in zip(range(count, 0, -1), numbers.values(), strict=True):
        code.append((IF_EQUAL, left + to_allow, 0, number))
    code += [(IF_EQUAL, 0, len(address), sendto), *address]
    code += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, NOTIFY)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
