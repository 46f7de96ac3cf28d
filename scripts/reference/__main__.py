"""Write the generated pages of docs/reference, or say which of them are not current.

    python scripts/reference            writes them
    python scripts/reference --check    exits 1 when one is not what the code says today

Rules:
- What a page says stands in the code: parsers, tables, shapes and docstrings. Prose stands here.
- The same code gives the same bytes, on every Python and every machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

from addresses import api_page
from apps import apps_page
from commands import cli_page
from files import estate_page, notifications_page, operation_page, policy_page
from tables import errors_page, guards_page, settings_page

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"
NOTE = "<!-- Made by `python scripts/reference` from {source}. Do not edit. -->\n"
PAGES = {
    "api.md": (api_page, "the routes in src/handrail/api"),
    "apps.md": (apps_page, "the shapes in src/handrail/kits/deploys/declared.py"),
    "cli.md": (cli_page, "the parsers in src/handrail/cli"),
    "errors.md": (errors_page, "CODES in src/handrail/errors.py"),
    "settings.md": (settings_page, "SETTINGS in src/handrail/wiring.py"),
    "estate-files.md": (estate_page, "the shapes in src/handrail/estate/kinds.py"),
    "operation-files.md": (operation_page, "the shapes in src/handrail/operations/shapes.py"),
    "policy-file.md": (policy_page, "the shapes in src/handrail/plans/policy.py"),
    "notifications-file.md": (
        notifications_page,
        "the shapes in src/handrail/plans/notifications.py",
    ),
    "guards.md": (guards_page, "the guards' docstrings and src/handrail/plans/policy.py"),
}


def main(arguments: list[str]) -> int:
    """Write, or check with `--check`; return the exit code."""
    made = {name: NOTE.format(source=source) + make() for name, (make, source) in PAGES.items()}
    if arguments != ["--check"]:
        for name, text in made.items():
            (FOLDER / name).write_text(text, encoding="utf-8")
        return 0
    old = [name for name, text in made.items() if _present(name) != text]
    for name in old:
        print(f"docs/reference/{name} is not current; run: python scripts/reference")
    return 1 if old else 0


def _present(name: str) -> str:
    file = FOLDER / name
    return file.read_text(encoding="utf-8") if file.exists() else ""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
