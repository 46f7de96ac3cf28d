"""Reading the estate from `estate/*.yaml`: the edge where files become values.

Rules:
- Only regular files inside the repository are read; a symbolic link out of it is an error.
- Every problem of every file is reported, not only the first.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from handrail.errors import DeclarationError, DeclarationErrors, Place
from handrail.estate.kinds import ENVIRONMENTS, kinds, unknown_section
from handrail.estate.model import Environment, Estate, Resource
from handrail.estate.shapes import SIZE_LIMIT_BYTES, Key, Source, pairs, parse

FOLDER = "estate"


def load(root: Path, extra_kinds: Mapping[str, Mapping[str, Key]] | None = None) -> Estate:
    """Return the estate declared in `root/estate`.

    Empty when there is no such folder: Handrail works on machines that never saw an estate.

    Raises:
        DeclarationErrors: with every problem of shape, in the order of the files.
    """
    problems: list[DeclarationError] = []
    environments: dict[str, Environment] = {}
    resources: dict[str, Resource] = {}
    sections = kinds(extra_kinds)
    with _no_collection():
        for path in yaml_files(root, FOLDER, problems):
            source = Source(path)
            text = read_text(root, path, source)
            _read_file(text, source, sections, environments, resources)
            problems += source.problems
    if problems:
        raise DeclarationErrors(problems)
    return Estate(environments, resources)


def yaml_files(root: Path, folder: str, problems: list[DeclarationError]) -> Iterator[str]:
    """Yield the YAML files below `root/folder` as paths relative to `root`, sorted."""
    top = root / folder
    if not top.is_dir():
        return
    if (problem := link_problem(root, top)) is not None:
        problems.append(problem)
        return
    for path in sorted(top.rglob("*")):
        is_yaml = path.suffix in {".yaml", ".yml"} and not path.name.startswith(".")
        name = path.relative_to(root).as_posix()
        if (is_yaml or path.is_dir()) and (problem := link_problem(root, path)) is not None:
            problems.append(problem)
        elif is_yaml and path.is_file():
            yield name
        elif is_yaml and not path.is_dir():
            problems.append(
                DeclarationError("estate.unreadable", f"`{name}` is no file", at=Place(name))
            )


def link_problem(root: Path, path: Path) -> DeclarationError | None:
    """Return why a symbolic link is not followed; None for one to a file, and for what is none."""
    if not path.is_symlink():
        return None
    name = path.relative_to(root).as_posix()
    # Not `Path.resolve`: it raises where links go in a circle.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        said, hint = "leads out of the repository", "put the file itself here, not a link"
    elif path.is_dir():
        said, hint = "is a link to a folder", "put the folder itself here, not a link"
    else:
        return None
    return DeclarationError("estate.outside", f"`{name}` {said}", at=Place(name), hint=hint)


def read_text(root: Path, name: str, source: Source) -> str:
    """Return a file's text; empty, with a problem in `source`, when it cannot be had."""
    data = b""
    try:
        with (root / name).open("rb") as file:
            data = file.read(SIZE_LIMIT_BYTES + 1)
        if len(data) <= SIZE_LIMIT_BYTES:
            return data.decode("utf-8")
        code, said, line = "estate.too-large", f"larger than {SIZE_LIMIT_BYTES:,} bytes", None
    except UnicodeDecodeError as error:
        code, said = "estate.syntax", "not UTF-8 text"
        line = data[: error.start].count(b"\n") + 1
    except OSError as error:
        code, said, line = "estate.unreadable", f"cannot be read: {error.strerror}", None
    source.problems.append(DeclarationError(code, said, at=Place(name, line)))
    return ""


def _read_file(
    text: str,
    source: Source,
    sections: Mapping[str, Any],
    environments: dict[str, Environment],
    resources: dict[str, Resource],
) -> None:
    root = parse(text, source)
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        source.problem("estate.wrong-type", "expected sections such as `stores:`", root)
        return
    for key, value in pairs(root, source):
        if key.value == "environments":
            _merge(ENVIRONMENTS.read(value, source), environments, source)
        elif key.value in sections:
            found = sections[key.value].read(value, source)
            _merge_resources(
                [named(name) for name, named in (found or {}).items()], resources, source
            )
        else:
            source.problem(
                "estate.unknown-key",
                f"unknown section `{key.value}`",
                key,
                unknown_section(key.value, {**sections, "environments": None}),
            )


def _merge(
    found: Mapping[str, Environment] | None, into: dict[str, Environment], source: Source
) -> None:
    for name, environment in (found or {}).items():
        if name in into:
            source.problems.append(
                _duplicate(f"environment `{name}`", environment.place, into[name].place)
            )
        into[name] = replace(environment, name=name)


def _merge_resources(found: list[Resource], into: dict[str, Resource], source: Source) -> None:
    for resource in found:
        ref = resource.ref
        if ref in into:
            source.problems.append(_duplicate(f"`{ref}`", resource.place, into[ref].place))
        into[ref] = resource


def _duplicate(what: str, here: Place, there: Place) -> DeclarationError:
    return DeclarationError("estate.duplicate", f"{what} is declared here and at {there}", at=here)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Reading makes many values and no garbage; the collector would walk them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
