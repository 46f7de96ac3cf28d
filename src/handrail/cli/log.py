"""Verify the journal's chains, or write all of it as JSON lines.

examples:
  handrail log verify
  handrail log verify --head 9c1f...        also: that nothing was cut off since that hash was noted
  handrail log verify --file journal.jsonl  an export, on any machine
  handrail log export > journal.jsonl
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from handrail.cli.call import Call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("what", choices=["verify", "export"])
    parser.add_argument("--head", metavar="HASH", default="", help="a head noted earlier")
    parser.add_argument("--file", metavar="FILE", help="verify an export instead")


def run(call: Call) -> int:
    """Verify or export."""
    if call.options.what == "export":
        for line in call.world.journal.export():
            sys.stdout.write(line + "\n")
        return 0
    return verify(call, lambda: list(call.world.journal.export()))


def verify(call: Call, exported: Callable[[], list[str]]) -> int:
    """Verify an export, of a file or as it is made now, and say what is wrong with it."""
    from handrail.cli import screen
    from handrail.core.journal import verify_export

    options = call.options
    if options.file:
        try:
            # Not `splitlines`: a record may hold other characters that end a line for Python.
            lines = Path(options.file).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise JournalError(
                "journal.damaged", f"{options.file} cannot be read: {error}"
            ) from error
    else:
        lines = exported()
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
