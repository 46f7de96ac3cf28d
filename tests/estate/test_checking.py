"""What is wrong with an estate as a whole: references, circles, and what is unsafe."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from handrail.errors import DeclarationError
from handrail.estate.checking import warnings
from support.declarations import STORE, problems, read, told, write

TODAY = date(2026, 1, 31)


def warned(root: Path, text: str) -> list[DeclarationError]:
    return warnings(read(write(root, {"estate/a.yaml": text})).estate, TODAY)


def test_a_reference_leads_to_something_that_is_declared(tmp_path: Path) -> None:
    """Needs, checks, backups, sites, nodes and groups that are nowhere are told, all of them."""
    write(
        tmp_path,
        {
            "estate/a.yaml": STORE
            + "    backups: {to: object/backup}\n"
            + "objects:\n  backups: {path: b}\n"
            + "services:\n  api:\n    needs:\n      - store/pilot\n"
            + "    checks: [{sql: a, store: store/x}]\n    runs-on: [group/web]\n"
            + "nodes:\n  n1: {site: site/here}\n"
            + "groups:\n  g: {nodes: [node/n1, node/n2]}\n"
        },
    )
    assert told(tmp_path) == [
        "estate.unknown-resource estate/a.yaml:3",
        "estate.unknown-resource estate/a.yaml:10",
        "estate.unknown-resource estate/a.yaml:10",
        "estate.unknown-resource estate/a.yaml:11",
        "estate.unknown-resource estate/a.yaml:15",
        "estate.unknown-resource estate/a.yaml:17",
    ]


def test_the_nearest_resource_is_suggested(tmp_path: Path) -> None:
    """A slip in a reference is answered with the resource that was probably meant."""
    text = STORE + "services:\n  api: {needs: [store/pilot-bd]}\n"
    (problem,) = problems(write(tmp_path, {"estate/a.yaml": text}))
    assert problem.hint == "did you mean `store/pilot-db`?"


def test_an_environment_must_be_declared(tmp_path: Path) -> None:
    """A resource cannot belong to an environment that nobody declared."""
    text = "environments:\n  pilot: {}\nsites:\n  here: {environment: pilto}\n"
    (problem,) = problems(write(tmp_path, {"estate/a.yaml": text}))
    assert (problem.code, problem.hint) == ("estate.unknown-environment", "did you mean `pilot`?")


def test_hard_needs_may_not_form_a_circle(tmp_path: Path) -> None:
    """Nothing in a circle of hard needs could start first; the whole circle is told, once."""
    text = (
        "services:\n  a: {needs: [service/b]}\n  b: {needs: [service/c]}\n"
        "  c: {needs: [service/a]}\n  d: {needs: [service/a]}\n"
    )
    (problem,) = problems(write(tmp_path, {"estate/a.yaml": text}))
    assert problem.code == "estate.cycle"
    assert problem.message.endswith("service/a -> service/b -> service/c -> service/a")
    assert str(problem.at) == "estate/a.yaml:2"


def test_a_resource_may_not_need_itself(tmp_path: Path) -> None:
    """The smallest circle is a circle."""
    assert told(write(tmp_path, {"estate/a.yaml": "sites:\n  a: {needs: [site/a]}\n"})) == [
        "estate.cycle estate/a.yaml:2"
    ]


def test_two_circles_are_told_apart(tmp_path: Path) -> None:
    """Each circle is one error."""
    text = "sites:\n" + "".join(
        f"  {a}: {{needs: [site/{b}]}}\n" for a, b in ("ab", "ba", "cd", "dc")
    )
    assert told(write(tmp_path, {"estate/a.yaml": text})) == [
        "estate.cycle estate/a.yaml:2",
        "estate.cycle estate/a.yaml:4",
    ]


def test_soft_needs_may_form_a_circle(tmp_path: Path) -> None:
    """Two services that merely degrade without each other can both be started."""
    text = "services:\n  a: {needs: [{service/b: soft}]}\n  b: {needs: [service/a]}\n"
    assert problems(write(tmp_path, {"estate/a.yaml": text})) == ()


def test_a_chain_of_ten_thousand_needs_is_followed(tmp_path: Path) -> None:
    """Depth is no limit: nothing here is recursive."""
    count = 10_000
    text = "sites:\n" + "".join(
        f"  s{i}: {{needs: [site/s{i + 1 if i + 1 < count else 0}]}}\n" for i in range(count)
    )
    assert told(write(tmp_path, {"estate/a.yaml": text})) == ["estate.cycle estate/a.yaml:2"]


def test_a_durable_store_without_a_backup_is_a_warning(tmp_path: Path) -> None:
    """It can be planned with, but somebody should hear of it; a lossy one needs none."""
    found = warned(tmp_path, STORE + "    identity: a\n")
    assert [problem.code for problem in found] == ["estate.no-backup"]
    assert warned(tmp_path, STORE + "    identity: a\n    durability: lossy\n") == []


def test_production_data_outside_of_production_is_a_warning(tmp_path: Path) -> None:
    """A test server with real data is told; the same store in production is not."""
    text = STORE + "    identity: a\n    durability: lossy\n    holds: [production-data]\n"
    assert [problem.code for problem in warned(tmp_path, text)] == ["estate.production-data"]
    real = text + "    environment: real\nenvironments:\n  real: {production: true}\n"
    assert warned(tmp_path, real) == []


def test_a_store_that_was_never_adopted_is_a_warning(tmp_path: Path) -> None:
    """Without an identity nobody can tell it from another one; the hint is the command."""
    (problem,) = warned(tmp_path, STORE + "    durability: lossy\n")
    assert problem.hint == "handrail adopt store/pilot-db"


def test_an_expired_contraindication_is_a_warning(tmp_path: Path) -> None:
    """It is not judged any more from the day after its date, and that is told."""
    text = (
        "services:\n  api:\n    contraindications:\n"
        "      - {operation: detach, because: incident/oops, expires: 2026-01-30}\n"
        "      - {operation: drain, because: incident/oops, expires: 2026-03-03}\n"
    )
    (problem,) = warned(tmp_path, text)
    assert (problem.code, str(problem.at)) == ("estate.expired", "estate/a.yaml:4")
    assert "`detach`" in problem.message


@pytest.mark.parametrize("expires", ["2026-01-31", "2026-03-02"])
def test_what_expires_soon_is_a_warning_with_its_owner(tmp_path: Path, expires: str) -> None:
    """Within 30 days, and on the last day: who looks after it is told."""
    text = (
        "services:\n  api:\n    contraindications:\n"
        f"      - {{operation: detach, because: incident/oops, owner: ana, expires: {expires}}}\n"
    )
    (problem,) = warned(tmp_path, text)
    assert problem.code == "estate.expiring"
    assert problem.message.endswith(f"expires on {expires}; ana looks after it")


def test_a_password_in_an_address_is_an_error(tmp_path: Path) -> None:
    """A secret by value is refused, and the message does not repeat it."""
    for url in ("postgres://ana:s3cret@db/pilot", "host=db password=s3cret"):
        text = f"stores:\n  a: {{kind: postgres, url: '{url}'}}\n"
        (problem,) = problems(write(tmp_path, {"estate/a.yaml": text}))
        assert problem.code == "estate.secret"
        assert "s3cret" not in problem.message + problem.hint
