"""Reading operations from `operations/`: YAML files, and Python files without running them.

Rules:
- Planning never runs a team's code: a Python operation's decorator is read from its syntax tree.
- A script that nobody declared is an operation too, with the safest assumptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from handrail.errors import DeclarationError, DeclarationErrors, Place, UsageError
from handrail.estate.loading import read_text, yaml_files
from handrail.estate.model import Estate
from handrail.estate.shapes import Source, nearest, parse
from handrail.operations import questions
from handrail.operations.model import Operation, Parameter, Schedule, Selector, Undo, Watch
from handrail.operations.nodes import node_errors
from handrail.operations.shapes import OPERATION
from handrail.operations.targets import fitting, wave_errors

FOLDER = "operations"


def load(root: Path) -> dict[str, Operation]:
    """Return the operations declared below `root/operations`, by name.

    Raises:
        DeclarationErrors: with every problem of every file.
    """
    problems: list[DeclarationError] = []
    found: dict[str, Operation] = {}
    for path in yaml_files(root, FOLDER, problems):
        source = Source(path)
        node = parse(read_text(root, path, source), source)
        operation = OPERATION.read(node, source) if node is not None else None
        problems += source.problems
        _add(operation, found, problems)
    if any((root / FOLDER).rglob("*.py")):
        from handrail.operations.python import load_python  # noqa: PLC0415  few teams have any

        for operation in load_python(root, FOLDER, problems):
            _add(operation, found, problems)
    if problems:
        raise DeclarationErrors(problems)
    return found


def _add(
    operation: Operation | None, found: dict[str, Operation], problems: list[DeclarationError]
) -> None:
    if operation is None:
        return
    if operation.name in found:
        problems.append(
            DeclarationError(
                "estate.duplicate",
                f"operation `{operation.name}` is declared here and at "
                f"{found[operation.name].place}",
                at=operation.place,
            )
        )
    found[operation.name] = operation


def errors(operations: dict[str, Operation], estate: Estate, root: Path) -> list[DeclarationError]:
    """Return what is wrong between operations, estate and files."""
    found: list[DeclarationError] = []
    for operation in operations.values():
        if operation.act:
            continue  # a kit's own: it is no script, and its targets are of its kinds
        found += _target_errors(operation, estate)
        found += wave_errors(operation, estate)
        found += node_errors(operation, estate)
        found += _default_errors(operation)
        found += questions.errors(operation)
        found += _schedule_errors(operation, estate)
        found += _script_errors(operation.argv[0], operation, root)
        if operation.undo.kind == "script":
            found += _script_errors(operation.undo.argv[0], operation, root)
    return found


def _target_errors(operation: Operation, estate: Estate) -> list[DeclarationError]:
    on = operation.on
    found = []
    if on.kind != "store":
        found.append(
            DeclarationError(
                "operations.target",
                f"operation `{operation.name}` is for kind `{on.kind}`; a script runs on a `store`",
                at=operation.place,
            )
        )
    elif on.name and f"store/{on.name}" not in estate.resources:
        found.append(
            DeclarationError(
                "estate.unknown-store",
                f"operation `{operation.name}` targets unknown store `{on.name}`",
                at=operation.place,
                hint=nearest(on.name, [r.name for r in estate.stores.values()]),
            )
        )
    if on.environment and on.environment not in estate.environments:
        found.append(
            DeclarationError(
                "estate.unknown-environment",
                f"operation `{operation.name}` is for unknown environment `{on.environment}`",
                at=operation.place,
                hint=nearest(on.environment, tuple(estate.environments)),
            )
        )
    found += [
        DeclarationError(
            "estate.unknown-resource",
            f"operation `{operation.name}` watches unknown `{ref}`",
            at=operation.place,
            hint=nearest(ref, tuple(estate.resources)),
        )
        for ref in operation.watch.services
        if ref not in estate.resources
    ]
    found += [
        DeclarationError(
            "estate.unknown-store",
            f"operation `{operation.name}` also touches unknown store `{ref}`",
            at=operation.place,
            hint=nearest(ref, tuple(estate.stores)),
        )
        for ref in operation.also
        if ref not in estate.stores
    ]
    return found


def _default_errors(operation: Operation) -> Iterator[DeclarationError]:
    for parameter in operation.parameters:
        if parameter.default is not None and not _fits(parameter, parameter.default):
            yield DeclarationError(
                "operations.parameter",
                f"the default of parameter `{parameter.name}` must be {_wanted(parameter)}, not "
                f"`{parameter.default}`",
                at=operation.place,
            )


def _schedule_errors(operation: Operation, estate: Estate) -> Iterator[DeclarationError]:
    for schedule in operation.schedules:
        try:
            if schedule.cron:
                values(operation, dict(schedule.parameters))
        except UsageError as error:
            yield DeclarationError(
                error.code,
                f"a schedule of `{operation.name}`: {error.message}",
                at=schedule.place,
                hint=error.hint,
            )
        if schedule.on and schedule.on not in estate.stores:
            yield DeclarationError(
                "estate.unknown-store",
                f"a schedule of `{operation.name}` is for unknown store `{schedule.on}`",
                at=schedule.place,
                hint=nearest(schedule.on, tuple(estate.stores)),
            )
        elif schedule.cron and not schedule.on:
            yield from _unchosen(operation, schedule, estate)


def _unchosen(
    operation: Operation, schedule: Schedule, estate: Estate
) -> Iterator[DeclarationError]:
    """Yield that nobody will be there to choose a target."""
    fits = [one.ref for one in fitting(operation, estate)]
    if len(fits) > 1:
        yield DeclarationError(
            "operations.target",
            f"a schedule of `{operation.name}` fits {len(fits)} stores, and nobody is there to "
            "choose one",
            at=schedule.place,
            hint=f"on: {fits[0]}" if fits else "",
        )


def _script_errors(script: str, operation: Operation, root: Path) -> list[DeclarationError]:
    path = root / script
    at = operation.place
    if not operation.kit and not path.resolve().is_relative_to(root.resolve()):
        return [
            DeclarationError(
                "estate.outside",
                f"`{script}` leads out of the repository",
                at=at,
                hint="copy the script into the repository",
            )
        ]
    if not path.is_file():
        near = [p.relative_to(root).as_posix() for p in path.parent.glob("*") if p.is_file()]
        return [
            DeclarationError(
                "operations.script-missing",
                f"there is no `{script}`",
                at=at,
                hint=nearest(Path(script).as_posix(), near) if near else "",
            )
        ]
    if not operation.function and not path.stat().st_mode & 0o111:
        return [
            DeclarationError(
                "operations.script-not-executable",
                f"`{script}` may not be executed",
                at=at,
                hint=f"chmod +x {script}",
            )
        ]
    return []


def undeclared(script: str, root: Path, target: str) -> Operation:
    """Return an operation for a script that nobody declared, as `handrail rehearse ./x.sh` needs.

    Raises:
        UsageError: there is no such file, or it may not be executed.
    """
    path = (Path.cwd() / script).resolve()
    name = path.name
    relative = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    if not path.is_file():
        raise UsageError("operations.script-missing", f"there is no script `{script}`")
    if not path.stat().st_mode & 0o111:
        raise UsageError(
            "operations.script-not-executable",
            f"`{script}` may not be executed",
            hint=f"chmod +x {script}",
        )
    kind, _, target_name = target.partition("/")
    return Operation(
        name=name,
        argv=(relative,),
        on=Selector(kind, target_name),
        undo=Undo("restore"),
        watch=Watch(soak_s=0),
        place=Place(relative),
        declared=False,
    )


def values(operation: Operation, given: dict[str, str]) -> dict[str, str]:
    """Return every parameter's value as text: what was given, else its default.

    And the answers that were given beforehand: those questions are not asked.

    Raises:
        UsageError: unknown, missing, or of another type.
    """
    known = {parameter.name: parameter for parameter in operation.parameters}
    asked = {question.name: question for question in operation.questions if question.name in given}
    for name in given:
        if name not in known and name not in asked:
            raise UsageError(
                "operations.parameter",
                f"operation `{operation.name}` has no parameter `{name}`",
                at=operation.place,
                hint=nearest(name, tuple(known)),
            )
    found = {}
    for name, parameter in known.items():
        value = given.get(name, parameter.default)
        if value is None:
            raise UsageError(
                "operations.parameter",
                f"parameter `{name}` must be given",
                at=operation.place,
                hint=f"-p {name}=...",
            )
        found[name] = _typed(parameter, value, operation)
    for name, question in asked.items():
        found[name] = questions.insist(question, given[name], operation.place)
    return found


def _typed(parameter: Parameter, value: str, operation: Operation) -> str:
    if not _fits(parameter, value):
        raise UsageError(
            "operations.parameter",
            f"parameter `{parameter.name}` must be {_wanted(parameter)}, not `{value}`",
            at=operation.place,
        )
    return value


def _fits(parameter: Parameter, value: str) -> bool:
    digits = value.removeprefix("-")
    return {
        "int": digits.isascii() and digits.isdigit(),
        "bool": value in {"true", "false"},
        "choice": value in parameter.choices,
        "text": "\0" not in value,
    }[parameter.type]


def _wanted(parameter: Parameter) -> str:
    return "one of " + ", ".join(parameter.choices) if parameter.choices else parameter.type
