"""Runs a team's own programs on this machine: the port `Processes`.

Rules:
- `started` is called while the script stands before its first instruction: it is journalled first.
- The caller's thread shows the output; another attends the script, so no deadline waits for a
  terminal.
- Ctrl-C reaches the script only through here: once passed on, with a grace; twice, killed.
- A script that cannot be confined on this machine at all runs unconfined and the caller is told;
  one whose own confinement fails does not run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.adapters.processes.asking import request_for
from handrail.adapters.processes.attending import Attendant, Limits, Outcome
from handrail.adapters.processes.keeping import Kept
from handrail.adapters.processes.launching import Launched, adopting_orphans
from handrail.adapters.processes.leftovers import end_leftovers
from handrail.adapters.processes.starting import check_startable, not_started
from handrail.errors import ScriptError
from handrail.ports import Command, Confine, Finished

if TYPE_CHECKING:
    from collections.abc import Iterator


class LocalProcesses:
    """The processes of this machine."""

    def __init__(self, *, grace_s: float = 5.0, linger_s: float = 0.5) -> None:
        """Begin.

        Args:
            grace_s: between asking a process to end and killing it.
            linger_s: for what a script leaves behind to end by itself.
        """
        self._grace_s = grace_s
        self._linger_s = linger_s
        self._reason: str | None = None

    def run(
        self, command: Command, started: Callable[[int], None], output: Callable[[bytes], None]
    ) -> Finished:
        """Run `command` to its end with everything that it starts; see `ports.Processes`."""
        check_startable(command)
        reason = self.can_confine() if command.confine is not None else ""
        is_confined = command.confine is not None and not reason
        request = request_for(command, is_confined=is_confined)
        with ExitStack() as stack:
            stack.enter_context(adopting_orphans())
            kept = stack.enter_context(_keeping(command))
            launched = stack.enter_context(_launched(command))
            script = launched.prepare(request)
            started(script)
            limits = self._limits(command)
            attendant = Attendant(launched, script, kept, limits, is_confined=is_confined)
            outcome = _show(attendant, output)
        if outcome.failure is not None:
            raise not_started(Path(command.argv[0]), *outcome.failure)
        return _finished(outcome, kept, reason if command.confine is not None else "not asked")

    def ready(self) -> None:
        """Do nothing: this machine is here."""

    def collect(
        self, token: str, kept: Path, timeout_s: float, output: Callable[[bytes], None]
    ) -> Finished | None:
        """Return None: here nobody keeps a script but who started it."""
        del token, kept, timeout_s, output
        return None

    def forget(self, tokens: Sequence[str]) -> tuple[str, ...]:
        """Do nothing: what is kept here is the caller's."""
        del tokens
        return ()

    def can_confine(self) -> str:
        """Return why this machine cannot confine a script, in one sentence; empty when it can."""
        if self._reason is None:
            self._reason = _try_to_confine()
        return self._reason

    def end_leftovers(self, token: str) -> tuple[str, ...]:
        """End processes whose environment has `HANDRAIL_RUN=token`; return their names."""
        return end_leftovers(token, self._grace_s)

    def find_program(self, name: str) -> Path | None:
        """Return where a program is on the search path."""
        found = shutil.which(name)
        return None if found is None else Path(found).absolute()

    def _limits(self, command: Command) -> Limits:
        return Limits(
            timeout_s=command.timeout_s,
            reserve_bytes=command.reserve_bytes,
            folder=command.output.parent,
            grace_s=self._grace_s,
            linger_s=self._linger_s,
            is_over=command.is_over,
        )


@contextmanager
def _keeping(command: Command) -> Iterator[Kept]:
    try:
        kept = Kept(command.output, command.output_limit_bytes)
    except OSError as error:
        message = f"the output cannot be kept in `{command.output}`: {error.strerror}"
        hint = f"look at `ls -ld {command.output.parent}` and at what is there"
        raise ScriptError("script.start", message, hint=hint) from error
    try:
        yield kept
    finally:
        kept.close()


@contextmanager
def _launched(command: Command) -> Iterator[Launched]:
    try:
        token = command.environment.get("HANDRAIL_RUN", "")
        launched = Launched(token, inherits=command.inherits)
    except OSError as error:
        message = f"no process could be started: {error.strerror}"
        hint = "check the memory and the number of processes that this user may have"
        raise ScriptError("script.start", message, hint=hint) from error
    try:
        yield launched
    finally:
        launched.close()
        launched.close_output()


def _show(attendant: Attendant, output: Callable[[bytes], None]) -> Outcome:
    """Let the script run, hand on what it prints, and return how it ended.

    Whatever is raised here, by Ctrl-C or by `output`, is raised on when everything has ended.
    """
    try:
        attendant.start()
        for piece in attendant.live:
            output(piece)
        return attendant.outcome()
    except BaseException:
        _wait_for_end(attendant)
        raise


def _wait_for_end(attendant: Attendant) -> None:
    while True:
        try:
            attendant.interrupt()
            attendant.wait()
        except KeyboardInterrupt:
            continue
        return


def _finished(outcome: Outcome, kept: Kept, confined: str) -> Finished:
    seen = outcome.seen
    return Finished(
        exit_code=-1 if outcome.status is None else os.waitstatus_to_exitcode(outcome.status),
        ended=outcome.ended,
        duration_s=outcome.duration_s,
        output_bytes=kept.total_bytes,
        survivors=outcome.survivors,
        reached=tuple(seen.get("reached", ())),
        read=tuple(seen.get("read", ())),
        confined=confined,
        traced=confined or seen.get("traced", "what it saw was lost"),
    )


def _try_to_confine() -> str:
    """Confine nothing, for a moment: only the kernel knows what it allows here."""
    command = Command(
        argv=("/", ""),
        cwd=Path("/"),
        environment={},
        timeout_s=0,
        output=Path("/"),
        confine=Confine(),
    )
    with _launched(command) as launched:
        launched.ask(request_for(command, is_confined=True))
        answer = launched.hear() or {"unconfinable": "the launcher ended"}
    why = answer.get("unconfinable")
    return f"this machine does not allow it ({why})" if why else ""
