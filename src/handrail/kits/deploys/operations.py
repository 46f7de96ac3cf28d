"""How each operation of the kit is planned and done, by `Operation.act`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from handrail.core.kit_act import KitAct
    from handrail.kits.deploys.outside import Outside


def acts(outside: Outside) -> Mapping[str, KitAct]:
    """Return the acts of the kit."""
    del outside
    return {}
