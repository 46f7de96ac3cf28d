"""Material: every file that an operation is made of, in one digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from handrail.errors import DeclarationError
from handrail.operations.model import Undo
from handrail.plans.material import FILES_LIMIT, paths, read
from handrail.plans.model import Material
from support.builders import make_operation
from support.declarations import write

FILES = {
    "scripts/reset_pilot.sh": "#!/bin/sh\n. scripts/lib/db.sh\n",
    "scripts/lib/db.sh": "clean_all() { :; }\n",
    "sql/reset.sql": "delete from sessions;\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path.resolve(), FILES)


def material(root: Path, **changed: Any) -> Material:
    return read(root, make_operation(**changed))


def test_the_folder_of_a_script_counts_whole(root: Path) -> None:
    """A change two calls deep changes the digest, and so do a new, a renamed and a lost file."""
    digests = {material(root).digest}
    (root / "scripts/lib/db.sh").write_text("clean_all() { rm -rf /; }\n")
    digests.add(material(root).digest)
    (root / "scripts/new.sh").write_text("")
    digests.add(material(root).digest)
    (root / "scripts/new.sh").rename(root / "scripts/newer.sh")
    digests.add(material(root).digest)
    (root / "scripts/lib/db.sh").unlink()
    digests.add(material(root).digest)
    assert len(digests) == 5


def test_nothing_else_counts(root: Path) -> None:
    """What lies elsewhere, and what Python and git keep, is not part of it."""
    before = material(root)
    (root / "sql/reset.sql").write_text("drop table sessions;\n")
    (root / "scripts/__pycache__").mkdir()
    (root / "scripts/__pycache__/db.pyc").write_text("")
    assert material(root) == before
    assert [name for name, _ in before.files] == ["scripts/lib/db.sh", "scripts/reset_pilot.sh"]


def test_whether_a_file_may_be_executed_counts(root: Path) -> None:
    """The mode is part of what will run."""
    before = material(root).digest
    (root / "scripts/lib/db.sh").chmod(0o644)
    assert material(root).digest != before


def test_what_an_operation_says_that_it_uses_counts(root: Path) -> None:
    """Files and folders besides its own are read too, and so is the folder of its undo."""
    uses = material(root, uses=("sql",))
    undo = material(root, undo=Undo("script", ("sql/reset.sql",)))
    assert "sql/reset.sql" in dict(uses.files)
    assert "sql/reset.sql" in dict(undo.files)


def test_a_script_in_the_repository_itself_counts_alone(root: Path) -> None:
    """The whole repository is no script's folder."""
    write(root, {"reset.sh": "#!/bin/sh\n"})
    found = material(root, argv=("reset.sh",))
    assert [name for name, _ in found.files] == ["reset.sh"]


def test_a_link_to_a_folder_of_the_repository_is_followed(root: Path) -> None:
    """What a script reaches through a link is part of it, under its real name."""
    (root / "scripts/sql").symlink_to("../sql")
    before = material(root)
    assert "sql/reset.sql" in dict(before.files)
    (root / "sql/reset.sql").write_text("drop table sessions;\n")
    assert material(root).digest != before.digest


def test_links_in_a_circle_end(root: Path) -> None:
    """A folder that holds a link to itself is read once."""
    before = material(root)
    (root / "scripts/lib/again").symlink_to("../../scripts")
    assert material(root) == before


@pytest.mark.parametrize("target", ["/etc/hostname", "/etc", "../../outside"])
def test_a_link_that_leads_out_is_refused(root: Path, target: str) -> None:
    """A plan is of the repository's files: a link to elsewhere could change unseen."""
    (root / "scripts/link").symlink_to(target)
    with pytest.raises(DeclarationError) as caught:
        material(root)
    assert caught.value.code == "estate.outside"
    assert "scripts/link" in caught.value.message


def test_a_script_outside_is_refused(root: Path) -> None:
    """It is looked at where links and dots lead."""
    with pytest.raises(DeclarationError) as caught:
        material(root, argv=("../reset.sh",))
    assert caught.value.code == "estate.outside"


def test_a_script_that_is_gone_is_told(root: Path) -> None:
    """A plan of nothing is not made."""
    with pytest.raises(DeclarationError) as caught:
        material(root, argv=("scripts/gone.sh",))
    assert caught.value.code == "operations.script-missing"


def test_too_many_files_are_refused(root: Path) -> None:
    """A script beside half a disk would make every plan slow: the hint says what to do."""
    for number in range(FILES_LIMIT):
        (root / f"scripts/{number}").touch()
    with pytest.raises(DeclarationError) as caught:
        material(root)
    assert caught.value.code == "operations.material-too-large"
    assert "folder of their own" in caught.value.hint


def test_the_commit_of_a_plan_is_of_all_that_it_is_made_of(root: Path) -> None:
    """Declarations, policy and people besides the files; of an undeclared script, the script."""
    operation = make_operation()
    assert paths(operation, read(root, operation)) == (
        "allowed_signers",
        "estate",
        "operations/reset-pilot.yaml",
        "policy.yaml",
        "scripts/lib/db.sh",
        "scripts/reset_pilot.sh",
    )
    undeclared = make_operation(declared=False)
    assert paths(undeclared, read(root, undeclared)) == ("scripts/reset_pilot.sh",)
