"""Verify the journal's chains, write all of it as JSON lines, or read such lines back.

examples:
  handrail log verify
  handrail log verify --head 9c1f...        also: that nothing was cut off since that hash was noted
  handrail log verify --file journal.jsonl  an export, on any machine
  handrail log export > journal.jsonl
  handrail log import --file journal.jsonl  into an empty journal, such as a team's in PostgreSQL
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.errors import JournalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from handrail.cli.call import Call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("what", choices=["verify", "export", "import"])
    parser.add_argument("--head", metavar="HASH", default="", help="a head noted earlier")
    parser.add_argument("--file", metavar="FILE", help="an export, to verify or to import")


def run(call: Call) -> int:
    """Verify, export or import."""
    if call.options.what == "export":
        for line in call.world.journal.export():
            sys.stdout.write(line + "\n")
        return 0
    if call.options.what == "import":
        return _import(call)
    return verify(call, lambda: list(call.world.journal.export()))


def _import(call: Call) -> int:
    from handrail.cli import screen
    from handrail.core.importing import import_

    if not call.options.file:
        raise UsageError(
            "usage", "nothing to import", hint="handrail log import --file journal.jsonl"
        )
    lines = _lines(call.options.file)
    count = import_(call.world.journal, lines, head=call.options.head)
    if call.options.json:
        screen.write_json({"format": 1, "records": count, "head": _head(lines), "problems": []})
    else:
        screen.write(f"ok: {count} records, every chain as it was.\nhead {_head(lines)}")
    return 0


def _lines(file: str) -> list[str]:
    """Return the lines of an export."""
    try:
        # Not `splitlines`: a record may hold other characters that end a line for Python.
        return Path(file).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise JournalError("journal.damaged", f"{file} cannot be read: {error}") from error


def verify(call: Call, exported: Callable[[], list[str]]) -> int:
    """Verify an export, of a file or as it is made now, and say what is wrong with it."""
    from handrail.cli import screen
    from handrail.core.journal import verify_export

    options = call.options
    lines = _lines(options.file) if options.file else exported()
    problems = verify_export(lines, head=options.head)
    head = _head(lines)
    records = sum('"chain"' in line for line in lines)  # an export ends in a line that is none
    if options.json:
        screen.write_json(
            {
                "format": 1,
                "records": records,
                "head": head,
                "problems": [str(problem) for problem in problems],
            }
        )
        return 1 if problems else 0
    if problems:
        said = "\n".join(f"  {problem}" for problem in problems[:20])
        raise JournalError(
            "journal.damaged",
            f"{len(problems)} things are wrong:\n{said}",
            hint="keep a copy of the file, and compare with an earlier export",
        )
    screen.write(f"ok: {records} records, every chain whole.\nhead {head}")
    return 0


def _head(lines: list[str]) -> str:
    """Return the last anchor's hash; empty where there is none that can be read."""
    import json
    from contextlib import suppress

    for line in reversed(lines):
        if '"anchors"' in line:
            with suppress(ValueError, KeyError, TypeError):
                return str(json.loads(line)["hash"])
    return ""
