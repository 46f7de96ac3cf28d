"""The JSON Schemas: what an editor accepts is what Handrail accepts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from handrail.cli.schema import schema
from handrail.core import starting
from support.declarations import STORE, problems, write
from support.mistakes import ESTATE, OPERATION, POLICY, Mistake

KINDS = ("estate", "operation", "policy")
STORY = Path(__file__).parents[2] / "examples/story-1/repository"
# What no schema can say: other files, other keys, YAML's own rules, what a zone is called.
BEYOND = {
    "tag",
    "merge key",
    "risk that is none",
    "zone",
    "twice",
    "effect on nothing",
    "default of another type",
    "an open quote",
    "default that is no choice",
}


class EditorLoader(yaml.SafeLoader):
    """Reads YAML as editors do, by its version 1.2: `on` is a word, and a date is text."""


EditorLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in found if not tag.endswith((":timestamp", ":bool"))]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
EditorLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))


def mistakes(kind: str, text: str) -> list[str]:
    """Return what an editor with the schema of `kind` underlines in `text`."""
    validator = Draft202012Validator(schema(kind))
    return [error.message for error in validator.iter_errors(yaml.load(text, EditorLoader))]


def uncommented(text: str) -> str:
    """Return a commented start with its examples taken out of their comments."""
    lines = (
        line.removeprefix("# ") if line.startswith("# ") else line for line in text.split("\n")
    )
    return "\n".join(line for line in lines if not re.match(r"[A-Z`]|#$|than|at ", line))


VALID = {
    "story 1, estate": ("estate", (STORY / "estate/pilot.yaml").read_text()),
    "story 1, operation": ("operation", (STORY / "operations/reset-pilot.yaml").read_text()),
    "story 1, policy": ("policy", (STORY / "policy.yaml").read_text()),
    "start, estate": ("estate", starting.ESTATE),
    "start, operation": ("operation", starting.OPERATION),
    "start, policy": ("policy", starting.POLICY),
    "start, estate uncommented": ("estate", uncommented(starting.ESTATE)),
    "start, operation uncommented": ("operation", uncommented(starting.OPERATION)),
    "start, policy uncommented": ("policy", uncommented(starting.POLICY)),
    "words that look like others": (
        "estate",
        "sites:\n  on: {summary: 1.10}\n  no: {summary: true}\n  2024: {summary: 2027-01-31}\n",
    ),
    "single values for lists": (
        "estate",
        STORE + "    holds: production-data\n    checks: http://a\n    needs: {store/b: soft}\n"
        "  b: {kind: postgres, url: {env: B_URL}}\n",
    ),
    "counts and durations": (
        "estate",
        "environments: {pilot: {production: false, max-rows: 1000, max-age: 30 d}}\n",
    ),
    "a date": (
        "estate",
        STORE + "    contraindications:\n"
        "      - {operation: a, because: b, expires: 2027-01-31, unless: {wait: 1, hard: true}}\n",
    ),
    "a whole operation": (
        "operation",
        "operation: reset\nrun: [./scripts/reset.sh, --days, 30]\non: store/pilot-db\n"
        "undo: {irreversible: sent}\nparameters:\n  days: {type: int, default: 30}\n"
        "  mode: {choices: [soft, full], default: soft}\n"
        "effects: [{delete: table a, rows: 5}]\n"
        "watch: {checks: [store/pilot-db, http://a], soak: 5m}\n",
    ),
    "an undo as text": (
        "operation",
        "operation: a\nrun: ./a\non: {store: {name: b}}\nundo: 'irreversible: sent'\n",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_one(kind: str) -> None:
    """Each is valid JSON Schema of the version that it names."""
    found = schema(kind)
    Draft202012Validator.check_schema(found)
    assert found["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


@pytest.mark.parametrize(("kind", "text"), VALID.values(), ids=VALID)
def test_what_is_valid_is_not_underlined(kind: str, text: str) -> None:
    """The example, the start that `init` writes, and every way to write a value are accepted."""
    assert mistakes(kind, text) == []


@pytest.mark.parametrize("start", ["ESTATE", "OPERATION", "POLICY"])
def test_the_start_is_right_once_it_is_uncommented(start: str) -> None:
    """The examples in the comments hold what they show: they are read to a mapping with keys."""
    found = yaml.load(uncommented(getattr(starting, start)), EditorLoader)
    assert len(found) >= 4


def test_the_uncommented_start_can_be_planned_with(tmp_path: Path) -> None:
    """Estate, operation and policy fit together when somebody takes the comments away."""
    write(
        tmp_path,
        {
            "estate/estate.yaml": uncommented(starting.ESTATE),
            "operations/example.yaml": uncommented(starting.OPERATION),
            "policy.yaml": uncommented(starting.POLICY),
            "scripts/reset_pilot.sh": "#!/bin/sh\n",
        },
    )
    assert problems(tmp_path) == ()


def _by_shape(kind: str, table: dict[str, Mistake]) -> dict[str, tuple[str, str]]:
    """Return the mistakes that a schema can see: those of type, key and name."""
    codes = {"estate.wrong-type", "estate.unknown-key", "estate.missing-key", "estate.bad-name"}
    return {
        f"{kind}: {name}": (kind, text)
        for name, (text, code, *_) in table.items()
        if code in codes and not any(word in name for word in BEYOND)
    }


WRONG = {
    **_by_shape("estate", ESTATE),
    **_by_shape("operation", OPERATION),
    **_by_shape("policy", POLICY),
}


@pytest.mark.parametrize(("kind", "text"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_underlined(kind: str, text: str) -> None:
    """Every mistake of type, key or name that reading refuses, the schema refuses as well."""
    assert mistakes(kind, text) != []


def test_every_key_has_a_sentence_for_people() -> None:
    """An editor shows what a key is for: none is without its description."""

    def keys(part: Any) -> list[tuple[str, dict[str, Any]]]:
        if isinstance(part, list):
            return [pair for item in part for pair in keys(item)]
        if not isinstance(part, dict):
            return []
        own = list(part["properties"].items()) if "properties" in part else []
        return own + [pair for item in part.values() for pair in keys(item)]

    for kind in ("operation", "policy"):
        found = keys(schema(kind))
        assert found
        assert [name for name, shape in found if not shape.get("description")] == []
