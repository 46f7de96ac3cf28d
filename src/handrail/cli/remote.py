"""The commands against a server: the same screens and exit codes, from its answers.

Rules:
- What a server sends is decoded into the core's own values, and shown by the same functions.
- A key never leaves this machine: what is signed is made here from the values that were shown, and
  must be what the server says is signed.
- Ctrl-C does not end what runs on the server unless somebody says so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote

from handrail.cli import remote_deploys, remote_people
from handrail.cli.call import Call
from handrail.cli.client import Server, StoppedError, error_of, value_of
from handrail.errors import HandrailError, RefusedError, StoreError, UsageError

if TYPE_CHECKING:
    from handrail.core.deciding import Decided
    from handrail.core.world import Declared, World
    from handrail.plans.model import Plan
    from handrail.ports import Record

T = TypeVar("T")
# These need neither a repository nor a server.
ANYWHERE = frozenset({"schema", "completion"})


class RemoteCall(Call):
    """One call of a command against the server of HANDRAIL_URL."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        self.server = Server(os.environ)

    @cached_property
    def declared(self) -> Declared:
        """Nothing but the policy's bounds, as the server has them."""
        from handrail.core.world import Declared
        from handrail.estate.model import Estate
        from handrail.plans.policy import Policy

        told = self.server.ask("GET", "/v1/whoami")
        policy = Policy(
            undo_age_s=int(told["undo_age_s"]), rehearsal_age_s=int(told["rehearsal_age_s"])
        )
        return Declared(Estate(), {}, policy)

    @cached_property
    def world(self) -> World:
        """The ports of this machine, but for the journal, which is the server's."""
        from handrail import wiring

        here = wiring.world(self.root, self.state, dict(os.environ))
        return replace(here, journal=cast("Any", _Away(self.server)))


class _Away:
    """The server's journal, as far as screens read it: the records of walks."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def records(self, chain: str, after: int = 0) -> Iterator[Record]:
        """Yield a walk's records."""
        kind, _, number = chain.partition("-")
        if kind != "walk" or not number.isdecimal():
            raise AssertionError(f"the chain {chain} is the server's own")
        found = self._server.ask("GET", f"/v1/runs/{number}/marks")
        for one in found["records"]:
            record = value_of(one, _record())
            if record.sequence > after:
                yield record


def _record() -> type[Record]:
    from handrail.ports import Record

    return Record


def run(name: str, module: ModuleType, words: Sequence[str]) -> int:
    """Run a command against the server, and return its exit code.

    Raises:
        UsageError: the command works on this machine alone.
    """
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(
            "remote.local-only",
            f"`handrail {name}` works on this machine alone, and HANDRAIL_URL is set",
            hint=f"env -u HANDRAIL_URL handrail {name} ...     on the machine that it is meant for",
        )
    return command(RemoteCall.parse(name, module, words))


def _plan(found: object) -> Plan:
    from handrail.plans.model import Plan

    return value_of(found, Plan)


def _decided(plan: Plan) -> Decided:
    """Return what the screens know of a plan: nothing but itself."""
    from handrail.core.deciding import Decided

    return Decided(plan, cast("Any", None), cast("Any", None), cast("Any", None))


def _status(call: RemoteCall) -> int:
    from handrail.cli import status

    return status.show(call, call.server.ask("GET", "/v1/status"))


def _check(call: RemoteCall) -> int:
    from handrail.cli import check
    from handrail.core.lessons import Lesson

    found = call.server.ask("GET", "/v1/check")
    errors, warnings = (
        [error_of({**one, "detail": one["message"]}, "") for one in found[kind]]
        for kind in ("errors", "warnings")
    )
    counted = f"{found['resources']} resources, {found['operations']} operations"
    learnt = [value_of(one, Lesson) for one in found["contraindications"]]
    check.show(call, errors, warnings, counted, learnt)
    return 2 if errors or (call.options.strict and warnings) else 0


def _wanted(call: RemoteCall) -> dict[str, Any]:
    """Return what the options ask for."""
    from handrail.cli import choosing

    options = call.options
    on = {"on": options.on} if options.on else {}
    kit = {"kit": options.kit} if getattr(options, "kit", "") else {}
    return {
        **kit,
        "operation": options.operation,
        "parameters": choosing.parameters(call),
        "because": options.because,
        "without": list(getattr(options, "without", None) or ()),
        **on,
    }


