"""Taking over apps that run already: as files of the team's repository, which declare them.

Rules:
- What is written is what runs: a specification is kept only where the platform, reading it back,
  finds what it runs already. The first deploy of it changes nothing.
- It can be deployed as it lies there, in the team's own repository; where the app has one of its
  own, the file is moved there, and `repository:` says so.
- Nothing that exists is overwritten, nothing that is declared is declared again, and nothing is
  written out of the repository.
- What looks like a secret in a specification is named with its line, and never shown.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from handrail.errors import DeclarationError, UsageError
from handrail.estate.shapes import NAME

if TYPE_CHECKING:
    from handrail.estate.model import Estate
    from handrail.kits.deploys.model import Running
    from handrail.kits.deploys.ports import Platform

INTO = "imported"
HERE = "."  # the repository that is the team's own
_AT_ONCE = 8
_LONGEST_NAME = 63
_MOST_FILES = 100
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_PAIR = re.compile(
    r"(?<![A-Za-z0-9_.-])(?P<name>[A-Za-z_][A-Za-z0-9_.-]{0,100})\\?[\"']?[ \t]{0,8}[=:]"
    r"[ \t]{0,8}\\?[\"']?(?P<value>[^\s\"'\\,}]{1,200})"
)
_SECRET_NAME = re.compile(
    r"passw(or)?d|secret|token|credential|api_?key|access_?key|private_?key|(_key|_pass|_pwd|dsn)$",
    re.IGNORECASE,
)
_REFERS = ("{{", "${", "$", "<", "[", "{", "true", "false", "null")
_SECRETS = {
    "an address with a password": re.compile(r"://[^\s/:@\"{}$]{0,100}:[^\s/@\"{}$]{1,200}@"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----"),
    "a key of Amazon": re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}(?![A-Z0-9])"),
    "a token of GitHub": re.compile(r"gh[pousr]_[A-Za-z0-9]{20,255}"),
    "a token of Vault": re.compile(r"(?<![A-Za-z0-9])hvs\.[A-Za-z0-9_-]{20,255}"),
}


@dataclass(frozen=True)
class Target:
    """Where to apps are taken over.

    Attributes:
        platform: that runs them: `platform/prod`.
        environment: that they are in; empty where the platform declares none.
        into: folder of the team's repository for their specifications.
    """

    platform: str
    environment: str = ""
    into: str = INTO

    def path(self, name: str, ending: str) -> str:
        """Return where an app's specification is written."""
        return f"{self.into}/{name}.{ending}" if self.into != "." else f"{name}.{ending}"


@dataclass(frozen=True)
class Imported:
    """One app that is taken over.

    Attributes:
        settings: as it is declared.
        path: of its specification, in the team's repository.
        notes: what people must know; one line each.
    """

    name: str
    settings: Mapping[str, object]
    path: str
    text: str = field(repr=False)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Import:
    """What is taken over, and what is not: its name, and why."""

    apps: tuple[Imported, ...]
    left: tuple[tuple[str, str], ...] = ()


def from_platform(platform: Platform, target: Target, estate: Estate) -> Import:
    """Take over what runs on a platform and no app declares. Changes nothing there.

    Raises:
        PlatformError: it does not answer.
    """
    known = declared_jobs(estate, target.platform)
    jobs = [job for job in platform.jobs() if job not in known]
    left = [(job, f"{ref} declares it") for job, ref in known.items()]
    running = _all_running(platform, jobs)
    taken = {one.name for one in estate.resources.values() if one.kind == "app"}
    apps: list[Imported] = []
    for job, now in zip(jobs, running, strict=True):
        found = "it ended meanwhile" if now is None else _taken(platform, target, now, taken)
        if isinstance(found, str):
            left.append((job, found))
        else:
            taken.add(found.name)
            apps.append(found)
    return Import(tuple(apps), tuple(sorted(left)))


def declared_jobs(estate: Estate, platform: str) -> Mapping[str, str]:
    """Return the jobs that apps declare on a platform, to those apps."""
    return {
        str(one.settings.get("job") or one.name): one.ref
        for one in estate.resources.values()
        if one.kind == "app" and one.settings.get("platform") == platform
    }


def declaration(found: Import, origin: str) -> str:
    """Return the file of the estate that declares the apps. Empty where there are none."""
    import yaml  # noqa: PLC0415  only an import writes YAML

    if not found.apps:
        return ""
    apps = {one.name: dict(one.settings) for one in found.apps}
    text = yaml.safe_dump({"apps": apps}, sort_keys=False, allow_unicode=True, width=100)
    return f"# Apps that were taken over from {origin}.\n{text}"


