"""One call of `git` about a hostile repository: bounded, alone, and with an end.

Rules:
- Git fetches when it is told to, never by itself because something is missing.
- Only the transport that the address names may be used, whatever any git config says.
- What git writes is bounded by the kernel, each file by itself; its time by us. On Ctrl-C, and when
  time is up, git ends with all that it started.
- Nothing of an address before its `@`, and no word of the far side, is in an error.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from handrail.adapters import git_program
from handrail.errors import PlatformError, UsageError
from handrail.kits.deploys.sourcing import Where, masked

_SETTINGS = (
    "core.askPass=",
    "core.alternateRefsCommand=",
    "core.bigFileThreshold=8m",
    "fetch.recurseSubmodules=false",
    "fetch.unpackLimit=1",  # one pack a fetch: its size is what the kernel bounds
    "fetch.writeCommitGraph=false",
    "gc.autoDetach=false",
    "http.followRedirects=false",
    "http.lowSpeedLimit=500",
    "http.lowSpeedTime=30",
    "transfer.bundleURI=false",
)
_SSH = "-o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=5 -o ServerAliveCountMax=4"
_BLOCK_BYTES = 512
_SAID_BYTES = 16 * 1024
_SHOWN_CHARACTERS = 300
# The signal is turned off: git then says what is wrong instead of dying of it.
_BOUNDED = 'trap "" XFSZ; ulimit -f "$1" 2>/dev/null; shift; exec "$@"'

_TOO_LARGE = re.compile(r"file too large|file size limit", re.IGNORECASE)
_NOT_ALLOWED = re.compile(r"transport '[^']*' not allowed")
_GONE = re.compile(r"couldn't find remote ref")
# What git and its helpers say -> why, and what to do. The first that fits counts.
_LASTING = (
    (
        r"dubious ownership|unsafe repository",
        "belongs to another user, and git does not trust it",
        "if you do: git config --global --add safe.directory '{address}'",
    ),
    (
        r"host key verification failed|host identification has changed",
        "is of a host that is not known here, or has another key than before",
        "compare its key, then add it to your known_hosts: ssh-keyscan HOST",
    ),
    (
        r"error: 30\d|redirect",
        "answers from another address",
        "declare the address that it moved to",
    ),
    (
        r"repository [^\n]*not found|does not appear to be a git repository|error: 404"
        r"|no such file|does not exist",
        "is not there, or not shown to us: {why}",
        "",
    ),
    (
        r"could not read (username|password)|authentication failed|error: 40[13]"
        r"|permission denied|access denied",
        "lets nobody in: {why}",
        "",
    ),
)
_PASSING = re.compile(
    r"could not resolve|couldn't connect|failed to connect|connection (refused|timed out|reset"
    r"|closed)|early eof|unexpected disconnect|rpc failed|hung up|error: (429|5\d\d)"
    r"|operation (timed out|too slow)|transfer closed|empty reply|gnutls|ssl|network is unreachable"
    r"|no route to host|invalid index-pack output|bad pack|curl \d+|unable to access"
    r"|protocol error|bad line length|expected flush|index-pack failed"
    r"|could not read from remote repository",
    re.IGNORECASE,
)


class TooLargeError(PlatformError):
    """The far side sends more than is taken."""


class TooSlowError(PlatformError):
    """The far side did not send all of it in time."""


class LocalTroubleError(Exception):
    """Git failed, and not for the far side's sake: the cache may be damaged."""


@dataclass(frozen=True)
class Bounds:
    """How much one call may take.

    Attributes:
        size_bytes: of any one file that git writes, its answer among them.
    """

    timeout_s: float
    size_bytes: int


LOCAL = Bounds(60.0, 256 * 1024 * 1024)


@dataclass(frozen=True)
class Done:
    """What a call answered."""

    code: int
    out: bytes
    said: str


