"""Files made to harm: they end in an error with a place, never in a crash or in silence."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from handrail.errors import DeclarationErrors, render
from handrail.estate.shapes import SIZE_LIMIT_BYTES
from support.declarations import STORE, problems, read, told, write

DEEP = 200_000
DEADLINE_S = 60


def check(root: Path) -> dict[str, list[dict[str, object]]]:
    """Run `handrail check --json` in a process of its own: a crash is no exception."""
    done = subprocess.run(
        [sys.executable, "-m", "handrail", "check", "--json", "--root", str(root)],
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, b"")
    found: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
    return found


BOMBS = {
    "flow lists": "[" * DEEP,
    "flow lists that end": "[" * DEEP + "]" * DEEP,
    "flow mappings": "{a: " * DEEP,
    "block lists": "- " * DEEP + "a",
    "block lists with tabs": "-\t" * DEEP + "a",
    "complex keys": "? " * DEEP + "a",
    "lists in mappings": "[{a: " * (DEEP // 2),
    "many lines": "stores:\n  a:\n" + "    - [\n" * (DEEP // 2),
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_deep_nesting_does_not_end_the_process(tmp_path: Path, text: str) -> None:
    """200,000 levels are one error with a line, where the C parser alone would end the process."""
    found = check(write(tmp_path, {"estate/bomb.yaml": text}))
    (error,) = found["errors"]
    assert error["code"] in {"estate.too-large", "estate.syntax"}
    assert error["file"] == "estate/bomb.yaml"
    assert isinstance(error["line"], int)


def test_deep_indentation_does_not_end_the_process(tmp_path: Path) -> None:
    """As many levels by indentation as fit into a file are one error or one per level, no crash."""
    text = "".join(f"{' ' * depth}a:\n" for depth in range(2800))
    assert len(text) < SIZE_LIMIT_BYTES
    found = check(write(tmp_path, {"estate/bomb.yaml": text}))
    assert {error["file"] for error in found["errors"]} == {"estate/bomb.yaml"}


def test_an_alias_bomb_does_not_grow(tmp_path: Path) -> None:
    """Ten levels of ten aliases, ten thousand million values, are refused where they begin."""
    names = "abcdefghij"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{later}: &{later} [{', '.join([f'*{earlier}'] * 10)}]"
        for earlier, later in itertools.pairwise(names)
    ]
    found = check(write(tmp_path, {"estate/bomb.yaml": "\n".join(lines)}))
    assert [error["line"] for error in found["errors"]] == list(range(1, 11))


def test_an_alias_bomb_in_a_known_place_is_refused(tmp_path: Path) -> None:
    """An alias of a list is an error where a list is wanted, too."""
    text = STORE + "    checks: &a [http://a]\n    needs: *a\n"
    assert "estate.syntax estate/a.yaml:5" in told(write(tmp_path, {"estate/a.yaml": text}))


def test_an_alias_of_itself_ends(tmp_path: Path) -> None:
    """A list that holds itself is an error, not an endless walk."""
    text = STORE + "    checks: &a [*a]\n"
    assert told(write(tmp_path, {"estate/a.yaml": text})) != []


def test_a_file_of_another_encoding_is_told_with_its_line(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are an error at their line."""
    path = write(tmp_path, {"estate/a.yaml": ""}) / "estate/a.yaml"
    path.write_bytes(b"sites:\n  here:\n    summary: caf\xe9\n")
    assert told(tmp_path) == ["estate.syntax estate/a.yaml:3"]


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """An editor that writes one does no harm."""
    path = write(tmp_path, {"estate/a.yaml": ""}) / "estate/a.yaml"
    path.write_bytes("\ufeffsites: {here: {}}\n".encode())
    assert list(read(tmp_path).estate.resources) == ["site/here"]


