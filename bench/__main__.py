"""`python -m bench [--json] [NAME ...]`: run the benches, show them, and compare with their bounds.

Exit code: 0 when every ratio is inside its bound, 1 when one is not or a bench failed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
import traceback
from typing import Any

import bench

Row = dict[str, Any]


def main() -> int:
    """Run what is named, else everything."""
    every = [one.name for one in pkgutil.iter_modules(bench.__path__) if _has_rows(one.name)]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of: " + ", ".join(every))
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args()
    unknown = set(options.names) - set(every)
    if unknown:
        parser.error(f"no bench is called {', '.join(sorted(unknown))}")
    rows = [row for name in options.names or every for row in _run(name)]
    print("\n".join(map(json.dumps, rows)) if options.json else _table(rows))
    return 0 if all(row["ok"] for row in rows) else 1


def _has_rows(name: str) -> bool:
    return name != "__main__" and hasattr(importlib.import_module(f"bench.{name}"), "main")


def _run(name: str) -> list[Row]:
    print(f"{name} ...", file=sys.stderr)
    try:
        rows: list[Row] = importlib.import_module(f"bench.{name}").main()
    except Exception as error:  # noqa: BLE001  one that fails does not keep the others from running
        traceback.print_exc()
        return [{"name": name, "ratio": None, "bound": None, "detail": f"{error!r}", "ok": False}]
    return [{**row, "ok": _is_inside(row)} for row in rows]


def _is_inside(row: Row) -> bool:
    if row["bound"] is None:
        return True
    return bool(
        row["ratio"] >= row["bound"] if row.get("at_least") else row["ratio"] <= row["bound"]
    )


def _table(rows: list[Row]) -> str:
    cells = [(_mark(row), row["name"], _number(row["ratio"]), _bound(row)) for row in rows]
    widths = [max(len(cell[i]) for cell in cells) for i in range(4)]
    return "\n".join(
        f"{mark:<{widths[0]}}  {name:<{widths[1]}}  {ratio:>{widths[2]}}  {bound:<{widths[3]}}  "
        f"{row['detail']}"
        for (mark, name, ratio, bound), row in zip(cells, rows, strict=True)
    )


def _mark(row: Row) -> str:
    return "ok" if row["ok"] else "x"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _bound(row: Row) -> str:
    if row["bound"] is None:
        return ""
    return f"{'>=' if row.get('at_least') else '<='} {_number(row['bound'])}"


if __name__ == "__main__":
    raise SystemExit(main())
