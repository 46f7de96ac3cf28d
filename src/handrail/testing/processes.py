"""A fake of `ports.Processes`: programs are functions, and nothing is ever started.

Rules:
- It keeps the promises of the port that need no kernel: order of calls, the kept output and its
  limit, errors of a start. It cannot confine, trace, or leave anything running, and says so where
  asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from handrail.errors import HandrailError, ScriptError
from handrail.ports import Command, Finished

PID = 4242


@dataclass(frozen=True)
class Call:
    """One run of a fake program: the command, and a function that prints."""

    command: Command
    say: Callable[[bytes], None]


# Returns the exit code, or minus a signal, or everything about the end.
Program = Callable[[Call], "int | Finished"]


@dataclass
class FakeProcesses:
    """Programs by name.

    Attributes:
        programs: name of the file (not its path) to what it does.
        unconfinable: what `can_confine` answers; empty to pretend that scripts are confined.
        leftovers: token to the names that `end_leftovers` finds, once.
        runs: every command that was run, in order.
        away: raised where a node would have to answer; None where it does.
        collected: token to how a script ended that somebody kept, once.
        forgotten: tokens that `forget` was asked for, in order.
    """

    programs: Mapping[str, Program]
    unconfinable: str = ""
    leftovers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    runs: list[Command] = field(default_factory=list)
    away: HandrailError | None = None
    collected: dict[str, Finished] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)

    def run(
        self, command: Command, started: Callable[[int], None], output: Callable[[bytes], None]
    ) -> Finished:
        """Call the program of that name; see `ports.Processes`."""
        program = self._program(command)
        printed: list[bytes] = []

        def say(piece: bytes) -> None:
            printed.append(piece)
            output(piece)

        self.runs.append(command)
        started(PID)
        try:
            result = program(Call(command, say))
        finally:
            _keep(command, b"".join(printed))
        return self._finished(command, result, sum(map(len, printed)))

    def ready(self) -> None:
        """Raise what `away` is, if anything."""
        if self.away is not None:
            raise self.away

    def collect(
        self, token: str, kept: Path, timeout_s: float, output: Callable[[bytes], None]
    ) -> Finished | None:
        """Return what is in `collected` for that run, once."""
        del kept, timeout_s, output
        self.ready()
        return self.collected.pop(token, None)

    def forget(self, tokens: Sequence[str]) -> tuple[str, ...]:
        """Note that it was asked."""
        self.ready()
        self.forgotten += tokens
        return ()

    def can_confine(self) -> str:
        """Return `unconfinable`."""
        return self.unconfinable

    def end_leftovers(self, token: str) -> tuple[str, ...]:
        """Return the names in `leftovers`, which are gone then."""
        return self.leftovers.pop(token, ())

    def find_program(self, name: str) -> Path | None:
        """Return a path where there is a program of that name."""
        return Path("/fake/bin") / name if name in self.programs else None

    def _program(self, command: Command) -> Program:
        try:
            return self.programs[Path(command.argv[0]).name]
        except KeyError:
            message = f"`{command.argv[0]}` does not exist"
            raise ScriptError("script.start", message, hint="correct the path") from None

    def _finished(self, command: Command, result: int | Finished, size_bytes: int) -> Finished:
        if isinstance(result, Finished):
            return replace(result, output_bytes=size_bytes)
        why = "not asked" if command.confine is None else self.unconfinable
        return Finished(result, "exited", 0.0, size_bytes, confined=why, traced=why)


def _keep(command: Command, printed: bytes) -> None:
    command.output.touch(mode=0o600)
    command.output.chmod(0o600)
    limit_bytes = command.output_limit_bytes
    left_out = len(printed) - limit_bytes
    if left_out > 0:
        tail_bytes = limit_bytes // 2
        line = f"\n[handrail: {left_out:,} bytes left out here]\n".encode()
        head = printed[: limit_bytes - tail_bytes]
        printed = head + line + (printed[-tail_bytes:] if tail_bytes else b"")
    command.output.write_bytes(printed)
