"""The page of the command line, from the parsers themselves.

Rules:
- A command's text is its module's docstring: what `--help` shows, too.
- Nothing is taken from argparse's own formatting: it differs from one Python to the next.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from types import ModuleType

from handrail.cli.call import Call
from handrail.cli.main import GROUPS, HIDDEN

INTRODUCTION = """\
# The command line

`handrail COMMAND --help` shows the same. `handrail` alone shows where things stand. Exit codes are
in
[exit-codes.md](exit-codes.md), what `--json` prints is in [json-output.md](json-output.md).

stdout is the result, stderr is the talk while something runs. Any unique beginning of a plan's
digest is enough. Colour is never the only sign of anything; `NO_COLOR` turns it off.
"""


def cli_page() -> str:
    """Return the page: every command in its group, what is everywhere, what only programs call."""
    parts = [INTRODUCTION, _everywhere(), *_section("", "status", "show where things stand")]
    for group, commands in GROUPS.items():
        parts.append(f"## {group[0].upper()}{group[1:]}\n")
        for name, summary in commands.items():
            parts += _section(f" {name}", name, summary)
    parts.append("## Called by programs\n")
    for name, summary in HIDDEN.items():
        parts += _section(f" {name}", name, summary)
    return "\n".join(parts)


def _section(shown: str, module: str, summary: str) -> list[str]:
    command = import_module(f"handrail.cli.{module}")
    parser = argparse.ArgumentParser(add_help=False)
    command.configure(parser)
    lines = [f"### `handrail{shown}`\n", f"{summary[0].upper()}{summary[1:]}.\n"]
    lines += [f"```text\n{_usage(shown, parser)}\n```\n", f"{_prose(command)}\n"]
    rows = [_row(action) for action in _actions(parser)]
    if rows:
        lines.append("| argument | what it is |\n|---|---|\n" + "\n".join(rows) + "\n")
    return lines


def _everywhere() -> str:
    """Return the options that every command has."""
    taken: list[argparse.ArgumentParser] = []
    recorder = ModuleType("recorder")
    recorder.configure = taken.append  # type: ignore[attr-defined]  # a command with no option of its own
    Call.parse("status", recorder, [])
    rows = "\n".join(_row(action) for action in _actions(taken[0]))
    return f"## Everywhere\n\n| option | what it is |\n|---|---|\n{rows}\n"


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    every = parser._actions  # noqa: SLF001  argparse has no public way to list them
    return [action for action in every if action.dest != "help"]


def _usage(shown: str, parser: argparse.ArgumentParser) -> str:
    words = [f"handrail{shown}"]
    for action in _actions(parser):
        word = _word(action)
        optional = (action.option_strings and not action.required) or action.nargs == "?"
        words.append(f"[{word}]" if optional else word)
    return " ".join(words)


def _word(action: argparse.Action) -> str:
    value = str(action.metavar) if action.metavar else "|".join(map(str, action.choices or ()))
    if not action.option_strings:
        return value or action.dest.upper()
    name = ", ".join(action.option_strings)
    return name if action.nargs == 0 else f"{action.option_strings[-1]} {value}".strip()


def _row(action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    shown = names or f"`{_word(action)}`"
    if action.option_strings and action.nargs != 0:
        shown += f" {action.metavar or ''}".rstrip()
    choices = ", ".join(f"`{choice}`" for choice in action.choices or ())
    said = action.help or (f"one of {choices}" if choices else "")
    cells = (cell.replace("|", "\\|") for cell in (shown, said))
    return f"| {' | '.join(cells)} |"


def _prose(command: ModuleType) -> str:
    """Return a module's docstring as Markdown: its examples become a block."""
    text = (command.__doc__ or "").strip()
    before, examples, after = text.partition("\nexamples:\n")
    if not examples:
        return text
    shown, _, rest = after.partition("\n\n")
    lines = "\n".join(line.removeprefix("  ") for line in shown.rstrip().splitlines())
    tail = f"\n\n{rest.strip()}" if rest.strip() else ""
    return f"{before.strip()}\n\n```text\n{lines}\n```{tail}"