@pytest.mark.parametrize("letter", ["a", "é", "\U0001f4a5"])
def test_a_file_larger_than_the_limit_is_not_read_in_part(tmp_path: Path, letter: str) -> None:
    """What is beyond 4 MiB, in bytes, is refused: half a declaration says something else."""
    half = "sites: {here: {}}\n#"
    text = half + letter * (SIZE_LIMIT_BYTES // len(letter.encode()) + 1)
    assert told(write(tmp_path, {"estate/a.yaml": text})) == ["estate.too-large estate/a.yaml"]


def test_a_file_of_just_the_limit_is_read(tmp_path: Path) -> None:
    """4 MiB to the byte are allowed."""
    half = "sites: {here: {}}\n#"
    write(tmp_path, {"estate/a.yaml": half + "a" * (SIZE_LIMIT_BYTES - len(half))})
    assert list(read(tmp_path).estate.resources) == ["site/here"]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder with declarations beside the repository."""
    write(tmp_path / "outside", {"estate/a.yaml": "sites: {here: {}}\n", "policy.yaml": "{}\n"})
    (tmp_path / "repository").mkdir()
    return tmp_path / "outside"


@pytest.mark.parametrize("folder", ["estate", "operations"])
def test_a_link_to_a_file_outside_is_refused(outside: Path, folder: str) -> None:
    """A declaration comes from the repository, where it is reviewed."""
    root = outside.parent / "repository"
    (root / folder).mkdir()
    (root / folder / "a.yaml").symlink_to(outside / "estate/a.yaml")
    assert told(root) == [f"estate.outside {folder}/a.yaml"]


def test_a_python_file_outside_is_refused(outside: Path) -> None:
    """A link to a Python file outside of the repository is refused like any other."""
    write(outside, {"o.py": ""})
    root = outside.parent / "repository"
    (root / "operations").mkdir()
    (root / "operations/o.py").symlink_to(outside / "o.py")
    assert told(root) == ["estate.outside operations/o.py"]


def test_a_link_to_a_folder_outside_is_refused(outside: Path) -> None:
    """Neither the whole of `estate` nor a folder in it may be somewhere else."""
    root = outside.parent / "repository"
    (root / "estate").symlink_to(outside / "estate")
    assert told(root) == ["estate.outside estate"]
    (root / "estate").unlink()
    (root / "estate").mkdir()
    (root / "estate/more").symlink_to(outside / "estate")
    assert told(root) == ["estate.outside estate/more"]


def test_a_policy_outside_is_refused(outside: Path) -> None:
    """A policy that lies elsewhere is no part of a commit."""
    root = outside.parent / "repository"
    (root / "policy.yaml").symlink_to(outside / "policy.yaml")
    assert told(root) == ["estate.outside policy.yaml"]


def test_a_link_to_a_folder_inside_is_told(tmp_path: Path) -> None:
    """It would not be read: silence would hide what somebody believes to be declared."""
    write(tmp_path, {"shared/a.yaml": "sites: {here: {}}\n", "estate/b.yaml": "{}\n"})
    (tmp_path / "estate/shared").symlink_to("../shared")
    assert told(tmp_path) == ["estate.outside estate/shared"]


def test_a_link_to_a_file_inside_is_read(tmp_path: Path) -> None:
    """A link that stays in the repository is a file."""
    write(tmp_path, {"shared/a.yaml": "sites: {here: {}}\n", "estate/b.yaml": "{}\n"})
    (tmp_path / "estate/a.yaml").symlink_to("../shared/a.yaml")
    assert list(read(tmp_path).estate.resources) == ["site/here"]


def test_links_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    """A link to nothing, and one to itself, are errors, not absences."""
    (tmp_path / "estate").mkdir()
    (tmp_path / "estate/a.yaml").symlink_to("nothing.yaml")
    (tmp_path / "estate/b.yaml").symlink_to("b.yaml")
    assert told(tmp_path) == ["estate.unreadable estate/a.yaml", "estate.unreadable estate/b.yaml"]


def test_what_is_no_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    """Nobody waits for the other end of a pipe."""
    (tmp_path / "estate").mkdir()
    os.mkfifo(tmp_path / "estate/a.yaml")
    assert told(tmp_path) == ["estate.unreadable estate/a.yaml"]


NAMES = {
    "a line end": ("a\\nerror[plan.refused]: b", "\\n"),
    "an escape code": ("\\e[2J", "\\x1b"),
    "a bidirectional override": ("\\u202Egnp", "\\u202e"),
    "a zero-width space": ("a\\u200Bb", "\\u200b"),
    "a C1 control": ("\\x9B31m", "\\x9b"),
    "a carriage return": ("a\\rb", "\\r"),
}


@pytest.mark.parametrize(("name", "shown"), NAMES.values(), ids=NAMES)
def test_a_name_cannot_move_the_cursor(tmp_path: Path, name: str, shown: str) -> None:
    """What a name does to a terminal is shown instead of done; no line of ours can be forged."""
    write(tmp_path, {"estate/a.yaml": f'sites:\n  "{name}": {{}}\n  "x{name}": {{}}\n'})
    with pytest.raises(DeclarationErrors) as caught:
        read(tmp_path)
    text = render(caught.value)
    assert all(line.isprintable() for line in text.split("\n"))
    assert shown in text or shown == "\\n"
    assert [line.partition(":")[0] for line in text.split("\n") if line.startswith("error")] == [
        "error[estate.bad-name]",
        "error[estate.bad-name]",
    ]


def test_a_file_name_of_any_bytes_is_told(tmp_path: Path) -> None:
    """A file whose name is no UTF-8 and holds an escape code is named so that it can be read."""
    (tmp_path / "estate").mkdir()
    (tmp_path / os.fsdecode(b"estate/\xff\x1b[2J.yaml")).write_text("x: 1\n")
    (error,) = check(tmp_path)["errors"]
    assert error["file"] == "estate/\\udcff\\x1b[2J.yaml"
    assert render(problems(tmp_path)[0]).isascii()
