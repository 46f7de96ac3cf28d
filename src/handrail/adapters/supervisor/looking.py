"""How an app's instances are, by supervisord and checks, and how what is wanted is brought about.

Rules:
- Supervisord itself says whose configuration is not the one that runs; nothing is remembered here.
- Nothing waits for a process to end: whoever looks again finds it ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handrail.adapters.supervisor.fragment import group_of
from handrail.adapters.supervisor.link import (
    ALREADY_ADDED,
    BAD_NAME,
    NOT_RUNNING,
    STILL_RUNNING,
    FaultError,
    Link,
)
from handrail.adapters.supervisor.rolling import Instance, Seen
from handrail.adapters.supervisor.state import State
from handrail.adapters.supervisor.tasks import Task, Update
from handrail.errors import PlatformError
from handrail.ports import Checks

_RUNNING = 20
_ABOUT_TO_RUN = frozenset({10, 30})  # STARTING, BACKOFF
_GAVE_UP = 200
_CHECK_S = 3.0
_AT_ONCE = 8


@dataclass(frozen=True)
class Group:
    """One instance as supervisord has it: its state, how long it runs, and what is wrong."""

    state: int
    uptime_s: int
    said: str

    @property
    def is_running(self) -> bool:
        """Whether its process has stayed up."""
        return self.state == _RUNNING


def groups(link: Link, names: Iterable[str]) -> dict[str, Group]:
    """Return those of these groups that supervisord has."""
    asked = sorted(names)
    found = link.call_each("getProcessInfo", [f"{name}:{name}" for name in asked])
    return {name: _group(info) for name, info in zip(asked, found, strict=True) if info is not None}


def _group(info: Mapping[str, Any]) -> Group:
    state, said = int(info["state"]), str(info["spawnerr"] or info["statename"]).lower()
    return Group(state, int(info["now"]) - int(info["start"]), said)


def bring(link: Link, app: str, state: State, folder: Path) -> frozenset[str]:
    """Go one step towards what the fragment says; return the groups that are not there yet.

    Those that the newest deployment has not placed stay as they are, whatever the fragment says.

    Args:
        link: to supervisord.
        app: its name.
        state: what is wanted.
        folder: where the fragment is.

    Raises:
        PlatformError: supervisord does not read the fragment, or does not answer.
    """
    ((added, changed, removed),) = link.call("reloadConfig")
    ours = {
        group_of(app, task, number)
        for task, places in state.placed.items()
        for number, (_, deployment) in enumerate(places)
        if state.last is not None and deployment == state.last.number
    }
    _check_read(link, ours - {*added, *changed}, folder)
    late = set()
    for name in sorted(_of(app, removed)):
        if not _ended(link, name):
            late.add(name)
    for name in sorted(ours & {*added, *changed}):
        if (name in changed and not _ended(link, name)) or not _begun(link, name):
            late.add(name)
    return frozenset(late)


def is_gone(link: Link, app: str) -> bool:
    """End every instance of an app that the fragment does not name; return whether all ended."""
    ((_, _, removed),) = link.call("reloadConfig")
    left = [name for name in sorted(_of(app, removed)) if not _ended(link, name)]
    return not left


def _of(app: str, names: list[str]) -> set[str]:
    return {name for name in names if name.startswith(f"{app}+")}


def _ended(link: Link, name: str) -> bool:
    """Tell a group to end, and remove it where it has; return whether it is gone."""
    try:
        link.call("stopProcess", f"{name}:{name}", False)  # noqa: FBT003  of XML-RPC
    except FaultError as fault:
        if fault.number not in {NOT_RUNNING, BAD_NAME}:
            raise
    try:
        link.call("removeProcessGroup", name)
    except FaultError as fault:
        if fault.number == STILL_RUNNING:
            return False
        if fault.number != BAD_NAME:
            raise
    return True


def _begun(link: Link, name: str) -> bool:
    try:
        link.call("addProcessGroup", name)
    except FaultError as fault:
        if fault.number != ALREADY_ADDED:
            raise
    return True


def _check_read(link: Link, names: set[str], folder: Path) -> None:
    """Raise where supervisord knows nothing of groups that the fragment has.

    Raises:
        PlatformError: it does not include the folder of fragments.
    """
    if names - groups(link, names).keys():
        raise PlatformError(
            "platform.failed",
            f"supervisord at {link.endpoint} does not read {folder}",
            hint=f"its configuration needs `[include]` with `files = {folder}/*.conf`",
        )


def look(
    checks: Checks,
    found: Mapping[str, Group],
    late: frozenset[str],
    app: str,
    wanted: Mapping[Instance, tuple[Task, Update]],
) -> dict[Instance, Seen]:
    """Return how each instance is; those that run long enough are checked, several at once."""
    seen: dict[Instance, Seen] = {}
    to_check = {}
    for one, (task, update) in wanted.items():
        name = group_of(app, *one)
        seen[one] = _seen(found.get(name), update, is_late=name in late)
        address = task.check(one[1])
        if seen[one].health == "healthy" and address:
            to_check[one] = address
    if to_check:
        with ThreadPoolExecutor(min(_AT_ONCE, len(to_check))) as pool:
            results = pool.map(lambda address: _checked(checks, address), to_check.values())
            seen |= dict(zip(to_check, results, strict=True))
    return seen


def _seen(group: Group | None, update: Update, *, is_late: bool) -> Seen:
    if is_late:
        return Seen("waiting", "the one before is ending")
    if group is None:
        return Seen("dead", "supervisord does not have it")
    match group.state:
        case looks if looks in _ABOUT_TO_RUN:
            seen = Seen("waiting", f"it is starting: {group.said}")
        case looks if looks == _GAVE_UP:
            seen = Seen("given up", f"it ended again and again: {group.said}")
        case looks if looks != _RUNNING:
            seen = Seen("dead", group.said)
        case _ if group.uptime_s < update.healthy_s:
            seen = Seen("waiting", f"it has to run for {update.healthy_s} s")
        case _:
            seen = Seen("healthy")
    return seen


def _checked(checks: Checks, address: str) -> Seen:
    scheme, _, rest = address.partition("://")
    result = checks.probe({"tcp": rest} if scheme == "tcp" else {"http": address}, _CHECK_S)
    return Seen("healthy") if result.healthy else Seen("waiting", f"{address} {result.seen}")
