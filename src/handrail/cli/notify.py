"""Show who is told of what, what could not be told, and try a destination.

Who is told stands in notifications.yaml. `handrail serve` tells them; where there is no server,
`handrail schedules run-due` or `handrail notify deliver` does.

examples:
  handrail notify
  handrail notify test on-call
  handrail notify deliver            tell now what is to be told
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "action", nargs="?", choices=["test", "deliver"], help="what to do; else they are listed"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of a destination, to try")


def run(call: Call) -> int:
    """List, or do what was said."""
    match call.options.action:
        case "test":
            return _test(call)
        case "deliver":
            return _deliver(call)
        case _:
            return _list(call)


def _test(call: Call) -> int:
    from handrail.cli import screen
    from handrail.core import notifying

    name = call.options.name
    if not name:
        known = ", ".join(call.declared.notifications.to) or "none is declared"
        raise UsageError("usage", f"which destination? ({known})", hint="handrail notify test NAME")
    notice = notifying.try_out(call.world, call.declared, name)
    if call.options.json:
        screen.write_json({"format": 1, "to": name, "notice": notice.id})
    else:
        screen.write(f"`{name}` took notice {notice.id}.")
    return 0


def _deliver(call: Call) -> int:
    from handrail.core import notifying

    notifying.deliver(call.world, call.declared)
    return _list(call)


def _list(call: Call) -> int:
    from handrail.cli import screen

    found = _found(call)
    if call.options.json:
        screen.write_json({"format": 1, **found})
        return 0
    if not found["to"] and not found["pending"]:
        screen.write("nobody outside is told anything.\nnext: write notifications.yaml")
        return 0
    rows = [(one["name"], one["by"], ", ".join(one["for"])) for one in found["to"]]
    lines = screen.columns([("name", "told by", "of"), *rows], indent="")
    for one in found["pending"]:
        failed = f", which failed {one['tries']} times: {one['why']}" if one["tries"] else ""
        lines.append(screen.wrap(f"to be told to {one['to']}: {one['title']}{failed}", "  "))
    for one in found["given_up"]:
        said = f"{one['time'][:16].replace('T', ' ')} UTC, {one['to']}: {one['title']}"
        lines.append(screen.wrap(f"given up {said}: {one['why']}", "  "))
    screen.write("\n".join(lines))
    return 0


def _found(call: Call) -> dict[str, Any]:
    from handrail.core import notifying

    to = call.declared.notifications.to.values()
    return {
        "to": [
            {"name": one.name, "by": type(one.channel).__name__.lower(), "for": list(one.kinds)}
            for one in to
        ],
        "pending": [
            {
                "notice": one.notice.id,
                "title": one.notice.title,
                "to": name,
                "tries": tries,
                "why": one.why.get(name, ""),
            }
            for one in notifying.pending(call.world)
            for name, tries in one.left.items()
        ],
        "given_up": [
            {key: one[key] for key in ("time", "to", "title", "why", "id")}
            for one in notifying.given_up(call.world)
        ],
    }
