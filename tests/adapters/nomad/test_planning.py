"""What Nomad's answer to a plan is to people, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from handrail.adapters.nomad.planning import dry_run


def field(name: str, old: str, new: str, kind: str = "Edited") -> dict[str, Any]:
    return {"Type": kind, "Name": name, "Old": old, "New": new}


def task(*fields: dict[str, Any]) -> dict[str, Any]:
    config = {"Type": "Edited", "Name": "Config", "Fields": list(fields)}
    told = {"Type": "Edited", "Name": "app", "Objects": [config]}
    group = {"Type": "Edited", "Name": "web", "Tasks": [told]}
    return {"Diff": {"Type": "Edited", "ID": "shop", "TaskGroups": [group]}}


def test_each_difference_is_a_line_that_says_where() -> None:
    """Edited, added and deleted have a mark each; what did not change has no line."""
    told = task(
        field("image", "a:1", "a:2"),
        field("args[0]", "", "-v", "Added"),
        field("command", "sh", "", "Deleted"),
        field("same", "x", "x", "None"),
    )
    assert dry_run(told).diff == (
        "~ group web > task app > config > image: a:1 -> a:2",
        "+ group web > task app > config > args[0]: -v",
        "- group web > task app > config > command: sh",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Env[PORT]", "8080"),
        ("db_password", "hunter2"),
        ("auth_token", "hunter2"),
        ("args[1]", "--api-key=hunter2"),
        ("args[1]", "--password hunter2"),
        ("url", "postgres://ana:hunter2@db/shop"),
    ],
)
def test_what_may_be_a_secret_is_not_shown(name: str, value: str) -> None:
    """It is said to differ; neither old nor new value is there."""
    (line,) = dry_run(task(field(name, value, f"{value}x"))).diff
    assert value not in line
    assert "hunter2" not in line
    assert line.endswith("(not shown)")


def test_a_long_text_is_not_shown_whole() -> None:
    """A template is told by its lines, and a line has an end."""
    told = task(field("EmbeddedTmpl", "a\nb\n", "a\nc\nd\n"), field("x", "a", "b" * 5000))
    first, second = dry_run(told).diff
    assert first.endswith("embedded_tmpl: 2 lines -> 3 lines")
    assert len(second) < 400


def test_fates_are_counted_by_group() -> None:
    """Zeros are left out; warnings and what finds no place are told."""
    told = {
        "Annotations": {
            "DesiredTGUpdates": {
                "web": {"Place": 1, "Stop": 0, "DestructiveUpdate": 2, "InPlaceUpdate": 3},
                "api": {"Ignore": 4, "Canary": 1, "Migrate": 1},
            }
        },
        "Warnings": '1 warning:\n\n* Group "web" has warnings: 1 error occurred:\n\t* be careful',
        "FailedTGAllocs": {
            "web": {"NodesEvaluated": 2, "ConstraintFiltered": {"${attr.kernel} = bsd": 2}}
        },
    }
    found = dry_run(told)
    assert [(group.group, dict(group.counts)) for group in found.groups] == [
        ("api", {"ignore": 4, "canary": 1, "migrate": 1}),
        ("web", {"place": 1, "in-place": 3, "destructive": 2}),
    ]
    assert "be careful" in found.warnings
    assert found.unplaced == ("group web: 2 of 2 machines lack: ${attr.kernel} = bsd",)


def test_nothing_said_is_nothing_to_do() -> None:
    """An answer without anything changes nothing."""
    assert not dry_run({}).changes
    assert not dry_run({"Diff": {"Type": "None", "ID": "shop"}, "Warnings": ""}).warnings
