"""Looks at the calls that the filter stops, and keeps what a script tried to reach and read.

Rules:
- A stopped call always goes on, also when looking at it failed: then `incomplete` says so.
- What is kept has a bound; beyond it `incomplete` says so.
- What a script made for itself in a new, empty folder (`mktemp`, `mkdir`) is nobody else's, and is
  not told; a name in there that anybody would know (`/tmp/pilot.lock`) is.
- The names are those that the script used, with links resolved.
"""

# Paths are text here: they go to the kernel as they came.
# ruff: noqa: PTH115, PTH116, PTH118, PTH120

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import ipaddress
import os
import select
import stat
import struct
import threading
from typing import Any

from . import filtering

RECEIVE, SEND, IS_CURRENT = 0xC0502100, 0xC0182101, 0x40082102
CONTINUE = 1
MOST_REACHED, MOST_READ = 1_000, 20_000
PAGE_BYTES, PATH_BYTES, ADDRESS_BYTES = 4096, 4096, 128
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
NAMELESS = 0o20000000  # O_TMPFILE without its O_DIRECTORY
DNS = 53
# Where the C library asks for names before it asks anybody else; it does so in every program.
HABITS = ("/run/nscd/", "/var/run/nscd/", "/run/systemd/", "/dev/log")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.process_vm_readv.restype = ctypes.c_ssize_t


class Span(ctypes.Structure):
    """`struct iovec`: where bytes are."""

    _fields_ = (("base", ctypes.c_uint64), ("length", ctypes.c_size_t))


class Watcher:
    """Answers one filter's calls until the last process below it has ended."""

    def __init__(self, listener: int, request: dict[str, Any]) -> None:
        """Begin.

        Args:
            listener: what `filtering.install` returned.
            request: with `own` (folders whose changes are not told), `fresh` (new and empty ones),
                `watched` (files below it are told when read; may be None), `network_only` and
                `sockets`.
        """
        self._listener = listener
        self._own = tuple(request["own"])
        self._fresh = tuple(request["fresh"])
        self._watched: str | None = request["watched"]
        self._network_only: bool = request["network_only"]
        self._ports = {port for _host, port in request["sockets"]}
        names = filtering.NUMBERS[os.uname().machine]
        self._calls = {number: (name, filtering.CALLS[name]) for name, number in names.items()}
        self._made: set[str] = set()
        self.reached: dict[str, None] = {}
        self.read: dict[str, None] = {}
        self.incomplete = ""

    def start(self) -> None:
        """Answer from now on, in a thread."""
        threading.Thread(target=self._answer_all, daemon=True).start()

    def _answer_all(self) -> None:
        waiting = select.poll()
        waiting.register(self._listener, select.POLLIN)
        while waiting.poll()[0][1] & select.POLLIN:
            with contextlib.suppress(OSError):  # the process ended, or a signal came, meanwhile
                self._answer()

    def _answer(self) -> None:
        notice = bytearray(80)
        fcntl.ioctl(self._listener, RECEIVE, notice)
        identity, process, _flags, number = struct.unpack_from("QIIi", notice)
        arguments = struct.unpack_from("6Q", notice, 32)
        try:
            self._look(process, number, arguments)
        except OSError as error:
            if error.errno not in {errno.ESRCH, errno.ENOENT}:
                self.incomplete = f"a call could not be looked at: {error.strerror}"
        finally:
            reply = struct.pack("QqiI", identity, 0, 0, CONTINUE)
            fcntl.ioctl(self._listener, SEND, reply)

    def _look(self, process: int, number: int, arguments: tuple[int, ...]) -> None:
        name, paths = self._calls[number]
        for one in paths:
            if one.deed == "connect":
                self._connect(process, arguments[one.path], arguments[5 if name == "sendto" else 2])
            elif one.deed == "open":
                self._open(process, one, arguments, _open_flags(process, name, arguments))
            elif one.deed == "run":
                self._note_read(_named(process, one, arguments))
            elif arguments[one.path]:
                self._change(process, one, arguments)

    def _open(
        self, process: int, named: filtering.Named, arguments: tuple[int, ...], flags: int
    ) -> None:
        if not flags & WRITES:
            if self._watched is not None:
                self._note_read(_named(process, named, arguments))
            return
        path = _named(process, named, arguments)
        if path is None or (flags & NAMELESS == NAMELESS and _below(path, self._fresh)):
            return
        if flags & os.O_EXCL and _below(path, self._fresh):
            self._made.add(path)
        self._note_change(path)
        if self._watched is not None and flags & os.O_ACCMODE != os.O_WRONLY:
            self._note_read(path)

    def _change(self, process: int, named: filtering.Named, arguments: tuple[int, ...]) -> None:
        path = _named(process, named, arguments)
        if path is None or os.path.lexists(f"/proc/{process}/root{path}") != (
            named.deed == "change"
        ):
            return
        if named.deed == "make" and _below(path, self._fresh):
            self._made.add(path)
        self._note_change(path)

    def _note_change(self, path: str) -> None:
        whole = path
        if _below(path, self._own) or "__pycache__" in path or _below(path, ("/dev", "/proc")):
            return
        while path not in self._made and len(path) > 1:
            path = os.path.dirname(path)
        if path not in self._made:
            self._note_reached(whole)

    def _note_reached(self, what: str) -> None:
        if len(self.reached) < MOST_REACHED:
            self.reached[what] = None
        elif what not in self.reached:
            self.incomplete = f"it tried to reach more than {MOST_REACHED:,} things"

    def _note_read(self, path: str | None) -> None:
        if self._watched is None or path is None or not _below(path, (self._watched,)):
            return
        if path in self.read or not _is_file(path):
            return
        if len(self.read) < MOST_READ:
            self.read[path] = None
        else:
            self.incomplete = f"it read more than {MOST_READ:,} files"

    def _connect(self, process: int, pointer: int, length: int) -> None:
        address = _memory(process, pointer, min(length, ADDRESS_BYTES))
        family = struct.unpack_from("H", address)[0] if len(address) > 2 else 0  # noqa: PLR2004 - its size
        if family == 1:
            self._connect_path(process, os.fsdecode(address[2:]))
        elif family in {2, 10}:
            self._connect_port(family, address)

    def _connect_port(self, family: int, address: bytes) -> None:
        port = struct.unpack_from(">H", address, 2)[0]
        raw = address[4:8] if family == 2 else address[8:24]  # noqa: PLR2004 - AF_INET
        host = ipaddress.ip_address(raw)
        host = getattr(host, "ipv4_mapped", None) or host
        if port == 0 or (host.is_loopback and port in self._ports):
            return
        text = f"[{host}]" if host.version == 6 else str(host)  # noqa: PLR2004 - the version
        self._note_reached(f"dns {host}" if port == DNS else f"{text}:{port}")

    def _connect_path(self, process: int, text: str) -> None:
        if text.startswith("\0"):
            self._note_reached("@" + text[1:].rstrip("\0"))
            return
        path = _resolve(_base(process, -100), text.partition("\0")[0])
        if path.startswith(HABITS) or _below(path, self._own):
            return
        # A socket that is there in a folder that was empty is the script's own; so is one that is
        # not covered, where all others are.
        own = self._fresh if not self._network_only else ("/",)
        if not (_below(path, own) and _is_socket(f"/proc/{process}/root{path}")):
            self._note_reached(path)


