"""Python operations: `@operation(...)` on a typed function in `operations/*.py`.

    from handrail.operations.python import operation

    @operation(on={"store": {"environment": "pilot"}}, undo="restore")
    def trim_sessions(days: int = 30) -> None:
        '''Remove sessions older than so many days.'''

Rules:
- The decorator's arguments are literals: planning reads them from the syntax tree and runs nothing.
- Parameters are `int`, `str` or `bool`; the name is the function's with dashes; the summary is the
  first line of its docstring.
- The function runs in a process of its own, in the same environment as a script: same chain, same
  guards.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from handrail.errors import DeclarationError, DeclarationErrors, Place
from handrail.estate.loading import link_problem, read_text
from handrail.estate.shapes import Source
from handrail.operations.model import Operation
from handrail.operations.shapes import OPERATION

F = TypeVar("F", bound=Callable[..., object])
_TYPES = {"int": "int", "str": "text", "bool": "bool"}
_FORBIDDEN = {"operation", "run", "parameters", "summary"}


def operation(
    *,
    on: str | Mapping[str, Any],
    undo: str | Sequence[str] | Mapping[str, str],
    watch: Mapping[str, Any] | None = None,
    effects: Sequence[Mapping[str, Any]] = (),
    timeout: str = "1h",
    environment: Mapping[str, str] | None = None,
    uses: Sequence[str] = (),
    inherit: Sequence[str] = (),
    questions: Mapping[str, Mapping[str, Any]] | None = None,
    waves: Mapping[str, Any] | None = None,
) -> Callable[[F], F]:
    """Mark a function as an operation; the arguments are the keys of `operations/*.yaml`."""
    del on, undo, watch, effects, timeout, environment, uses, inherit, waves, questions

    def mark(function: F) -> F:
        return function

    return mark


def operation_of(function: Callable[..., object]) -> Operation:
    """Return the operation that a decorated function of an installed package is: for kits.

    Raises:
        DeclarationErrors: the decorator or the parameters cannot be read.
        TypeError: the function is not decorated, or has no source file.
    """
    file = inspect.getsourcefile(function)
    if file is None:
        raise TypeError(f"{function!r} has no source file")
    problems: list[DeclarationError] = []
    tree = ast.parse(Path(file).read_text(encoding="utf-8"), filename=file)
    found = [o for node in tree.body for o in _read_function(node, file, problems)]
    if problems:
        raise DeclarationErrors(problems)
    for one in found:
        if one.function == function.__name__:
            return replace(one, kit=function.__module__)
    raise TypeError(f"{function.__name__} is not marked with @operation")


def load_python(root: Path, folder: str, problems: list[DeclarationError]) -> Iterator[Operation]:
    """Yield the operations in the Python files below `root/folder`, running none of them."""
    for path in sorted((root / folder).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if (problem := link_problem(root, path)) is not None:
            problems.append(problem)
            continue
        source = Source(name)
        text = read_text(root, name, source)
        problems += source.problems
        for node in _parse(text, name, problems):
            yield from _read_function(node, name, problems)


def _parse(text: str, name: str, problems: list[DeclarationError]) -> list[ast.stmt]:
    try:
        return ast.parse(text, filename=name).body
    # What is nested too deep ends in any of the last three.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        at = Place(name, getattr(error, "lineno", None))
        said = f"not Python: {str(error) or 'nested too deep'}"
        problems.append(DeclarationError("operations.python", said, at=at))
        return []


def _read_function(
    node: ast.stmt, file: str, problems: list[DeclarationError]
) -> Iterator[Operation]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for decorator in node.decorator_list:
        called = decorator if isinstance(decorator, ast.Call) else None
        if _name(called.func if called else decorator) != "operation":
            continue
        if isinstance(node, ast.AsyncFunctionDef) or called is None:
            problems.append(_unreadable(node, file, "write `@operation(...)` on a plain `def`"))
            return
        found = _read_decorated(node, called, file, problems)
        if found is not None:
            yield found


def _unreadable(
    node: ast.FunctionDef | ast.AsyncFunctionDef, file: str, why: object
) -> DeclarationError:
    return DeclarationError(
        "operations.python",
        f"operation `{node.name}` cannot be read: {why}",
        at=Place(file, node.lineno),
        hint="write literals in the decorator, and int, str or bool parameters",
    )


def _read_decorated(
    node: ast.FunctionDef, decorator: ast.Call, file: str, problems: list[DeclarationError]
) -> Operation | None:
    try:
        keys = {str(k.arg): ast.literal_eval(k.value) for k in decorator.keywords}
        parameters = dict(_parameters(node))
        declared = {k: v for k, v in keys.items() if k not in _FORBIDDEN} | {
            "operation": node.name.replace("_", "-"),
            "summary": (ast.get_docstring(node) or node.name).splitlines()[0],
            "run": [file],
            "parameters": parameters,
        }
        # Not escaped: YAML reads a pair of JSON's escapes as two characters.
        root = yaml.compose(json.dumps(declared, ensure_ascii=False), yaml.SafeLoader)
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        problems.append(_unreadable(node, file, error))
        return None
    return _from_keys(root, node.name, Place(file, node.lineno), problems)


def _from_keys(
    root: yaml.Node | None, function: str, at: Place, problems: list[DeclarationError]
) -> Operation | None:
    """Read the keys through the one shape that YAML goes through; JSON is YAML."""
    source = Source(at.file)
    found: Operation | None = OPERATION.read(root, source) if root else None
    problems += [DeclarationError(p.code, p.message, at=at, hint=p.hint) for p in source.problems]
    if found is None:
        return None
    return replace(found, function=function, place=at)


def _parameters(node: ast.FunctionDef) -> Iterator[tuple[str, dict[str, Any]]]:
    arguments = node.args
    if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
        raise ValueError("*args, **kwargs and positional-only parameters have no names to give")
    plain = arguments.args + arguments.kwonlyargs
    missing = [None] * (len(arguments.args) - len(arguments.defaults))
    defaults = [*missing, *arguments.defaults, *arguments.kw_defaults]
    for argument, default in zip(plain, defaults, strict=True):
        annotation = _name(argument.annotation)
        kind = _TYPES.get(annotation)
        if kind is None:
            raise ValueError(f"parameter `{argument.arg}` must be int, str or bool")
        shape: dict[str, Any] = {"type": kind}
        if default is not None:
            value = ast.literal_eval(default)
            if type(value).__name__ != annotation:
                raise ValueError(f"the default of `{argument.arg}` is not {annotation}")
            shape["default"] = _text(value)
        yield argument.arg, shape


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _name(node: ast.expr | None) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def main(argv: Sequence[str]) -> None:
    """Run one Python operation in this process: FILE FUNCTION PARAMETERS-AS-JSON."""
    import importlib.util  # noqa: PLC0415  only the process that runs an operation needs it

    file, function, given = argv
    found = importlib.util.spec_from_file_location("operation", file)
    if found is None or found.loader is None:
        raise SystemExit(f"cannot import {file}")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    getattr(module, function)(**json.loads(given))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
