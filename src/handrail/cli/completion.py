"""Print a completion script for your shell: commands, operations, stores, plans and runs.

examples:
  source <(handrail completion bash)
  handrail completion zsh > ~/.zsh/completions/_handrail
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handrail.cli.call import Call

_BASH = """\
_handrail() {
    COMPREPLY=()
    local line
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(
        handrail complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _handrail handrail
"""
_ZSH = """\
#compdef handrail
_handrail() {
    local -a found
    found=("${(@f)$(handrail complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -- $found
    _files
}
compdef _handrail handrail
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("shell", choices=["bash", "zsh"])


def run(call: Call) -> int:
    """Print the script."""
    from handrail.cli import screen

    screen.write({"bash": _BASH, "zsh": _ZSH}[call.options.shell])
    return 0
