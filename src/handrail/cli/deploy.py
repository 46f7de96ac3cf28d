"""Run what an app's own repository says at a commit: planned, judged, followed, watched.

The first word may also be `status`, `history`, `images`, `rollback` or `import`; an app of such a
name is called `app/status`.

examples:
  handrail deploy shop                          the branch that the app declares
  handrail deploy shop --ref v1.4.2 --plan      say what it would do, and do nothing
  handrail deploy shop --image web=ghcr.io/team/shop:hotfix
  handrail deploy shop pay search               several, in waves; --all for every app
  handrail deploy status                        saved, running and the branch, of every app
  handrail deploy history shop                  what ran when, from which commit, by whom
  handrail deploy images shop --ref main        what its registry has of that branch, by age
  handrail deploy rollback shop                 the version before; --to RUN for another
  handrail deploy import --from platform/prod   declare what a platform runs already
  handrail deploy import --rocksteady apps.json

Exit code: as of `handrail run`; of `status`, `history`, `images` and `import` 0.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from handrail.cli import verbs
from handrail.errors import UsageError

if TYPE_CHECKING:
    from handrail.cli.call import Call

# What each first word is given by, besides its apps; deploying itself has none.
_DOING = frozenset({"plan", "because", "break_glass"})
_OPTIONS = {
    "": _DOING | {"ref", "image", "all", "without"},
    "rollback": _DOING | {"to"},
    "status": frozenset[str](),
    "history": frozenset[str](),
    "images": frozenset({"ref"}),
    "import": frozenset({"platform", "rocksteady", "into", "registry", "repository"}),
}
_NAMES = {"without": "--except", "platform": "--from", "break_glass": "--break-glass"}
ONE = "handrail deploy {} APP"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="APP",
        help="declared apps: shop, or app/shop; before them one of the words above",
    )
    parser.add_argument("--ref", default="", help="branch, tag or commit; else the app's branch")
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="TASK=IMAGE",
        help="the image of that task alone; may be given again",
    )
    parser.add_argument("--all", action="store_true", help="every declared app, in waves")
    parser.add_argument(
        "--except",
        dest="without",
        action="append",
        default=[],
        metavar="APP",
        help="with --all: leave this one out; may be given again",
    )
    parser.add_argument("--to", type=int, metavar="RUN", help="rollback: to what that run deployed")
    parser.add_argument(
        "--from",
        dest="platform",
        metavar="PLATFORM",
        help="import: what runs on a platform; with --rocksteady, the one that it deployed to",
    )
    parser.add_argument(
        "--rocksteady", metavar="FILE", help="import: apps of Rocksteady, its table as JSON"
    )
    parser.add_argument(
        "--registry", default="", metavar="HOST", help="import: where Rocksteady's ECR images are"
    )
    parser.add_argument(
        "--repository",
        default="",
        metavar="URL",
        help="import: apps' git repositories, with {name} in it; else this one",
    )
    parser.add_argument(
        "--into", metavar="DIR", help="import: where specifications are written; else `imported`"
    )
    verbs.configure(parser)


def run(call: Call) -> int:
    """Do what the first word says."""
    word, apps = words_of(call)
    other = _OTHERS.get(word)
    if other is not None:
        return other(call, apps)
    mean(call)
    return verbs.run(call)


def words_of(call: Call) -> tuple[str, tuple[str, ...]]:
    """Return the first word where it is no app, and the apps.

    Raises:
        UsageError: an option is given that is not for it.
    """
    words = tuple(dict.fromkeys(call.options.words))
    word = words[0] if words and words[0] in _OPTIONS else ""
    apps = words[1:] if word else words
    for name in sorted(set().union(*_OPTIONS.values()) - _OPTIONS[word]):
        if getattr(call.options, name) not in (None, False, "", []):
            shown = _NAMES.get(name, f"--{name}")
            command = f"handrail deploy {word}".rstrip()
            raise UsageError("usage", f"{shown} is not for `{command}`", hint=f"{command} --help")
    return word, apps


def mean(call: Call) -> None:
    """Say a deploy or a rollback in the words of `run`.

    Raises:
        UsageError: no app is named, or more than a rollback takes.
    """
    word, apps = words_of(call)
    options = call.options
    if word == "rollback":
        to = "" if options.to is None else str(options.to)
        verbs.mean(call, "rollback", _only(word, apps), {"to": to})
        return
    parameters = {"ref": options.ref, "images": images(options.image)}
    if options.without and not options.all:
        raise UsageError("usage", "--except leaves apps out of all: --all --except APP")
    if options.all and apps:
        raise UsageError("usage", "either apps by name, or --all")
    if options.all:
        verbs.mean(call, "deploy", "all", parameters, options.without)
    elif len(apps) == 1:
        verbs.mean(call, "deploy", apps[0], parameters)
    elif apps:
        verbs.mean(call, "deploy", "all", parameters, _all_but(call, apps))
    else:
        raise UsageError("usage", "which app?", hint="handrail deploy APP, or --all")


def images(pairs: Sequence[str]) -> str:
    """Return `TASK=IMAGE` pairs as the operation's parameter.

    Raises:
        UsageError: one is no such pair.
    """
    for pair in pairs:
        task, equals, image = pair.partition("=")
        if not (task and equals and image) or "," in pair:
            raise UsageError("usage", f"`{pair}` is not TASK=IMAGE", hint="--image web=shop:1.4.2")
    return ",".join(pairs)


def _only(word: str, apps: Sequence[str]) -> str:
    if len(apps) != 1:
        raise UsageError("usage", "which app? one is needed", hint=ONE.format(word))
    return apps[0]


def _all_but(call: Call, apps: Sequence[str]) -> list[str]:
    """Return the declared apps besides those.

    Raises:
        UsageError: one of them is not declared.
    """
    named = set(_refs(call, apps))
    return [one.ref for one in call.declared.estate.of_kinds(("app",)) if one.ref not in named]


def _refs(call: Call, apps: Sequence[str]) -> tuple[str, ...]:
    """Return the apps that are named as they are declared; every one where none is named.

    Raises:
        UsageError: one is not declared.
    """
    from handrail.estate.shapes import nearest

    known = {one.ref: one.name for one in call.declared.estate.of_kinds(("app",))}
    found = []
    for name in apps:
        ref = name if "/" in name else f"app/{name}"
        if ref not in known:
            raise UsageError(
                "operations.target",
                f"no app `{name}` is declared",
                hint=nearest(name, tuple(known.values())),
            )
        found.append(ref)
    return tuple(found) if apps else tuple(known)


def _status(call: Call, names: Sequence[str]) -> int:
    """Show how apps stand: those that are named, or every one."""
    from handrail import kit_wiring
    from handrail.cli import apps
    from handrail.kits.deploys import answers, status

    estate = call.declared.estate
    chosen = [estate.resources[ref] for ref in _refs(call, names)]
    found = status.status(kit_wiring.outside(call.world), estate, chosen)
    return apps.show_status(call, [answers.status(one) for one in found])


def _history(call: Call, names: Sequence[str]) -> int:
    """Show what ran of an app, from the record alone."""
    from handrail.cli import apps
    from handrail.kits.deploys import answers, history

    (ref,) = _refs(call, (_only("history", names),))
    found = history.history(call.world, ref)
    return apps.show_history(call, ref, [answers.ran(call.world, one) for one in found])


def _images(call: Call, names: Sequence[str]) -> int:
    """Show the images that an app's tasks could be given, by branch and age."""
    from handrail import kit_wiring
    from handrail.cli import apps
    from handrail.kits.deploys import images as choosing
    from handrail.kits.deploys.apps import app_of

    (ref,) = _refs(call, (_only("images", names),))
    resource = call.declared.estate.resources[ref]
    declared = app_of(resource).images
    if not declared:
        raise UsageError(
            "image.unknown",
            f"`{ref}` declares no image",
            at=resource.place,
            hint="images: {TASK: ghcr.io/team/shop}",
        )
    registry = kit_wiring.outside(call.world).open_registry(resource)
    found = choosing.offered(declared, call.options.ref, registry)
    return apps.show_images(call, ref, found)


def _import(call: Call, names: Sequence[str]) -> int:
    """Declare what runs already on a platform, or what Rocksteady knows."""
    from handrail.cli import importing

    if names or not (call.options.platform or call.options.rocksteady):
        raise UsageError("usage", "import from where? --from PLATFORM, or --rocksteady FILE")
    return importing.run(call)


_OTHERS: Mapping[str, Callable[[Any, Sequence[str]], int]] = {
    "status": _status,
    "history": _history,
    "images": _images,
    "import": _import,
}
