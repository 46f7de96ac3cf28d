"""Taking over apps from Rocksteady, from its table of apps as JSON.

Rules:
- Pure: what is read is a text, and what comes of it are files (`importing.Import`).
- All of the file is judged first: what is no app of Rocksteady is refused with its line, and
  nothing is taken over then. A specification that the platform does not read leaves that app alone.
- Rocksteady set one image for every task, whatever the specification said. Here a task that names
  another image keeps that, and people are told.
- Rocksteady called the job as the app is called, whatever the specification said: so it is written.

Source: github.com/PowerRhino/RockSteady, db/schema.rb and app/models/app.rb.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handrail.errors import DeclarationError, DeclarationErrors, HandrailError, Place, UsageError
from handrail.kits.deploys.importing import (
    Import,
    Imported,
    Target,
    base_settings,
    secrets_in,
)
from handrail.kits.deploys.references import parse, parse_repository
from handrail.kits.deploys.sourcing import read_repository

if TYPE_CHECKING:
    from handrail.estate.model import Estate
    from handrail.kits.deploys.model import Spec

SIZE_BYTES = 16 * 1024 * 1024
MOST = 2000
_SPEC_CHARACTERS = 1024 * 1024
_MOST_PROBLEMS = 20
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_BRANCH = re.compile(r"(?![-/.])(?!.*(\.\.|//|@\{))[A-Za-z0-9._/@#+-]{1,200}(?<![/.])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_JOB = re.compile(r'^([ \t]*job[ \t]+)(?:"([^"\\\n]*)"|([\w-]+))([ \t]*\{)', re.MULTILINE)
_SOURCES = ("ecr", "dockerhub")


@dataclass(frozen=True)
class Wishes:
    """What Rocksteady does not know of an app, and people do.

    Attributes:
        registry: host of the images that it has from ECR; empty where there are none.
        repository: git repository of an app, with `{name}` in it; empty where the specifications
            stay in the team's own.
    """

    registry: str = ""
    repository: str = ""


@dataclass(frozen=True)
class _App:
    """One row of Rocksteady's table."""

    line: int
    name: str
    repository_name: str
    job_spec: str
    image_source: str = "ecr"
    auto_deploy: bool = False
    auto_deploy_branch: str = ""
    env_template: str = ""


def from_rocksteady(
    text: str,
    file: str,
    target: Target,
    estate: Estate,
    read: Callable[[str, str], Spec],
    wishes: Wishes | None = None,
) -> Import:
    """Take over the apps of a file: an array of them, one, several in a row, or under `apps`.

    Args:
        text: the JSON.
        file: its name, for errors.
        target: where to they are taken over.
        estate: what is declared already; that is left alone.
        read: reads a specification, as the platform does: text and name.
        wishes: what people know besides.

    Raises:
        DeclarationErrors: what is no app of Rocksteady, each with its line.
        UsageError: an app's image is in ECR, and nobody says where.
        PlatformError: `read` gets no answer.
    """
    wishes = wishes or Wishes()
    found = _apps(text, file)
    _check_wishes(found, wishes)
    apps: list[Imported] = []
    left: list[tuple[str, str]] = []
    for one in found:
        if f"app/{one.name}" in estate.resources:
            left.append((one.name, f"app/{one.name} is declared"))
            continue
        try:
            apps.append(_imported(one, target, read, wishes))
        except DeclarationError as error:
            where = f"{file}:{one.line}"
            at = f", line {error.at.line} of it" if error.at is not None and error.at.line else ""
            left.append((one.name, f"its job_spec ({where}{at}): {error.message}"))
    return Import(tuple(apps), tuple(left))


