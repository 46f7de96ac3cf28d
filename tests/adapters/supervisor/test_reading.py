"""What an app's specification for supervisord may say, and what it may not."""

from __future__ import annotations

import pytest

from handrail.adapters.supervisor import reading, tasks
from handrail.errors import DeclarationError, DeclarationErrors, UsageError
from handrail.kits.deploys.model import File, Spec

TEXT = """\
app: shop
files: [app, run.sh]
tasks:
  web:
    command: [./run.sh, "${greeting}", "{port}"]
    port: 8080
    environment: {WHO: "$${greeting}"}
"""


def _read(text: str, **variables: str) -> Spec:
    return tasks.spec_of(reading.read(text, "deploy/app.yaml", variables))


def _refused(text: str, **variables: str) -> DeclarationErrors:
    with pytest.raises(DeclarationErrors) as caught:
        _read(text, **variables)
    assert {one.code for one in caught.value.errors} == {"deploys.spec"}
    return caught.value


def test_what_is_left_out_is_written_out() -> None:
    """A text with its defaults and one without them are equal."""
    said = TEXT.replace("    port:", "    instances: 1\n    directory: .\n    port:")
    assert _read(TEXT, greeting="hello") == _read(said, greeting="hello")


def test_variables_stand_in_values() -> None:
    """A variable is put in as text; a doubled sign is the sign itself."""
    web = tasks.tasks(_read(TEXT, greeting="hello").body)["web"].settings
    assert web["command"] == ["./run.sh", "hello", "{port}"]
    assert web["environment"] == {"WHO": "${greeting}"}


@pytest.mark.parametrize(
    "value", ["a\nuser: root", "x]\n  other: {command: [y]}", "{port}", "# no", "${greeting}", ""]
)
def test_a_variable_never_becomes_a_key(value: str) -> None:
    """Whatever it holds, it is one word of the command."""
    web = tasks.tasks(_read(TEXT, greeting=value).body)
    assert list(web) == ["web"]
    assert web["web"].settings["command"][1] == value
    assert "user" not in web["web"].settings


def test_an_unknown_variable_is_told_with_its_line() -> None:
    """It is an error with the line, and names those that there are."""
    error = _refused(TEXT, greetings="x").errors[0]
    assert error.at is not None
    assert (error.at.file, error.at.line) == ("deploy/app.yaml", 5)
    assert "`greeting`" in error.message
    assert "greetings" in error.hint


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("app: shop\ntasks: {web: {commands: [x]}}\n", 2, "unknown key `commands`"),
        ("app: shop\ntasks: {web: {instances: 1}}\n", 2, "`command` is missing"),
        ("app: shop\ntasks: {}\n", 1, "no task"),
        ("app: shop\n", 1, "`tasks` is missing"),
        ("", 1, "empty"),
        ("app: ../shop\ntasks: {web: {command: x}}\n", 1, "expected a name"),
        ("app: shop\ntasks:\n  ../web: {command: x}\n", 3, "not a name"),
        ("app: shop\ntasks:\n  'a b': {command: x}\n", 3, "not a name"),
        ("app: shop\nfiles: [/etc/passwd]\ntasks: {web: {command: x}}\n", 2, "a path inside"),
        ("app: shop\nfiles: [a/../../b]\ntasks: {web: {command: x}}\n", 2, "a path inside"),
        ("app: shop\ntasks:\n  web: {command: x, directory: ../..}\n", 3, "a path inside"),
        ("app: shop\ntasks:\n  web: {command: x, user: 'a\\nb=c'}\n", 3, "a user's name"),
        ("app: shop\ntasks:\n  web: {command: x, environment: {'A\\nB': c}}\n", 3, "not a name"),
        ('app: shop\ntasks:\n  web: {command: x, environment: {A: "\\0"}}\n', 3, "expected text"),
        ("app: shop\ntasks:\n  web: {command: x, instances: -1}\n", 3, "a whole number"),
        ("app: shop\ntasks:\n  web: {command: x, instances: 1000}\n", 1, "at most 100"),
        ("app: shop\ntasks:\n  web: {command: x, port: 70000}\n", 1, "`port`"),
        ("app: shop\ntasks:\n  web: {command: [x, '{port}']}\n", 1, "no `port`"),
        ("app: shop\ntasks:\n  web: {command: x, check: 'file:///etc'}\n", 3, "an address"),
        ("app: shop\ntasks:\n  web: {command: x, check: {command: [x]}}\n", 3, "an address"),
        ("app: shop\ntasks:\n  web: {command: [-c, x]}\n", 1, "`command` is missing"),
        ("app: shop\ntasks:\n  web: {command: x, stop: {signal: KILL}}\n", 3, "expected one of"),
        ("app: shop\nupdate: {at-once: 0}\ntasks: {web: {command: x}}\n", 1, "`at-once`"),
        ("app: shop\nupdate: {healthy: 2h}\ntasks: {web: {command: x}}\n", 1, "`deadline`"),
        ("app: &a shop\ntasks: {web: &w {command: x}, db: *w}\n", 2, "aliases"),
        ("a: [\n", 2, "not YAML"),
        ("app: shop\ntasks: {web: {command: [x, !evil y]}}\n", 2, "expected"),
    ],
)
def test_what_it_may_not_say(text: str, line: int, said: str) -> None:
    """Each is told with its line."""
    error = _refused(text).errors[0]
    assert said in error.message
    assert error.at is not None
    assert error.at.line == line


