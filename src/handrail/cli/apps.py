"""`handrail deploy status`, `history` and `images`, as tables.

They are written from the values that `--json` and the API have: the same from a server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.kits.deploys.model import Image

_SHORT = 7
# The worst first: whoever looks has little time.
_WORDS = ("away", "drifted", "behind", "never deployed", "same")
_MOST = 20
_MOST_DRIFT = 6


def show_status(call: Call, found: Sequence[Mapping[str, Any]]) -> int:
    """Write how apps stand, the worst first."""
    from handrail.cli import screen

    if call.options.json:
        screen.write_json({"format": 1, "apps": list(found)})
        return 0
    if not found:
        screen.write("no app is declared.\nnext: handrail deploy import --from PLATFORM")
        return 0
    ordered = sorted(found, key=lambda one: _WORDS.index(one["word"]))
    head = ("app", "platform", "saved", "running", "branch", "")
    rows = [head, *(_status_row(one) for one in ordered)]
    lines = screen.columns(rows, indent="")
    for one in ordered:
        lines += _why_lines(one)
    screen.write("\n".join(lines))
    return 0


def _status_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    saved, running, branch = one["saved"], one["running"], one["branch"]
    return (
        one["app"].partition("/")[2],
        one["platform"].partition("/")[2],
        f"{saved['commit'][:_SHORT] or '-'} run {saved['run']}" if saved else "-",
        _running(running) if running else ("?" if one["word"] == "away" else "-"),
        f"{branch['name']} {branch['head'][:_SHORT] or '?'}",
        one["word"],
    )


def _running(running: Mapping[str, Any]) -> str:
    commit = running["commit"][:_SHORT] or f"version {running['version']}"
    return f"{commit} {running['healthy']}/{running['wanted']} healthy"


def _why_lines(one: Mapping[str, Any]) -> list[str]:
    """Return what is behind a word that asks for somebody; empty where all is as it should be."""
    from handrail.cli import screen

    if one["word"] == "same" and not one["branch"]["why"]:
        return []
    name = one["app"].partition("/")[2]
    lines = ["", screen.wrap(f"{name}: {one['why']}", "  ")]
    lines += ["  " + screen.wrap(line, "    ") for line in one["drift"][:_MOST_DRIFT]]
    more = len(one["drift"]) - _MOST_DRIFT
    if more > 0:
        lines.append(f"  and {more:,} more: --json shows all")
    if one["word"] in {"drifted", "behind", "never deployed"}:
        lines.append(f"next: handrail deploy {name} --plan")
    return lines


def show_history(call: Call, app: str, found: Sequence[Mapping[str, Any]]) -> int:
    """Write what ran of an app, the newest first."""
    from handrail.cli import screen

    if call.options.json:
        screen.write_json({"format": 1, "app": app, "runs": list(found)})
        return 0
    name = app.partition("/")[2]
    if not found:
        screen.write(f"nothing of {name} was run by Handrail.\nnext: handrail deploy {name} --plan")
        return 0
    head = ("run", "began (UTC)", "operation", "commit", "outcome", "by", "approved by")
    rows = [head, *(_history_row(one) for one in found[:_MOST])]
    lines = screen.columns(rows, indent="", right=(0,))
    if len(found) > _MOST:
        lines.append(f"and {len(found) - _MOST} older: --json shows all")
    screen.write("\n".join(lines))
    return 0


def show_images(call: Call, app: str, found: Mapping[str, Sequence[Image]]) -> int:
    """Write which images each task of an app could be given, the newest first."""
    from handrail.cli import screen
    from handrail.plans.canonical import plain, time_text

    if call.options.json:
        screen.write_json({"format": 1, "app": app, "images": plain(dict(found))})
        return 0
    now = time_text(call.world.clock.now())
    rows = [
        (task, one.repository, one.tag, screen.ago(one.created, now), one.digest[:19])
        for task, images in found.items()
        for one in images[:_MOST]
    ]
    if not rows:
        screen.write("there is no such image.")
        return 0
    lines = screen.columns([("task", "image", "tag", "made", "digest"), *rows], indent="")
    name = app.partition("/")[2]
    lines.append(f"next: handrail deploy {name} --image {rows[0][0]}=:{rows[0][2]} --plan")
    screen.write("\n".join(lines))
    return 0


def _history_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    approved = ", ".join(one["approved_by"]) or (f"glass: {one['glass']}" if one["glass"] else "-")
    return (
        str(one["run"]),
        one["began"][:16].replace("T", " "),
        one["operation"] or "?",
        one["commit"][:_SHORT] or "-",
        one["outcome"],
        one["person"],
        approved,
    )
