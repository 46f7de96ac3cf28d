"""`handrail deploy import`: what runs already becomes declared, in files to look at and commit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call
    from handrail.estate.model import Resource
    from handrail.kits.deploys.importing import Import, Target

_RUNS_APPS = ("nomad", "supervisor")


def run(call: Call) -> int:
    """Write what declares the apps of a platform, or of Rocksteady's file; overwrite nothing."""
    from handrail.kits.deploys import importing

    options = call.options
    if not options.rocksteady and (options.registry or options.repository):
        raise UsageError("usage", "--registry and --repository are for --rocksteady FILE")
    platform = _platform(call)
    target = importing.Target(
        platform.ref, platform.environment, importing.check_into(options.into or importing.INTO)
    )
    if options.rocksteady:
        found, origin = _of_rocksteady(call, platform, target), "Rocksteady"
    else:
        found, origin = _of_platform(call, platform, target), platform.ref
    written = importing.write(call.root, found, origin)
    _show(call, found, written)
    return 0


def _of_platform(call: Call, platform: Resource, target: Target) -> Import:
    from handrail import kit_wiring
    from handrail.kits.deploys import importing

    opened = kit_wiring.outside(call.world).open_platform(platform)
    return importing.from_platform(opened, target, call.declared.estate)


def _of_rocksteady(call: Call, platform: Resource, target: Target) -> Import:
    from handrail import kit_wiring
    from handrail.kits.deploys import rocksteady

    options = call.options
    opened = kit_wiring.outside(call.world).open_platform(platform)
    return rocksteady.from_rocksteady(
        _text(options.rocksteady, rocksteady.SIZE_BYTES),
        options.rocksteady,
        target,
        call.declared.estate,
        lambda text, name: opened.parse(text, name, {}),
        rocksteady.Wishes(options.registry, options.repository),
    )


def _platform(call: Call) -> Resource:
    """Return the platform that is named, or the only one that runs apps.

    Raises:
        UsageError: there is none of that name, or not just one.
    """
    from handrail.estate.shapes import nearest

    known = [
        one
        for one in call.declared.estate.of_kinds(("platform",))
        if one.settings.get("kind") in _RUNS_APPS
    ]
    named = call.options.platform
    found = [one for one in known if not named or named in {one.ref, one.name}]
    if len(found) == 1:
        return found[0]
    names = [one.ref for one in known]
    hint = nearest(named, names) if named and names else f"--from {names[0]}" if names else ""
    raise UsageError(
        "operations.target",
        f"no platform `{named}` that runs apps is declared" if named else "which platform?",
        hint=hint or "declare it under `platforms:` first",
    )


def _text(name: str, limit_bytes: int) -> str:
    """Return a file's text.

    Raises:
        UsageError: it cannot be read, is too large, or no text.
    """
    try:
        with Path(name).open("rb") as file:
            data = file.read(limit_bytes + 1)
        if len(data) > limit_bytes:
            why = f"larger than {limit_bytes // (1024 * 1024)} MB"
        else:
            return data.decode("utf-8")
    except OSError as error:
        why = str(error.strerror)
    except UnicodeDecodeError:
        why = "not UTF-8 text"
    raise UsageError("deploys.import", f"`{name}` cannot be read: {why}")


def _show(call: Call, found: Import, written: tuple[str, ...]) -> None:
    from handrail.cli import screen

    notes = [note for one in found.apps for note in one.notes]
    if call.options.json:
        screen.write_json(
            {
                "format": 1,
                "apps": [f"app/{one.name}" for one in found.apps],
                "written": list(written),
                "notes": notes,
                "left": [{"name": name, "why": why} for name, why in found.left],
            }
        )
        return
    lines = [f"wrote {name}" for name in written] or ["nothing is taken over."]
    lines += notes
    if found.left:
        lines += ["left alone:", *screen.columns(found.left)]
    if found.apps:
        lines.append(
            "next: look at the files, handrail check, git commit, then: handrail deploy status"
        )
    screen.write("\n".join(lines))
