"""Show where things stand: what waits for somebody, what was cut off, what ran last.

`handrail --help` lists the commands.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handrail.cli.call import Call


# More that is late is told as a number: the whole list is a command away.
_MOST = 6
_ANYTHING = ("resources", "operations", "runs", "waiting", "held", "schedules")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""
    del parser


def run(call: Call) -> int:
    """Show where things stand, from the record alone: no store is asked."""
    from handrail.core.surveying import survey

    return show(call, survey(call.world, call.declared))


def show(call: Call, found: dict[str, Any]) -> int:
    """Write where things stand."""
    from handrail.cli import screen

    if call.options.json:
        screen.write_json({"format": 1, **found})
        return 0
    if not any(found[name] for name in _ANYTHING):
        screen.write(
            "nothing is declared here, and nothing has run.\n"
            "next: handrail init                                 start an estate, or\n"
            "      handrail rehearse ./script.sh --on URL-OR-FILE   try one script now"
        )
        return 0
    screen.write("\n".join(_lines(found)))
    return 0


def _lines(found: dict[str, Any]) -> list[str]:
    from handrail.cli.screen import columns, wrap

    names = ", ".join(found["operations"][:6])
    counted = f"{found['resources']} resources, {len(found['operations'])} operations declared"
    lines = [wrap(f"{counted}: {names}" if names else counted, "  ")]
    if found.get("walks"):
        lines += ["", "over many targets, not ended:"]
        lines += columns(
            [
                (f"run {w['run']}", w["operation"], w["target"], w["outcome"], w["next"])
                for w in found["walks"]
            ]
        )
    if found["unfinished"]:
        lines += ["", "cut off:"]
        lines += columns(
            [
                (f"run {r['run']}", r["operation"], r["target"], f"handrail resume {r['run']}")
                for r in found["unfinished"]
            ]
        )
    if found["glass"]:
        lines += ["", "glass was broken, and nobody has reviewed it:"]
        lines += columns(
            [
                (
                    one["glass"]["id"],
                    one["operation"],
                    one["target"],
                    f"by {one['glass']['person']}",
                    f"handrail review {one['glass']['id']}",
                )
                for one in found["glass"]
            ]
        )
    if found["questions"]:
        lines += ["", "asked by a run:"]
        lines += columns(
            [
                (
                    f"run {one['run']}",
                    one["operation"],
                    one["question"]["text"],
                    f"until {one['expires_at'][:16].replace('T', ' ')}",
                    f"handrail answer {one['run']} {one['question']['name']} ...",
                )
                for one in found["questions"]
            ]
        )
    if found["held"]:
        lines += ["", "held until another person answers:"]
        lines += columns(
            [
                (h["id"], h["resource"], h["statement"], f"handrail release {h['id']}")
                for h in found["held"]
            ]
        )
    if found["waiting"]:
        lines += ["", "waiting for somebody:"]
        lines += columns(
            [
                (w["plan"], w["operation"], w["target"], f"risk {w['risk']}", w["next"])
                for w in found["waiting"]
            ]
        )
    lines += _late(found["schedules"])
    if found["leftover_clones"]:
        lines += [
            "",
            f"{len(found['leftover_clones'])} clones were left behind; the next "
            "rehearsal removes them",
        ]
    if found["runs"]:
        lines += ["", "last runs:"]
        lines += columns(
            [
                (
                    str(r["run"]),
                    r["began"][:16].replace("T", " "),
                    r["operation"],
                    r["target"],
                    r["outcome"],
                )
                for r in found["runs"]
            ]
        )
    return lines


def _late(found: list[dict[str, str]]) -> list[str]:
    """Return what did not happen by the clock as declared, in short."""
    from handrail.cli.screen import wrap

    if not found:
        return []
    lines = ["", "by the clock, and not as declared (handrail schedules):"]
    lines += [wrap(f"  {o['name']}: {o['state']} {o['text']}", "    ") for o in found[:_MOST]]
    more = len(found) - _MOST
    return [*lines, f"  and {more} more"] if more > 0 else lines
