"""Run any command behind a guard: it sees the store as ever, and can do no more than it may.

Without --budget the guard looks on and says what was done; --write-budget keeps that as a file for
the next time. The command gets the guard's address in the variables of the store's own clients
(PGHOST, DATABASE_URL, REDIS_URL ...), and reaches nothing else in the network.

examples:
  handrail guard --postgres postgres://app@db.internal/pilot -- ./old_script.sh
  handrail guard --store pilot-db --read-only -- psql -c "SELECT * FROM sessions"
  handrail guard --postgres URL --write-budget reset.yaml -- ./reset.sh
  handrail guard --postgres URL --redis URL --budget reset.yaml -- ./reset.sh

The command's own output stays as it is; the report comes after it, on stderr, or with --json as one
object on stdout.

Exit code: 0 the command ended well, 1 it failed, 5 stopped by the guard, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.errors import DeclarationError, Place, UsageError, sanitise

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.core.commanding import Guarded
    from handrail.estate.model import Resource
    from handrail.plans.holding import Limits
    from handrail.ports import Store

_KINDS = {
    "postgres": ("URL", "a PostgreSQL database: postgres://USER@HOST/DATABASE"),
    "redis": ("URL", "a Redis server: redis://HOST:PORT/0"),
    "files": ("DIR", "a directory tree: the command works on a copy that is swapped in"),
    "sqlite": ("FILE", "a SQLite database: the command works on a copy that is swapped in"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    stores = parser.add_argument_group("stores, one or several")
    stores.add_argument(
        "--store", action="append", default=[], metavar="STORE", help="a declared store"
    )
    for kind, (value, summary) in _KINDS.items():
        stores.add_argument(f"--{kind}", action="append", default=[], metavar=value, help=summary)
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--budget", metavar="FILE", help="the most that it may do")
    modes.add_argument(
        "--observe", action="store_true", help="pass everything on and report; the default"
    )
    modes.add_argument("--read-only", action="store_true", help="refuse every write")
    parser.add_argument(
        "--write-budget", metavar="FILE", help="keep what it did as a file for --budget"
    )
    parser.add_argument(
        "--open-network",
        action="store_true",
        help="let it reach other servers too; it could then go round the guard",
    )
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="after --: what to run")


def run(call: Call) -> int:
    """Run the command behind its guards, and report."""
    from handrail.core import commanding, together

    options = call.options
    if not options.command:
        raise UsageError("usage", "which command?", hint="handrail guard ... -- COMMAND")
    store = _store(call)
    asked = commanding.Asked(
        argv=tuple(options.command),
        cwd=Path.cwd(),
        limits=_limits(call, tuple(part.resource for part in together.parts_of(store))),
        open_network=options.open_network,
        # With --json stdout is the report's: the command's output then goes to stderr.
        inherits=not options.json,
    )
    guarded = commanding.run(call.world, store, asked, _Passing(call))
    if options.write_budget:
        _write_budget(Path(options.write_budget), guarded)
    _show(call, guarded)
    return guarded.exit_code


class _Passing:
    """Passes the command's output on as it is, and shows the guard's events only."""

    def __init__(self, call: Call) -> None:
        self._talk = call.talk
        self.begin = call.talk.begin
        self.progress = call.talk.progress

    def output(self, piece: bytes) -> None:
        """Pass a piece of output on, to stderr: stdout is the report's."""
        sys.stderr.buffer.write(piece)
        sys.stderr.buffer.flush()

    def end(self, stage: str, text: str, *, ok: bool = True) -> None:
        """Show an event."""
        self._talk.end(stage, text, ok=ok)

    def choose(self, question: str, choices: Mapping[str, str], otherwise: str) -> str:
        """Ask nobody: the terminal is the command's."""
        del question, choices
        return otherwise


def _store(call: Call) -> Store:
    from handrail.core import commanding, together

    options = call.options
    found: list[Resource] = [_declared(call, name) for name in options.store]
    for kind in _KINDS:
        for address in getattr(options, kind):
            known = [resource.ref for resource in found]
            value = str(Path(address).resolve()) if kind in {"files", "sqlite"} else address
            found.append(commanding.undeclared(kind, value, known))
    if not found:
        raise UsageError(
            "usage",
            "which store is to be guarded?",
            hint="handrail guard --postgres URL -- COMMAND",
        )
    stores = [call.world.open_store(resource) for resource in found]
    names = "+".join(resource.name for resource in found)
    return stores[0] if len(stores) == 1 else together.Together(f"store/{names}", stores)


