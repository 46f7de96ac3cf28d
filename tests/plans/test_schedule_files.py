"""Reading `schedule:` and notifications.yaml: a mistake is told with its line, hostile or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from handrail.cli.schema import schema
from handrail.core.world import Declared
from handrail.estate.model import Address
from handrail.operations.schedules import cron_of, cron_problem, zone_of
from handrail.plans.notice import Email, Notice, Slack, Webhook
from support.declarations import STORE, problems, read, write

HEAD = "operation: reset\nrun: ./scripts/reset.sh\non: store/pilot-db\nundo: restore\n"
HOOK = "to:\n  on-call:\n    webhook: {url: {env: HOOK_URL}}\n"
SCHEDULES = {
    "four fields": ('{cron: "0 3 * *"}', "estate.wrong-type", "five fields"),
    "six fields": ('{cron: "0 0 3 * * *"}', "estate.wrong-type", "five fields"),
    "a minute that is none": ('{cron: "60 3 * * *"}', "estate.wrong-type", "bad minute"),
    "a day that never comes": ('{cron: "0 0 31 2 *"}', "estate.wrong-type", "bad day-of-month"),
    "words": ('{cron: "at three in the night"}', "estate.wrong-type", "not a cron expression"),
    "unknown zone": (
        '{cron: "0 3 * * *", zone: Europe/Berlni}',
        "estate.wrong-type",
        "`Europe/Ber",
    ),
    "a zone that is a path": (
        '{cron: "0 3 * * *", zone: ../../etc/passwd}',
        "estate.wrong-type",
        "",
    ),
    "a zone that is a folder": ('{cron: "0 3 * * *", zone: Europe}', "estate.wrong-type", ""),
    "nothing in it": ("{zone: UTC}", "estate.missing-key", "`cron`, an `expect` or a `by`"),
    "two without a name": (
        '[{cron: "0 3 * * *"}, {cron: "0 4 * * *"}]',
        "estate.missing-key",
        "its own `name`",
    ),
    "two of a name": (
        '[{name: a, cron: "0 3 * * *"}, {name: a, cron: "0 4 * * *"}]',
        "estate.missing-key",
        "its own `name`",
    ),
    "missed in another way": (
        '{cron: "0 3 * * *", missed: twice}',
        "estate.wrong-type",
        "one of `skip`, `once`",
    ),
    "a jitter of no unit": ('{cron: "0 3 * * *", jitter: 10}', "estate.wrong-type", "a duration"),
    "unknown store": (
        '{cron: "0 3 * * *", on: store/pilot-bd}',
        "estate.unknown-store",
        "pilot-bd",
    ),
    "unknown parameter": (
        '{cron: "0 3 * * *", parameters: {dyas: "3"}}',
        "operations.parameter",
        "no parameter `dyas`",
    ),
    "unknown key": ('{cron: "0 3 * * *", jiter: 10m}', "estate.unknown-key", "jiter"),
    "a time of day that is none": ('{by: "25:00"}', "estate.wrong-type", "five fields"),
}
DESTINATIONS = {
    "a secret by value": (
        "to:\n  a:\n    webhook:\n      url: https://x/\n      secret: whsec_abc\n",
        "estate.wrong-type",
        5,
    ),
    "a slack address by value": (
        "to:\n  a:\n    slack: {url: https://hooks.slack.com/x}\n",
        "estate.wrong-type",
        3,
    ),
    "a password by value": (
        "to:\n  a:\n    email: {server: m, from: a@b, to: c@d, password: x}\n",
        "estate.wrong-type",
        3,
    ),
    "no channel": ("to:\n  a:\n    for: [incident]\n", "estate.wrong-type", 3),
    "two channels": (
        "to:\n  a:\n    slack: {url: {env: A}}\n    webhook: {url: {env: B}}\n",
        "estate.wrong-type",
        3,
    ),
    "unknown kind": (HOOK + "    for: [incidents]\n", "estate.wrong-type", 4),
    "unknown key": (HOOK + "    kinds: [incident]\n", "estate.unknown-key", 4),
    "unknown environment": (HOOK + "    environments: [pilto]\n", "estate.unknown-environment", 3),
    "unknown resource": (HOOK + '    resources: ["store/x*"]\n', "estate.unknown-resource", 3),
    "no mailbox": (
        'to:\n  a:\n    email: {server: m, from: "a@b", to: "c@d, e@f"}\n',
        "estate.wrong-type",
        3,
    ),
    "a password in the clear": (
        "to:\n  a:\n    email: {server: m, from: a@b, to: c@d, tls: none, password: {env: P}}\n",
        "estate.wrong-type",
        3,
    ),
    "a link that is none": ("link: javascript:alert(1)\n", "estate.wrong-type", 1),
    "a list": ("- a\n", "estate.wrong-type", 1),
}


def repository(root: Path, schedule: str = "", told: str = "", on: str = "") -> Path:
    files = {
        "estate/a.yaml": "environments:\n  pilot: {}\n" + STORE + "    environment: pilot\n",
        "operations/reset.yaml": HEAD + (f"schedule: {schedule}\n" if schedule else ""),
        "scripts/reset.sh": "#!/bin/sh\n",
    }
    return write(root, files | ({"notifications.yaml": told} if told else {}))


def declare(root: Path, schedule: str = "", told: str = "") -> Declared:
    return read(repository(root, schedule, told))


@pytest.mark.parametrize(("text", "code", "said"), SCHEDULES.values(), ids=SCHEDULES)
def test_a_mistake_in_a_schedule_is_told_with_its_line(
    tmp_path: Path, text: str, code: str, said: str
) -> None:
    """At the file and line, before anything is begun at three in the night."""
    found = problems(repository(tmp_path, text))
    assert {(one.code, str(one.at)) for one in found} == {(code, "operations/reset.yaml:5")}
    assert said in found[0].message + found[0].hint


@pytest.mark.parametrize(("text", "code", "line"), DESTINATIONS.values(), ids=DESTINATIONS)
def test_a_mistake_in_a_destination_is_told_with_its_line(
    tmp_path: Path, text: str, code: str, line: int
) -> None:
    """And no secret that somebody wrote there by value is repeated."""
    (found,) = problems(repository(tmp_path, told=text))
    assert (found.code, str(found.at)) == (code, f"notifications.yaml:{line}")
    assert "whsec_abc" not in found.message


def test_several_stores_and_nobody_to_choose_are_told(tmp_path: Path) -> None:
    """A schedule for an operation that fits two stores names one of them."""
    root = repository(tmp_path, '{cron: "0 3 * * *"}')
    two = "  other-db:\n    kind: sqlite\n    url: o.db\n    environment: pilot\n"
    write(root, {"estate/b.yaml": "stores:\n" + two})
    text = (root / "operations/reset.yaml").read_text()
    text = text.replace("on: store/pilot-db", "on: {store: {environment: pilot}}")
    (root / "operations/reset.yaml").write_text(text)
    (found,) = problems(root)
    assert (found.code, found.hint) == ("operations.target", "on: store/pilot-db")
    (root / "operations/reset.yaml").write_text(text.replace('* *"}', '* *", on: store/other-db}'))
    assert problems(root) == ()


def test_a_schedule_is_read_with_all_that_it_says(tmp_path: Path) -> None:
    """One, or a list; a time of day is a cron expression; what is left out has its default."""
    (one,) = declare(tmp_path / "a", '{cron: "0  3 * * *"}').operations["reset"].schedules
    assert (one.cron, one.zone, one.late_s, one.missed, one.key) == (
        "0 3 * * *",
        "UTC",
        3600,
        "skip",
        "0 3 * * * UTC",
    )
    text = (
        '[{name: night, cron: "0 3 * * *", zone: Europe/Berlin, jitter: 10m, missed: once,'
        ' late: 6h, expect: 26h, on: store/pilot-db, rehearse: true}, {name: day, by: "06:30"}]'
    )
    night, day = declare(tmp_path / "b", text).operations["reset"].schedules
    assert (night.jitter_s, night.late_s, night.expect_s, night.rehearse) == (
        600,
        6 * 3600,
        26 * 3600,
        True,
    )
    assert (day.by, day.cron, day.expects) == ("30 6 * * *", "", True)


def test_destinations_are_read_with_all_that_they_say(tmp_path: Path) -> None:
    """Each by its channel; secrets are references."""
    text = """\
