"""Reading an estate: every mistake is named with its file, its line and the nearest right word."""

from __future__ import annotations

from pathlib import Path

import pytest

from handrail.errors import render
from handrail.estate.model import Check, Estate, Need
from support.declarations import STORE, problems, read, told, write
from support.mistakes import ESTATE


def read_one(root: Path, text: str) -> Estate:
    return read(write(root, {"estate/a.yaml": text})).estate


@pytest.mark.parametrize(("text", "code", "line", "hint"), ESTATE.values(), ids=ESTATE)
def test_a_mistake_is_told_with_its_line(
    tmp_path: Path, text: str, code: str, line: int, hint: str
) -> None:
    """Each mistake has one error, with its code, its file and line, and the nearest right word."""
    (problem,) = problems(write(tmp_path, {"estate/a.yaml": text}))
    assert (problem.code, str(problem.at)) == (code, f"estate/a.yaml:{line}")
    assert hint in problem.hint
    assert render(problem).startswith(f"error[{code}]: ")


def test_every_problem_of_every_file_is_told_in_order(tmp_path: Path) -> None:
    """Nothing is told by and by: all files are read to their ends, and sorted by file and line."""
    write(
        tmp_path,
        {
            "estate/b.yaml": "sites:\n  a: {x: 1}\n  b: {y: 1}\n",
            "estate/a.yaml": "sties: {}\nstores:\n  a: {kind: sqlite}\n",
            "operations/o.yaml": "operation: o\n",
            "policy.yaml": "guards:\n  review: never\n",
        },
    )
    assert told(tmp_path) == [
        "estate.unknown-key estate/a.yaml:1",
        "estate.missing-key estate/a.yaml:3",
        "estate.unknown-key estate/b.yaml:2",
        "estate.unknown-key estate/b.yaml:3",
        "estate.missing-key operations/o.yaml:1",
        "estate.missing-key operations/o.yaml:1",
        "estate.missing-key operations/o.yaml:1",
        "estate.wrong-type policy.yaml:2",
    ]


def test_a_name_may_be_declared_in_one_file_only(tmp_path: Path) -> None:
    """The second declaration is the error, and it names the place of the first."""
    site = "sites:\n  here: {}\nenvironments:\n  pilot: {}\n"
    found = problems(write(tmp_path, {"estate/a.yaml": site, "estate/b.yaml": site}))
    assert [str(problem.at) for problem in found] == ["estate/b.yaml:2", "estate/b.yaml:4"]
    assert "estate/a.yaml:2" in found[0].message
    assert {problem.code for problem in found} == {"estate.duplicate"}


def test_words_stay_as_they_are_written(tmp_path: Path) -> None:
    """`on`, `yes`, `1.10`, `0x10` and `2027-01-31` are text where text is wanted."""
    needs = "sites:\n"
    words = ["on", "yes", "no", "1.10", "0x10", "1e3", "2027-01-31", "12:30:45", ".inf"]
    text = needs + "".join(f"  s{i}: {{summary: {word}}}\n" for i, word in enumerate(words))
    estate = read_one(tmp_path, text)
    assert [r.settings["summary"] for r in estate.resources.values()] == words


def test_names_stay_as_they_are_written(tmp_path: Path) -> None:
    """A site called `no`, `on`, `1.10` or `null` has that name."""
    estate = read_one(tmp_path, "sites:\n  no: {}\n  on: {}\n  1.10: {}\n  null: {}\n")
    assert list(estate.resources) == ["site/no", "site/on", "site/1.10", "site/null"]


def test_a_quoted_nothing_is_text(tmp_path: Path) -> None:
    """`"null"` and `""` in quotes are text; without quotes they are nothing."""
    estate = read_one(tmp_path, "sites:\n  a: {summary: 'null'}\n  b: {summary: ''}\n")
    assert [r.settings["summary"] for r in estate.resources.values()] == ["null", ""]


def test_an_alias_of_a_word_is_the_word(tmp_path: Path) -> None:
    """A scalar may be named and used again: nothing grows by that."""
    estate = read_one(tmp_path, "sites:\n  a: {summary: &s here}\n  b: {summary: *s}\n")
    assert estate.resources["site/b"].settings["summary"] == "here"


def test_a_store_has_safe_defaults(tmp_path: Path) -> None:
    """What nobody says is durable, holds nothing special, and belongs nowhere."""
    store = read_one(tmp_path, STORE).resources["store/pilot-db"]
    assert store.store is not None
    assert (store.store.durability, store.store.holds, store.environment) == ("durable", (), "")


def test_values_are_read_in_their_units(tmp_path: Path) -> None:
    """Durations become seconds, needs become hard or soft, addresses know where they come from."""
    estate = read_one(
        tmp_path,
        "environments:\n  pilot: {max-age: 30 d, max-rows: 1000, production: false}\n"
        "stores:\n  db:\n    kind: postgres\n    url: {env: PILOT_DB_URL}\n    environment: pilot\n"
        "    backups: {to: object/b, every: 90m}\n"
        "objects:\n  b: {path: .handrail/backups}\n"
        "services:\n  api:\n    needs: [store/db, {object/b: soft}]\n"
        "    checks: [http://a/health, tcp://a:80, {sql: select 1, store: store/db}]\n",
    )
    pilot, store, api = (
        estate.environments["pilot"],
        estate.resources["store/db"].store,
        estate.resources["service/api"],
    )
    assert (pilot.name, pilot.max_age_s, pilot.max_rows) == ("pilot", 30 * 86400, 1000)
    assert store is not None
    assert store.backups is not None
    assert (str(store.url), store.backups.every_s) == ("$PILOT_DB_URL", 5400)
    assert [need for need, _ in api.needs] == [Need("store/db", True), Need("object/b", False)]
    assert api.checks == (
        Check("http", ("http://a/health",)),
        Check("tcp", ("a:80",)),
        Check("sql", ("select 1",), store="store/db"),
    )


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n", "stores: {}\n"])
def test_an_empty_file_declares_nothing(tmp_path: Path, text: str) -> None:
    """A file without anything in it is no mistake."""
    assert read_one(tmp_path, text) == Estate()


def test_without_an_estate_nothing_is_declared(tmp_path: Path) -> None:
    """A machine that never saw an estate has an empty one."""
    assert read(tmp_path).estate == Estate()


def test_files_below_folders_are_read_and_others_are_not(tmp_path: Path) -> None:
    """`*.yaml` and `*.yml` at any depth count; hidden files, backups and other kinds do not."""
    names = ["estate/a/b/c.yml", "estate/.hidden.yaml", "estate/a.yaml~", "estate/README.md"]
    write(tmp_path, {name: f"sites:\n  s{i}: {{}}\n" for i, name in enumerate(names)})
    assert list(read(tmp_path).estate.resources) == ["site/s0"]
