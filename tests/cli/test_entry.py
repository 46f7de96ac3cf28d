"""The command as people start it: exit codes, stdout and stderr, text and JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from inline_snapshot import snapshot
from jsonschema import Draft202012Validator

from handrail.cli.main import GROUPS
from support.declarations import STORE, write

HANDRAIL = Path(sys.executable).with_name("handrail")
DEADLINE_S = 60


def handrail(
    *words: str, at: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the installed command in the folder `at`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("HANDRAIL_")}
    return subprocess.run(
        [str(HANDRAIL), *words],
        cwd=at,
        env={**own, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def read_json(done: subprocess.CompletedProcess[str]) -> Any:
    """Return the one JSON object on stdout; stderr is empty."""
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("help",)])
def test_help_lists_every_command(tmp_path: Path, words: tuple[str, ...]) -> None:
    """It is a result: on stdout, with exit code 0; every line fits."""
    done = handrail(*words, at=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"\n  {name} " in done.stdout for group in GROUPS.values() for name in group)
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize("name", sorted(name for group in GROUPS.values() for name in group))
def test_every_command_explains_itself(tmp_path: Path, name: str) -> None:
    """Each has a sentence, options and an exit code of 0."""
    done = handrail(name, "--help", at=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: handrail {name} ")
    assert "--json" in done.stdout


def test_the_module_is_the_command(tmp_path: Path) -> None:
    """`python -m handrail` says what `handrail` says."""
    done = subprocess.run(
        [sys.executable, "-m", "handrail", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert done.stdout == handrail("--version", at=tmp_path).stdout
    assert done.stdout.startswith("handrail ")


def test_an_unknown_command_suggests_the_nearest(tmp_path: Path) -> None:
    """A slip is a usage error on stderr, and stdout stays empty."""
    done = handrail("rehaerse", at=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == snapshot("""\
error[usage]: there is no command `rehaerse`