def _show_judged(call: RemoteCall, found: Mapping[str, Any], *, with_next: bool = True) -> Plan:
    """Write a plan, or the fan-out that it stands for, and return it."""
    from handrail.cli import plan as plans
    from handrail.cli import walks
    from handrail.plans.fan_out import FanOut

    plan = _plan(found["plan"])
    if found.get("fan_out") is None:
        plans.show(call, plan, with_next=with_next)
    else:
        walks.show_fan_out(call, value_of(found["fan_out"], FanOut), with_next=with_next)
    return plan


def plan_it(call: RemoteCall, *, alternative: bool = False) -> int:
    """Plan, and show the plan; with `alternative`, of what is safe instead."""
    wanted = _wanted(call) | ({"alternative": True} if alternative else {})
    plan = _show_judged(call, call.server.ask("POST", "/v1/plans", wanted))
    return {"allow": 0, "refuse": 3, "require": 4}[plan.verdict]


def _rehearse(call: RemoteCall) -> int:
    from handrail.cli import rehearse

    ended = _follow(call, call.server.ask("POST", "/v1/rehearsals", _wanted(call)))
    if ended.get("fan_out") is not None:
        _show_judged(call, ended)
        return int(ended["exit_code"])
    kept_s = call.declared.policy.rehearsal_age_s
    rehearse.show(call, _plan(ended["plan"]), kept_s, is_declared=True)
    return int(ended["exit_code"])


def run_it(call: RemoteCall) -> int:
    """Run, follow it, and show how it ended."""
    if getattr(call.options, "break_glass", None) is not None:
        raise UsageError(
            "remote.local-only", "the glass is broken on the server's own machine alone"
        )
    try:
        begun = call.server.ask("POST", "/v1/runs", _wanted(call))
    except StoppedError as stopped:
        _show_judged(call, stopped.judged)
        return stopped.exit_code
    return _show_run(call, _follow(call, begun))


def _show_run(call: RemoteCall, ended: Mapping[str, Any]) -> int:
    from handrail.cli import run as runs
    from handrail.cli import walks
    from handrail.core.outcome import Outcome

    if "walk" in ended:
        walks.show_walk(call, int(ended["walk"]), int(ended["exit_code"]))
        return int(ended["exit_code"])

    if "outcome" not in ended:
        return int(ended["exit_code"])
    outcome = value_of(ended["outcome"], Outcome)
    return runs.show(call, outcome, _decided(_plan(ended["plan"])), int(ended["exit_code"]))


def _resume(call: RemoteCall) -> int:
    options = call.options
    chosen = [name for name in ("undo", "accept", "rerun", "leave") if getattr(options, name)]
    body = {"choice": chosen[0] if chosen else "", **({"on": options.on} if options.on else {})}
    path = f"/v1/runs/{options.number}/resume"
    return _show_run(call, _follow(call, call.server.ask("POST", path, body)))


def _undo(call: RemoteCall) -> int:
    path, body = f"/v1/runs/{call.options.number}/undo", {"lose_newer": call.options.lose_newer}
    return _show_run(call, _follow(call, call.server.ask("POST", path, body)))


def _follow(call: RemoteCall, errand: Mapping[str, Any]) -> Mapping[str, Any]:
    """Show what an errand says, and return how it ended.

    Raises:
        HandrailError: as it ended with.
    """
    number = errand.get("run")
    path = f"/v1/errands/{errand['id']}/events"
    while True:
        try:
            for event in _events(call, path):
                number = event.get("run", number)
                if event["event"] == "ended":
                    if "problem" in event:
                        raise error_of(event["problem"], "it ended badly")
                    return event
                _show_event(call, event)
        except KeyboardInterrupt:
            _interrupted(call, number)
        else:
            raise StoreError(
                "remote.unreachable",
                "the server ended before this did",
                hint=f"handrail runs show {number}" if number else "handrail",
            )


def _events(call: RemoteCall, path: str) -> Iterator[dict[str, Any]]:
    """Yield each event once, also over connections that break."""
    last = 0
    broken = 0
    while True:
        try:
            for line in call.server.lines(path, last):
                if not line.startswith("data: "):
                    continue
                event: dict[str, Any] = json.loads(line[len("data: ") :])
                if event.get("n", last + 1) > last:
                    last, broken = event.get("n", last + 1), 0
                    yield event
        except StoreError:
            broken += 1
            if broken > 5:  # noqa: PLR2004  nobody is there any more
                raise
            call.world.clock.sleep(0.5 * broken)
        else:
            return


