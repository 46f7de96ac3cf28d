"""The options by which every changing command says what it means: operation, target, parameters."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.core.deciding import Decided


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "operation",
        metavar="OPERATION",
        help="a declared operation, or the path of a script: ./old_script.sh",
    )
    parser.add_argument(
        "--on",
        metavar="TARGET",
        help="store/name, a postgres:// or redis:// URL, a database file, a directory; or `all`: "
        "every target that the operation is for, in waves",
    )
    parser.add_argument(
        "--except",
        dest="without",
        action="append",
        default=[],
        metavar="STORE",
        help="with all: leave this one out; may be given again",
    )
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the operation; may be given again",
    )
    parser.add_argument("--because", default="", metavar="TEXT", help="why, for the record")


def parameters(call: Call) -> dict[str, str]:
    """Return the parameters as given.

    Raises:
        UsageError: one is not NAME=VALUE, or given twice.
    """
    found: dict[str, str] = {}
    for pair in call.options.parameter:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError("operations.parameter", f"`{pair}` is not NAME=VALUE")
        if name in found:
            raise UsageError("operations.parameter", f"parameter `{name}` is given twice")
        found[name] = value
    return found


def decide(call: Call) -> Decided:
    """Plan and judge what the options say."""
    from handrail.core.deciding import decide as decide_it

    options = call.options
    return decide_it(
        call.world,
        call.declared,
        options.operation,
        on=options.on,
        parameters=parameters(call),
        because=options.because,
    )
