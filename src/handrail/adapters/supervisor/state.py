"""What an app's `state.json` says: the wanted version, where each instance is, and deployments.

Rules:
- It is replaced as a whole: what it says is wanted, whoever died before bringing it about.
- `placed` is task to one `[version, deployment]` for each instance: what its process is to run.
- A version's number is never used twice, also not after the app was removed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

FORMAT = 1
_MOST_DEPLOYMENTS = 20

Place = tuple[int, int]
Stand = Literal["going", "canaries", "healthy", "failed"]


@dataclass(frozen=True)
class Deployment:
    """One change of what runs, on its way or over.

    Attributes:
        number: what `rollout` finds it by.
        version: that it brings.
        is_whole: whether every instance is replaced, also those that would be the same.
        since: seconds since 1970 when what it waits for began to be waited for.
        is_promoted: whether the rest may follow the canaries.
    """

    number: int
    version: int
    since: float
    is_whole: bool = False
    stand: Stand = "going"
    why: str = ""
    is_promoted: bool = False


@dataclass(frozen=True)
class State:
    """One app.

    Attributes:
        serial: the last number that was given to a version or deployment.
        version: the wanted one; 0 where the app was removed, or never was.
    """

    serial: int = 0
    version: int = 0
    placed: Mapping[str, tuple[Place, ...]] = field(default_factory=dict)
    deployments: tuple[Deployment, ...] = ()

    @property
    def last(self) -> Deployment | None:
        """The newest deployment."""
        return self.deployments[-1] if self.deployments else None

    def find(self, number: str) -> Deployment | None:
        """Return a deployment by what `rollout` is given; None where it is not known."""
        return next((one for one in self.deployments if str(one.number) == number), None)

    def with_last(self, **changed: Any) -> State:
        """Return it with the newest deployment changed."""
        *before, last = self.deployments
        return replace(self, deployments=(*before, replace(last, **changed)))

    def begun(self, deployment: Deployment) -> State:
        """Return it with one more deployment; what was under way is over."""
        ended = tuple(_ended(one) for one in self.deployments[1 - _MOST_DEPLOYMENTS :])
        return replace(self, serial=deployment.number, deployments=(*ended, deployment))

    def removed(self) -> State:
        """Return it with nothing that is wanted."""
        ended = tuple(_ended(one, "it was removed") for one in self.deployments)
        return replace(self, version=0, placed={}, deployments=ended)


def encode_state(state: State) -> str:
    """Return the text of the file, for people too."""
    return json.dumps({"format": FORMAT, **asdict(state)}, indent=1, sort_keys=True) + "\n"


def decode_state(text: str) -> State:
    """Return what the file says.

    Raises:
        ValueError: it is not one, or of a later format.
    """
    found = json.loads(text)
    try:
        if found.pop("format") != FORMAT:
            raise ValueError("written by another Handrail")
        placed = {
            str(task): tuple((int(v), int(d)) for v, d in places)
            for task, places in found["placed"].items()
        }
        deployments = tuple(Deployment(**one) for one in found["deployments"])
        return State(int(found["serial"]), int(found["version"]), placed, deployments)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a state: {error}") from error


def _ended(one: Deployment, why: str = "another deployment took its place") -> Deployment:
    if one.stand not in {"going", "canaries"}:
        return one
    return replace(one, stand="failed", why=why)
