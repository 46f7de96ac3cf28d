"""Python operations: read from their text, never by running them."""

from __future__ import annotations

from pathlib import Path

import pytest

from handrail.operations.model import Operation, Parameter, Selector, Undo, Watch
from support.declarations import STORE, problems, read, told, write

HEAD = "from handrail.operations.python import operation\n\n"
MARK = "@operation(on='store/pilot-db', undo='restore')\n"


def repository(root: Path, text: str) -> Path:
    return write(root, {"estate/a.yaml": STORE, "operations/trim.py": HEAD + text})


def read_one(root: Path, text: str) -> Operation:
    (found,) = read(repository(root, text)).operations.values()
    return found


def test_a_function_is_an_operation(tmp_path: Path) -> None:
    """Name, summary, parameters and declaration come from the function and its decorator."""
    found = read_one(
        tmp_path,
        "@operation(on='store/pilot-db', undo={'irreversible': 'gone'}, watch={'soak': '5m'},\n"
        "           timeout='2m', effects=[{'delete': 'table sessions', 'rows': 5}])\n"
        "def trim_sessions(days: int, *, dry: bool = True, who: str = 'all') -> None:\n"
        "    '''Remove old sessions.\n\n    More.\n    '''\n",
    )
    assert (found.name, found.function) == ("trim-sessions", "trim_sessions")
    assert (found.summary, found.argv) == ("Remove old sessions.", ("operations/trim.py",))
    assert str(found.place) == "operations/trim.py:5"
    assert found.on == Selector("store", "pilot-db")
    assert found.undo == Undo("irreversible", reason="gone")
    assert (found.watch, found.timeout_s) == (Watch(soak_s=300), 120)
    assert found.effects[0].rows == 5
    assert found.parameters == (
        Parameter("days", "int"),
        Parameter("dry", "bool", "true"),
        Parameter("who", "text", "all"),
    )


def test_reading_runs_nothing(tmp_path: Path) -> None:
    """A module that would write a file when it is imported writes none when it is read."""
    trap = tmp_path / "sprung"
    found = read_one(
        tmp_path,
        f"import pathlib\npathlib.Path({str(trap)!r}).touch()\n"
        f"raise SystemExit(1)\n{MARK}def trim() -> None: ...\n",
    )
    assert found.name == "trim"
    assert not trap.exists()


@pytest.mark.parametrize(
    "text",
    [
        "@operation(on=TARGET, undo='restore')\ndef trim() -> None: ...\n",
        "@operation(on='store/' + NAME, undo='restore')\ndef trim() -> None: ...\n",
        "@operation(on=f'store/{1}', undo='restore')\ndef trim() -> None: ...\n",
        "@operation(on=open('x').read(), undo='restore')\ndef trim() -> None: ...\n",
        "@operation(**KEYS)\ndef trim() -> None: ...\n",
        "@operation(on={'store/a'}, undo='restore')\ndef trim() -> None: ...\n",
        "@operation(on=b'store/a', undo='restore')\ndef trim() -> None: ...\n",
        "@operation(on='\\ud800', undo='restore')\ndef trim() -> None: ...\n",
        f"{MARK}def trim(days) -> None: ...\n",
        f"{MARK}def trim(days: float) -> None: ...\n",
        f"{MARK}def trim(days: int = DAYS) -> None: ...\n",
        f"{MARK}def trim(days: int = 'many') -> None: ...\n",
        f"{MARK}def trim(who: str = None) -> None: ...\n",
        f"{MARK}def trim(*days: int) -> None: ...\n",
        f"{MARK}def trim(**days: int) -> None: ...\n",
        f"{MARK}def trim(days: int, /) -> None: ...\n",
        f"{MARK}async def trim() -> None: ...\n",
        "@operation\ndef trim() -> None: ...\n",
    ],
)
def test_what_cannot_be_read_without_running_is_refused(tmp_path: Path, text: str) -> None:
    """Names, calls, other types and unnamed parameters are errors with the function's line."""
    (problem,) = problems(repository(tmp_path, text))
    assert (problem.code, str(problem.at)) == ("operations.python", "operations/trim.py:4")
    assert "`trim`" in problem.message
    assert problem.hint


def test_a_wrong_key_is_told_like_in_yaml(tmp_path: Path) -> None:
    """The decorator's arguments are the keys of `operations/*.yaml`, with the same errors."""
    text = "@operation(on='store/pilot-db', undo='restore', timeot='1h')\ndef trim() -> None: ...\n"
    (problem,) = problems(repository(tmp_path, text))
    assert (problem.code, problem.hint) == ("estate.unknown-key", "did you mean `timeout`?")
    assert str(problem.at) == "operations/trim.py:4"


def test_text_beyond_ascii_is_read(tmp_path: Path) -> None:
    """A docstring may hold any letter, also one beyond the first 65,536."""
    found = read_one(tmp_path, f"{MARK}def trim() -> None:\n    '''Räumt auf \U0001f9f9.'''\n")
    assert found.summary == "Räumt auf \U0001f9f9."


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("def trim(:\n", 3),
        ("x = '" + "\n", 3),
        ("\0", None),
        ("x = " + "(" * 300 + ")" * 300, 3),
        ("x = " + "-" * 200_000 + "1", None),
        ("x = a" + ".a" * 200_000, None),
    ],
    ids=["syntax", "open quote", "nul", "parentheses", "signs", "attributes"],
)
def test_what_is_not_python_is_told(tmp_path: Path, text: str, line: int | None) -> None:
    """A syntax error has its line; what is nested too deep is an error and not a crash."""
    place = "operations/trim.py" if line is None else f"operations/trim.py:{line}"
    assert told(repository(tmp_path, text)) == [f"operations.python {place}"]


def test_functions_without_the_mark_are_no_operations(tmp_path: Path) -> None:
    """What is not marked, or marked with something else, is left alone."""
    text = "import functools\n\ndef a() -> None: ...\n\n@functools.cache\ndef b() -> None: ...\n"
    assert read(repository(tmp_path, text)).operations == {}


def test_a_python_operation_and_a_yaml_one_cannot_share_a_name(tmp_path: Path) -> None:
    """One name, one operation, whatever it is written in."""
    write(
        repository(tmp_path, f"{MARK}def trim() -> None: ...\n"),
        {
            "operations/trim.yaml": "operation: trim\nrun: scripts/a.sh\n"
            "on: store/pilot-db\nundo: restore\n",
            "scripts/a.sh": "#!/bin/sh\n",
        },
    )
    assert told(tmp_path) == ["estate.duplicate operations/trim.py:4"]


def test_a_python_operation_need_not_be_executable(tmp_path: Path) -> None:
    """Python runs it: the file itself is never executed."""
    repository(tmp_path, f"{MARK}def trim() -> None: ...\n")
    assert not (tmp_path / "operations/trim.py").stat().st_mode & 0o111
    assert problems(tmp_path) == ()