def _show_event(call: RemoteCall, event: Mapping[str, Any]) -> None:
    talk = call.talk
    match event["event"]:
        case "begin":
            talk.begin(event["stage"], event["text"])
        case "progress":
            talk.progress(event["done"], event["total"])
        case "below":
            talk.below(event["lines"])
        case "output":
            talk.output(event["text"].encode())
        case "end":
            talk.end(event["stage"], event["text"], ok=event["ok"])


def _interrupted(call: RemoteCall, number: int | None) -> None:
    """Ask what Ctrl-C means; nobody to ask means: look away, and let it go on.

    Raises:
        KeyboardInterrupt: look away.
    """
    if number is None:
        raise KeyboardInterrupt
    choice = call.talk.choose(
        f"run {number} goes on on the server",
        {
            "leave": "look away: it goes on, and `handrail runs show` tells how it ended",
            "undo": "stop it, and put everything back",
            "stop": "stop it, and leave what it did",
        },
        "leave",
    )
    if choice == "leave":
        call.talk.end("run", f"goes on; handrail runs show {number}", ok=True)
        raise KeyboardInterrupt
    call.server.ask("POST", f"/v1/runs/{number}/stop", {"then": choice})


def _approve(call: RemoteCall) -> int:
    from handrail.cli import approve, screen
    from handrail.core import observing
    from handrail.plans.bounds import bounds_of
    from handrail.plans.canonical import plain
    from handrail.plans.model import Approval

    options = call.options
    standing_s = approve.seconds_of(options.standing)
    found = call.server.ask("GET", f"/v1/plans/{part(options.digest)}")
    plan = _plan(found["plan"])
    if not options.json:
        _show_judged(call, found, with_next=False)
        screen.write("")
    name = approve.confirm(call, plan)
    said = {"because": options.because, "name": name, "standing_s": standing_s}
    path = f"/v1/plans/{plan.digest}"
    drafted = call.server.ask("POST", f"{path}/approval-drafts", said)
    approval = value_of(drafted["approval"], Approval)
    payload = observing.payload(approval, plan.target.resource)
    bounds = bounds_of(plan) if standing_s else None
    is_same = approval.digest == plan.digest and approval.bounds == bounds
    if not is_same or payload != drafted["payload"].encode():
        raise RefusedError(
            "remote.answer", "the server wants something else signed than what it showed"
        )
    signature = call.world.keys.sign(payload, approve.key_of(call))
    body = {"approval": {**_mapping(plain(approval)), "signature": signature}}
    answered = call.server.ask("POST", f"{path}/approvals", body)
    approval = value_of(answered["approval"], Approval)
    if options.json:
        screen.write_json({"format": 1, "approval": plain(approval)})
        return 0
    more, may = int(answered["lacking"]), tuple(answered["may"])
    screen.write("\n".join(approve.lines(plan, approval, more, int(answered["wanted"]), may)))
    return 0


def _release(call: RemoteCall) -> int:
    from handrail.cli import approve, release
    from handrail.core import holding
    from handrail.core.holding import Held, Release
    from handrail.plans.canonical import plain

    options = call.options
    held = [value_of(one, Held) for one in call.server.ask("GET", "/v1/holds")["held"]]
    found = [one for one in held if one.id.startswith(options.id)]
    release.confirm(call, found)
    if len(found) != 1:
        waiting = ", ".join(one.id for one in held) or "nothing"
        raise UsageError(
            "hold.unknown",
            f"not one statement waits whose id begins with `{options.id}`",
            hint=f"waiting now: {waiting}",
        )
    path = f"/v1/holds/{found[0].id}"
    said = {"allow": not options.refuse, "because": options.because}
    drafted = call.server.ask("POST", f"{path}/release-drafts", said)
    unsigned = value_of(drafted["release"], Release)
    payload = holding.payload(found[0], unsigned)
    if unsigned.allow is options.refuse or payload != drafted["payload"].encode():
        raise RefusedError(
            "remote.answer", "the server wants something else signed than what it showed"
        )
    signature = call.world.keys.sign(payload, approve.key_of(call))
    body = {"release": {**_mapping(plain(unsigned)), "signature": signature}}
    answered = call.server.ask("POST", f"{path}/releases", body)
    return release.show(call, value_of(answered["release"], Release))


