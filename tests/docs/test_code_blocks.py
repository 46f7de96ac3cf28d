"""Every code block of README.md and docs/ does what the page says that it does."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from handrail.adapters.processes import LocalProcesses
from handrail.adapters.supervisor import reading
from handrail.estate import loading as estates
from handrail.estate.shapes import Source, parse
from handrail.kit_wiring import built_in
from handrail.operations.python import load_python
from handrail.operations.shapes import OPERATION
from handrail.plans.notifications import NOTIFICATIONS
from handrail.plans.policy import POLICY
from support.doc_pages import Block, Page, PageError, read_page
from support.doc_sessions import Session, SessionError
from support.postgres_server import Server, server_binaries
from support.story import make_story

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
KINDS = {kind: dict(keys) for kit in built_in() for kind, keys in kit.kinds.items()}
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
# A reader has no settings of Handrail, git or PostgreSQL but those that a page makes.
_KEPT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "HANDRAIL_POSTGRES_BIN", "PYTHONDONTWRITEBYTECODE")


class _Any(dict[str, str]):
    """Variables of an app: whatever is asked for is a number."""

    def __contains__(self, key: object) -> bool:
        return True

    def get(self, key: str, default: object = None) -> str:
        del key, default
        return "8080"


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture
def home() -> Iterator[Path]:
    """The reader's home: a short path, for sockets lie below it."""
    at = Path(tempfile.mkdtemp(prefix="hrd-")).resolve()
    yield at
    shutil.rmtree(at, ignore_errors=True)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_the_blocks_of_a_page_do_what_it_says(
    path: Path, home: Path, request: pytest.FixtureRequest
) -> None:
    """A reader who writes the files and types the commands of a page sees what the page shows."""
    page = read_page(path)
    environment = environment_of(home)
    for need in page.needs:
        environment |= provide(need, request)
    session = Session(home, environment, folder=prepare(page, home))
    try:
        for block in page.blocks:
            follow(block, session)
        session.end()
    except (PageError, SessionError) as error:
        pytest.fail(f"{name(path)}: {error}", pytrace=False)
    finally:
        session.close()


def environment_of(home: Path) -> dict[str, str]:
    kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # Unbuffered, so that the two streams are in the order in which a terminal shows them.
    own = {"PATH": path, "HOME": str(home), "USER": "ana", "PYTHONUNBUFFERED": "1"}
    return {**kept, **own}


def provide(need: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """Give what a page needs, as variables; skip, with the reason, where it is not here."""
    if need == "postgres":
        server: Server = request.getfixturevalue("postgres_server")
        binaries = server_binaries()
        assert binaries is not None
        url = server.url(server.make_database())
        return {
            "PILOT_DB_URL": url,
            "PATH": f"{Path(sys.executable).parent}:{binaries.folder}:{os.environ['PATH']}",
        }
    reason = LocalProcesses().can_confine() if need == "confinement" else ""
    if reason or (need != "confinement" and shutil.which(need) is None):
        said = reason or f"{need} is not installed"
        if os.environ.get("HANDRAIL_REQUIRE") == "all":
            pytest.fail(said)
        pytest.skip(said)
    return {}


def prepare(page: Page, home: Path) -> Path:
    """Lay ready what the page's front comments name, and return where it starts."""
    for file in page.files:
        shutil.copy(ROOT / file, home)
    if page.starts_in:
        return make_story(ROOT / page.starts_in, home / "pilot")
    return home


def follow(block: Block, session: Session) -> None:
    """Do what a reader does with a block."""
    match block.language:
        case "console":
            for step in block.steps():
                session.type(step)
        case "json":
            json.loads(block.text)
        case "yaml":
            check_yaml(block)
        case "python":
            ast.parse(block.text)
        case "sh" if not block.file:
            subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=session.folder,
                check=True,
                capture_output=True,
            )
    if block.file and block.language in {"yaml", "python", "sh"}:
        file = session.folder / block.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
        file.chmod(0o755 if block.language == "sh" else 0o644)
        if block.language == "python" and file.parent.name == "operations":
            check_python_operation(file, block)


def check_yaml(block: Block) -> None:
    """Refuse YAML that is not a file of Handrail's, or that Handrail would not read."""
    kind = block.file.partition("/")[0]
    source = Source(block.file)
    if kind == "estate":
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / block.file
            file.parent.mkdir()
            file.write_text(block.text)
            estates.load(Path(folder), KINDS)
        return
    if kind == "deploy":
        # Of an app's own repository, under Supervisor.
        reading.read(block.text, block.file, _Any())
        return
    shapes = {
        "operations": OPERATION,
        "policy.yaml": POLICY,
        "notifications.yaml": NOTIFICATIONS,
    }
    shape = shapes.get(kind)
    if shape is None:
        raise PageError(f"line {block.line}: YAML that says of which file it is by no comment")
    node = parse(block.text, source)
    if node is not None:
        shape.read(node, source)
    if source.problems:
        raise PageError(f"line {block.line}: {source.problems[0]}")


def check_python_operation(file: Path, block: Block) -> None:
    problems: list[object] = []
    found = list(load_python(file.parents[1], "operations", problems))  # type: ignore[arg-type]  # only counted here
    if problems or not found:
        raise PageError(f"line {block.line}: no operation can be read here: {problems}")


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    """Every relative link of a page names a file that is there."""
    links = [link for link in _LINK.findall(path.read_text("utf-8")) if "://" not in link]
    gone = [link for link in links if not (path.parent / link).exists()]
    assert gone == []


def test_every_page_is_in_the_index() -> None:
    """docs/README.md links every page, so that none is found by accident alone."""
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in _LINK.findall(index.read_text("utf-8"))}
    pages = {path for path in (ROOT / "docs").rglob("*.md") if path != index}
    assert sorted(name(path) for path in pages - linked) == []


def test_the_reference_is_current() -> None:
    """The generated pages say what the code says today."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "reference"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
