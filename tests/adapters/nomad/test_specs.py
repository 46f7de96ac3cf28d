"""Nomad's JSON as a specification, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.adapters.nomad.specs import group_named, spec_of, stored_spec, with_images
from handrail.errors import UsageError

JOB: dict[str, Any] = {
    "ID": "shop",
    "Name": "shop",
    "Status": "running",
    "JobModifyIndex": 12,
    "VaultToken": "s.secret",
    "Constraints": [],
    "Update": None,
    "Meta": {"empty": "", "a": "b"},
    "TaskGroups": [
        {
            "Name": "web",
            "Count": 0,
            "Meta": {},
            "Services": [{"Connect": {"SidecarService": {"Port": ""}}}],
            "Tasks": [
                {"Name": "app", "Config": {"image": "a:1", "args": []}, "Env": {"X": ""}},
                {"Name": "log", "Config": {"image": "log:1"}},
            ],
        },
        {
            "Name": "jobs",
            "Tasks": [{"Name": "app", "Config": {"image": "a:1"}}, {"Name": "cron"}],
        },
    ],
}
VALUES = st.recursive(
    st.sampled_from([None, False, 0, 1, "", "x"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["Meta", "Env", "Config", "Name", "Count", "Tasks"]), inner, max_size=2
        )
    ),
    max_leaves=6,
)


def test_what_the_server_adds_is_left_out_and_nothing_else() -> None:
    """Indexes, status and tokens go; zero, an empty block and a team's own maps stay."""
    body = spec_of(JOB).body
    assert set(body) == {"ID", "Name", "Meta", "TaskGroups"}
    groups = body["TaskGroups"]
    assert isinstance(groups, list)
    assert groups[0] == {
        "Name": "web",
        "Count": 0,
        "Services": [{"Connect": {"SidecarService": {}}}],
        "Tasks": [
            {"Name": "app", "Config": {"image": "a:1", "args": []}, "Env": {"X": ""}},
            {"Name": "log", "Config": {"image": "log:1"}},
        ],
    }


@given(st.dictionaries(st.sampled_from(["Name", "Meta", "Update", "X"]), VALUES, max_size=4))
def test_leaving_out_twice_is_once(job: dict[str, Any]) -> None:
    """A specification of a specification is itself."""
    once = spec_of({"ID": "a", **job}).body
    assert spec_of(once).body == once


def test_tasks_and_images_are_named_by_their_group() -> None:
    """Every task is there; those without an image are not among the images."""
    spec = spec_of(JOB)
    assert spec.tasks == ("web/app", "web/log", "jobs/app", "jobs/cron")
    assert dict(spec.images) == {"web/app": "a:1", "web/log": "log:1", "jobs/app": "a:1"}


def test_an_image_is_set_for_the_named_task_alone() -> None:
    """Not for its namesake in another group, and not in the specification it was made from."""
    spec = spec_of(JOB)
    made = with_images(spec, {"web/app": "a:2", "log": "log:2"})
    assert dict(made.images) == {"web/app": "a:2", "web/log": "log:2", "jobs/app": "a:1"}
    assert spec == spec_of(JOB)
    assert with_images(made, {"web/app": "a:1", "web/log": "log:1"}) == spec


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sidecar", "it has `web/app`, `web/log`, `jobs/app`, `jobs/cron`"),
        ("app", "write `web/app` or `jobs/app`"),
        ("cron", "those with an image: `jobs/app`, `web/app`, `web/log`"),
        ("web/app/x", "it has `web/app`, `web/log`, `jobs/app`, `jobs/cron`"),
    ],
)
def test_an_image_that_is_for_no_one_task_is_refused(name: str, hint: str) -> None:
    """Unknown, ambiguous, or without an image: what there is, is said."""
    with pytest.raises(UsageError) as caught:
        with_images(spec_of(JOB), {name: "a:2"})
    assert caught.value.code == "deploys.unknown-task"
    assert caught.value.hint == hint


def test_an_unknown_group_is_refused() -> None:
    """Those that there are, are named."""
    with pytest.raises(UsageError, match="no group `wbe`") as caught:
        group_named(spec_of(JOB).body, "wbe")
    assert caught.value.hint == "it has `web`, `jobs`"


def identified(**identity: object) -> dict[str, Any]:
    task = {"Name": "app", "Vault": {"Role": "shop"}, "Identities": [identity]}
    return {"ID": "shop", "TaskGroups": [{"Name": "web", "Tasks": [task]}]}


def test_what_the_server_gives_each_task_is_left_out_of_what_it_gives_back() -> None:
    """A plain identity for Vault; one that says more, or for something else, stays."""
    given = {"Name": "vault_default", "Audience": ["vault.io"], "Env": False, "TTL": 3600}
    groups: Any = stored_spec(identified(**given)).body["TaskGroups"]
    assert "Identities" not in groups[0]["Tasks"][0]
    for own in (given | {"Env": True}, given | {"Name": "aws"}, given | {"ChangeMode": "restart"}):
        groups = stored_spec(identified(**own)).body["TaskGroups"]
        assert groups[0]["Tasks"][0]["Identities"] == [own]
    groups = spec_of(identified(**given)).body["TaskGroups"]
    assert groups[0]["Tasks"][0]["Identities"] == [given]


def test_a_constraint_that_nothing_else_asks_for_stays() -> None:
    """The same constraint is the server's beside a service of Consul; without, the team's."""
    implied = {"LTarget": "${attr.consul.version}", "Operand": "semver", "RTarget": ">= 1.8.0"}
    group: dict[str, Any] = {"Name": "web", "Constraints": [implied]}
    job: dict[str, Any] = {"ID": "shop", "TaskGroups": [group]}
    assert spec_of(job).body == job
    group["Services"] = [{"Name": "shop", "Provider": "consul"}]
    groups: Any = spec_of(job).body["TaskGroups"]
    assert "Constraints" not in groups[0]