def _imported(
    app: _App, target: Target, read: Callable[[str, str], Spec], wishes: Wishes
) -> Imported:
    path = target.path(app.name, "nomad.hcl")
    text, notes = _renamed(app, path)
    images, more = _images(app, read(text, path), wishes)
    settings = base_settings(target, path)
    if wishes.repository:
        settings |= {"repository": wishes.repository.replace("{name}", app.name)}
        settings |= {"spec": f"deploy/{app.name}.nomad.hcl", "branch": app.auto_deploy_branch}
        more.append(f"{app.name}: commit {path} as {settings['spec']} of {settings['repository']}")
    settings |= {"images": images} if images else {}
    if app.auto_deploy and wishes.repository:
        variable = f"HANDRAIL_HOOK_{app.name.upper().replace('-', '_')}"
        settings["auto"] = {"branches": [app.auto_deploy_branch], "secret": {"env": variable}}
        more.append(f"{app.name}: its web hook is signed with ${variable}; set it here and in CI")
    elif app.auto_deploy:
        branch = app.auto_deploy_branch
        more.append(f"{app.name}: Rocksteady deployed `{branch}` by itself; see `auto:` of apps")
    if app.env_template.strip():
        more.append(f"{app.name}: its env_template is not taken over: make it a `template` there")
    return Imported(app.name, settings, path, text, (*notes, *more, *secrets_in(text, path)))


def _renamed(app: _App, path: str) -> tuple[str, list[str]]:
    """Return the specification with the name that Rocksteady gave the job."""
    text = app.job_spec.replace("\r\n", "\n").rstrip("\n") + "\n"
    found = _JOB.search(text)
    if found is None:
        raise DeclarationError("deploys.import", "it has no `job` block", at=Place(path, 1))
    said = found[2] if found[3] is None else found[3]
    if said == app.name:
        return text, []
    text = f'{text[: found.start()]}{found[1]}"{app.name}"{found[4]}{text[found.end() :]}'
    return text, [f"{app.name}: its specification called the job `{said}`; Rocksteady did not"]


def _images(app: _App, spec: Spec, wishes: Wishes) -> tuple[dict[str, str], list[str]]:
    """Return the image of each task that ran the app's, and what to tell people of the others."""
    whole = f"{wishes.registry}/{app.repository_name}"
    image = whole if app.image_source == "ecr" else app.repository_name
    tag = "{commit}" if wishes.repository and app.image_source == "ecr" else "latest"
    own = {task for task, said in spec.images.items() if _is_own(said, app)}
    notes = []
    if not own:
        own = set(spec.images)
        if own:
            tasks = ", ".join(sorted(own))
            notes.append(f"{app.name}: no task names {image}; as in Rocksteady, {tasks} get it")
    notes += [
        f"{app.name}: {task} keeps {spec.images[task]}, as the specification says; Rocksteady"
        f" ran {image} there, too"
        for task in sorted(set(spec.images) - own)
    ]
    if not spec.images:
        notes.append(f"{app.name}: no task has an image; Rocksteady set {image} everywhere")
    return dict.fromkeys((_short(spec, task) for task in sorted(own)), f"{image}:{tag}"), notes


def _short(spec: Spec, task: str) -> str:
    """Return a task's name as people write it: without its group where that is clear."""
    name = task.rpartition("/")[2]
    return name if [one.rpartition("/")[2] for one in spec.tasks].count(name) == 1 else task


def _is_own(said: str, app: _App) -> bool:
    if not said:
        return True
    try:
        return parse(said).path.rpartition("/")[2] == app.repository_name.rpartition("/")[2]
    except UsageError:
        return False


def _check_wishes(found: tuple[_App, ...], wishes: Wishes) -> None:
    from_ecr = [one.name for one in found if one.image_source == "ecr"]
    if from_ecr and not wishes.registry:
        raise UsageError(
            "deploys.import",
            f"the image of `{from_ecr[0]}` is in ECR, and Rocksteady's file does not say where",
            hint="--registry ACCOUNT.dkr.ecr.REGION.amazonaws.com",
        )
    if wishes.registry:
        parse_repository(f"{wishes.registry}/x")
    if wishes.repository:
        read_repository(wishes.repository.replace("{name}", "x"))
    if wishes.repository and "{name}" not in wishes.repository and len(found) > 1:
        raise UsageError(
            "deploys.import",
            "all apps would have one repository",
            hint="write {name} where the app's name stands: git@git.example:team/{name}.git",
        )


def _apps(text: str, file: str) -> tuple[_App, ...]:
    if len(text) > SIZE_BYTES:
        said = f"`{file}` is larger than {SIZE_BYTES // (1024 * 1024)} MB"
        raise DeclarationErrors([_wrong(said, Place(file))])
    problems: list[DeclarationError] = []
    found: dict[str, _App] = {}
    for line, value in _values(text, file):
        app = _app(value, Place(file, line), problems)
        if app is not None and app.name in found:
            problems.append(_wrong(f"app `{app.name}` is there twice", Place(file, line)))
        elif app is not None:
            found[app.name] = app
        if len(found) > MOST or len(problems) >= _MOST_PROBLEMS:
            problems.append(_wrong("there is more; it is not read", Place(file, line)))
            break
    if not found and not problems:
        problems.append(_wrong(f"`{file}` holds no app", Place(file, 1)))
    if problems:
        raise DeclarationErrors(problems)
    return tuple(found.values())


