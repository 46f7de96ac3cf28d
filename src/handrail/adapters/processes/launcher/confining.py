"""The processes of a confinement, from the launcher to the script.

Rules:
- The launcher stays outside, where the real network is; the first process inside holds the
  namespaces, and when it ends the kernel ends all inside.
- A process that is not root makes a user namespace first and is in it who it was outside.
- The script can bring back no capability and gain no privilege. As root it keeps those with which
  it owns files, changes users and ends its own processes; none that touches mounts, devices, the
  clock, the kernel or the network.
"""

# Paths are text here: they go to the kernel as they came.
# ruff: noqa: PTH120, PTH123

from __future__ import annotations

import os
import signal
import socket
from typing import Any, NoReturn

from . import filtering, forwarding, kernel, view
from .script import become
from .talking import Control, Gate, Inner
from .watching import Watcher

# CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE, SYS_CHROOT
KEPT_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 10, 18})

# Servers that a real run's script may go on talking to: they keep its messages, and look up names.
HARMLESS = ("/dev/log", "/run/systemd/journal", "/run/nscd", "/var/run/nscd")

UNIX_COLUMNS = ("Num", "RefCount", "Protocol", "Flags", "Type", "St", "Inode", "Path")


def confined(control: Control, request: dict[str, Any]) -> None:
    """Run the script inside, and tell Handrail what the plain way tells, and what was reached."""
    confine = request["confine"]
    _enter_user_namespace()
    kernel.die_with_parent()
    confine["servers"] = _servers(confine)
    folders = view.neighbours(confine["replaced"])
    made = view.place(folders)
    try:
        _hold(control, request, folders)
    finally:
        view.clear(made)


def _enter_user_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        return
    kernel.unshare(kernel.NEW_USERS)
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{file}", "w") as opened:
            opened.write(text)


def _servers(confine: dict[str, Any]) -> list[str]:
    """Return the socket files of this machine's servers that must not answer inside."""
    fresh = ("/dev", *(path for path, _mode in view.FRESH))
    allowed = (*confine["writable"], *(HARMLESS if confine["network_only"] else fresh))
    allowed += tuple(os.path.dirname(real) for real, _clone in confine["replaced"])
    with open("/proc/net/unix", errors="surrogateescape") as file:
        rows = [line.rstrip("\n").split(None, 7) for line in file]
    paths = {row[7] for row in rows if len(row) == len(UNIX_COLUMNS)}
    return sorted(
        path
        for path in paths
        if path.startswith("/") and not any((path + "/").startswith(one + "/") for one in allowed)
    )


def _hold(control: Control, request: dict[str, Any], folders: dict[str, Any]) -> None:
    inner, gate = Inner(), Gate()
    first = kernel.fork_into(kernel.NEW_PROCESSES)
    if first == 0:
        try:
            _be_first(inner, gate, request, folders)
        finally:
            os._exit(1)  # whatever happens in there, it never goes on as the launcher
    inner.be_outer()
    gate.hold_key()
    try:
        _attend(control, request, inner, gate, first)
    finally:
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)


def _attend(
    control: Control, request: dict[str, Any], inner: Inner, gate: Gate, first: int
) -> None:
    message, descriptors = inner.receive()
    if message is None or "error" in message:
        control.send(unconfinable=(message or {}).get("error", "the first process inside ended"))
        return
    for descriptor, host in zip(descriptors, message["hosts"], strict=True):
        forwarding.serve(socket.socket(fileno=descriptor), host)
    watcher, traced = _watch(inner, request)
    control.send(pid=first)
    if control.receive() is None:
        return
    gate.open()
    if failure := gate.failure():
        control.send(failure=failure)
        return
    status, _ = inner.receive()
    control.send(status=status["status"] if status else None)
    control.receive()
    reached, read = (watcher.reached, watcher.read) if watcher else ({}, {})
    incomplete = watcher.incomplete if watcher else traced
    control.send(reached=sorted(reached), read=sorted(read), traced=incomplete)


def _watch(inner: Inner, request: dict[str, Any]) -> tuple[Watcher | None, str]:
    message, descriptors = inner.receive()
    if not descriptors:
        return None, (message or {}).get("untraced", "the script ended before it began")
    watcher = Watcher(descriptors[0], request["confine"])
    watcher.start()
    return watcher, ""


def _be_first(
    inner: Inner, gate: Gate, request: dict[str, Any], folders: dict[str, Any]
) -> NoReturn:
    """Be process 1 inside: prepare, start the script, take in orphans, and wait to be ended."""
    kernel.die_with_parent()
    inner.be_inner()
    try:
        _prepare(inner, request["confine"], folders)
        script = os.fork()
    except OSError as error:
        inner.send(error=f"{error.filename or 'fork'}: {error.strerror}")
        os._exit(1)
    if script == 0:
        network_only = request["confine"]["network_only"]
        become(request, gate, lambda: _lock_in(inner, network_only=network_only))
    gate.leave()
    os.closerange(0, 3)  # the end of the script's output must not wait for this process
    while True:
        try:
            ended, status = os.waitpid(-1, 0)
        except ChildProcessError:
            signal.pause()  # all have ended; the launcher ends this process too
            continue
        if ended == script:
            inner.send(status=status)


def _prepare(inner: Inner, confine: dict[str, Any], folders: dict[str, Any]) -> None:
    kernel.unshare(kernel.NEW_MOUNTS | kernel.NEW_NETWORK | kernel.NEW_IPC | kernel.NEW_NAMES)
    forwarding.raise_loopback()
    listeners = [
        (listener, host)
        for host, port in confine["sockets"]
        for listener in forwarding.listen(host, port)
    ]
    if confine["network_only"]:
        view.narrow(confine, folders)
    else:
        view.build(confine, folders)
    view.mount_processes()
    descriptors = tuple(listener.fileno() for listener, _host in listeners)
    inner.send(descriptors, hosts=[host for _listener, host in listeners])
    for listener, _host in listeners:
        listener.close()


def _lock_in(inner: Inner, *, network_only: bool) -> None:
    """Give up what could lead out, and let the launcher look. Runs as the script's process."""
    kernel.drop_capabilities(KEPT_CAPABILITIES)
    kernel.process_control(kernel.SET_NO_NEW_PRIVILEGES, 1)
    try:
        listener = filtering.install(network_only=network_only)
    except OSError as error:
        inner.send(untraced=f"this machine does not let calls be watched: {error.strerror}")
        return
    inner.send((listener,), watch=True)
    os.close(listener)
