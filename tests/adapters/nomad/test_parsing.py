"""Specifications read by a real cluster, and here where it is away."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from typing import Any

import pytest

from handrail.adapters.nomad import NomadPlatform, Where
from handrail.adapters.nomad.variables import assignments, declared_in, quoted
from handrail.errors import DeclarationError, PlatformError
from handrail.kits.deploys.model import Spec
from support.nomad import NomadAgent, raw_job

HARD = 'a "b" \\ ${c} %{d} $${e}\n\té\u2028'


def wrong(platform: NomadPlatform, text: str, **variables: str) -> DeclarationError:
    with pytest.raises(DeclarationError) as caught:
        platform.parse(text, "deploy/shop.nomad", variables)
    assert caught.value.code == "deploys.spec"
    assert caught.value.at is not None
    assert caught.value.at.file == "deploy/shop.nomad"
    return caught.value


def env(spec: Spec) -> Any:
    groups: Any = spec.body["TaskGroups"]
    return groups[0]["Tasks"][0]["Env"]


def with_variables(*declared: str, **used: str) -> str:
    lines = "\n".join(f"{key} = {value}" for key, value in used.items())
    job = raw_job("shop").replace(
        'driver = "raw_exec"', f'driver = "raw_exec"\nenv {{\n{lines}\n}}'
    )
    return "\n".join([*declared, job])


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('job "shop" {\n  group "web" {\n    count = = 2\n  }\n}\n', 3, "Invalid expression"),
        ('job "shop" {\n  grup "web" {\n  }\n}\n', 2, "Unsupported block"),
        ('job "shop" {\n  group "web" {\n    cuont = 2\n  }\n}\n', 3, "cuont"),
        ('job "shop" {\n  group "web" {\n', 2, "Unclosed"),
        ('job "shop" {\n  name = file("/etc/passwd")\n}\n', 2, "leads out"),
        ('job "shop" {\n  name = file("${"x"}")\n}\n', 2, "filesystem function"),
        ('variable "x" {}\njob "shop" {\n  name = var.x\n}\n', 1, "x"),
        ('job "shop" {\n  name = var.none\n}\n', 2, "none"),
        ("", None, "empty"),
        ("just words", 1, ""),
        ('job "shop" {\n  name = "\x00"\n}\n', 2, ""),
    ],
)
def test_what_does_not_parse_is_told_with_its_line(
    platform: NomadPlatform, text: str, line: int | None, said: str
) -> None:
    """By the cluster's own words."""
    error = wrong(platform, text)
    assert error.at is not None
    assert error.at.line == line
    assert said in error.message


def test_values_of_variables_arrive_as_they_are(platform: NomadPlatform) -> None:
    """Letters that mean something to HCL mean themselves; numbers and lists keep their type."""
    text = with_variables(
        'variable "plain" {}',
        'variable "text" { type = string }',
        'variable "number" {\n  type = number\n}',
        'variable "names" {\n  # what they are\n  type = list(string)\n}',
        'variable "sizes" {\n  type = map(string)\n}',
        'variable "left" {\n  default = "out"\n}',
        A="var.plain",
        B="var.text",
        C="var.number + 1",
        D='join("+", var.names)',
        E='var.sizes["a"]',
        F="var.left",
    )
    values = {
        "plain": HARD,
        "text": "12",
        "number": "41",
        "names": '["x", "y"]',
        "sizes": '{"a": "1"}',
        "nobody-asked": "z",
    }
    assert env(platform.parse(text, "shop.nomad", values)) == {
        "A": HARD,
        "B": "12",
        "C": "42",
        "D": "x+y",
        "E": "1",
        "F": "out",
    }


def test_no_value_of_a_variable_is_in_an_error(platform: NomadPlatform) -> None:
    """Also where the cluster repeats it."""
    text = with_variables('variable "key" {\n  type = number\n}', A="var.key")
    error = wrong(platform, text, key="hunter2-hunter2")
    assert "key" in error.message
    assert "hunter2" not in error.message
    used = raw_job("shop").replace("count = 1", "count = var.key")
    text = f'variable "key" {{\n  type = string\n}}\n{used}'
    assert "hunter2" not in wrong(platform, text, key="hunter2-hunter2").message


def test_json_is_taken_as_it_is(platform: NomadPlatform) -> None:
    """What the cluster prints of a job is a specification of it, with and without `Job`."""
    spec = platform.parse(raw_job("shop"), "shop.nomad", {})
    for job in (dict(spec.body), {"Job": {**spec.body, "JobModifyIndex": 12, "Status": "dead"}}):
        assert platform.parse(json.dumps(job), "shop.json", {}) == spec


@pytest.mark.parametrize(
    ("text", "line"),
    [('{\n"ID": "a",\n}', 3), ("{}", 1), ('{"Job": []}', 1), ('{"ID": 3}', 1), ("[" * 99999, None)],
)
def test_json_that_is_no_job_is_refused(text: str, line: int | None) -> None:
    """Without asking anybody."""
    with closing(away()) as platform, pytest.raises(DeclarationError) as caught:
        platform.parse(text, "shop.json", {})
    assert caught.value.at is not None
    assert caught.value.at.line == line


def test_a_cluster_that_is_away_is_told_unless_the_text_is_wrong() -> None:
    """A mistake in the text is found here, with its line; without one, the cluster is missed."""
    with closing(away()) as platform:
        error = wrong(platform, 'job "shop" {\n  group "web" {\n    count = = 2\n  }\n}\n')
        assert error.at is not None
        assert error.at.line == 3
        with pytest.raises(PlatformError) as caught:
            platform.parse(raw_job("shop"), "shop.nomad", {})
    assert caught.value.is_passing


def test_a_huge_text_is_refused_here(platform: NomadPlatform) -> None:
    """Before a cluster reads it."""
    assert "larger than" in wrong(platform, "#" * (2 * 1024 * 1024)).message


def test_the_agent_has_no_file_of_a_specification(
    platform: NomadPlatform, nomad_agent: NomadAgent
) -> None:
    """Reading registers nothing."""
    platform.parse(raw_job("shop"), "shop.nomad", {})
    assert nomad_agent.ask("GET", "/v1/jobs") == []


def test_declared_variables_are_found_by_their_look() -> None:
    """With their types; in one line or several, with and without quotes."""
    text = (
        'variable "a" {}\nvariable b { type = number }\n variable "c" {\n  type = map(string)\n}\n'
    )
    assert declared_in(text) == {"a": "", "b": "number", "c": "map"}
    assert declared_in("") == {}


def test_only_declared_values_are_sent() -> None:
    """Text is quoted; what stands for a list or map is not."""
    declared = {"a": "", "b": "list"}
    assert assignments(declared, {"a": "x", "b": ' ["y"] ', "c": "z"}) == 'a = "x"\nb = ["y"]'
    assert quoted("${a}%{b}") == '"$${a}%%{b}"'


def away() -> NomadPlatform:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    return NomadPlatform("platform/prod", Where(f"http://127.0.0.1:{port}"))