def write(root: Path, found: Import, origin: str) -> tuple[str, ...]:
    """Write specifications and declaration below `root`; return the files, the declaration last.

    All or none of them: where one is there already, nothing is written.

    Raises:
        UsageError: `deploys.import`: a file is there already, or would lie out of the repository.
    """
    if not found.apps:
        return ()
    files = {one.path: one.text for one in found.apps}
    files[_free(root)] = declaration(found, origin)
    for name in files:
        _refuse_unsafe(root, name)
    written: list[str] = []
    try:
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            with (root / name).open("x", encoding="utf-8", newline="") as file:
                written.append(name)
                file.write(text)
    except OSError as error:
        for name in written:
            (root / name).unlink(missing_ok=True)
        why = f"`{error.filename or root}` cannot be written: {error.strerror}"
        raise UsageError("deploys.import", why) from error
    return tuple(files)


def check_into(into: str) -> str:
    """Return the folder that specifications go to, as it is written in a declaration.

    Raises:
        UsageError: `deploys.import`: it is none of the repository.
    """
    path = PurePosixPath(into)
    if not into or path.is_absolute() or ".." in path.parts or not into.isprintable():
        raise UsageError(
            "deploys.import",
            f"`{into}` is no folder of the team's repository",
            hint="a path in it, such as deploy/apps",
        )
    return path.as_posix()


def app_name(job: str) -> str:
    """Return the name that an app gets from its job's: what a name cannot hold becomes a dash."""
    name = _NO_NAME.sub("-", job).strip("-._")[:_LONGEST_NAME]
    return name if NAME.fullmatch(name) else ""


def secrets_in(text: str, path: str) -> tuple[str, ...]:
    """Return a line for people for whatever looks like a secret; never the secret."""
    found = {f"{path}:{line} holds {what}" for what, line in secrets(text)}
    return tuple(
        f"{one}: take it out before you commit it" for one in sorted(found, key=_by_line)[:20]
    )


def _by_line(told: str) -> tuple[int, str]:
    number = told.partition(" ")[0].rpartition(":")[2]
    return (int(number), told)


def secrets(text: str) -> Iterator[tuple[str, int]]:
    """Yield what looks like a secret, in words and never itself, and its line."""
    for number, line in enumerate(text.split("\n"), 1):
        for pair in _PAIR.finditer(line):
            is_value = not pair["value"].lower().startswith(_REFERS)
            if is_value and _SECRET_NAME.search(pair["name"]):
                yield f"a value of {pair['name']}", number
        for what, pattern in _SECRETS.items():
            if pattern.search(line):
                yield what, number


def _all_running(platform: Platform, jobs: Sequence[str]) -> list[Running | None]:
    if not jobs:
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(jobs)), "handrail-import") as threads:
        return list(threads.map(platform.current, jobs))


def _taken(platform: Platform, target: Target, now: Running, taken: set[str]) -> Imported | str:
    """Return the app that a job becomes, or why it cannot."""
    job = now.spec.job
    name = app_name(job)
    if not name or name in taken:
        return f"there is an app `{name}` already" if name else "no app can have its name"
    path = target.path(name, "json")
    text = json.dumps(now.spec.body, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    try:
        read = platform.parse(text, path, {})
    except DeclarationError as error:
        return f"its platform does not read what it says itself: {error.message}"
    if read.body != now.spec.body or read.job != job:
        return "its platform reads something else in what it says itself"
    settings = base_settings(target, path) | ({"job": job} if job != name else {})
    return Imported(name, settings, path, text, secrets_in(text, path))


def base_settings(target: Target, path: str) -> dict[str, object]:
    """Return what an app declares whose specification lies in the team's own repository."""
    settings: dict[str, object] = {"repository": HERE, "spec": path, "platform": target.platform}
    return settings | ({"environment": target.environment} if target.environment else {})


def _free(root: Path) -> str:
    """Return a file of the estate that is not there yet."""
    for number in range(1, _MOST_FILES):
        name = "estate/apps.yaml" if number == 1 else f"estate/apps-imported-{number}.yaml"
        if not os.path.lexists(root / name):
            return name
    raise UsageError("deploys.import", "estate/ has imported files enough", hint="merge some")


def _refuse_unsafe(root: Path, name: str) -> None:
    if os.path.lexists(root / name):
        raise UsageError(
            "deploys.import",
            f"`{name}` is there already, and nothing is overwritten",
            hint="move it away, or choose another folder: --into DIR",
        )
    home = os.path.realpath(root)
    if not Path(os.path.realpath((root / name).parent)).is_relative_to(home):
        raise UsageError(
            "deploys.import", f"`{name}` would be written out of the repository, through a link"
        )