class Git:
    """`git` in one bare repository of ours, for one far side."""

    def __init__(
        self, folder: Path, where: Where, environment: Mapping[str, str], program: str = "git"
    ) -> None:
        """Start nothing yet.

        Args:
            folder: the bare repository.
            where: the far side.
            environment: of this process; git and ssh find the person's settings by it.
            program: name or path of git.
        """
        self.folder = folder
        self.where = where
        self._program = program
        self._environment = {
            **git_program.quiet(environment),
            "GIT_DIR": str(folder),
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_ASKPASS": "",
            "SSH_ASKPASS_REQUIRE": "never",
            "TZ": "UTC",
        }
        self._ssh = _ssh(environment)

    def ask(self, arguments: Sequence[str], *, stdin: bytes = b"") -> Done:
        """Ask what lies here alone: nothing is fetched, not even what is missing."""
        more = {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
        return self._run(arguments, LOCAL, more, stdin)

    def get(self, arguments: Sequence[str], bounds: Bounds, *, stdin: bytes = b"") -> Done:
        """Ask the far side.

        Raises:
            UsageError: it may not be asked so.
            PlatformError: it does not answer, lets nobody in, or sends too much.
            LocalTroubleError: something else is wrong, perhaps here.
        """
        transport = self.where.transport
        # A far side that calls itself shallow would have git ask anew within each question.
        more: dict[str, str] = {"GIT_ALLOW_PROTOCOL": transport, "GIT_NO_LAZY_FETCH": "1"}
        if transport in {"https", "ssh"}:  # the person's `insteadOf` may turn one into the other
            more["GIT_ALLOW_PROTOCOL"] = "https:ssh"
            more["GIT_SSH_COMMAND"] = self._ssh_command()
        done = self._run(arguments, bounds, more, stdin)
        if done.code != 0:
            raise failed(self.where, done)
        return done

    def _ssh_command(self) -> str:
        """Return how ssh is called: as the person says, but that nobody is asked."""
        if not self._ssh:
            found = self.ask(["config", "--get", "core.sshCommand"]).out.decode("utf-8", "replace")
            self._ssh = found.strip() or "ssh"
        return f"{self._ssh} {_SSH}"

    def _run(
        self,
        arguments: Sequence[str],
        bounds: Bounds,
        more: Mapping[str, str],
        stdin: bytes,
    ) -> Done:
        words = [word for one in _SETTINGS for word in ("-c", one)]
        argv = [self._program, *git_program.HARDENED, *words, *arguments]
        blocks = str(max(1, bounds.size_bytes // _BLOCK_BYTES))
        with (
            tempfile.TemporaryFile() as heard,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as said,
        ):
            heard.write(stdin)
            heard.seek(0)
            try:
                process = subprocess.Popen(
                    ["/bin/sh", "-c", _BOUNDED, "sh", blocks, *argv],
                    cwd="/",
                    env={**self._environment, **more},
                    stdin=heard,
                    stdout=out,
                    stderr=said,
                    start_new_session=True,
                )
            except OSError as error:
                raise unreachable(
                    self.where,
                    f"cannot be read: git cannot be started: {error.strerror}",
                    hint="install git, on Debian: apt install git",
                ) from error
            code = self._waited(process, bounds)
            return Done(code, _read(out, bounds.size_bytes), _tail(said))

    def _waited(self, process: subprocess.Popen[bytes], bounds: Bounds) -> int:
        try:
            _wait(process, bounds.timeout_s)
            return process.wait(0.001)
        except subprocess.TimeoutExpired as error:
            why = f"gave no whole answer within {bounds.timeout_s:g} s"
            raise unreachable(self.where, why, is_passing=True, kind=TooSlowError) from error
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Wait until a process has ended, or that long; `Popen.wait` would look in ever longer steps.

    A plan asks git ten times for some milliseconds each: the steps would be a third of it.
    """
    try:
        ended = os.pidfd_open(process.pid)
    except OSError:  # a kernel before 5.3, or no descriptor left
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
        return
    try:
        looked = select.poll()
        looked.register(ended, select.POLLIN)
        looked.poll(timeout_s * 1000)
    finally:
        os.close(ended)


def failed(where: Where, done: Done) -> Exception:
    """Return what is to be raised for a call that failed."""
    said, why = done.said, _reason(done)
    if _NOT_ALLOWED.search(said):
        return UsageError(
            "source.refused",
            f"{masked(where.address)} leads to another transport, which is not read",
            hint="look for it in your git config: git config --get-regexp insteadof",
        )
    if _GONE.search(said):
        return UsageError("source.no-ref", f"{masked(where.address)} has not got that any more")
    if _TOO_LARGE.search(said):
        return unreachable(
            where,
            "sends more than is taken: it is too large",
            hint="let its server allow filters: git config uploadpack.allowFilter true",
            kind=TooLargeError,
        )
    for pattern, text, what_to_do in _LASTING:
        if re.search(pattern, said, re.IGNORECASE):
            hint = what_to_do.format(address=masked(where.address))
            return unreachable(where, text.format(why=why), hint=hint)
    if _PASSING.search(said) or done.code < 0:
        return unreachable(where, f"does not answer: {why}", is_passing=True)
    return LocalTroubleError(why)


def unreachable(
    where: Where,
    why: str,
    *,
    is_passing: bool = False,
    hint: str = "",
    kind: type[PlatformError] = PlatformError,
) -> PlatformError:
    """Return the error of a repository that is not read."""
    error = kind(
        "source.unreachable",
        f"the repository {masked(where.address)} {why}",
        hint=hint or ("" if is_passing else _try_by_hand(where)),
    )
    error.is_passing = is_passing
    return error


def _try_by_hand(where: Where) -> str:
    return f"try it by hand: git ls-remote {masked(where.address)}"


def _ssh(environment: Mapping[str, str]) -> str:
    """Return how ssh is called by this environment; empty where it does not say."""
    config = environment.get("HANDRAIL_SSH_CONFIG", "")
    return environment.get("GIT_SSH_COMMAND", "") or (config and f"ssh -F {_quoted(config)}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _read(file: IO[bytes], limit_bytes: int) -> bytes:
    file.seek(0)
    return file.read(limit_bytes)


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _SAID_BYTES))
    return file.read().decode("utf-8", "replace")


def _reason(done: Done) -> str:
    """Return git's or ssh's own last word; what the far side says may hold anything."""
    lines = [line.strip() for line in done.said.splitlines()]
    own = [one for one in lines if one and not one.startswith(("remote:", "warning:", "hint:"))]
    telling = [one for one in own if one.startswith("fatal:")] or own
    text = telling[0].removeprefix("fatal: ") if telling else f"git ended with {done.code}"
    return masked(text)[:_SHOWN_CHARACTERS]