def _runs(call: RemoteCall) -> int:
    from handrail.cli import runs

    options = call.options
    if options.show and options.number is None:
        raise UsageError("usage", "which run?", hint="handrail runs show RUN")
    if options.show:
        return _show_one(call, options.number)
    found: list[dict[str, Any]] = []
    limit, before = (500 if options.all or options.json else 20), ""
    children = "&children=true" if options.all or options.json else ""
    while True:
        page = call.server.ask("GET", f"/v1/runs?limit={limit}{children}{before}")
        found += page["runs"]
        if page["before"] is None or not (options.all or options.json):
            return runs.show_list(call, found, max(page["total"], len(found)))
        before = f"&before={page['before']}"


def _show_one(call: RemoteCall, number: int) -> int:
    from handrail.cli import runs, walks

    head = call.server.ask("GET", f"/v1/runs/{number}")
    try:
        call.server.ask("GET", f"/v1/runs/{number}/marks")
    except HandrailError as error:
        if error.code != "api.not-found":
            raise
    else:
        return walks.show_story(call, number)
    told: list[tuple[str, str, Mapping[str, Any]]] = []
    after: int | None = 0
    while after is not None:
        page = call.server.ask("GET", f"/v1/runs/{number}/records?limit=500&after={after}")
        told += [(one["time"], one["kind"], one["body"]) for one in page["records"]]
        after = page["after"]
    output = f"on the server, {call.server.address}"
    return runs.show_one(call, head, told, output)


def _explain(call: RemoteCall) -> int:
    from handrail.cli import explain

    what = str(call.options.what)
    if what.isdecimal():
        try:
            found = call.server.ask("GET", f"/v1/runs/{int(what)}/plan")
            return explain.show(call, _plan(found["plan"]))
        except HandrailError as error:
            if error.code != "plan.unknown":
                raise
    return explain.show(call, _plan(call.server.ask("GET", f"/v1/plans/{part(what)}")["plan"]))


def _log(call: RemoteCall) -> int:
    from handrail.cli import log

    if call.options.what == "verify":
        # Verified here: whoever asks whether a journal is whole need not believe its keeper.
        return log.verify(call, lambda: list(call.server.lines("/v1/log")))
    if call.options.what == "import":
        raise UsageError(
            "remote.local-only",
            "a journal is imported where it is to be kept",
            hint="unset HANDRAIL_URL, and set HANDRAIL_JOURNAL where it is in PostgreSQL",
        )
    for line in call.server.lines("/v1/log"):
        sys.stdout.write(line + "\n")
    return 0


def _tokens(call: RemoteCall) -> int:
    from handrail.cli import tokens

    options = call.options
    if options.what == "create":
        made = call.server.ask("POST", "/v1/tokens", tokens.wanted(call))
        return tokens.show_made(call, made["token"], made["secret"])
    if options.what == "revoke":
        every = [str(token["id"]) for token in call.server.ask("GET", "/v1/tokens")["tokens"]]
        found = [name for name in every if options.id and name.startswith(options.id.lower())]
        name = found[0] if len(found) == 1 else options.id
        return tokens.show_revoked(call, call.server.ask("DELETE", f"/v1/tokens/{part(name)}"))
    return tokens.show_list(call, call.server.ask("GET", "/v1/tokens")["tokens"])


def _schedules(call: RemoteCall) -> int:
    from handrail.cli import remote_schedules

    return remote_schedules.run(call)


def part(text: str) -> str:
    """Return text as one part of an address."""
    return quote(text or "-", safe="")


def _mapping(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


COMMANDS: Mapping[str, Callable[[RemoteCall], int]] = {
    "status": _status,
    "check": _check,
    "plan": plan_it,
    "rehearse": _rehearse,
    "approve": _approve,
    "release": _release,
    "approvals": remote_people.approvals,
    "withdraw": remote_people.withdraw,
    "review": remote_people.review,
    "answer": remote_people.answer,
    "run": run_it,
    "resume": _resume,
    "undo": _undo,
    "runs": _runs,
    "explain": _explain,
    "log": _log,
    "tokens": _tokens,
    "schedules": _schedules,
    **{verb: remote_deploys.command(verb) for verb in remote_deploys.VERBS},
}