def _open_flags(process: int, name: str, arguments: tuple[int, ...]) -> int:
    if name == "openat2":
        return int(struct.unpack("Q", _memory(process, arguments[2], 8))[0])
    return arguments[1 if name == "open" else 2]


def _named(process: int, named: filtering.Named, arguments: tuple[int, ...]) -> str | None:
    text = _text(process, arguments[named.path])
    if not text:
        return None
    folder = (
        -100 if named.folder < 0 else ctypes.c_int32(arguments[named.folder] & 0xFFFFFFFF).value
    )
    return _resolve("/" if text.startswith("/") else _base(process, folder), text)


def _base(process: int, folder: int) -> str:
    return os.readlink(f"/proc/{process}/cwd" if folder < 0 else f"/proc/{process}/fd/{folder}")


@functools.lru_cache(maxsize=8192)
def _resolve(base: str, path: str) -> str:
    """Return the absolute path, links in its folder resolved; the last part as it is named."""
    folder, name = os.path.split(os.path.join(base, path))
    if name in {"", ".", ".."}:
        return os.path.realpath(os.path.join(folder, name))
    return os.path.join(os.path.realpath(folder), name)


def _below(path: str, folders: tuple[str, ...]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _text(process: int, pointer: int) -> str:
    """Return the text at `pointer`, read a page at a time: the page after it may not be there."""
    found = b""
    while len(found) < PATH_BYTES and b"\0" not in found:
        at = pointer + len(found)
        found += _memory(process, at, PAGE_BYTES - at % PAGE_BYTES)
    return os.fsdecode(found.partition(b"\0")[0])


def _memory(process: int, pointer: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    here, there = Span(ctypes.addressof(buffer), size), Span(pointer, size)
    arguments = (ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    if _libc.process_vm_readv(process, *(_word(a) for a in arguments)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "process_vm_readv")
    return buffer.raw


def _word(argument: Any) -> Any:
    return ctypes.c_ulong(argument) if isinstance(argument, int) else argument
