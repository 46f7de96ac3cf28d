"""What people read of a deploy besides its effects. Pure.

Rules:
- What looks like a secret by its name, or stands in an address as a password, is not shown.
- Many lines are cut, and how many more there are is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from handrail.kits.deploys import changes, fates
from handrail.kits.deploys.changes import Before, Change
from handrail.kits.deploys.images import Chosen
from handrail.kits.deploys.model import Commit, DryRun, Running
from handrail.plans.model import Section

_MOST_LINES = 200
_MOST_COMMITS = 20
_SECRET = re.compile(
    r"(?i)((?:passw(?:or)?d|secret|token|credential|(?:_pass|_pwd|dsn)\b"
    r"|(?:api|access|private)[_-]?key)[^:]*: ).*"
)
_IN_ADDRESS = re.compile(r"(://[^\s/@:]*:)[^\s/@]+@")


def sections(
    dry: DryRun,
    drifted: Sequence[str],
    drifted_by: str,
    commits: Sequence[str],
    chosen: Sequence[str],
    running: Running | None,
    secrets: Sequence[str] = (),
) -> tuple[Section, ...]:
    """Return the sections of a plan in their order; those with nothing to say are left out."""
    found = (
        Section("drift", (f"not as it was deployed: {drifted_by}", *drifted) if drifted else ()),
        Section("spec", dry.diff),
        Section("dry run", fates.told(dry)),
        Section("commits", tuple(commits)),
        Section("images", tuple(chosen)),
        Section("health", (health(running),)),
        Section("secrets", tuple(secrets)),
    )
    return tuple(
        one if one.title == "secrets" else Section(one.title, shown(one.lines))
        for one in found
        if one.lines
    )


def shown(lines: Sequence[str]) -> tuple[str, ...]:
    """Return lines as they may be shown: without secrets, and not too many."""
    clean = tuple(masked(line) for line in lines[:_MOST_LINES])
    more = len(lines) - _MOST_LINES
    return (*clean, f"... and {more:,} more lines") if more > 0 else clean


def masked(line: str) -> str:
    """Return a line without what looks like a secret."""
    return _IN_ADDRESS.sub(r"\1***@", _SECRET.sub(r"\1***", line))


def health(running: Running | None) -> str:
    """Return how what runs is."""
    if running is None:
        return "nothing runs now"
    well, many = running.healthy
    return f"version {running.version} is {running.status}, {well} of {many} healthy"


def commit_lines(
    commit: Commit, since: Sequence[Commit] | None, deployed: str, reviewers: Sequence[str]
) -> tuple[str, ...]:
    """Return what a deploy brings since the commit that runs, newest first, and who reviewed it.

    Args:
        commit: that is deployed.
        since: the commits after the deployed one; None where that is unknown.
        deployed: the commit that runs; empty where nobody knows.
        reviewers: of `commit`.
    """
    by = f"reviewed by {', '.join(reviewers)}" if reviewers else "reviewed by nobody"
    head = f"{_line(commit)}; {by}"
    if commit.id == deployed:
        return (f"{head}; it runs already",)
    if not deployed:
        return (head, "since when is unknown: what runs was not deployed by Handrail")
    if not since:
        return (head, f"since when is unknown: {short(deployed)}, which runs, does not lead to it")
    lines = tuple(_line(one) for one in since[:_MOST_COMMITS] if one.id != commit.id)
    more = len(since) - _MOST_COMMITS
    return (head, *lines, *((f"... and {more} more",) if more > 0 else ()))


def image_lines(chosen: Chosen, before: Mapping[str, str]) -> tuple[str, ...]:
    """Return which image each task gets, and which it runs now.

    Args:
        chosen: what was resolved.
        before: task to the image that runs.
    """
    lines = []
    for task, image in chosen.images.items():
        named = f"{image.repository}{f':{image.tag}' if image.tag else ''}"
        old = before.get(task) or before.get(task.rpartition("/")[2], "")
        was = "as it runs" if old == image.pinned else f"runs {old}" if old else "new"
        lines.append(f"{task}: {named} -> {image.digest} ({was})")
    lines += [f"{task}: {kept}, as it is written" for task, kept in chosen.kept.items()]
    return (*lines, *(f"warning: {one}" for one in chosen.warnings))


def named_images(chosen: Chosen) -> dict[str, str]:
    """Return task to the image it gets, with its tag, for people."""
    named = {
        task: f"{one.repository}{f':{one.tag}' if one.tag else ''}@{one.digest}"
        for task, one in chosen.images.items()
    }
    return {**named, **chosen.kept}


def undo_said(change: Change, when: str) -> str:
    """Return what an undo will do; `when`: at what time what runs was deployed, where known."""
    if not change.changes:
        return "there is nothing to put back"
    if change.before is None:
        return "stops it: nothing ran before"
    return f"puts back {version_said(change.before, when)}"


def version_said(before: Before, when: str) -> str:
    """Return a version as people are told of it: `version 12, commit 9c01d44, deployed by ana`."""
    note = before.note
    commit = f", commit {short(note[changes.COMMIT])}" if note.get(changes.COMMIT) else ""
    by = f", deployed by {note[changes.PERSON]}" if note.get(changes.PERSON) else ""
    on = f" on {when[:10]}" if by and when else ""
    return f"version {before.version}{commit}{by}{on}"


def short(commit: str) -> str:
    """Return the beginning of a commit's id."""
    return commit[: changes.SHORT]


def _line(commit: Commit) -> str:
    return f"{short(commit.id)} {commit.when[:10]} {commit.name}: {commit.subject}"