hint: did you mean `handrail rehearse`?
""")


@pytest.mark.parametrize(
    "words",
    [
        ("check", "--nonsense"),
        ("--nonsense",),
        ("check", "--stric"),
        ("check", "more"),
        ("schema",),
        ("schema", "nonsense"),
        ("init", "--from"),
        ("plan",),
    ],
)
def test_a_wrong_call_is_a_usage_error(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Unknown, abbreviated, missing or too many: exit code 2, with the command that helps."""
    done = handrail(*words, at=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error[usage]: ")
    assert "hint: handrail" in done.stderr


def test_a_wrong_call_with_json_is_one_object(tmp_path: Path) -> None:
    """Errors too: on stdout, with the same exit code, and nothing on stderr."""
    done = handrail("check", "--nonsense", "--json", at=tmp_path)
    assert done.returncode == 2
    found = read_json(done)
    assert found["format"] == 1
    assert [error["code"] for error in found["errors"]] == ["usage"]


def test_a_wrong_call_cannot_move_the_cursor(tmp_path: Path) -> None:
    """What was typed is shown as text."""
    done = handrail("\x1b[2J\u202e", at=tmp_path)
    assert done.returncode == 2
    assert "\\x1b[2J\\u202e" in done.stderr


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A repository with two mistakes in two files."""
    return write(
        tmp_path,
        {
            "estate/a.yaml": STORE + "    durabilty: lossy\n",
            "operations/o.yaml": "operation: a b\n",
        },
    )


def test_check_shows_what_is_wrong(broken: Path) -> None:
    """Errors are the result of `check`: on stdout, in order, with a count and exit code 2."""
    done = handrail("check", at=broken)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("error[estate.unknown-key]: unknown key `durabilty`\n")
    assert "\n  --> estate/a.yaml:5\n\nhint: did you mean `durability`?\n" in done.stdout
    assert done.stdout.splitlines()[-1] == "5 errors, 0 warnings"


def test_check_as_json(broken: Path) -> None:
    """Each error has code, message, file, line and hint."""
    done = handrail("check", "--json", at=broken)
    assert done.returncode == 2
    found = read_json(done)
    assert sorted(found) == ["errors", "format", "warnings"]
    assert found["errors"][0] == snapshot(
        {
            "code": "estate.unknown-key",
            "message": "unknown key `durabilty`",
            "file": "estate/a.yaml",
            "line": 5,
            "hint": "did you mean `durability`?",
        }
    )


def test_warnings_do_not_stop_a_check(tmp_path: Path) -> None:
    """They are told apart from errors; `--strict` makes them count."""
    write(tmp_path, {"estate/a.yaml": STORE})
    done = handrail("check", at=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("warning[estate.no-backup]: ")
    assert done.stdout.splitlines()[-1] == "1 resources, 0 operations; 0 errors, 2 warnings"
    assert handrail("check", "--strict", at=tmp_path).returncode == 2
    found = read_json(handrail("check", "--json", at=tmp_path))
    assert [warning["code"] for warning in found["warnings"]] == [
        "estate.no-backup",
        "estate.missing-key",
    ]
    assert found["errors"] == []


def test_check_where_nothing_is_declared(tmp_path: Path) -> None:
    """An empty folder has no mistake in it."""
    done = handrail("check", at=tmp_path)
    assert (done.returncode, done.stdout) == (
        0,
        "0 resources, 0 operations; 0 errors, 0 warnings\n",
    )


def test_the_repository_is_found_from_below(broken: Path) -> None:
    """From any folder of it; `--root` and HANDRAIL_ROOT name another."""
    (broken / "deep/er").mkdir(parents=True)
    (broken / "empty").mkdir()
    assert handrail("check", at=broken / "deep/er").returncode == 2
    assert handrail("check", "--root", str(broken / "empty"), at=broken).returncode == 0
    elsewhere = {"HANDRAIL_ROOT": str(broken / "empty")}
    assert handrail("check", at=broken, environment=elsewhere).returncode == 0


@pytest.mark.parametrize("kind", ["estate", "operation", "policy"])
def test_schema_prints_one_json_schema(tmp_path: Path, kind: str) -> None:
    """With and without `--json`: it is one object either way."""
    done = handrail("schema", kind, at=tmp_path)
    assert done.returncode == 0
    Draft202012Validator.check_schema(read_json(done))
    assert handrail("schema", kind, "--json", at=tmp_path).stdout == done.stdout


def test_init_writes_a_start_that_checks(tmp_path: Path) -> None:
    """Four files, told in aligned columns, and what comes next; nothing in them is a mistake."""
    done = handrail("init", at=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == snapshot("""\
wrote estate/estate.yaml       what exists
wrote operations/example.yaml  what is done to it
wrote policy.yaml              what is asked of a plan
wrote allowed_signers          whose signature counts
next: declare a store in estate/estate.yaml, then: handrail check
""")
    assert handrail("check", at=tmp_path).returncode == 0
    assert (tmp_path / ".gitignore").read_text() == ".handrail/\n"


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    """What is there stays as it is, byte for byte; the second time there is nothing to do."""
    write(tmp_path, {"policy.yaml": "{}\n", ".gitignore": "*.log"})
    assert read_json(handrail("init", "--json", at=tmp_path)) == snapshot(
        {
            "format": 1,
            "written": ["estate/estate.yaml", "operations/example.yaml", "allowed_signers"],
            "notes": [],
        }
    )
    assert (tmp_path / "policy.yaml").read_text() == "{}\n"
    assert (tmp_path / ".gitignore").read_text() == "*.log\n.handrail/\n"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = handrail("init", at=tmp_path)
    assert again.stdout.startswith("everything is there already.\n")
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`handrail schema estate | head -1` ends well."""
    done = subprocess.run(
        ["sh", "-c", '"$0" schema estate | head -n 1', str(HANDRAIL)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")
