"""List runs, the newest first, or show one from its journal.

examples:
  handrail runs
  handrail runs show 412
  handrail runs show 412 --json
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call

_SHOWN = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("show", nargs="?", choices=["show"], help="show one run")
    parser.add_argument("number", nargs="?", type=int, metavar="RUN", help="number of the run")
    parser.add_argument(
        "--all", action="store_true", help=f"list more than {_SHOWN}, and each run of a walk"
    )


def run(call: Call) -> int:
    """List, or show one."""
    options = call.options
    if options.show and options.number is None:
        raise UsageError("usage", "which run?", hint="handrail runs show RUN")
    return _show(call, options.number) if options.show else _list(call)


def _list(call: Call) -> int:
    from handrail.core.surveying import latest

    every = call.options.all or call.options.json
    found, total = latest(call.world, None if every else _SHOWN, with_children=every)
    return show_list(call, found, total)


def show_list(call: Call, found: list[dict[str, Any]], total: int) -> int:
    """Write some of `total` runs."""
    from handrail.cli import screen

    if call.options.json:
        screen.write_json({"format": 1, "runs": found})
        return 0
    if not found:
        screen.write("no runs yet.\nnext: handrail plan OPERATION")
        return 0
    rows = [
        (
            str(one["run"]),
            one["began"][:16].replace("T", " "),
            one["operation"],
            one["target"],
            one["outcome"],
            one["person"],
        )
        for one in found
    ]
    lines = screen.columns(
        [("run", "began (UTC)", "operation", "target", "outcome", "by"), *rows],
        indent="",
        right=(0,),
    )
    if total > len(found):
        lines.append(f"and {total - len(found)} older: handrail runs --all")
    screen.write("\n".join(lines))
    return 0


def _show(call: Call, number: int) -> int:
    from handrail.cli import walks
    from handrail.core.recalling import recorded_plan, story
    from handrail.core.surveying import summary

    if walks.is_walk(call, number):
        return walks.show_story(call, number)
    recorded_plan(call.world, number)
    told = story(call.world, number)
    output = str(call.state / "runs" / str(number) / "output.log")
    return show_one(call, summary(call.world, number), told, output)


def show_one(
    call: Call,
    head: Mapping[str, Any],
    told: Sequence[tuple[str, str, Mapping[str, Any]]],
    output: str,
) -> int:
    """Write one run: its line of facts, its records, where its output is."""
    from handrail.cli import screen

    number = head["run"]
    if call.options.json:
        screen.write_json(
            {
                "format": 1,
                "run": number,
                "records": [
                    {"time": time, "kind": kind, "body": body} for time, kind, body in told
                ],
            }
        )
        return 0
    lines = [
        f"run {number}: {head['operation']} on {head['target']} by {head['person'] or '?'}: "
        f"{head['outcome']}",
        "",
    ]
    rows = [(time[:19].replace("T", " "), kind, _said(kind, body)) for time, kind, body in told]
    lines += [line[: screen.WIDTH] for line in screen.columns(rows)]
    lines += [
        "",
        f"its output: {output}",
        f"its decisions: handrail explain {number}",
    ]
    screen.write("\n".join(lines))
    return 0


def _said(kind: str, body: Mapping[str, Any]) -> str:  # noqa: PLR0911  a table of kinds
    """Return what a record says, in one clause."""
    match kind:
        case "opened":
            digest = body["plan"]["digest"]
            return f"plan {digest[:4]}-{digest[4:8]}, risk {body['plan']['risk']}"
        case "backup-done":
            return f"backup {body['backup']['id']}, {body['backup']['size_bytes']:,} bytes"
        case "step-done" | "undo-ran":
            finished, report = body["finished"], body.get("report") or {}
            stopped = f"; stopped: {report['stop']['what']}" if report.get("stop") else ""
            return (
                f"{finished['ended']}, exit {finished['exit_code']}, "
                f"{finished['duration_s']:.1f} s{stopped}"
            )
        case "guard-event":
            return f"{body['event']['kind']}: {body['event']['text']}"
        case "measured" | "outcome-unknown":
            effects = "; ".join(f"{e['verb']} {e['kind']} {e['name']}" for e in body["effects"][:4])
            return effects or "nothing changed"
        case "health":
            return f"{body['check']}: {'healthy' if body['healthy'] else 'ill'}, {body['seen']}"
        case "watched":
            return "ill: " + ", ".join(body["ill"]) if body["ill"] else "healthy"
        case "undo-done":
            return ("worked" if body["worked"] else "failed") + (
                f"; left {', '.join(body['residue'][:3])}" if body["residue"] else ""
            )
        case "verdict" | "ended":
            return f"{body['outcome']}: {body['why']}"
        case _:
            return _asked(kind, body)


def _asked(kind: str, body: Mapping[str, Any]) -> str:
    """Return what a question, or its answer, says in one clause; empty for anything else."""
    if kind == "asked":
        question, until = body["asked"]["question"], body["asked"]["expires_at"][:16]
        return f"{question['name']}: {question['text']}  until {until.replace('T', ' ')}"
    if kind == "answered":
        return f"{body['question']}: {body['value'] or body['outcome']}, {body['by'] or '-'}"
    return ""
