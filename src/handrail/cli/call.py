"""One call of a command: its options, and what it is given, made when it is first asked for."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.live import Terminal
    from handrail.core.world import Declared, Kit, World


class _Parser(argparse.ArgumentParser):
    """Reports a wrong call as every other error is reported."""

    def error(self, message: str) -> NoReturn:
        raise UsageError("usage", message, hint=f"{self.prog} --help")


class Call:
    """The options of one call, and the world it works on.

    Attributes:
        options: as parsed, with `json`, `plain` and `root` on every command.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options: Any = options

    @classmethod
    def parse(cls, name: str, command: ModuleType, words: Sequence[str]) -> Self:
        """Return the call that `words` say.

        Raises:
            UsageError: they are not what the command takes.
        """
        prog = "handrail" if name == "status" else f"handrail {name}"
        parser = _Parser(
            prog=prog,
            description=command.__doc__,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.configure(parser)
        common = parser.add_argument_group("everywhere")
        common.add_argument("--json", action="store_true", help="print one JSON object")
        common.add_argument("--plain", action="store_true", help="no colour, no line rewritten")
        common.add_argument("--root", metavar="DIR", help="the team's repository")
        return cls(parser.parse_args(words))

    @cached_property
    def root(self) -> Path:
        """The team's repository."""
        from handrail import wiring

        if self.options.root:
            return Path(self.options.root).resolve()
        return wiring.find_root(Path.cwd(), os.environ)

    @cached_property
    def state(self) -> Path:
        """Handrail's own directory."""
        from handrail import wiring

        return wiring.find_state(self.root, os.environ)

    @cached_property
    def kits(self) -> tuple[Kit, ...]:
        """What installed packages register."""
        from handrail import wiring

        return wiring.kits()

    @cached_property
    def declared(self) -> Declared:
        """What the repository declares."""
        from handrail import wiring

        return wiring.declared(self.root, self.kits)

    @cached_property
    def world(self) -> World:
        """The ports of this machine."""
        from handrail import wiring

        return wiring.world(self.root, self.state, dict(os.environ), self.kits)

    @cached_property
    def talk(self) -> Terminal:
        """Whoever sits at the terminal."""
        from handrail.cli.live import Terminal

        return Terminal(sys.stderr, plain=self.options.plain, quiet=self.options.json)