def _declared(call: Call, name: str) -> Resource:
    from handrail.estate.shapes import nearest

    stores = call.declared.estate.stores
    for ref in (name, f"store/{name}"):
        if ref in stores:
            return stores[ref]
    hint = nearest(name, [resource.name for resource in stores.values()])
    raise UsageError("estate.unknown-store", f"no store `{name}` is declared", hint=hint)


def _limits(call: Call, resources: tuple[str, ...]) -> Limits:
    from handrail.plans import budget_file
    from handrail.plans.holding import Limits

    options = call.options
    if options.read_only:
        return Limits("read-only")
    if not options.budget:
        return Limits("observe")
    try:
        text = Path(options.budget).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(
            "estate.unreadable",
            f"the budget cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}",
            at=Place(options.budget),
        ) from error
    found = budget_file.read(text, options.budget, resources)
    return Limits("hold", found.budget, unheld=found.unheld)


def _write_budget(path: Path, guarded: Guarded) -> None:
    from handrail.core.guarding import counted
    from handrail.plans import budget_file
    from handrail.plans.budget import counted_alike

    rows = [effect for report in guarded.reports for effect in counted(report)]
    unheld = tuple(dict.fromkeys(one for report in guarded.reports for one in report.unheld))
    effects = counted_alike(guarded.effects, rows, is_complete=not unheld)
    try:
        path.write_text(budget_file.write(effects, unheld), encoding="utf-8")
    except OSError as error:
        raise UsageError("usage", f"{path} cannot be written: {error.strerror}") from error


def _show(call: Call, guarded: Guarded) -> None:
    from handrail.cli import screen

    if call.options.json:
        screen.write_json(_as_json(guarded))
        return
    sys.stderr.write(sanitise("\n".join(_lines(call, guarded)), keep_lines=True) + "\n")


def _as_json(guarded: Guarded) -> dict[str, object]:
    """Return the documented JSON shape of a report."""
    from handrail.plans.canonical import plain

    return {
        "format": 1,
        "exit_code": guarded.exit_code,
        "command": plain(guarded.finished),
        "effects": plain(guarded.effects),
        "stop": plain(guarded.stop),
        "reports": plain(guarded.reports),
    }


def _lines(call: Call, guarded: Guarded) -> list[str]:
    from handrail.cli import held, screen

    command = Path(call.options.command[0]).name
    stop = guarded.stop
    lines = [""]
    if stop is not None:
        how = next(report.how for report in guarded.reports if report.stop is stop)
        measure, state = "its budget allows", held.state_of(stop)
        lines += [*held.stop_lines(stop, how, command, measure, state), ""]
    some = ", ".join(report.resource for report in guarded.reports)
    head = (
        f"{command} did, on {some}:" if guarded.effects else f"{command} changed nothing on {some}."
    )
    lines += [screen.wrap(head, "  "), *screen.effect_lines(guarded.effects)]
    lines += held.report_lines(guarded.reports)
    lines.append(_ending(guarded))
    return [*lines, *_next(call, guarded, command)]


def _next(call: Call, guarded: Guarded, command: str) -> list[str]:
    """Return what comes next, where that is not plain."""
    from handrail.cli import screen

    options = call.options
    events = [event for report in guarded.reports for event in report.events]
    if guarded.stop is not None and options.budget:
        said = f"next: allow it in {options.budget}, if that is what you meant"
    elif guarded.stop is not None:
        said = f"next: leave out --read-only, if {command} is meant to write"
    elif options.write_budget:
        said = f"next: handrail guard --budget {options.write_budget} ... -- {command} ..."
    elif any(event.text.startswith("tried to reach") for event in events):
        said = (
            "next: leave that address out of the command, which finds the guard's in its "
            "environment (PGHOST, DATABASE_URL, REDIS_URL ...); or --open-network"
        )
    else:
        return []
    return [screen.wrap(said, "      ")]


def _ending(guarded: Guarded) -> str:
    finished = guarded.finished
    if finished.ended == "exited":
        return f"the command ended with exit {finished.exit_code}."
    return f"the command ended: {finished.ended}."
