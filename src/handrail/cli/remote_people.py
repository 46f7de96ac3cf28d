"""What people sign, against a server: withdrawals, reviews and answers.

Rules:
- A key never leaves this machine: what is signed is made here from the values that were shown, and
  must be what the server says is signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

from handrail.cli.client import value_of
from handrail.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from handrail.cli.remote import RemoteCall

T = TypeVar("T")


def approvals(call: RemoteCall) -> int:
    """List the approvals that count."""
    from handrail.cli import approvals as command
    from handrail.core.standing import Living
    from handrail.plans.model import Approval

    found = call.server.ask("GET", "/v1/approvals")
    once = [value_of(one, Approval) for one in found["once"]]
    return command.show(call, once, [value_of(one, Living) for one in found["standing"]])


def withdraw(call: RemoteCall) -> int:
    """Withdraw one's own approvals of a plan, or the one of an id."""
    from handrail.cli import withdraw as command
    from handrail.core import withdrawing
    from handrail.core.withdrawing import Withdrawal

    options = call.options
    path = f"/v1/plans/{_plan_of(call, options.what)}"
    drafted = call.server.ask("POST", f"{path}/withdrawal-drafts", {"because": options.because})
    wanted = options.what.replace("-", "").lower()
    done = []
    for found, payload in zip(drafted["withdrawals"], drafted["payloads"], strict=True):
        said = value_of(found, Withdrawal)
        if not (said.id.startswith(wanted) or said.digest.startswith(wanted)):
            continue
        signature = _signed(call, withdrawing.payload(said), payload)
        body = {"withdrawal": {**found, "signature": signature}}
        answered = call.server.ask("POST", f"{path}/withdrawals", body)
        done.append(value_of(answered["withdrawal"], Withdrawal))
    return command.show(call, done)


def _plan_of(call: RemoteCall, what: str) -> str:
    """Return the digest that is meant: given itself, or by the id of one of its approvals."""
    found = call.server.ask("GET", "/v1/approvals")
    every = [*found["once"], *(one["approval"] for one in found["standing"])]
    wanted = what.replace("-", "").lower()
    meant = {str(one["digest"]) for one in every if wanted and str(one["id"]).startswith(wanted)}
    return meant.pop() if len(meant) == 1 else _part(what)


def review(call: RemoteCall) -> int:
    """Review what was done behind broken glass."""
    from handrail.cli import review as command
    from handrail.core import breaking
    from handrail.core.breaking import Break, Review

    options = call.options
    if not options.because:
        raise UsageError("usage", "say in words what was found", hint='--because "..."')
    path = f"/v1/glass/{_part(options.what)}"
    drafted = call.server.ask("POST", f"{path}/review-drafts", {"because": options.because})
    broken, said = value_of(drafted["glass"], Break), value_of(drafted["review"], Review)
    command.confirm(call, broken)
    if (said.id, said.because) != (broken.glass.id, options.because):
        raise _other()
    signature = _signed(call, breaking.review_payload(broken, said), drafted["payload"])
    body = {"review": {**drafted["review"], "signature": signature}}
    answered = call.server.ask("POST", f"{path}/reviews", body)
    return command.show(call, value_of(answered["glass"], Break))


def answer(call: RemoteCall) -> int:
    """Answer what a run asks, or show it."""
    from handrail.cli import answer as command
    from handrail.core import asking
    from handrail.core.asking import Answer, Asked

    options = call.options
    path = f"/v1/runs/{options.run}/questions"
    if not options.name:
        found = call.server.ask("GET", path)["questions"]
        return command.show(call, [value_of(one, Asked) for one in found])
    command.insist(call)
    said = {
        "value": options.value or "",
        "refused": options.refuse,
        "because": options.because,
    }
    path = f"{path}/{_part(options.name)}"
    drafted = call.server.ask("POST", f"{path}/answer-drafts", said)
    asked, unsigned = value_of(drafted["asked"], Asked), value_of(drafted["answer"], Answer)
    if (unsigned.value, unsigned.refused) != (said["value"], said["refused"]):
        raise _other()
    signature = _signed(call, asking.payload(asked, unsigned), drafted["payload"])
    body = {"answer": {**drafted["answer"], "signature": signature}}
    answered = call.server.ask("POST", f"{path}/answers", body)
    return command.tell(call, value_of(answered["answer"], Answer))


def _signed(call: RemoteCall, payload: bytes, shown: str) -> str:
    """Return a signature over what was shown, which must be what the server says is signed."""
    from handrail.cli import approve

    if payload != shown.encode():
        raise _other()
    return call.world.keys.sign(payload, approve.key_of(call))


def _other() -> RefusedError:
    return RefusedError(
        "remote.answer", "the server wants something else signed than what it showed"
    )


def _part(text: str) -> str:
    return quote(text or "-", safe="")