link: https://handrail.internal/runs/{run}
to:
  on-call:
    webhook: {url: {env: HOOK_URL}, secret: {file: secrets/hook}, authority: ca.pem}
    for: [incident, break-glass]
    environments: [pilot]
    resources: ["store/pilot-*"]
  chat:
    slack: {url: {env: CHAT_URL}}
  team:
    email:
      server: smtp.example.org:587
      from: handrail@example.org
      to: [ana@example.org, ben@example.org]
      user: handrail
      password: {env: SMTP_PASSWORD}
"""
    found = declare(tmp_path, told=text).notifications
    on_call, chat, team = found.to.values()
    assert on_call.channel == Webhook(
        Address(env="HOOK_URL"), Address(file="secrets/hook"), "ca.pem"
    )
    assert chat.channel == Slack(Address(env="CHAT_URL"))
    assert isinstance(team.channel, Email)
    assert (team.channel.tls, team.channel.sender) == ("starttls", "handrail@example.org")
    assert on_call.kinds == ("incident", "break-glass")
    assert "confirmed" not in chat.kinds


@pytest.mark.parametrize(
    ("resource", "environment", "kind", "is_told"),
    [
        ("store/pilot-db", "pilot", "incident", True),
        ("store/pilot-db", "pilot", "failed", False),
        ("store/other", "pilot", "incident", False),
        ("store/pilot-db", "", "incident", False),
        ("", "", "incident", False),
    ],
)
def test_who_is_told_is_said_by_kind_environment_and_resource(
    tmp_path: Path, resource: str, environment: str, kind: str, is_told: bool
) -> None:
    """All of them have to fit; what is left out fits everything."""
    text = HOOK + '    for: [incident]\n    environments: [pilot]\n    resources: ["store/p*"]\n'
    found = declare(tmp_path, told=text + "  all: {slack: {url: {env: X}}}\n").notifications
    notice = Notice("1", kind, "warning", "a", "b", "", resource=resource, environment=environment)
    assert found.routed(notice) == (("on-call", "all") if is_told else ("all",))


def test_the_schema_says_what_is_read() -> None:
    """What an editor underlines is what Handrail refuses, but for other files and names."""
    checks = Draft202012Validator(schema("notifications"))
    beyond = {"unknown environment", "unknown resource", "a password in the clear"}
    for name, (text, _, _) in DESTINATIONS.items():
        if name not in beyond:
            assert list(checks.iter_errors(yaml.safe_load(text))), name
    assert not list(checks.iter_errors(yaml.safe_load(HOOK)))
    operation = Draft202012Validator(schema("operation"))
    for name, (text, _, _) in SCHEDULES.items():
        if name in {"four fields", "nothing in it", "missed in another way", "unknown key"}:
            assert list(operation.iter_errors(yaml.safe_load(f"{HEAD}schedule: {text}"))), name


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=40) | st.text("0123456789*/,-#LW ?MONJAN()[]", max_size=40))
def test_any_text_is_a_cron_expression_or_is_not(text: str) -> None:
    """Whatever somebody writes, it is told in a sentence, and nothing trips over it."""
    assert isinstance(cron_problem(cron_of(text)), str)


@settings(deadline=None, max_examples=300)
@given(st.text(max_size=300) | st.text("./\\~\0 aEurope", max_size=60))
def test_any_text_is_a_zone_or_is_not(text: str) -> None:
    """A path, a NUL, a megabyte: a zone's name is never a file of somebody else's."""
    try:
        zone_of(text)
    except ValueError:
        return
    assert ".." not in text
