"""Job specifications that people really run: read, planned, registered and read back, whole."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from handrail.adapters.nomad import NomadPlatform, Where
from handrail.errors import DeclarationError, Place
from handrail.kits.deploys.model import File, Spec
from support.hcl_stanzas import lost
from support.nomad import NomadAgent

FOLDER = Path(__file__).parents[2] / "data" / "jobspecs"
FILES = sorted(path.name for path in FOLDER.iterdir() if path.suffix in {".nomad", ".hcl"})
# What Nomad itself would not run of them, and why it says so.
UNFIT = {
    "cache.nomad": "volume cannot be per_alloc when canaries are in use",
    "hubot.nomad": "Task install validation failed: 1 error occurred: * Missing task driver",
}
# It uses two variables that it does not declare, so nothing can read it: with these, all can.
UNDECLARED = {"mailman.nomad.hcl": ("postgres_user", "postgres_password")}
# What a specification declares without a default; and one of each kind that needs no quotes.
VALUES = {
    "token": "a-token",
    "secret_key": "a-key",
    "hyperkitty_api_key": "another-key",
    "mailman_user": "mailman",
    "mailman_pass": "a-word",
    "postgres_user": "mailman",
    "postgres_password": "yet-another-word",
    "root_username": "root",
    "root_password": "another-word",
    "minio_storage_size": "12",
}


def text_of(name: str) -> str:
    more = (f'variable "{each}" {{}}\n' for each in UNDECLARED.get(name, ()))
    return "".join(more) + (FOLDER / name).read_text(encoding="utf-8")


def read(platform: NomadPlatform, name: str) -> Spec:
    spec = platform.parse(text_of(name), name, VALUES)
    files = {path: File(f"the content of {path}\n".encode()) for path in spec.files}
    return platform.with_files(spec, files)


def test_there_are_all_of_them() -> None:
    """None was left out."""
    assert len(FILES) == 23


@pytest.mark.parametrize("name", FILES)
def test_no_stanza_is_lost(platform: NomadPlatform, name: str) -> None:
    """Each block and attribute of the text stands in what would be registered."""
    spec = read(platform, name)
    assert spec.tasks
    assert lost(text_of(name), spec.body) == []


@pytest.mark.parametrize("name", FILES)
def test_it_is_planned_and_comes_back_as_it_was(agent: NomadAgent, name: str) -> None:
    """Registered and read back it is equal; planned again, nothing would change."""
    with closing(NomadPlatform("platform/prod", Where(agent.url))) as platform:
        spec = read(platform, name)
        if name in UNFIT:
            with pytest.raises(DeclarationError) as caught:
                platform.dry_run(spec)
            assert UNFIT[name] in caught.value.message
            return
        would = platform.dry_run(spec)
        assert would.changes
        assert would.diff
        platform.apply(spec, "", {"handrail.run": "1"})
        found = platform.current(spec.job)
        assert found is not None
        assert found.spec == spec
        assert platform.dry_run(found.spec).diff == ()


def test_what_reads_files_has_their_content(platform: NomadPlatform) -> None:
    """A file beside the specification, wherever that lies, stands in it where it was named."""
    parsed = platform.parse(text_of("loki.nomad"), "deploy/loki.nomad", {})
    assert parsed.files == ("deploy/loki.yml.tpl",)
    with pytest.raises(DeclarationError, match=r"deploy/loki.yml.tpl"):
        platform.with_files(parsed, {})
    made: Any = platform.with_files(parsed, {"deploy/loki.yml.tpl": File(b"port: 3100\n")}).body
    (template,) = made["TaskGroups"][0]["Tasks"][0]["Templates"]
    assert template["EmbeddedTmpl"] == "port: 3100\n"


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ('file("../../etc/passwd")', "leads out"),
        ('file("/etc/passwd")', "leads out"),
        ('base64encode(file("a"))', "inside of another function"),
    ],
)
def test_a_file_that_cannot_be_given_is_refused(
    platform: NomadPlatform, call: str, why: str
) -> None:
    """With its line: nothing else than the file's content is ever put there."""
    text = text_of("loki.nomad").replace('file("loki.yml.tpl")', call)
    line = next(n for n, each in enumerate(text.split("\n"), 1) if call in each)
    with pytest.raises(DeclarationError, match=why) as caught:
        platform.parse(text, "loki.nomad", {})
    assert caught.value.at == Place("loki.nomad", line)


def test_what_is_taken_out_is_missed(platform: NomadPlatform) -> None:
    """The comparison itself notices any one value that is gone from the JSON."""
    name = "rocksteady.nomad.hcl"
    text = text_of(name)
    body: Any = read(platform, name).body
    group = body["TaskGroups"][0]
    for path in (
        (group, "Count"),
        (group, "Constraints"),
        (group["Constraints"][0], "LTarget"),
        (group["Update"], "MaxParallel"),
        (group["Tasks"][0], "Services"),
        (group["Tasks"][0]["Services"][0]["Checks"][0], "Interval"),
        (group["Tasks"][0]["Templates"][0], "EmbeddedTmpl"),
        (group["Tasks"][0]["Config"], "image"),
        (group["Tasks"][0]["Resources"], "MemoryMB"),
    ):
        tree, key = path
        kept = tree.pop(key)
        assert lost(text, body), key
        tree[key] = kept
    assert lost(text, body) == []