def _values(text: str, file: str) -> Iterator[tuple[int, object]]:
    """Give each app with the line where it begins."""
    at, decoder = _after_blanks(text, 0), json.JSONDecoder()
    line, counted = 1, 0
    is_list = text[at : at + 1] == "["
    at = _after_blanks(text, at + 1) if is_list else at
    while at < len(text) and not (is_list and text[at] == "]"):
        line, counted = line + text.count("\n", counted, at), at
        try:
            value, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise DeclarationErrors(
                [_wrong(f"it is not JSON: {error.msg}", Place(file, error.lineno))]
            ) from None
        except (RecursionError, ValueError):
            why = "it is not JSON that anybody could mean: too deep, or a number too long"
            raise DeclarationErrors([_wrong(why, Place(file, line))]) from None
        inner = value.get("apps") if isinstance(value, dict) and "job_spec" not in value else None
        yield from ((line, one) for one in inner) if isinstance(inner, list) else ((line, value),)
        at = _after_blanks(text, at)
        if is_list and text[at : at + 1] not in {",", "]"}:
            line += text.count("\n", counted, at)
            raise DeclarationErrors(
                [_wrong("it is not JSON: the list breaks off", Place(file, line))]
            )
        if text[at : at + 1] == ",":
            at = _after_blanks(text, at + 1)


def _after_blanks(text: str, at: int) -> int:
    found = re.compile(r"[ \t\r\n\ufeff]*").match(text, at)
    return found.end() if found else at


def _app(value: object, place: Place, problems: list[DeclarationError]) -> _App | None:
    if not isinstance(value, dict):
        problems.append(_wrong("an app is an object with `name`, `job_spec` and more", place))
        return None
    name = value.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        why = "an app's `name` has lower-case letters, digits and dashes, 63 at most"
        problems.append(_wrong(why, place))
        return None
    before = len(problems)
    for key, why in _problems(value):
        problems.append(_wrong(f"app `{name}`: `{key}` {why}", place))
    if len(problems) > before:
        return None
    return _App(
        place.line or 1,
        name,
        value["repository_name"],
        value["job_spec"],
        value.get("image_source") or "ecr",
        value.get("auto_deploy") is True,
        value.get("auto_deploy_branch") or "master",
        value.get("env_template") or "",
    )


def _problems(value: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    spec, repository = value.get("job_spec"), value.get("repository_name")
    if not isinstance(spec, str) or not spec.strip():
        yield "job_spec", "is missing, or no text"
    elif len(spec) > _SPEC_CHARACTERS:
        yield "job_spec", f"is longer than {_SPEC_CHARACTERS:,} characters"
    elif (control := _CONTROL.search(spec)) is not None:
        line = spec.count("\n", 0, control.start()) + 1
        yield "job_spec", f"has a control character in its line {line}"
    if not isinstance(repository, str) or not _is_repository(repository):
        yield "repository_name", "is missing, or cannot be the name of an image's repository"
    if (value.get("image_source") or "ecr") not in _SOURCES:
        yield "image_source", "is neither `ecr` nor `dockerhub`"
    if not isinstance(value.get("auto_deploy") or False, bool):
        yield "auto_deploy", "is neither true nor false"
    branch = value.get("auto_deploy_branch") or "master"
    if not isinstance(branch, str) or not _BRANCH.fullmatch(branch):
        yield "auto_deploy_branch", "cannot be the name of a branch"
    template = value.get("env_template") or ""
    if not isinstance(template, str) or len(template) > _SPEC_CHARACTERS:
        yield "env_template", "is no text, or too long"


def _is_repository(text: str) -> bool:
    try:
        return parse_repository(f"registry.test/{text}").path == text
    except HandrailError:
        return False


def _wrong(why: str, place: Place) -> DeclarationError:
    return DeclarationError("deploys.import", why, at=place)
