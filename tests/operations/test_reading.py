"""Reading operations: scripts that exist, words that are known, parameters that fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from handrail.errors import HandrailError, UsageError
from handrail.operations.loading import undeclared, values
from handrail.operations.model import DeclaredEffect, Operation, Parameter, Selector, Undo
from support.declarations import STORE, problems, read, told, write
from support.mistakes import OPERATION

HEAD = "operation: reset\nrun: ./scripts/reset.sh\n"
WHOLE = HEAD + "on: store/pilot-db\nundo: restore\n"
SCRIPT = "#!/bin/sh\n"


def repository(root: Path, operation: str) -> Path:
    return write(
        root,
        {
            "estate/a.yaml": "environments:\n  pilot: {}\n" + STORE + "    environment: pilot\n",
            "operations/reset.yaml": operation,
            "scripts/reset.sh": SCRIPT,
            "scripts/undo.sh": SCRIPT,
        },
    )


def read_one(root: Path, text: str) -> Operation:
    return read(repository(root, text)).operations["reset"]


@pytest.mark.parametrize(("text", "code", "line", "hint"), OPERATION.values(), ids=OPERATION)
def test_a_mistake_is_told_with_its_line(
    tmp_path: Path, text: str, code: str, line: int, hint: str
) -> None:
    """Each mistake has one error, with its code, its file and line, and the nearest right word."""
    (problem,) = problems(repository(tmp_path, text))
    assert (problem.code, str(problem.at)) == (code, f"operations/reset.yaml:{line}")
    assert hint in problem.hint


def test_a_script_must_be_executable(tmp_path: Path) -> None:
    """Who may not be executed is told with the command that helps."""
    repository(tmp_path, WHOLE)
    (tmp_path / "scripts/reset.sh").chmod(0o644)
    (problem,) = problems(tmp_path)
    assert problem.code == "operations.script-not-executable"
    assert problem.hint == "chmod +x ./scripts/reset.sh"


def test_a_script_behind_a_link_that_leads_out_is_outside(tmp_path: Path) -> None:
    """What a link hides is looked at: a script comes from the repository."""
    repository(tmp_path, WHOLE)
    (tmp_path / "scripts/reset.sh").unlink()
    (tmp_path / "scripts/reset.sh").symlink_to("/bin/sh")
    assert told(tmp_path) == ["estate.outside operations/reset.yaml:1"]


def test_an_operation_is_declared_once(tmp_path: Path) -> None:
    """The same name in two files is an error in the second that names the first."""
    write(repository(tmp_path, WHOLE), {"operations/z.yaml": WHOLE})
    (problem,) = problems(tmp_path)
    assert (problem.code, str(problem.at)) == ("estate.duplicate", "operations/z.yaml:1")
    assert "operations/reset.yaml:1" in problem.message


def test_a_file_of_comments_declares_no_operation(tmp_path: Path) -> None:
    """The commented start that `handrail init` writes is no mistake."""
    assert read(repository(tmp_path, "# operation: reset\n")).operations == {}


def test_the_key_on_is_not_a_truth_value(tmp_path: Path) -> None:
    """`on:` is the word that it is written as, although YAML 1.1 reads `true`."""
    found = read_one(tmp_path, HEAD + "on: {store: {environment: pilot}}\nundo: restore\n")
    assert found.on == Selector("store", environment="pilot")


@pytest.mark.parametrize(
    ("text", "undo"),
    [
        ("restore", Undo("restore")),
        ("'irreversible: the mails are sent'", Undo("irreversible", reason="the mails are sent")),
        ("{irreversible: the mails are sent}", Undo("irreversible", reason="the mails are sent")),
        ("./scripts/undo.sh --all", Undo("script", ("./scripts/undo.sh", "--all"))),
        ("[./scripts/undo.sh, a b]", Undo("script", ("./scripts/undo.sh", "a b"))),
    ],
)
def test_an_undo_is_restore_a_script_or_a_reason(tmp_path: Path, text: str, undo: Undo) -> None:
    """There are three ways to say how it is undone, and none to say nothing."""
    assert read_one(tmp_path, f"{HEAD}on: store/pilot-db\nundo: {text}\n").undo == undo


def test_a_script_whose_name_begins_with_irreversible_is_a_script(tmp_path: Path) -> None:
    """Only the word itself, or the word with a colon, says that it cannot be undone."""
    text = HEAD + "on: store/pilot-db\nundo: irreversible.sh\n"
    write(tmp_path, {"irreversible.sh": SCRIPT})
    (tmp_path / "irreversible.sh").chmod(0o755)
    assert read_one(tmp_path, text).undo == Undo("script", ("irreversible.sh",))


def test_a_command_line_is_split_as_a_shell_splits_words(tmp_path: Path) -> None:
    """Quotes hold words together, and nothing else of a shell works."""
    text = WHOLE.replace("reset.sh", "reset.sh 'a b' $HOME *")
    assert read_one(tmp_path, text).argv == ("./scripts/reset.sh", "a b", "$HOME", "*")


def test_effects_are_read_with_their_rows(tmp_path: Path) -> None:
    """An effect has a verb, a noun, and the most rows; without rows, any number of them."""
    found = read_one(
        tmp_path, WHOLE + "effects: [{delete: table a b, rows: 5}, {drop: view v}]\n"
    ).effects
    assert found == (
        DeclaredEffect("delete", "table", "a b", 5),
        DeclaredEffect("drop", "view", "v", None),
    )


def operation(*parameters: Parameter) -> Operation:
    from support.builders import make_operation

    return make_operation(parameters=parameters)


def test_parameters_have_what_was_given_else_their_default() -> None:
    """Every declared parameter has a value, as text."""
    found = operation(Parameter("days", "int", "30"), Parameter("who", "text", "all"))
    assert values(found, {"days": "-7"}) == {"days": "-7", "who": "all"}


@pytest.mark.parametrize(
    ("parameter", "given", "said"),
    [
        (Parameter("days", "int"), {}, "must be given"),
        (Parameter("days", "int"), {"dais": "1"}, "no parameter `dais`"),
        (Parameter("days", "int"), {"days": "1.5"}, "must be int"),
        (Parameter("days", "int"), {"days": ""}, "must be int"),
        (Parameter("days", "int"), {"days": "--1"}, "must be int"),
        (Parameter("days", "int"), {"days": "١"}, "must be int"),  # noqa: RUF001  a digit, but not ours
        (Parameter("hard", "bool"), {"hard": "yes"}, "must be bool"),
        (Parameter("mode", "choice", None, ("a", "b")), {"mode": "c"}, "one of a, b"),
        (Parameter("who", "text"), {"who": "a\0b"}, "must be text"),
    ],
)
def test_a_parameter_that_does_not_fit_is_refused(
    parameter: Parameter, given: dict[str, str], said: str
) -> None:
    """Unknown, missing or of another type: said with the place of the declaration."""
    with pytest.raises(UsageError) as caught:
        values(operation(parameter), given)
    assert caught.value.code == "operations.parameter"
    assert said in caught.value.message
    assert str(caught.value.at) == "operations/reset-pilot.yaml:1"


def test_the_nearest_parameter_is_suggested() -> None:
    """A slip in a parameter's name is answered with the one that was probably meant."""
    with pytest.raises(HandrailError) as caught:
        values(operation(Parameter("days", "int", "1")), {"dais": "1"})
    assert caught.value.hint == "did you mean `days`?"


def test_a_script_that_nobody_declared_has_the_safest_assumptions(tmp_path: Path) -> None:
    """It is undone by restore, is for its one target, and is known as undeclared."""
    write(tmp_path, {"scripts/old.sh": SCRIPT})
    found = undeclared(str(tmp_path / "scripts/old.sh"), tmp_path, "store/a")
    assert (found.name, found.argv, found.undo) == ("old.sh", ("scripts/old.sh",), Undo("restore"))
    assert found.on == Selector("store", "a")
    assert not found.declared


def test_an_undeclared_script_must_exist_and_be_executable(tmp_path: Path) -> None:
    """Both are errors of the call, with what helps."""
    write(tmp_path, {"old.sh": SCRIPT})
    with pytest.raises(UsageError) as caught:
        undeclared(str(tmp_path / "old.sh"), tmp_path, "store/a")
    assert caught.value.code == "operations.script-not-executable"
    with pytest.raises(UsageError) as caught:
        undeclared(str(tmp_path / "new.sh"), tmp_path, "store/a")
    assert caught.value.code == "operations.script-missing"
