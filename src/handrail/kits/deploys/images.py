"""Which image each task gets, resolved to digests: fixed when it is planned, deployed as planned.

Rules:
- `--image` counts before what the app declares, and that before the specification. An image is set
  for the task that it is named for, and for no other.
- Who asked for an image, or declared it, is told when there is none. An image that only the
  specification names is fixed to its digest where a registry answers for it; else it stays as it
  is written, with a warning: it may lie on the machines already, or hold what only they know
  (`${meta.image}`).
- `{commit}`, `{short}` and `{branch}` stand in a tag alone: a branch's name chooses no registry.
- Each different name is asked for once, several at a time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from handrail.errors import HandrailError, PlatformError, UsageError
from handrail.estate.shapes import nearest
from handrail.kits.deploys.model import Image
from handrail.kits.deploys.references import parse

if TYPE_CHECKING:
    from handrail.kits.deploys.model import Spec
    from handrail.kits.deploys.ports import Registry

By = Literal["asked", "declared", "specification"]
SHORT = 7
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_NO_TAG = re.compile(r"[^A-Za-z0-9_.-]+")
_TAG_BEGINS = re.compile(r"^[.-]+")
_LONGEST_TAG = 128
_AT_ONCE = 8
_UNKNOWABLE = "only the machine that runs it knows what it means"


@dataclass(frozen=True)
class Wanted:
    """The image that a task is to get, as it was named, and who named it."""

    task: str
    reference: str
    by: By


@dataclass(frozen=True)
class Chosen:
    """The images of one deploy.

    Attributes:
        images: task (`group/task`) to the image that it gets, by digest.
        kept: task to the image that stays as the specification writes it.
        warnings: why those stay; one line a task, for people.
    """

    images: Mapping[str, Image] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def pins(self) -> Mapping[str, str]:
        """What `Platform.with_images` is given: task to a name with a digest."""
        return {task: image.pinned for task, image in self.images.items()}


@dataclass(frozen=True)
class Words:
    """What the placeholders of an image's tag mean.

    Attributes:
        commit: its whole id.
        branch: or tag, as it was asked for; empty where a commit was.
    """

    commit: str
    branch: str = ""


def read_asked(text: str) -> Mapping[str, str]:
    """Return the images of the parameter `images`, by task: `web=ghcr.io/team/shop:1,job=...`.

    Raises:
        UsageError: a pair is none, or a task is there twice.
    """
    found: dict[str, str] = {}
    for pair in filter(None, (one.strip() for one in text.split(","))):
        task, equals, reference = (part.strip() for part in pair.partition("="))
        if not (task and equals and reference):
            raise UsageError(
                "image.unknown", f"`{pair}` is not TASK=IMAGE", hint="as web=ghcr.io/team/shop:1.4"
            )
        if found.setdefault(task, reference) != reference:
            raise UsageError("image.unknown", f"two images are asked for task `{task}`")
    return found


def task_of(spec: Spec, name: str) -> str:
    """Return the task (`group/task`) that `name` means in a specification.

    Raises:
        UsageError: `deploys.unknown-task`: there is none, or more than one.
    """
    if name in spec.tasks:
        return name
    meant = [task for task in spec.tasks if task.rpartition("/")[2] == name]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise UsageError(
            "deploys.unknown-task",
            f"`{name}` means {len(meant)} tasks of {spec.job}",
            hint=f"name one: {', '.join(meant)}",
        )
    near = nearest(name, [*spec.tasks, *(task.rpartition("/")[2] for task in spec.tasks)])
    raise UsageError(
        "deploys.unknown-task",
        f"{spec.job} has no task `{name}`",
        hint=near or f"it has {', '.join(spec.tasks) or 'none'}",
    )


def wanted(
    spec: Spec, declared: Mapping[str, str], asked: Mapping[str, str], words: Words
) -> tuple[Wanted, ...]:
    """Return the image that each task is to get, in the order of the tasks. Pure.

    Args:
        spec: as it stands at the commit.
        declared: the app's `images`: task to a name with placeholders.
        asked: task to a name; `:1.4` alone is another tag of the declared or written image.
        words: what placeholders mean.

    Raises:
        UsageError: no such task (`deploys.unknown-task`), or a name that cannot be one.
    """
    found = {task_of(spec, name): Wanted("", one, "specification") for name, one in _own(spec)}
    for name, template in declared.items():
        found[task_of(spec, name)] = Wanted("", _filled(name, template, words), "declared")
    for name, given in _asked(spec, asked).items():
        known = found.get(name)
        found[name] = Wanted("", _whole(given, known), "asked")
    return tuple(
        Wanted(task, found[task].reference, found[task].by) for task in spec.tasks if task in found
    )


def choose(
    spec: Spec,
    declared: Mapping[str, str],
    asked: Mapping[str, str],
    words: Words,
    registry: Registry,
) -> Chosen:
    """Return the image that each task gets; see `wanted` for the arguments.

    Raises:
        UsageError: as `wanted`; `image.unknown` where one that was asked for or declared is not
            there.
        PlatformError: the registry does not answer for one of those.
    """
    tasks = wanted(spec, declared, asked, words)
    answers = _answers([one.reference for one in tasks if not _stays(one)], registry)
    images: dict[str, Image] = {}
    kept: dict[str, str] = {}
    warnings: list[str] = []
    for one in tasks:
        answer = answers.get(one.reference)
        if isinstance(answer, Image) and not _stays(one):
            images[one.task] = answer
            continue
        if isinstance(answer, HandrailError) and one.by != "specification":
            raise answer
        kept[one.task] = one.reference
        if not _is_fixed(one.reference):
            why = answer.message if isinstance(answer, HandrailError) else _UNKNOWABLE
            warnings.append(f"{one.task} keeps {one.reference}: {why}")
    return Chosen(images, kept, tuple(warnings))


def _stays(one: Wanted) -> bool:
    """Whether no registry need be asked: the specification fixed it, or only a machine knows it."""
    return one.by == "specification" and ("${" in one.reference or _is_fixed(one.reference))


def _is_fixed(reference: str) -> bool:
    return "@sha256:" in reference or "@sha512:" in reference


def _own(spec: Spec) -> list[tuple[str, str]]:
    return [(name, image) for name, image in spec.images.items() if image]


def _asked(spec: Spec, asked: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, reference in asked.items():
        task = task_of(spec, name)
        if found.setdefault(task, reference) != reference:
            raise UsageError("image.unknown", f"two images are asked for task `{task}`")
    return found


def _whole(given: str, known: Wanted | None) -> str:
    """Return a name that was asked for; a tag or digest alone is one of the image known so far."""
    if given[:1] not in {":", "@"}:
        parse(given)
        return given
    if known is None:
        raise UsageError(
            "image.unknown", f"`{given}` is no whole name, and the task names no image so far"
        )
    whole = f"{parse(known.reference).repository}{given}"
    parse(whole)
    return whole


def offered(
    declared: Mapping[str, str], branch: str, registry: Registry
) -> Mapping[str, tuple[Image, ...]]:
    """Return what each declared task could be given: tags that hold the branch, the newest first.

    Args:
        declared: task to image, as an app declares them.
        branch: empty for every tag.
        registry: of the images.

    Raises:
        UsageError, PlatformError: as `Registry.tags`.
    """
    found = {}
    for task, template in declared.items():
        repository = parse(_PLACEHOLDER.sub("x", template)).repository
        found[task] = tuple(registry.tags(repository, _as_tag(branch)))
    return found


def _as_tag(branch: str) -> str:
    """Return how a branch is called in a tag."""
    return _TAG_BEGINS.sub("", _NO_TAG.sub("-", branch))[:_LONGEST_TAG]


def _filled(task: str, template: str, words: Words) -> str:
    repository, _, tag = template.rpartition(":")
    if not repository or "/" in tag or _PLACEHOLDER.search(repository):
        if _PLACEHOLDER.search(template):
            why = f"the image of task `{task}` has a placeholder outside of its tag: `{template}`"
            raise UsageError("image.unknown", why, hint="as ghcr.io/team/shop:{commit}")
        parse(template)
        return template
    filled = f"{repository}:{_PLACEHOLDER.sub(lambda word: _word(word[1], task, words), tag)}"
    parse(filled)
    return filled


def _word(name: str, task: str, words: Words) -> str:
    match name:
        case "commit":
            return words.commit
        case "short":
            return words.commit[:SHORT]
        case "branch" if words.branch:
            return _as_tag(words.branch)
        case "branch":
            raise UsageError(
                "image.unknown",
                f"the image of task `{task}` is named after a branch, and none was asked for",
                hint="deploy a branch, or name the image: --image TASK=IMAGE",
            )
        case _:
            raise UsageError(
                "image.unknown",
                f"the image of task `{task}` has an unknown placeholder `{{{name}}}`",
                hint="there are {commit}, {short} and {branch}",
            )


def _answers(names: Sequence[str], registry: Registry) -> Mapping[str, Image | HandrailError]:
    """Return what each name means, or why that is not known."""
    different = sorted(set(names))
    if not different:
        return {}
    with ThreadPoolExecutor(min(_AT_ONCE, len(different)), "handrail-images") as threads:
        found = threads.map(lambda name: _answer(name, registry), different)
        return dict(zip(different, found, strict=True))


def _answer(reference: str, registry: Registry) -> Image | HandrailError:
    try:
        return registry.resolve(reference)
    except (UsageError, PlatformError) as error:
        return error