def test_every_problem_is_told_at_once() -> None:
    """An unknown key, what is missing because of it, and another line's value."""
    text = "app: shop\ntasks:\n  web: {command: x, instances: many}\n  db: {comand: y}\n"
    assert [error.at.line for error in _refused(text).errors if error.at] == [3, 4, 4]


def test_a_huge_text_is_refused() -> None:
    """More than half a mebibyte is no specification, and is not read."""
    error = _refused("# x\n" * 200_000)
    assert "at most" in error.message


def test_recursion_ends() -> None:
    """A collection that holds itself is refused."""
    _refused("app: shop\ntasks: &t {web: {command: x}, again: *t}\n")


# --- files ------------------------------------------------------------


def test_digests_of_files_are_part_of_it() -> None:
    """Other content, or a program that was none, is another specification."""
    spec = _read(TEXT, greeting="x")
    files = {"app/a.py": File(b"1"), "run.sh": File(b"2", is_executable=True)}
    made = tasks.with_files(spec, files)
    assert made.files == spec.files
    assert made != spec
    for other in (File(b"3"), File(b"2")):
        assert tasks.with_files(spec, {**files, "run.sh": other}) != made
    assert tasks.with_files(made, files) == made


def test_a_named_file_must_be_there() -> None:
    """What `files` names and the commit has not is an error, not an app without it."""
    with pytest.raises(DeclarationError, match=r"`run\.sh`"):
        tasks.with_files(_read(TEXT, greeting="x"), {"app/a.py": File(b"1")})


@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/x", "app/../../x", "app//x", "app/./x", "app/x\n", "app/\0", "app/" * 200],
)
def test_a_path_out_of_the_folder_is_refused(path: str) -> None:
    """Whatever a repository gives, nothing is written outside of the app's folder."""
    files = {"app/a": File(b"1"), "run.sh": File(b"2"), path: File(b"3")}
    with pytest.raises(DeclarationError):
        tasks.with_files(_read(TEXT, greeting="x"), files)


def test_many_or_large_files_are_refused() -> None:
    """An app's files have a number and a size that a machine can take."""
    spec = _read(TEXT, greeting="x")
    many = {f"app/{n}": File(b"") for n in range(tasks.MOST_FILES + 1)}
    large = {"app/a": File(bytes(tasks.MOST_BYTES)), "run.sh": File(b"x")}
    for files in (many, large):
        with pytest.raises(DeclarationError, match="more than"):
            tasks.with_files(spec, files)


@pytest.mark.parametrize(
    "body",
    [
        {"tasks": {"../x": {}}},
        {"tasks": {"a\n[program:x]": {}}},
    ],
)
def test_a_body_from_elsewhere_is_looked_at_again(body: dict[str, object]) -> None:
    """A body that was not read from a text here has no other names than one that was."""
    with pytest.raises(DeclarationError):
        tasks.spec_of(body)


@pytest.mark.parametrize("digest", ["", "x", "../../etc/passwd", "a" * 64 + " y", "A" * 64])
def test_a_digest_is_a_digest(digest: str) -> None:
    """It names a file of the content; nothing else is taken for one."""
    with pytest.raises(DeclarationError):
        tasks.content({"content": {"a": digest}})


# --- the rest ------------------------------------------------------------


def test_a_count_changes_nothing_else() -> None:
    """Scaled there and back it is what it was; instances that are there may stay."""
    spec = _read(TEXT, greeting="x")
    more = tasks.scaled(spec, "web", 3)
    assert tasks.is_same_task(spec.body, more.body, "web")
    assert tasks.scaled(more, "web", 1) == spec
    with pytest.raises(UsageError):
        tasks.scaled(spec, "wbe", 3)


def test_each_instance_has_its_own_port() -> None:
    """What stands in braces is the instance's; other braces are text."""
    web = tasks.tasks(_read(TEXT, greeting="x").body)["web"]
    assert (
        web.filled("{port} {instance} {image} {other} {{port}}", 2)
        == "8082 2 {image} {other} {8082}"
    )
